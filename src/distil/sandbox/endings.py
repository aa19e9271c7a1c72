"""What a run's end means: limits, signals, exit codes and tracebacks as a verdict.

Pure functions. A run that simply ended has no verdict from here: then its answer is judged.
"""

import re
import signal
from dataclasses import dataclass

from distil.sandbox.jobs import ErrorInfo, Limits, Verdict

KILL_FACTOR = 1.5
"""A run is killed at this many times its CPU limit: between, it's repeated alone (`broker`)."""
KEPT_STDERR = 4000
FRAME = re.compile(r'^  File "Solution\.py", line (\d+)(?:, in (.+))?$')
LAST_LINE = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?$", re.DOTALL)


@dataclass(frozen=True)
class Ended:
    """A run that is over. status: as wait4 has it; why: the zygote's reason for killing it.

    full: which of its outputs outgrew their limit ("stdout", "stderr"), "" if none.
    """

    status: int
    cpu_s: float
    peak_mb: float
    why: str = ""
    stdout: bytes = b""
    stderr: bytes = b""
    full: str = ""

    @property
    def signal(self) -> int:
        """The signal that ended it, 0 for none."""
        return self.status & 0x7F

    @property
    def code(self) -> int:
        """Its exit code, where no signal ended it."""
        return self.status >> 8

    @property
    def stderr_text(self) -> str:
        """The end of stderr."""
        return self.stderr.decode("utf-8", "replace")[-KEPT_STDERR:]


def verdict(ended: Ended, limits: Limits) -> tuple[Verdict, ErrorInfo | None] | None:
    """The verdict of a run that didn't end as it should, and its exception; None if it did.

    Killed by us without a reason of the zygote's ("killed") counts as ended well: its answer was
    all that was wanted.
    """
    if ended.why == "starved":
        return Verdict.INFRA_ERROR, None
    if ended.full:
        return Verdict.OUTPUT_LIMIT, None
    if ended.why == "cpu" or ended.cpu_s > limits.cpu_s or ended.signal == signal.SIGXCPU:
        return Verdict.TIME_LIMIT, None
    if ended.why == "idle":
        return Verdict.IDLE_LIMIT, None
    if ended.why == "threads":
        return Verdict.RUNTIME_ERROR, ErrorInfo("TooManyThreads", f"more than {limits.threads}")
    if ended.why == "killed":
        return None
    if ended.signal == signal.SIGSYS:
        return Verdict.SECURITY, None
    if ended.signal:
        if ended.signal == signal.SIGKILL and ended.peak_mb > 0.9 * limits.mem_mb:
            return Verdict.MEMORY_LIMIT, None
        return Verdict.RUNTIME_ERROR, ErrorInfo(
            _signal_name(ended.signal), "the program was ended by a signal"
        )
    if ended.code:
        return of_error(read_traceback(ended.stderr_text) or _exit(ended.code))
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal, which Python has no name for
        return f"Signal{number}"


def of_error(error: ErrorInfo) -> tuple[Verdict, ErrorInfo]:
    """RUNTIME_ERROR, or MEMORY_LIMIT for a MemoryError."""
    memory = error.type.rpartition(".")[2] in ("MemoryError", "_ArrayMemoryError")
    return (Verdict.MEMORY_LIMIT if memory else Verdict.RUNTIME_ERROR), error


def _exit(code: int) -> ErrorInfo:
    return ErrorInfo("SystemExit", f"the program ended with exit status {code}")


def read_traceback(stderr: str) -> ErrorInfo | None:
    """The last traceback in a program's stderr; None if there is none.

    The program may have written it itself: it's only words for feedback, never a verdict.
    """
    lines = stderr.rstrip("\n").split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent")]
    frames: list[tuple[int, str, str]] = []
    # A SyntaxError has a frame line and no "Traceback" above it.
    begin = starts[-1] if starts else next((i for i, x in enumerate(lines) if FRAME.match(x)), None)
    if begin is None:
        return None
    for place, line in enumerate(lines[begin:], begin):
        if found := FRAME.match(line):
            following = lines[place + 1].strip() if place + 1 < len(lines) else ""
            frames.append((int(found[1]), found[2] or "<module>", following))
        elif line and not line.startswith((" ", "Traceback")):
            if found := LAST_LINE.match("\n".join(lines[place:])):
                return ErrorInfo(found[1], (found[2] or "")[:2000], tuple(frames[-3:]))
            return None
    return None
