"""`distil run-code`: exit codes, what is printed, and the forms of program and tests."""

import io
import json
from pathlib import Path

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


def test_a_markdown_files_last_block_and_tests_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, tests = tmp_path / "answer.md", tmp_path / "tests.jsonl"
    answer.write_text(f"```python\nwrong\n```\nBetter:\n```python\n{ADD}```\n")
    tests.write_text("\n\n".join(json.dumps(t) for t in TESTS))
    assert main(["run-code", str(answer), "--tests", str(tests)]) == 0
    assert "2 of 2" in capsys.readouterr().out


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
        (["{program}", "--tests", "{tests}", "--level", "unsafe"], "set allow_unsafe: true"),
        (["{program}", "--tests", "{tests}", "--preload", "nopackage"], "'nopackage', and no such"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_says_why(
    files: tuple[str, str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [a.format(program=files[0], tests=files[1]) for a in arguments]
    assert main(["run-code", *named]) == 2
    assert message in capsys.readouterr().err
