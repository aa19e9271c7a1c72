"""`distil run-code`: exit codes, what is printed, and the forms of program and tests."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from distil.cli import main

ADD = "def add(a, b):\n    return a + b\n"
TESTS = [
    {"function": "add", "args": [1, 2], "expected": 3},
    {"code": "assert add('a', 'b') == 'ab'"},
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    program, tests = tmp_path / "program.py", tmp_path / "tests.json"
    program.write_text(ADD)
    tests.write_text(json.dumps(TESTS))
    return str(program), str(tests)


def test_all_passed(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    program, tests = files
    assert main(["run-code", program, "--tests", tests]) == 0
    said = capsys.readouterr().out
    assert "pass: 2 of 2 tests passed. Sandbox level: " in said
    assert [line.split()[:2] for line in said.splitlines()[:3]] == [
        ["test", "verdict"], ["1", "pass"], ["2", "pass"],
    ]  # fmt: skip
    assert "Feedback" not in said


def test_a_failure_shows_the_words_that_a_teacher_would_see(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    program, tests = files
    Path(program).write_text("def add(a, b):\n    return a - b\n")
    assert main(["run-code", program, "--tests", tests]) == 1
    said = capsys.readouterr().out
    assert "wrong_answer: 0 of 2 tests passed." in said
    assert said.endswith(
        "Feedback:\nTest Case 2: Runtime Error\nError\n"
        'File "Solution.py", line 2, in add\n  return a - b\n'
        "TypeError: unsupported operand type(s) for -: 'str' and 'str'\n"
        "add('a', 'b') raised TypeError\n"
    )


def test_what_a_program_says_is_harmless_to_a_terminal(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    program, tests = files
    Path(program).write_text("def add(a, b):\n    raise ValueError('\\ud800 \\x1b[2J')\n")
    assert main(["run-code", program, "--tests", tests]) == 1
    said = capsys.readouterr().out
    assert r"\ud800 \x1b[2J" in said.splitlines()[1]
    assert r"ValueError: \ud800 [2J" in said


def test_a_markdown_files_last_block_and_tests_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, tests = tmp_path / "answer.md", tmp_path / "tests.jsonl"
    answer.write_text(f"```python\nwrong\n```\nBetter:\n```python\n{ADD}```\n")
    tests.write_text("\n\n".join(json.dumps(t) for t in TESTS))
    assert main(["run-code", str(answer), "--tests", str(tests)]) == 0
    assert "2 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        {"stdin": 3, "expected": "3"},
        {"stdin": "", "expected": "3", "checker": "nearly"},
        {"tests": TESTS},
        {},
        3,
    ],
)
def test_one_test_on_one_line_is_a_file_of_tests(
    tmp_path: Path, wrong: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    program, tests = tmp_path / "program.py", tmp_path / "tests.jsonl"
    program.write_text(ADD)
    tests.write_text(json.dumps(TESTS[0]) + "\n")
    assert main(["run-code", str(program), "--tests", str(tests)]) == 0
    assert "1 of 1" in capsys.readouterr().out
    told = []
    for more in ("", json.dumps(TESTS[0]) + "\n"):  # the first mistake is told
        tests.write_text(json.dumps(wrong) + "\n" + more)
        assert main(["run-code", str(program), "--tests", str(tests)]) == 2
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert f"{tests}, test 1" in told[0]


def test_a_test_may_hold_a_line_separator_that_is_no_line_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, tests = tmp_path / "program.py", tmp_path / "tests.jsonl"
    program.write_text(ADD)
    rows = [{"code": "assert add('a\u2028', 'b') == 'a\u2028b'"}, TESTS[0]]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    tests.write_text(lines, encoding="utf-8")
    assert main(["run-code", str(program), "--tests", str(tests)]) == 0
    assert "2 of 2" in capsys.readouterr().out


def test_a_program_from_standard_input(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(ADD))
    assert main(["run-code", "-", "--tests", files[1]]) == 0
    assert "2 of 2" in capsys.readouterr().out


def test_limits_are_flags(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    program, tests = files
    Path(program).write_text("while True: pass")
    assert main(["run-code", program, "--tests", tests, "--cpu-s", "0.2"]) == 1
    assert "time_limit: 0 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{program}"], "--tests"),
        (["missing.py", "--tests", "{tests}"], "The program 'missing.py' can't be read"),
        (["{program}", "--tests", "missing.json"], "The file of tests 'missing.json' can't be"),
        (["{program}", "--tests", "{program}"], "line 1 is no JSON"),
        (["{program}", "--tests", "{tests}", "--cpu", "1"], "--cpu-s"),
        (["{program}", "--tests", "{tests}", "--level", "unsafe"], "set --allow-unsafe."),
        (
            ["{program}", "--tests", "{tests}", "--preload", "json", "nopackage", "no.part"],
            "  - --preload names 'nopackage', and no such package is installed. Install it where "
            "distil runs, or leave it out.\n  - --preload names 'no.part', and",
        ),
        (
            ["{program}", "--tests", "{tests}", "--cpu-s", "-3"],
            "--cpu-s is -3.0, and must be a num",
        ),
        (["{program}", "--tests", "{tests}", "--cpu-s", "0"], "--cpu-s is 0.0, and must be a num"),
        (["{program}", "--tests", "{tests}", "--idle-s", "nan"], "--idle-s is nan, and must be a"),
        (
            ["{program}", "--tests", "{tests}", "--mem-mb", "1"],
            "--mem-mb is 1, and must be at least",
        ),
        (["{program}", "--tests", "{tests}", "--threads", "0"], "--threads is 0, and must be at l"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_says_why(
    files: tuple[str, str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [a.format(program=files[0], tests=files[1]) for a in arguments]
    assert main(["run-code", *named]) == 2
    assert message in capsys.readouterr().err
