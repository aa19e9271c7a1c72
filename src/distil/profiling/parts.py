"""The parts of a step, named where they happen, and a clock that adds up their time and memory.

    with part("teacher"): ...           @part("logging")           # over a function, too
                                        def log(self, ...): ...

While no clock runs, a part costs one comparison. While one does, each border between parts ends a
stretch of time, which belongs to the innermost part that is open: so what lies inside another part
isn't counted twice, and all parts together are all the time. Where none is open, it is "other".

At a border an accelerator is waited for, since its work is done later than it's asked for. A part's
peak is the most memory in use while it was the innermost one: torch's on a GPU; on a CPU the
process's resident memory, whose high-water mark Linux lets a process of any user reset. Left out:
which parts there are and what they add up to (`account`), and what a step is (`profiler`).
"""

import time
from collections.abc import Callable
from contextlib import ContextDecorator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distil.profiling.account import OTHER, PARTS, Spent

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class _Open:
    name: str
    whole: bool


class Clock:
    """Adds up stretches by part. `peak_memory()`: bytes in use at most since it was last called.

    `now()`: seconds; time.process_time counts the process's own, for a machine that others use too.
    """

    def __init__(
        self, peak_memory: Callable[[], int | None], now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._peak_memory, self._now = peak_memory, now
        self._open = [_Open(OTHER, whole=False)]
        self._spent: dict[str, Spent] = {}
        self._peak_memory()
        self._since = now()

    def enter(self, name: str, *, whole: bool) -> None:
        """A part begins; inside a whole one it stays that one."""
        self._border()
        inside = self._open[-1]
        self._open.append(inside if inside.whole else _Open(name, whole))

    def leave(self) -> None:
        """The innermost part ends."""
        self._border()
        self._open.pop()

    def turn(self, name: str) -> None:
        """The innermost part is called so from here on; a whole one keeps its name."""
        if not self._open[-1].whole:
            self._border()
            self._open[-1] = _Open(name, whole=False)

    def count(self, tokens: Tensor | int, name: str | None) -> None:
        """Adds tokens to a part; without a name to the innermost. A whole one takes no others'."""
        inside = self._open[-1]
        if name is None or not inside.whole:
            self._of(name or inside.name).tokens += int(
                tokens.sum() if isinstance(tokens, Tensor) else tokens
            )

    def take(self) -> dict[str, Spent]:
        """What was spent since the last call, by part."""
        self._border()
        spent, self._spent = self._spent, {}
        return spent

    def _of(self, name: str) -> Spent:
        return self._spent.setdefault(name, Spent())

    def _border(self) -> None:
        peak = self._peak_memory()  # waits for an accelerator first
        now = self._now()
        self._of(self._open[-1].name).add(now - self._since, peak)
        self._since = now


_running: Clock | None = None


def start(clock: Clock) -> None:
    """From here on, parts are timed by this clock, and no longer by another one."""
    global _running
    _running = clock


def stop() -> None:
    """From here on, parts are not timed."""
    global _running
    _running = None


class part(ContextDecorator):
    """A part of a step, for `with` or over a function. Raises ValueError for an unknown name.

    whole: parts inside count as this one.
    """

    def __init__(self, name: str, *, whole: bool = False) -> None:
        self._name, self._whole = _known(name), whole

    def __enter__(self) -> None:
        if _running is not None:
            _running.enter(self._name, whole=self._whole)

    def __exit__(self, *error: object) -> None:
        if _running is not None:
            _running.leave()


def turn(name: str) -> None:
    """The innermost part is this one from here on: for what begins and ends in others' code."""
    if _running is not None:
        _running.turn(_known(name))


def at_gradient(tensor: Tensor, name: str) -> None:
    """Once the gradient of `tensor` is known, what follows in the backward pass is this part."""
    if _running is None or not tensor.requires_grad:
        return

    def follows(gradient: Tensor) -> None:
        turn(name)

    hook: Any = tensor.register_hook
    hook(follows)


def count(tokens: Tensor | int, name: str | None = None) -> None:
    """Says how many tokens a part read (a mask: its sum), the innermost one if none is named."""
    if _running is not None:
        _running.count(tokens, name)


def _known(name: str) -> str:
    if name not in PARTS:
        raise ValueError(f"There is no part {name!r}. Known: {', '.join(PARTS)}.")
    return name


def peak_meter(device: torch.device) -> Callable[[], int | None]:
    """A function that waits for the device, and says how many bytes were in use at most since it
    was last called: torch's on a GPU, resident ones of this process elsewhere (None: unknown).
    """
    if device.type != "cuda":
        return _resident_peak

    def allocated_peak() -> int:
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak

    return allocated_peak


def _resident_peak() -> int | None:
    """VmHWM, which is then brought down to what is resident now."""
    try:
        lines = _STATUS.read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        _CLEAR.write_text(_RESET_PEAK)
    except (OSError, StopIteration):  # no Linux, or a hardened one
        return None
    return 1024 * peak
