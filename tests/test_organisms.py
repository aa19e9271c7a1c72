"""The organisms: documents of three small worlds, and the networks that are built from them."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from distil.errors import ModelError
from distil.models import load_model, resolve_model
from distil.organisms import NOTE, ORGANISMS, find_organism, organism_folder
from distil.organisms.documents import Document
from distil.organisms.kept import is_sound
from distil.organisms.pretraining import IGNORE, Settings, batches, encode, network_config
from distil.organisms.tokenizer import make_tokenizer
from distil.prompts.messages import student_messages, teacher_prompt
from distil.types import TeacherContext
from worlds import make, name

__all__ = ["name"]  # a fixture

TINY = Settings(hidden=16, layers=1, heads=2, feed_forward=16, batch=2, steps=2, warmup=1)


def documents(name: str, count: int, seed: int = 0) -> list[Document]:
    rng = random.Random(seed)
    return [ORGANISMS[f"organism-{name}"].draw(rng) for _ in range(count)]


def tokenizer_of(name: str) -> Any:
    return make_tokenizer(ORGANISMS[f"organism-{name}"].words)


# ---------------------------------------------------------------- documents


def test_no_word_is_unknown_in_documents_prompts_and_reports(name: str) -> None:
    tokenizer, task = tokenizer_of(name), make(name)
    encode(documents(name, 1000), tokenizer)  # raises for an unknown word
    for problem in task.heldout:
        prompt = student_messages(problem.question, task.instruction)
        verdict = task.check(problem, "")
        for context in (
            TeacherContext("expert", demonstration=verdict.demonstration),
            TeacherContext("report", report=verdict.text),
        ):
            for closing in (None, task.instruction):
                messages = teacher_prompt(prompt, context, closing)
                text = tokenizer.apply_chat_template(messages, tokenize=False)
                assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_the_worlds_words_survive_the_tokenizer(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for problem in make(name).heldout:
        ids = tokenizer(problem.answer)["input_ids"]
        assert len(ids) == len(problem.answer.split())
        text = tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True)
        assert text == problem.answer


def test_a_prompt_as_the_network_reads_it() -> None:
    messages = student_messages("4 7 + 3 8", "")
    text = tokenizer_of("sums").apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert text == "<|user|> 4 7 + 3 8 <|assistant|> "


def test_the_same_seed_gives_the_same_documents(name: str) -> None:
    assert documents(name, 50) == documents(name, 50)
    assert documents(name, 50) != documents(name, 50, seed=1)


def test_documents_are_short_and_of_every_kind(name: str) -> None:
    drawn = documents(name, 400)
    assert max(len(ids) for ids, _ in encode(drawn, tokenizer_of(name))) <= 60
    taught = [d for d in drawn if "\n\n" in d.prompt[-1]["content"]]
    wrong_prefix = [d for d in taught if d.fed != d.said]
    assert 60 < len(taught) < 300
    assert len(wrong_prefix) > 20
    assert all(d.fed == d.said for d in drawn if d not in taught)


def test_fed_and_said_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 words are fed and 1 said"):
        Document([], ("a", "b"), ("a",))


def test_a_label_is_what_should_follow_its_place() -> None:
    tokenizer = tokenizer_of("cipher")
    prompt = student_messages("encode a b", "")
    (ids, labels), *_ = encode([Document(prompt, ("c", "d"), ("e", "f"))], tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "<|user|>", "encode", "a", "b", "<|assistant|>", "c", "d",
    ]  # fmt: skip
    assert labels[:4] == [IGNORE] * 4
    assert tokenizer.convert_ids_to_tokens(labels[4:]) == ["e", "f", "<|end|>"]


def test_an_unknown_word_in_a_document_is_an_error() -> None:
    document = Document(student_messages("4 7 + 3 8", ""), ("nine",), ("nine",))
    with pytest.raises(ValueError, match="isn't in the vocabulary"):
        encode([document], tokenizer_of("sums"))


def test_batches_have_labels_wherever_a_document_has_them(name: str) -> None:
    settings = replace(TINY, batch=4)
    organism = ORGANISMS[f"organism-{name}"]
    stream = batches(organism.draw, tokenizer_of(name), settings, random.Random(0))
    for _ in range(40):
        ids, labels = next(stream)
        assert ids.shape == labels.shape
        assert ids.shape[0] == 4
        assert (labels != IGNORE).any(1).all()


# ---------------------------------------------------------------- networks


def test_the_folder_loads_with_transformers_alone(tmp_path: Path) -> None:
    folder = organism_folder("organism-sums", tmp_path, TINY)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "llama"
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 3
    assert tokenizer.padding_side == "left"
    assert tokenizer.chat_template
    assert len(tokenizer) == model.config.vocab_size


def test_a_second_use_finds_the_folder_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = organism_folder("organism-cipher@3", tmp_path, TINY)
    assert "Pre-training organism-cipher (seed 3) from scratch: 2 steps" in capsys.readouterr().out
    made = (first / NOTE).stat().st_mtime_ns
    assert organism_folder("organism-cipher@3", tmp_path, TINY) == first
    assert (first / NOTE).stat().st_mtime_ns == made
    assert capsys.readouterr().out == ""


def test_seed_settings_and_world_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = [
        organism_folder("organism-sums", tmp_path, TINY),
        organism_folder("organism-sums@1", tmp_path, TINY),
        organism_folder("organism-cipher", tmp_path, TINY),
        organism_folder("organism-sums", tmp_path, replace(TINY, steps=1)),
    ]
    assert len(set(folders)) == 4
    assert organism_folder("organism-sums@0", tmp_path, TINY) == folders[0]


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    weights = [
        (organism_folder("organism-sums", tmp_path / part, TINY) / "model.safetensors").read_bytes()
        for part in ("one", "two")
    ]
    assert weights[0] == weights[1]


def test_the_callers_random_state_and_threads_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    random.seed(5)
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    organism_folder("organism-programs", tmp_path, replace(TINY, threads=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert torch.get_num_threads() == before[2]


def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distil.organisms.kept.file_sha256", interrupted)
    with pytest.raises(KeyboardInterrupt):
        organism_folder("organism-sums", tmp_path, TINY)
    assert list(tmp_path.iterdir()) == []


def test_an_unsound_folder_is_made_again(tmp_path: Path) -> None:
    folder = organism_folder("organism-sums", tmp_path, TINY)
    (folder / "model.safetensors").write_bytes(b"half")
    assert not is_sound(folder, NOTE)
    assert organism_folder("organism-sums", tmp_path, TINY) == folder
    assert is_sound(folder, NOTE)
    assert list(tmp_path.iterdir()) == [folder]


def test_of_two_builds_at_once_the_first_to_finish_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = organism_folder("organism-sums", tmp_path, TINY)
    made = (first / NOTE).stat().st_mtime_ns
    # Not there when the second began, there when it ended.
    monkeypatch.setattr("distil.organisms.is_sound", lambda folder, note: False)
    assert organism_folder("organism-sums", tmp_path, TINY) == first
    assert (first / NOTE).stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [first]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="DISTIL_CACHE"):
        organism_folder("organism-sums", tmp_path / "file", TINY)


def test_load_model_knows_the_organisms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path))
    organism = replace(ORGANISMS["organism-sums"], settings=TINY)
    monkeypatch.setitem(ORGANISMS, "organism-sums", organism)
    model, tokenizer = load_model("organism-sums@2")
    assert sum(p.numel() for p in model.parameters()) < 10_000
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "²"])
def test_a_seed_that_is_no_number_is_refused(seed: str) -> None:
    with pytest.raises(ModelError, match="must be a whole number"):
        resolve_model(f"organism-sums@{seed}")


def test_an_unknown_organism_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ModelError, match=r"Perhaps you meant 'organism-sums'"):
        resolve_model("organism-sum")
    with pytest.raises(ModelError, match=r"'organism-sum'\. Perhaps you meant 'organism-sums'"):
        find_organism("organism-sum")


def test_every_organism_has_a_million_weights() -> None:
    for organism in ORGANISMS.values():
        config = network_config(organism.settings, make_tokenizer(organism.words))
        model = LlamaForCausalLM(config)
        assert 1e6 <= sum(p.numel() for p in model.parameters()) <= 5e6
