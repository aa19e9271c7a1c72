"""Execution traces: a program's report from the sandbox, as reward and as words for the teacher.

    with SandboxPool() as pool:
        tests = [(StdioTest("a", "a"),)]
        check_programs(pool, ["```python\\nprint(input())\\n```"], tests)[0].reward  # 1.0

Words follow what the published coding runs show: failing cases only; the first runtime error, else
the first time-out, else another stop, else the shortest two wrong answers; nothing that differs
from run to run. Left out: running (`distil.sandbox`).
"""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from distil.sandbox import Job, Limits, Report, SandboxPool, Verdict
from distil.sandbox.jobs import AssertTest, CallTest, StdioTest, Test, TestResult
from distil.types import Feedback, without_halves

SOURCE = "execution"
TEXT, LINE, LINES, VALUE, MESSAGE = 2000, 250, 8, 250, 400
"""Characters in all and of a line; lines of an input; characters of an output, of a message."""

Reveal: TypeAlias = Literal["public", "all", "none"]

TITLES = {
    Verdict.WRONG_ANSWER: "Wrong Answer",
    Verdict.RUNTIME_ERROR: "Runtime Error",
    Verdict.TIME_LIMIT: "Time Limit Exceeded",
    Verdict.IDLE_LIMIT: "Time Limit Exceeded",
    Verdict.MEMORY_LIMIT: "Memory Limit Exceeded",
    Verdict.OUTPUT_LIMIT: "Output Limit Exceeded",
    Verdict.SECURITY: "Runtime Error",
    Verdict.PROTOCOL: "Runtime Error",
}
PYTHON = ("", "python", "py", "python3")
"""Languages of a block that is taken for the program."""
NO_CODE = "No program was found in the answer. Give one, in a block that begins with ```python."
NO_ACCESS = "Operation not permitted: the program may not use network, files or processes."
NOT_RUN = "The program couldn't be run for a reason of the machine's."
IDLE = "The program waited for something that never came."
BAD_VALUE = "The function returned something that can't be compared: return plain data."

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")
_PATH = re.compile(r"(?<![\w.])/(?:[\w.+-]+/)+([\w.+-]+)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ORDER = (
    (Verdict.RUNTIME_ERROR, Verdict.SECURITY, Verdict.PROTOCOL),
    (Verdict.TIME_LIMIT, Verdict.IDLE_LIMIT),
    (Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT),
)


def check_programs(
    pool: SandboxPool,
    completions: Sequence[str],
    tests: Sequence[Sequence[Test]],
    *,
    limits: Limits | None = None,
    stop: Literal["first_fail", "all"] = "all",
    prelude: Literal["none", "lcb"] = "none",
    reveal_expected: Reveal = "public",
    demonstrations: Sequence[str | None] | None = None,
) -> list[Feedback]:
    """Runs each completion's program against its tests: reward 1 if all pass, else 0.

    tests: one sequence a completion, each non-empty. A failure of the machine's, after one more
    try, gives reward None (masked and counted), unless another test failed all the same. stop: all
    runs every test, so that the words name the shortest wrong answers. demonstrations: an expert's
    program for each completion, handed on. Raises SandboxUnavailable
    where no level of the sandbox holds.
    """
    jobs = [
        Job(code or "", tuple(own), limits or Limits(), stop, prelude)
        for code, own in zip(map(extract_program, completions), tests, strict=True)
    ]
    shown = demonstrations or [None] * len(jobs)
    reports = pool.map(jobs)
    return [
        feedback_of(report, job.tests, reveal_expected=reveal_expected, demonstration=expert)
        for report, job, expert in zip(reports, jobs, shown, strict=True)
    ]


def extract_program(completion: str) -> str | None:
    """The last fenced block, of Python where blocks name their language; None if there is none.

    A block that the limit on length cut off (no closing fence) counts if there is no other.
    Thinking is left out.
    """
    blocks: list[tuple[str, str]] = []
    language: str | None = None
    body: list[str] = []
    for line in completion.rsplit("</think>", 1)[-1].split("\n"):
        if language is None and line.startswith("```"):
            words = line.strip("` \t\r").split()
            language, body = (words[0].lower() if words else ""), []
        elif language is not None and line.startswith("```"):
            blocks.append((language, "\n".join([*body, ""])))
            language = None
        else:
            body.append(line)
    python = [text for name, text in blocks if name in PYTHON]
    if python:
        return python[-1]
    if not blocks and language in PYTHON:
        return "\n".join(body)
    return None


def feedback_of(
    report: Report,
    tests: Sequence[Test],
    *,
    reveal_expected: Reveal = "public",
    demonstration: str | None = None,
) -> Feedback:
    """A job's report as Feedback: reward 1, 0, or None where the machine failed.

    Its progress is the share of tests that passed, if none was left out after a failure.
    """
    if report.verdict is Verdict.INFRA_ERROR:
        return Feedback(None, NOT_RUN, demonstration, SOURCE)
    if report.verdict is Verdict.PASS:
        return Feedback(1.0, None, demonstration, SOURCE, 1.0)
    text = report_text(report, tests, reveal_expected=reveal_expected)
    whole = report.verdict is Verdict.NO_CODE or len(report.results) == report.total
    progress = report.passed / report.total if whole else None
    return Feedback(0.0, text, demonstration, SOURCE, progress)


def report_text(
    report: Report, tests: Sequence[Test], *, reveal_expected: Reveal = "public"
) -> str:
    """The words on a failed program; "" if it passed. At most TEXT characters, cut at a line."""
    if report.verdict is Verdict.NO_CODE:
        return NO_CODE
    chosen: list[TestResult] = []
    for verdicts in _ORDER:
        chosen = [r for r in report.results if r.verdict in verdicts][:1]
        if chosen:
            break
    else:
        wrong = [r for r in report.results if r.verdict is Verdict.WRONG_ANSWER]
        chosen = sorted(wrong, key=lambda r: _length(tests[r.index]))[:2]
        chosen.sort(key=lambda r: r.index)
    blocks = [_block(r, tests[r.index], reveal_expected) for r in chosen]
    return _cut_at_line("\n\n".join(blocks), TEXT)


def _block(result: TestResult, test: Test, reveal: Reveal) -> str:
    """One failing case: title, input, output, expected, error; those that there are."""
    parts = [f"Test Case {result.index + 1}: {TITLES[result.verdict]}"]
    shown = reveal == "all" or (reveal == "public" and test.public)
    if not isinstance(test, AssertTest):
        parts.append(f"Input\n{_short_lines(_input(test))}")
    if result.verdict is Verdict.WRONG_ANSWER:
        parts += _wrong_answer(result, test, shown)
    else:
        parts.append(f"Error\n{_error(result)}")
        if isinstance(test, AssertTest) and result.detail:
            parts.append(_clean(result.detail)[:VALUE])
    return "\n".join(parts)


def _wrong_answer(result: TestResult, test: Test, shown: bool) -> list[str]:
    if isinstance(test, AssertTest):
        assertion, _, last = result.detail.rpartition("\n")
        told = _clean(f"{assertion}\n{last}" if shown else last)
        return [f"Failed\n{told.strip()[: 2 * VALUE]}"]
    parts = [f"Output\n{_short(result.got) or '(nothing)'}"]
    if result.printed.strip():
        parts.append(f"Printed\n{_short(result.printed)}")
    if shown:
        expected = test.expected if isinstance(test, StdioTest) else repr(test.expected)
        parts.append(f"Expected\n{_short(expected)}")
    return parts


def _error(result: TestResult) -> str:
    """The last frames of the program, then "Type: message"; none of the sandbox's own words."""
    if result.verdict in (Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT):
        return f"{TITLES[result.verdict]}."
    if result.verdict is Verdict.IDLE_LIMIT:
        return IDLE
    if result.verdict is Verdict.SECURITY:
        return NO_ACCESS
    if result.verdict is Verdict.PROTOCOL:
        return BAD_VALUE
    error = result.error
    assert error is not None
    lines = []
    for number, function, source in error.frames:
        lines.append(f'File "Solution.py", line {number}, in {_clean(function)}')
        if source:
            lines.append(f"  {_clean(source)[:LINE]}")
    message = _clean(error.message)[:MESSAGE]
    if error.type == "PermissionError":
        message = NO_ACCESS
    lines.append(f"{_clean(error.type)}: {message}" if message else _clean(error.type))
    return "\n".join(lines)


def _input(test: StdioTest | CallTest) -> str:
    if isinstance(test, StdioTest):
        return test.stdin
    said = [repr(a) for a in test.args] + [f"{k}={v!r}" for k, v in test.kwargs.items()]
    return f"{test.function}({', '.join(said)})"


def _length(test: Test) -> int:
    if isinstance(test, AssertTest):
        return len(test.code)
    return len(_input(test)) + len(str(test.expected))


def _short_lines(text: str) -> str:
    """At most LINES lines of LINE characters each, from head and tail."""
    lines = [
        line if len(line) <= LINE else f"{line[:LINE]}..." for line in _clean(text).split("\n")
    ]
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) > LINES:
        left_out = f"... ({len(lines) - LINES + 1} more lines)"
        lines = [*lines[: LINES - 2], left_out, lines[-1]]
    return "\n".join(lines)


def _short(text: str) -> str:
    text = _clean(text).rstrip()
    return text if len(text) <= VALUE else f"{text[:VALUE]}..."


def _clean(text: str) -> str:
    """Without what differs from run to run, or means something to a terminal.

    Half of a character (a lone surrogate), which no tokenizer takes, is written out.
    """
    text = _ADDRESS.sub("0x...", text.replace("\r\n", "\n"))
    return _CONTROL.sub("", _PATH.sub(r"\1", without_halves(text)))


def _cut_at_line(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    kept = text[: limit - 4].rpartition("\n")[0] or text[: limit - 4]
    return f"{kept}\n..."
