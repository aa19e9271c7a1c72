"""What several benchmarks measure with: resident memory, turns, the machine's name and rate.

Reads /proc, so it runs on Linux only.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MIB = 2**20


def resident(field: str) -> int:
    """Bytes of VmRSS (resident now) or VmHWM (at most so far) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def said_by(script: str, flags: Sequence[str]) -> Any:
    """What a fresh process of this script prints, as JSON: memory is measured in one of its own."""
    command = [sys.executable, script, *flags]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def turns(
    sides: Mapping[str, Callable[[], Any]], repeats: int, before: Callable[[], None]
) -> tuple[dict[str, float], dict[str, Any]]:
    """(median seconds, last result) of each side; they take turns, after one that isn't timed."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    results = {}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            before()
            start = time.perf_counter()
            results[name] = side()
            if turn > 0:
                spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in spent.items()}, results


def product_rate(a: Tensor, b: Tensor) -> float:
    """Operations a second of a @ b, the best of five."""
    out = a.new_empty(len(a), b.shape[1])
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        spent.append(time.perf_counter() - start)
    return 2 * len(a) * b.numel() / min(spent)


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, [" --: "] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
