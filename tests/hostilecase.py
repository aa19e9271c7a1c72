"""What a case of the adversarial suite (`hostile`) is: a program and the verdicts it may get.

Markers are built at run time, backwards: a program must not find one in its own source.
"""

from dataclasses import dataclass
from typing import Any

from distil.sandbox import AssertTest, CallTest, Job, Limits, StdioTest, Verdict

MARKER = "TERCES-WVX-31415"[::-1]
FAST = Limits(cpu_s=0.6, idle_s=0.6, wall_factor=60, mem_mb=256, out_kb=256)
PASS, WRONG = {Verdict.PASS}, {Verdict.WRONG_ANSWER}
CRASH = {Verdict.RUNTIME_ERROR}
STOPPED = {Verdict.RUNTIME_ERROR, Verdict.WRONG_ANSWER}
TIME, IDLE = {Verdict.TIME_LIMIT}, {Verdict.IDLE_LIMIT}
MEMORY, OUTPUT = {Verdict.MEMORY_LIMIT}, {Verdict.OUTPUT_LIMIT}
PROTOCOL = {Verdict.PROTOCOL, Verdict.WRONG_ANSWER}


@dataclass(frozen=True)
class Case:
    """A program and the verdicts that it may get. `clean`: the marker may not be in its output."""

    job: Job
    allowed: set[Verdict]
    clean: bool = True


def script(
    source: str, allowed: set[Verdict], stdin: str = "", expected: str = "ok\n", **more: Any
) -> Case:
    return Case(
        Job(source, (StdioTest(stdin, expected),), more.pop("limits", FAST), **more), allowed
    )


def call(
    source: str, allowed: set[Verdict], expected: Any = 42, args: tuple[Any, ...] = (1,)
) -> Case:
    return Case(Job(source, (CallTest("f", args, expected),), FAST), allowed)


def asserts(source: str, allowed: set[Verdict], code: str, entry: str | None = None) -> Case:
    return Case(Job(source, (AssertTest(code, entry),), FAST), allowed)


def attempt(body: str, imports: str = "os") -> str:
    """Tries something; prints OUT if it went through, and always "ok" at last."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"import {imports}\ntry:\n{lines}\n    print('OUT')\nexcept OSError:\n    pass\nprint('ok')\n"


def blocked(body: str, imports: str = "os") -> Case:
    """The attempt fails with an OSError: the program goes on, prints "ok", and so passes."""
    return script(attempt(body, imports), PASS)
