"""Calls that may hang or crash, in processes of their own: late ones are ended, the rest go on.

    outcomes = shared("distil.feedback.equivalence:compare").map([(said, gold), ...])

Symbolic algebra on a model's text can run for ever, in C code, or take all memory. Each call here
has a limit in CPU time (a busy machine doesn't make an answer wrong) and each process one in
memory. Calls of a batch are spread over a few processes, so a bad one delays only its own.
Arguments and values are JSON: nothing is unpickled. Any thread may call; a forked process gets its
own.
Left out: what a late answer is worth (`distil.feedback.answers`), and running programs
(`distil.sandbox`).
"""

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CPU_S = 5.0
"""Seconds of CPU time a call may take. Ordinary answers take a hundredth of one."""
WALL_FACTOR, WALL_EXTRA_S = 3.0, 5.0
"""A call that has used less is given up after WALL_FACTOR * CPU_S + WALL_EXTRA_S seconds."""
START_S = 120.0
"""Seconds that a process may take to import what it judges with."""
GRACE_S = 5.0
"""A process that its own timers didn't end is killed so many seconds later."""
MEMORY_MB = 2048
PROCESSES = 4

Fault = Literal["late", "waited", "memory", "raised", "died"]


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its `value`, or a `fault` with a `note` on it.

    late: more CPU time than allowed; waited: too long, without using it; memory: more than allowed;
    raised: an exception; died: its process ended, twice.
    """

    value: Any = None
    fault: Fault | None = None
    note: str = ""


class Workers:
    """A few processes that answer one function, `MODULE:FUNCTION`; started when first needed."""

    def __init__(
        self, call: str, *, processes: int | None = None, memory_mb: int = MEMORY_MB
    ) -> None:
        count = processes or min(PROCESSES, len(os.sched_getaffinity(0)))
        self.owner = os.getpid()
        self._workers = [_Worker(call, memory_mb) for _ in range(count)]
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()  # the warm ones first
        for worker in self._workers:
            self._free.put(worker)

    def map(self, calls: Sequence[Sequence[Any]], *, cpu_s: float = CPU_S) -> list[Outcome]:
        """Each call's outcome, in order, side by side. One whose process dies is tried again."""
        if not calls:
            return []
        wall_s = WALL_FACTOR * cpu_s + WALL_EXTRA_S
        asked = [{"arguments": list(c), "cpu_s": cpu_s, "wall_s": wall_s} for c in calls]
        with ThreadPoolExecutor(min(len(self._workers), len(calls))) as pool:
            return list(pool.map(self._answer, asked))

    def close(self) -> None:
        """Ends the processes. They'd end by themselves when this one does."""
        if self.owner == os.getpid():
            for worker in self._workers:
                worker.end()

    def _answer(self, asked: dict[str, Any]) -> Outcome:
        worker = self._free.get()
        try:
            outcome = worker.answer(asked)
            return outcome if outcome.fault != "died" else worker.answer(asked)
        finally:
            self._free.put(worker)


def shared(call: str) -> Workers:
    """This process's own Workers for a function, kept until it ends."""
    key = (os.getpid(), call)
    if key not in _shared:
        atexit.register(_shared.setdefault(key, Workers(call)).close)
    return _shared[key]


_shared: dict[tuple[int, str], Workers] = {}


class _Worker:
    """One process at a time, replaced when it has died. For one thread at a time."""

    def __init__(self, call: str, memory_mb: int) -> None:
        self._command = [sys.executable, "-P", "-m", "distil.feedback.worker", call, str(memory_mb)]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None
        self._unread = b""

    def answer(self, asked: dict[str, Any]) -> Outcome:
        """One call's outcome; starts a process if there is none."""
        if self._process is None:
            self._start()
            if self._line(START_S) is None:
                return self._buried()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return self._buried()
        line = self._line(asked["wall_s"] + GRACE_S)
        if line is None:
            return self._buried()
        said = json.loads(line)
        if said.get("fault") == "memory":
            self.end()
        return Outcome(said.get("value"), said.get("fault"), said.get("note", ""))

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            files: list[Any] = [self._process.stdin, self._process.stdout, self._errors]
            for file in files:
                with contextlib.suppress(BrokenPipeError):  # of what it hadn't read
                    file.close()
            self._process = None

    def _start(self) -> None:
        self._unread = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env=_environment(), start_new_session=True,
        )  # fmt: skip

    def _line(self, seconds: float) -> bytes | None:
        """The next line of the process; None if it ended, or had to be ended after `seconds`."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        until = time.monotonic() + seconds
        while b"\n" not in self._unread:
            if not poll.poll(max(until - time.monotonic(), 0) * 1000):
                process.kill()  # its own timers didn't end it
                return None
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                return None
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _buried(self) -> Outcome:
        """What a process that ended died of; the next call starts another."""
        assert self._process is not None
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        self.end()
        if status == -signal.SIGPROF:
            return Outcome(fault="late")
        if status == -signal.SIGALRM:
            return Outcome(fault="waited")
        return Outcome(fault="died", note=said[-1] if said else f"exit status {status}")


def _environment() -> dict[str, str]:
    """What a process needs to find Python's packages, and none of this one's secrets."""
    kept = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR", "LANG")
    source = str(Path(__file__).resolve().parents[2])
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
