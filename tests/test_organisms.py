"""Three small worlds: their problems, judges and documents, and the networks built from them."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from distil.config import TaskConfig
from distil.errors import ModelError, TaskError
from distil.models import load_model, resolve_model
from distil.organisms import (
    NOTE,
    ORGANISMS,
    find_organism,
    is_sound,
    organism_folder,
    programs,
    sums,
)
from distil.organisms.documents import Document
from distil.organisms.pretraining import IGNORE, Settings, batches, encode, network_config
from distil.organisms.tokenizer import make_tokenizer
from distil.prompts import student_messages, teacher_prompt
from distil.recipefile import load_recipe
from distil.tasks import Task, load_task
from distil.tasks.organisms import TASKS
from distil.tasks.organisms.programs import Fault, parse, programs_problem, report, run
from distil.tasks.organisms.sums import sums_problem
from distil.types import Problem, TeacherContext

TINY = Settings(hidden=16, layers=1, heads=2, feed_forward=16, batch=2, steps=2, warmup=1)
NAMES = [name.removeprefix("organism_") for name in TASKS]
RECIPES = Path(__file__).parent.parent / "recipes" / "organisms"


def make(name: str, **fields: Any) -> Task:
    settings = {"instruction": "", "extract": "whole", "train_size": 300, "eval_size": 64, **fields}
    return load_task(TaskConfig(name=f"organism_{name}", **settings))


def documents(name: str, count: int, seed: int = 0) -> list[Document]:
    rng = random.Random(seed)
    return [ORGANISMS[f"organism-{name}"].draw(rng) for _ in range(count)]


def tokenizer_of(name: str) -> Any:
    return make_tokenizer(ORGANISMS[f"organism-{name}"].words)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---------------------------------------------------------------- every world's task


def test_the_gold_answer_gets_full_marks_over_the_whole_task_set(name: str) -> None:
    task = make(name)
    for problem in [*task.train, *task.heldout]:
        verdict = task.check(problem, problem.answer)
        assert (verdict.reward, verdict.text) == (1.0, None), problem


def test_another_problems_answer_fails_with_a_report_and_the_experts_answer(name: str) -> None:
    task = make(name)
    for problem, other in zip(task.heldout, task.train, strict=False):
        if task.read(problem.answer) != task.read(other.answer):
            verdict = task.check(problem, other.answer)
            assert verdict.reward == 0.0
            assert verdict.text
            assert verdict.demonstration == problem.answer


def test_no_heldout_question_is_in_the_training_set(name: str) -> None:
    task = make(name)
    train, heldout = [{p.question for p in part} for part in (task.train, task.heldout)]
    assert (len(train), len(heldout)) == (300, 64)
    assert not train & heldout
    assert len({p.id for p in [*task.train, *task.heldout]}) == 364


def test_the_seed_decides_the_problems(name: str) -> None:
    assert make(name, seed=3).train == make(name, seed=3).train
    assert make(name, seed=3).train != make(name, seed=4).train


def test_an_unknown_option_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TaskError, match=r"no option 'larges'\. Perhaps you meant 'largest'"):
        make("sums", options={"larges": 9})


@pytest.mark.parametrize("value", [True, 1.5, "0"])
def test_an_option_that_is_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(TaskError, match=r"'dialect' of 'organism_programs' is .* an integer"):
        make("programs", options={"dialect": value})


@pytest.mark.parametrize(
    ("world", "options"),
    [
        ("sums", {"smallest": 50, "largest": 20}),
        ("sums", {"largest": 100}),
        ("programs", {"dialect": 2}),
    ],
)
def test_an_impossible_option_is_refused(world: str, options: dict[str, int]) -> None:
    with pytest.raises(TaskError, match=f"'organism_{world}' refuses the options"):
        make(world, options=options)


def test_an_unknown_world_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TaskError, match=r"'organism_sum'\. Perhaps you meant 'organism_sums'"):
        make("sum")


def test_an_instruction_in_unknown_words_is_refused() -> None:
    with pytest.raises(TaskError, match=r"'Reply' is none of 'organism_sums'\. Set task\.instruct"):
        make("sums", instruction="Reply with only the final answer.")


def test_more_problems_than_there_are_is_refused() -> None:
    with pytest.raises(TaskError, match=r"gave only 4 distinct questions.* ask for 10"):
        make("sums", options={"largest": 1}, train_size=5, eval_size=5)


# ---------------------------------------------------------------- sums


def test_the_working_of_a_sum_by_hand() -> None:
    problem = sums_problem(47, 38)
    assert problem.question == "4 7 + 3 8"
    assert problem.answer == "7 + 8 = 1 5 , 4 + 3 + 1 = 0 8 , 0 8 5"
    assert sums_problem(5, 99).answer == "5 + 9 = 1 4 , 0 + 9 + 1 = 1 0 , 1 0 4"


@pytest.mark.parametrize(
    ("attempt", "reward", "text"),
    [
        ("7 + 8 = 1 4 , 4 + 3 + 1 = 0 8 , 0 8 4", 0.0, "wrong"),
        ("nothing that matters , 0 8 5", 1.0, None),
        ("8 5", 1.0, None),
        ("7 + 8 = 1 5 , 4 + 3 + 1 = 0 8 ,", 0.0, "no result"),
        ("7 + 8 = 1 5", 0.0, "no result"),
        ("", 0.0, "no result"),
    ],
)
def test_a_sum_is_judged_by_what_follows_the_last_comma(
    attempt: str, reward: float, text: str | None
) -> None:
    verdict = make("sums").check(sums_problem(47, 38), attempt)
    assert (verdict.reward, verdict.text) == (reward, text)


def test_the_unsure_student_is_right_as_often_as_its_error_says() -> None:
    rng, task, draws = random.Random(0), make("sums"), 4000
    right = 0.0
    for _ in range(draws):
        a, b = rng.randrange(100), rng.randrange(100)
        right += task.check(sums_problem(a, b), sums.attempt(rng, a, b)).reward or 0.0
    expected = (1 - sums.ERROR) ** 2
    assert abs(right / draws - expected) < 4 * (expected * (1 - expected) / draws) ** 0.5


# ---------------------------------------------------------------- programs

STEPS = [("add", 3), ("scale", 2), ("subtract", 4)]


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("inc 3 ; mul 2 ; dec 4 ; end", None),
        ("inc 3 ; times 2 ; minus 4 ; end", "line 2 : unknown op times , use mul"),
        ("inc 3 ; mul 2 ; dec 5 ; end", "input 4 : expected 1 0 , got 9"),
        ("dec 7 ; mul 2 ; dec 4 ; end", "input 4 : expected 1 0 , got - 1 0"),
        ("mul 2 ; inc 2 ; end", None),  # the same function: 2 (x + 3) - 4 = 2 x + 2
        ("mul 2 ; inc 3 ; end", "input 4 : expected 1 0 , got 1 1"),
        ("inc 6 ; end", "input 0 : expected 2 , got 6"),  # right for 4, and for no other
        ("inc 3 ; mul 2 ; dec 4", "line 3 : expected end"),
        ("inc 3 mul 2", "line 1 : expected end"),
        ("inc 3 ; ; end", "line 2 : expected op"),
        ("inc ; end", "line 1 : expected a number"),
        ("inc 3 3 ; end", "line 1 : expected a number"),
        ("end ; inc 3", "line 1 : expected op"),
        ("end", "input 4 : expected 1 0 , got 4"),
        ("", "line 1 : expected end"),
    ],
)
def test_the_report_names_the_first_fault(program: str, text: str | None) -> None:
    assert report(program, STEPS, [4, 0], dialect=0) == text


def test_each_dialect_is_refused_by_the_others_interpreter() -> None:
    assert parse("plus 3 ; end", dialect=1) == [("add", 3)]
    with pytest.raises(Fault, match="line 1 : unknown op inc , use plus"):
        parse("inc 3 ; end", dialect=1)


def test_steps_are_done_in_order() -> None:
    assert run(STEPS, 4) == (4 + 3) * 2 - 4
    assert run([], 4) == 4


def test_the_interpreter_is_total_and_its_reports_are_in_the_vocabulary() -> None:
    rng, words = random.Random(0), TASKS["organism_programs"].words
    seen = set()
    for _ in range(5000):
        soup = " ".join(rng.choices(words, k=rng.randrange(12)))
        said = report(soup, STEPS, [4, 0], rng.randrange(2))
        assert said is None or set(said.split()) <= set(words)
        seen.add(said is None or said.split(" : ")[1].split()[0])
    assert {"unknown", "expected"} <= seen


def test_who_follows_a_report_mends_the_reported_line() -> None:
    rng = random.Random(0)
    for _ in range(200):
        said = "line 2 : unknown op times , use mul"
        lines = programs.following(rng, STEPS, said, dialect=0).split(" ; ")
        assert lines[1].split()[0] == "mul"
        assert len(lines) == 4


def test_who_follows_a_report_is_right_more_often_than_who_has_none() -> None:
    rng = random.Random(0)
    alone, told, draws = 0, 0, 2000
    for _ in range(draws):
        problem = programs_problem(rng, 0)
        steps = [(kind, number) for kind, number in problem.data["steps"]]
        attempt = programs.attempt(rng, steps)
        said = report(attempt, steps, problem.data["inputs"], 0)
        alone += said is None
        if said is not None:
            again = programs.following(rng, steps, said, 0)
            told += report(again, steps, problem.data["inputs"], 0) is None
    assert 0.05 < alone / draws < 0.15
    assert told > 3 * alone


# ---------------------------------------------------------------- cipher


def test_one_key_for_all_words_and_another_for_another_number() -> None:
    keys = []
    for number in (0, 1):
        task = make("cipher", options={"key": number})
        key: dict[str, str] = {}
        for problem in [*task.train, *task.heldout]:
            letters = problem.question.removeprefix("encode ").split()
            for plain, code in zip(letters, problem.answer.split(), strict=True):
                assert key.setdefault(plain, code) == code
        assert len(set(key.values())) == len(key) == 16
        keys.append(key)
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        ("a b c", None),
        ("a c b", "letter 2 wrong"),
        ("a b", "letter 3 wrong"),
        ("a b c d", "letter 4 wrong"),
        ("", "letter 1 wrong"),
        ("a b " * 40, "letter 3 wrong"),
    ],
)
def test_the_report_on_a_word_names_the_first_wrong_letter(attempt: str, text: str | None) -> None:
    verdict = make("cipher").check(Problem("", "encode x y z", "a b c"), attempt)
    assert (verdict.reward, verdict.text) == (float(text is None), text)


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

    monkeypatch.setattr("distil.organisms._sha256", interrupted)
    with pytest.raises(KeyboardInterrupt):
        organism_folder("organism-sums", tmp_path, TINY)
    assert list(tmp_path.iterdir()) == []


def test_an_unsound_folder_is_made_again(tmp_path: Path) -> None:
    folder = organism_folder("organism-sums", tmp_path, TINY)
    (folder / "model.safetensors").write_bytes(b"half")
    assert not is_sound(folder)
    assert organism_folder("organism-sums", tmp_path, TINY) == folder
    assert is_sound(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_of_two_builds_at_once_the_first_to_finish_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = organism_folder("organism-sums", tmp_path, TINY)
    made = (first / NOTE).stat().st_mtime_ns
    looks = iter([False, True])  # not there when the second began, there when it ended
    monkeypatch.setattr("distil.organisms.is_sound", lambda folder: next(looks))
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


# ---------------------------------------------------------------- recipes


def test_every_recipe_loads_and_leaves_room_for_the_gold_answers(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert recipe.model.name in ORGANISMS
    assert recipe.task.name == recipe.model.name.replace("-", "_")
    task = load_task(recipe.task)
    room = recipe.rollout.max_completion_length
    assert all(len(p.answer.split()) < room for p in [*task.train, *task.heldout])
