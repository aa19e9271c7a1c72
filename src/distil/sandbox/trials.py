"""One test of one program: starts the run (or two), talks with it, and judges what came back.

The expected values are here, in the broker; a run gets its input and nothing else.
"""

import json
from dataclasses import replace
from typing import Any

from distil.sandbox import judge
from distil.sandbox.endings import Ended, of_error, verdict
from distil.sandbox.jail.wire import WireError, encode, from_line, render, to_line
from distil.sandbox.jobs import (
    AssertTest,
    CallTest,
    ErrorInfo,
    Job,
    Limits,
    StdioTest,
    TestResult,
    Verdict,
)
from distil.sandbox.zygotes import Running, Zygote

TESTS_CPU = 2
"""How much more processor time tests may take than the program that they test."""
KEPT = 4000
"""Characters of an output that a result keeps."""


async def try_test(zygote: Zygote, job: Job, index: int) -> TestResult:
    """Runs test `index` of a job. Raises ZygoteDied where the run was lost."""
    test = job.tests[index]
    if isinstance(test, StdioTest):
        return await _stdio(zygote, job, index, test)
    if isinstance(test, CallTest):
        return await _call(zygote, job, index, test)
    return await _assertions(zygote, job, index, test)


def _job_bytes(job: Job, **more: Any) -> bytes:
    text = {"source": job.source, "seed": job.seed, "prelude": job.prelude, **more}
    return json.dumps(text).encode("ascii")


async def _stdio(zygote: Zygote, job: Job, index: int, test: StdioTest) -> TestResult:
    stdin = test.stdin.encode("utf-8", "surrogatepass")
    ended = await zygote.start("script", _job_bytes(job), stdin, job.limits).end()
    printed = ended.stdout.decode("utf-8", "replace")
    right = judge.printed(printed, test.expected, test.checker)
    bad = verdict(ended, job.limits)
    if bad is not None and job.lenient_exit and right and ended.code and not ended.signal:
        bad = None if bad[0] is Verdict.RUNTIME_ERROR else bad
    if bad is not None:
        return _result(index, bad, ended, got=printed)
    return _result(index, (_right(right), None), ended, got=printed)


async def _call(zygote: Zygote, job: Job, index: int, test: CallTest) -> TestResult:
    running = zygote.start("functions", _job_bytes(job), b"", job.limits)
    outcome: tuple[Verdict, ErrorInfo | None] | None
    got = ""
    outcome = await _loaded(running)
    if outcome is None:
        request = {
            "id": 1, "function": test.function, "args": [encode(a) for a in test.args],
            "kwargs": {k: encode(v) for k, v in test.kwargs.items()},
        }  # fmt: skip
        running.say(to_line(request))
        answer = await _answer(running, 1)
        if isinstance(answer, tuple):
            outcome = answer
        elif answer is not None:
            try:
                got = render(answer["value"], KEPT)
                right = judge.returned(answer["value"], encode(test.expected), test.checker)
                outcome = _right(right), None
            except WireError as error:
                outcome = _broken(str(error))
    ended = await _finish(running)
    printed = ended.stdout.decode("utf-8", "replace")
    return _result(index, _settle(ended, outcome, job), ended, got=got, printed=printed)


async def _assertions(zygote: Zygote, job: Job, index: int, test: AssertTest) -> TestResult:
    """The program in one jail, its tests in another; calls and answers go through here."""
    # The program waits while its tests think: that is no idleness of its own.
    patient = replace(job.limits, idle_s=job.limits.idle_s + 2 * TESTS_CPU * job.limits.cpu_s)
    running = zygote.start("functions", _job_bytes(job), b"", patient)
    outcome = await _loaded(running)
    detail = ""
    if outcome is None:
        about = {
            "source": test.code,
            "seed": None,
            "prelude": "none",
            "entry_point": test.entry_point,
        }
        limits = replace(job.limits, cpu_s=TESTS_CPU * job.limits.cpu_s, idle_s=_patience(job))
        tests = zygote.start("tests", json.dumps(about).encode("ascii"), b"", limits)
        told = await _relay(running, tests)
        over = await _finish(tests)
        outcome, detail = told if told is not None else (_tests_died(over, limits), "")
    ended = await _finish(running)
    printed = ended.stdout.decode("utf-8", "replace")
    return _result(index, _settle(ended, outcome, job), ended, printed=printed, detail=detail)


def _tests_died(over: Ended, limits: Limits) -> tuple[Verdict, ErrorInfo | None]:
    """The verdict where the tests' process ended before they did.

    What the program returned made it so: a number of a million digits, a list without end. It's
    never our failure, or a program could mask itself.
    """
    ended_badly = verdict(over, limits)
    if ended_badly is not None and ended_badly[0] is not Verdict.RUNTIME_ERROR:
        return ended_badly
    return Verdict.RUNTIME_ERROR, ErrorInfo("Tests", "the tests couldn't use what was returned")


def _patience(job: Job) -> float:
    """How long tests may wait for the program: as long as it may take itself."""
    return job.limits.wall_factor * job.limits.cpu_s + 2 * job.limits.idle_s


async def _relay(
    running: Running, tests: Running
) -> tuple[tuple[Verdict, ErrorInfo | None] | None, str] | None:
    """Passes calls to the program and answers to the tests; their outcome, and what failed.

    None if the tests' process ended before they did.

    The tests' own words are trusted: no code of the program's is in their process. The program's
    are checked, and passed on as plain data.
    """
    assert tests.lines is not None
    while (line := await tests.lines.next()) is not None:
        said = from_line(line)
        if "function" not in said:
            return _tests_outcome(said)
        running.say(to_line(said))
        answer = await _answer(running, said["id"], with_errors=True)
        if not isinstance(answer, dict):
            return answer, ""
        tests.say(to_line(answer))
    return None


def _tests_outcome(said: dict[str, Any]) -> tuple[tuple[Verdict, ErrorInfo | None], str]:
    if "failed" in said:
        frames = said["failed"]["frames"]
        line = frames[-1][2] if frames else ""
        detail = "\n".join(x for x in (line, said["failed"]["message"], said["last"]) if x)
        return (Verdict.WRONG_ANSWER, None), detail
    if "raised" in said:
        error = _error(said["raised"])
        if not said["by_program"]:  # the tests choked on what the program returned
            return (Verdict.WRONG_ANSWER, None), f"{error.type}: {error.message}\n{said['last']}"
        return of_error(error), said["last"]
    return (Verdict.PASS, None), ""


async def _loaded(running: Running) -> tuple[Verdict, ErrorInfo | None] | None:
    """None once the program's functions can be called; else what went wrong."""
    said = await _message(running, {"load"})
    if not isinstance(said, dict):
        return said
    return None if said["load"] is None else _checked_error(said["load"])


async def _answer(
    running: Running, number: int, *, with_errors: bool = False
) -> dict[str, Any] | tuple[Verdict, ErrorInfo | None] | None:
    """The answer to call `number`; an outcome if it raised or is none; None if there is no more.

    with_errors: an exception is an answer too, as checked plain data.
    """
    said = await _message(running, {"id"})
    if not isinstance(said, dict):
        return said
    if said["id"] != number:
        return _broken("an answer out of turn")
    if "error" in said:
        outcome = _checked_error(said["error"])
        if with_errors and outcome[1] is not None:
            error = outcome[1]
            plain = {"type": error.type, "message": error.message, "frames": list(error.frames)}
            return {"id": number, "error": plain}
        return outcome
    if "value" not in said:
        return _broken(str(said.get("unsendable", "an answer without a value"))[:300])
    return {"id": number, "value": said["value"]}


async def _message(
    running: Running, keys: set[str]
) -> dict[str, Any] | tuple[Verdict, ErrorInfo | None] | None:
    """The next line as a message that has these keys; None at the end of the pipe."""
    assert running.lines is not None
    line = await running.lines.next()
    if line is None:
        return _broken("a line too long") if running.lines.too_long else None
    try:
        said = from_line(line)
    except WireError as error:
        return _broken(str(error))
    if not isinstance(said, dict) or not keys <= said.keys():
        return _broken("a message that is none of ours")
    return said


def _broken(why: str) -> tuple[Verdict, ErrorInfo]:
    return Verdict.PROTOCOL, ErrorInfo("Protocol", why)


def _checked_error(said: Any) -> tuple[Verdict, ErrorInfo]:
    """An exception as the program told it."""
    try:
        return of_error(_error(said))
    except (TypeError, ValueError, KeyError, OverflowError):
        return _broken("an error that is none of ours")


def _error(said: Any) -> ErrorInfo:
    frames = tuple((int(n), str(f)[:100], str(x)[:300]) for n, f, x in said["frames"][-3:])
    return ErrorInfo(str(said["type"])[:100], str(said["message"])[:2000], frames)


async def _finish(running: Running) -> Ended:
    """Ends a run that has said all that was wanted."""
    running.kill()
    return await running.end()


def _settle(
    ended: Ended, outcome: tuple[Verdict, ErrorInfo | None] | None, job: Job
) -> tuple[Verdict, ErrorInfo | None]:
    """The verdict of a run that talks: limits first, then what it said, then how it ended."""
    limits_say = verdict(ended, job.limits)
    by_limit = (Verdict.TIME_LIMIT, Verdict.IDLE_LIMIT, Verdict.OUTPUT_LIMIT, Verdict.INFRA_ERROR)
    if limits_say is not None and limits_say[0] in by_limit:
        return limits_say
    if outcome is not None:
        return outcome
    if limits_say is not None:
        return limits_say
    return Verdict.RUNTIME_ERROR, ErrorInfo(
        "SystemExit", "the program ended in the middle of a call"
    )


def _right(right: bool) -> Verdict:
    return Verdict.PASS if right else Verdict.WRONG_ANSWER


def _result(
    index: int, outcome: tuple[Verdict, ErrorInfo | None], ended: Ended, *, got: str = "",
    printed: str = "", detail: str = "",
) -> TestResult:  # fmt: skip
    return TestResult(
        index, outcome[0], got[:KEPT], printed[:KEPT], ended.stderr_text, detail[:KEPT],
        outcome[1], round(ended.cpu_s, 4), round(ended.peak_mb, 1),
    )  # fmt: skip
