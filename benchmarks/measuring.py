"""What several benchmarks measure with: memory, turns, rates, fixed rollouts, the machine's name.

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


def best(
    work: Callable[[], Any], now: Callable[[], float] = time.perf_counter, times: int = 5
) -> float:
    """The shortest of some runs, seconds, after one that isn't timed."""
    work()
    spent = []
    for _ in range(times):
        start = now()
        work()
        spent.append(now() - start)
    return min(spent)


def product_rate(a: Tensor, b: Tensor) -> float:
    """Operations a second of a @ b, the best of five."""
    out = a.new_empty(len(a), b.shape[1])
    return 2 * len(a) * b.numel() / best(lambda: torch.mm(a, b, out=out))


def canned(model: Any, tokens: int, end: int | None = None) -> None:
    """From here on the model "samples" rollouts from a fixed seed, at no cost, so many tokens each.

    Of a vocabulary of more than 100 ids, the first of which, the special ones, aren't drawn.
    end: the token that ends them, after a quarter to all of so many tokens, evenly.
    """
    generator = torch.Generator().manual_seed(7)
    vocab = model.get_input_embeddings().weight.shape[0]

    def generate(input_ids: Tensor, **kwargs: Any) -> Tensor:
        rows = len(input_ids)
        written = torch.randint(100, vocab, (rows, tokens), generator=generator)
        if end is not None:
            lengths = torch.randint(tokens // 4, tokens + 1, (rows, 1), generator=generator)
            written[torch.arange(tokens) >= lengths - 1] = end
        return torch.cat([input_ids, written.to(input_ids.device)], 1)

    model.generate = generate


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, [" --: "] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
