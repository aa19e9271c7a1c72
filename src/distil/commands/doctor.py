"""`distil doctor`: what this machine can do, and what to install for more."""

import importlib.util
import os
import sys
import warnings
from pathlib import Path

import torch

from distil.errors import ModelError
from distil.models import EMBEDDED, cache_dir, embedded_file
from distil.runs.folder import run_info
from distil.sandbox.selftest import doctor_lines
from distil.vocab.rows import kernels_start


def doctor() -> int:
    """Prints the findings; 0 if a model can be trained here, 1 if something needed is missing."""
    info = run_info(seed=0)
    _print("versions", ", ".join(f"{k} {v}" for k, v in info.versions.items()))
    _print("machine", f"{info.machine['system']}, {info.machine['cpus']} CPUs, {_memory()}")
    _print("device", _device())
    _print("kernels", _kernels())
    _print("sampler", _sampler())
    embedded, sound = _embedded()
    _print("model", embedded)
    _print("cache", f"{cache_dir()} ({_writable(cache_dir())})")
    for level in doctor_lines():
        _print("sandbox", level)
    return 0 if sound else 1


def _print(name: str, finding: str) -> None:
    print(f"{name + ':':11}{finding}")


def _device() -> str:
    if not torch.accelerator.is_available():
        return f"CPU only, {torch.get_num_threads()} threads, float32"
    kind = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()
    each = "; one process each: accelerate launch" if count > 1 else ""
    return f"{count} x {kind}, computing in bfloat16{each}"


def _kernels() -> str:
    """Who works on the vocabulary's rows."""
    if not torch.cuda.is_available():
        return "plain PyTorch; Triton's are for GPUs"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if kernels_start("cuda"):
            return "Triton's, tried"
    return str(told[-1].message) if told else "plain PyTorch"  # told once a process


def _memory() -> str:
    if sys.platform != "linux":
        return "memory unknown"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{total:.0f} GiB memory"


def _sampler() -> str:
    if importlib.util.find_spec("vllm") is not None:
        return "transformers, and vLLM (rollout.use_vllm: true)"
    return "transformers (vLLM isn't installed: pip install 'distil[vllm]' on a GPU machine)"


def _embedded() -> tuple[str, bool]:
    try:
        return f"{EMBEDDED} in {embedded_file().parent}", True
    except ModelError as error:
        return str(error), False


def _writable(folder: Path) -> str:
    existing = next(p for p in [folder, *folder.parents] if p.exists())
    return "writable" if os.access(existing, os.W_OK) else "NOT writable: set DISTIL_CACHE"
