"""What a sandbox is asked and what it answers: limits, tests, jobs, verdicts, reports.

Plain frozen data, no processes. A job is one program with its tests; the expected outputs in it
stay with whoever judges (`distil.sandbox.judge`) and never enter the jail.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

Level: TypeAlias = Literal["strong", "standard", "unsafe"]
"""How a program is locked in, best first. `unsafe` (resource limits only) has to be asked for."""


class Verdict(StrEnum):
    """What became of one test, or of a whole job (its first test that didn't pass)."""

    PASS = "pass"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    TIME_LIMIT = "time_limit"
    """More CPU time than allowed, user and system, all threads."""
    IDLE_LIMIT = "idle_limit"
    """Asleep or waiting for longer than allowed, not counting the wait for a busy processor."""
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    SECURITY = "security"
    """Killed at a forbidden system call."""
    NO_CODE = "no_code"
    """There was no program to run."""
    PROTOCOL = "protocol"
    """A function's answer was no JSON, too long, or out of turn."""
    INFRA_ERROR = "infra_error"
    """Our failure, twice in a row: the attempt is masked and counted, never scored 0."""


@dataclass(frozen=True)
class Limits:
    """Of one test's run. Seconds, MiB, KiB."""

    cpu_s: float = 4.0
    """CPU time; load on the machine doesn't count."""
    idle_s: float = 10.0
    wall_factor: float = 16.0
    """wall_factor * cpu_s + idle_s without the CPU time being granted is an INFRA_ERROR."""
    mem_mb: int = 1024
    out_kb: int = 1024
    err_kb: int = 64
    threads: int = 64


@dataclass(frozen=True)
class StdioTest:
    """A program reads `stdin` and must print `expected`.

    checker: lines (equal but for white space at line ends and blank lines at the end), tokens
    (equal words), or float:TOLERANCE (words equal, numbers within it, absolute or relative).
    public: whether feedback may show what was expected.
    """

    stdin: str
    expected: str
    checker: str = "lines"
    public: bool = True


@dataclass(frozen=True)
class CallTest:
    """`function(*args, **kwargs)` must return `expected` (all of it JSON, tuples and sets allowed).

    function: a module's function, a `Class.method`, or a method's bare name where the program has a
    class Solution. checker: json_eq (tuples equal lists), float:TOLERANCE, or set (order is free).
    """

    function: str
    args: tuple[Any, ...]
    expected: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    checker: str = "json_eq"
    public: bool = True


@dataclass(frozen=True)
class AssertTest:
    """Test code of assert statements (MBPP, HumanEval), run in a jail of its own.

    It reaches the program's functions over a pipe, and only plain data crosses. entry_point: the
    function handed to a `check(candidate)` that the code defines (HumanEval); None: none is called.
    """

    code: str
    entry_point: str | None = None
    public: bool = True


Test: TypeAlias = StdioTest | CallTest | AssertTest


@dataclass(frozen=True)
class Job:
    """One program and its tests, which are tried in order.

    stop: after the first test that fails, or none. prelude: lcb puts LiveCodeBench's usual imports
    before the program. seed: for `random.seed` in the jail; None leaves it unseeded. lenient_exit:
    a non-zero exit after the right output passes, as LiveCodeBench's own judge has it.
    """

    source: str
    tests: tuple[Test, ...]
    limits: Limits = field(default_factory=Limits)
    stop: Literal["first_fail", "all"] = "first_fail"
    prelude: Literal["none", "lcb"] = "none"
    seed: int | None = None
    lenient_exit: bool = False


@dataclass(frozen=True)
class ErrorInfo:
    """An exception in the program. frames: its own last ones, (line, function, source line)."""

    type: str
    message: str
    frames: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True)
class TestResult:
    """How one test ended. `index` is the test's place in the job.

    got: what it printed, or its returned value as text; printed: what a called function printed;
    stderr: the end of it; all may be cut. detail: the assertion that failed, and the last call.
    cpu_s: seconds used; peak_mb: its resident memory at most.
    """

    __test__ = False  # not one of pytest's

    index: int
    verdict: Verdict
    got: str = ""
    printed: str = ""
    stderr: str = ""
    detail: str = ""
    error: ErrorInfo | None = None
    cpu_s: float = 0.0
    peak_mb: float = 0.0


@dataclass(frozen=True)
class Report:
    """A job's outcome. verdict: PASS if every test passed, else that of the first that didn't.

    results: those tests that were run, in order; total: how many the job has. level: what it ran
    under. note: for INFRA_ERROR, what failed.
    """

    verdict: Verdict
    passed: int
    total: int
    results: tuple[TestResult, ...]
    level: Level
    note: str = ""
