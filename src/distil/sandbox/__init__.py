"""Running programs that nobody trusts. `SandboxPool(...).map(jobs)` is all that others need.

jobs.py      what is asked and answered         pool.py      the trainer's side
jobjson.py   jobs and reports as JSON           testformat.py  tests as a file has them
pipes.py     a run's pipes, on our side
broker.py    the process that judges            judge.py     verdicts on what came back
trials.py    one test's talk with a run         endings.py   verdicts on how a run ended
zygotes.py   warm processes, their pipes        cells.py     how they are locked in, by level
selftest.py  which level holds here             filters.py   system calls that are allowed
jail/        what runs inside
"""

from distil.sandbox.jobs import (
    AssertTest,
    CallTest,
    ErrorInfo,
    Job,
    Limits,
    Report,
    StdioTest,
    TestResult,
    Verdict,
)
from distil.sandbox.pool import SandboxPool

__all__ = [
    "AssertTest",
    "CallTest",
    "ErrorInfo",
    "Job",
    "Limits",
    "Report",
    "SandboxPool",
    "StdioTest",
    "TestResult",
    "Verdict",
]
