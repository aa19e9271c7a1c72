"""`distil run-code`: one program against a file of tests, in the sandbox, by hand."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distil.errors import RecipeError, TaskError
from distil.feedback.execution import extract_program, report_text
from distil.figures.layout import as_text, harmless
from distil.recipe.taskchecks import level_faults, limit_faults
from distil.sandbox import Job, Limits, Report, SandboxPool, Verdict
from distil.sandbox.cells import missing_packages, not_installed
from distil.sandbox.jobs import TestResult
from distil.sandbox.testformat import read_tests

SHOWN = 60
"""Characters of what a test said, in its row of the table."""


def run_code(
    program: str, tests: str, limits: Limits, level: str, preload: tuple[str, ...], prelude: Any,
    *, allow_unsafe: bool,
) -> int:  # fmt: skip
    """Prints each test's verdict, and the words that a teacher would be shown.

    program: a Python file, a Markdown file (its last block), or - for stdin. tests: a JSON file
    with a list of tests, or one test a line. Returns 0 if every test passed, else 1. Raises
    RecipeError for a flag that allows nothing, or a package that isn't there.
    """
    _check_flags(limits, level, preload, allow_unsafe=allow_unsafe)
    source = _source(program)
    given = read_tests(_read_tests(Path(tests)), tests)
    job = Job(source, given, limits, "all", prelude)
    with SandboxPool(None, level, preload, allow_unsafe=allow_unsafe) as pool:
        facts = pool.start()
        report = pool.run(job)
    print(as_text([["test", "verdict", "cpu s", "MiB", "said"], *map(_row, report.results)]))
    print(_summary(report, facts))
    if text := report_text(report, given, reveal_expected="all"):
        print(f"\nFeedback:\n{text}")
    return 0 if report.verdict is Verdict.PASS else 1


def _check_flags(limits: Limits, level: str, preload: Sequence[str], *, allow_unsafe: bool) -> None:
    """What a recipe's checks and the sandbox's would say, in the flags' names."""
    found = limit_faults(asdict(limits), lambda name: f"--{name.replace('_', '-')}")
    found += level_faults(level, ("--level", "--allow-unsafe"), allow_unsafe=allow_unsafe)
    found += [not_installed("--preload", name) for name in missing_packages(preload)]
    if found:
        raise RecipeError("The program can't be run:\n" + "\n".join(f"  - {f}" for f in found))


def _source(program: str) -> str:
    text = sys.stdin.read() if program == "-" else _read(Path(program), "program")
    return (extract_program(text) or "") if program.endswith(".md") else text


def _read(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"The {what} {str(file)!r} can't be read: {error}") from error


def _read_tests(file: Path) -> Any:
    text = _read(file, "file of tests")
    try:
        whole = json.loads(text)
    except ValueError:
        pass  # then a test a line
    else:
        return whole if isinstance(whole, list) else [whole]  # a single line is a single test
    tests = []
    for number, line in enumerate(text.split("\n"), 1):  # a JSON text may hold U+2028
        if line.strip():
            try:
                tests.append(json.loads(line))
            except ValueError as error:
                raise TaskError(f"{file}, line {number} is no JSON: {error}") from error
    return tests


def _row(result: TestResult) -> list[str]:
    said = result.got or result.detail or (result.error.message if result.error else "")
    line = harmless(said.strip().split("\n")[0])
    return [
        str(result.index + 1), result.verdict, f"{result.cpu_s:.3f}", f"{result.peak_mb:.0f}",
        line if len(line) <= SHOWN else f"{line[:SHOWN]}...",
    ]  # fmt: skip


def _summary(report: Report, facts: dict[str, Any]) -> str:
    note = f" ({report.note})" if report.note else ""
    return (
        f"{report.verdict}: {report.passed} of {report.total} tests passed{note}. "
        f"Sandbox level: {facts['level']}."
    )
