"""Jobs and reports as JSON, for the way to the broker and back.

Arguments and expected values go through `wire`, so that tuples and sets survive. Reading a job
checks it, since a data set may have made it: a wrong one raises TaskError, naming the test.
"""

from dataclasses import asdict
from typing import Any

from distil.errors import DistILError, TaskError
from distil.sandbox import judge
from distil.sandbox.jail.wire import WireError, decode, encode
from distil.sandbox.jobs import (
    AssertTest,
    CallTest,
    ErrorInfo,
    Job,
    Limits,
    Report,
    StdioTest,
    Test,
    TestResult,
    Verdict,
)

_STDIO_CHECKERS = ("lines", "tokens")
_CALL_CHECKERS = ("json_eq", "set")


def job_to_json(job: Job) -> dict[str, Any]:
    """Raises TaskError for a test that can't be run (unknown checker, a value that's no data)."""
    if not job.tests:
        raise TaskError("A job has no tests, so that any program would pass. Give it at least one.")
    return {
        "source": job.source,
        "tests": [check_test(t, f"Test {i} of a job") for i, t in enumerate(job.tests, 1)],
        "limits": asdict(job.limits),
        "stop": job.stop,
        "prelude": job.prelude,
        "seed": job.seed,
        "lenient_exit": job.lenient_exit,
    }


def check_test(test: Test, where: str) -> dict[str, Any]:
    """A test as JSON; raises TaskError, naming `where`, if it can't be run."""
    try:
        return _test_to_json(test)
    except (DistILError, WireError, SyntaxError, ValueError) as error:
        raise TaskError(f"{where} can't be run: {error}") from error


def _test_to_json(test: Test) -> dict[str, Any]:
    if isinstance(test, StdioTest):
        judge.check_checker(test.checker, _STDIO_CHECKERS)
        return {"kind": "stdio", **asdict(test)}
    if isinstance(test, AssertTest):
        compile(test.code, "tests", "exec", dont_inherit=True)
        return {"kind": "assert", **asdict(test)}
    judge.check_checker(test.checker, _CALL_CHECKERS)
    return {
        "kind": "call", "function": test.function, "args": [encode(a) for a in test.args],
        "expected": encode(test.expected), "checker": test.checker, "public": test.public,
        "kwargs": {k: encode(v) for k, v in test.kwargs.items()},
    }  # fmt: skip


def job_from_json(plain: dict[str, Any]) -> Job:
    """What `job_to_json` was given."""
    tests = tuple(_test_from_json(dict(t)) for t in plain["tests"])
    return Job(**{**plain, "tests": tests, "limits": Limits(**plain["limits"])})


def _test_from_json(plain: dict[str, Any]) -> Test:
    kind = plain.pop("kind")
    if kind == "stdio":
        return StdioTest(**plain)
    if kind == "assert":
        return AssertTest(**plain)
    return CallTest(
        **{
            **plain,
            "args": tuple(decode(a) for a in plain["args"]),
            "expected": decode(plain["expected"]),
            "kwargs": {k: decode(v) for k, v in plain["kwargs"].items()},
        }
    )


def report_to_json(report: Report) -> dict[str, Any]:
    """Plain data."""
    return asdict(report)


def report_from_json(plain: dict[str, Any]) -> Report:
    """What `report_to_json` was given."""
    results = tuple(_result(r) for r in plain["results"])
    return Report(**{**plain, "verdict": Verdict(plain["verdict"]), "results": results})


def _result(plain: dict[str, Any]) -> TestResult:
    error = plain["error"]
    if error is not None:
        frames = tuple((line, name, text) for line, name, text in error["frames"])
        error = ErrorInfo(error["type"], error["message"], frames)
    return TestResult(**{**plain, "verdict": Verdict(plain["verdict"]), "error": error})
