"""`distil doctor`: what this machine can do, and what to install for more."""

import importlib.util
import os
import sys
from pathlib import Path

import torch

from distil.errors import ModelError
from distil.models import EMBEDDED, cache_dir, embedded_file
from distil.runs.folder import run_info
from distil.sandbox.selftest import doctor_lines


def doctor() -> int:
    """Prints the findings; 0 if a model can be trained here, 1 if something needed is missing."""
    info = run_info(seed=0)
    _print("versions", ", ".join(f"{k} {v}" for k, v in info.versions.items()))
    _print("machine", f"{info.machine['system']}, {info.machine['cpus']} CPUs, {_memory()}")
    _print("device", _device())
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
    return f"{torch.accelerator.device_count()} x {kind}, bfloat16"


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
