"""Execution traces as feedback: the exact words, the cases told, and the program meant."""

from typing import Any

import pytest

from distil.feedback.execution import (
    TEXT,
    extract_program,
    feedback_of,
    report_text,
)
from distil.sandbox import (
    AssertTest,
    CallTest,
    ErrorInfo,
    Report,
    StdioTest,
    TestResult,
    Verdict,
)

STDIO = StdioTest("1 2\n", "3\n")
HIDDEN = StdioTest("1 2\n", "3\n", public=False)
CALL = CallTest("add", (1, [2]), (3, "x"), {"k": None})
CODE = AssertTest("assert add(1, 2) == 3")
ERROR = ErrorInfo("ValueError", "no", ((2, "f", "x = int(s)"), (9, "<module>", "f()")))


def report(*results: TestResult, verdict: Verdict | None = None) -> Report:
    first = verdict or (results[0].verdict if results else Verdict.PASS)
    return Report(first, 0, max(1, len(results)), results, "standard")


def result(verdict: Verdict, index: int = 0, **fields: Any) -> TestResult:
    return TestResult(index, verdict, **fields)


# ---------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("test", "outcome", "text"),
    [
        (
            STDIO,
            result(Verdict.WRONG_ANSWER, got="4\n"),
            "Test Case 1: Wrong Answer\nInput\n1 2\nOutput\n4\nExpected\n3",
        ),
        (
            HIDDEN,
            result(Verdict.WRONG_ANSWER, got=""),
            "Test Case 1: Wrong Answer\nInput\n1 2\nOutput\n(nothing)",
        ),
        (
            CALL,
            result(Verdict.WRONG_ANSWER, got="[3]", printed="debug\n"),
            "Test Case 1: Wrong Answer\nInput\nadd(1, [2], k=None)\nOutput\n[3]\nPrinted\ndebug\n"
            "Expected\n(3, 'x')",
        ),
        (
            CODE,
            result(Verdict.WRONG_ANSWER, detail="assert add(1, 2) == 3\nadd(1, 2) returned 4"),
            "Test Case 1: Wrong Answer\nFailed\nassert add(1, 2) == 3\nadd(1, 2) returned 4",
        ),
        (
            AssertTest(CODE.code, public=False),
            result(Verdict.WRONG_ANSWER, detail="assert add(1, 2) == 3\nadd(1, 2) returned 4"),
            "Test Case 1: Wrong Answer\nFailed\nadd(1, 2) returned 4",
        ),
        (
            STDIO,
            result(Verdict.RUNTIME_ERROR, error=ERROR),
            "Test Case 1: Runtime Error\nInput\n1 2\nError\n"
            'File "Solution.py", line 2, in f\n  x = int(s)\n'
            'File "Solution.py", line 9, in <module>\n  f()\nValueError: no',
        ),
        (
            STDIO,
            result(Verdict.RUNTIME_ERROR, error=ErrorInfo("PermissionError", "[Errno 1] x")),
            "Test Case 1: Runtime Error\nInput\n1 2\nError\nPermissionError: Operation not "
            "permitted: the program may not use network, files or processes.",
        ),
        (
            STDIO,
            result(Verdict.TIME_LIMIT),
            "Test Case 1: Time Limit Exceeded\nInput\n1 2\nError\nTime Limit Exceeded.",
        ),
        (
            STDIO,
            result(Verdict.IDLE_LIMIT),
            "Test Case 1: Time Limit Exceeded\nInput\n1 2\nError\n"
            "The program waited for something that never came.",
        ),
        (
            STDIO,
            result(Verdict.MEMORY_LIMIT),
            "Test Case 1: Memory Limit Exceeded\nInput\n1 2\nError\nMemory Limit Exceeded.",
        ),
        (
            STDIO,
            result(Verdict.OUTPUT_LIMIT, got="x" * 4000),
            "Test Case 1: Output Limit Exceeded\nInput\n1 2\nError\nOutput Limit Exceeded.",
        ),
        (
            STDIO,
            result(Verdict.SECURITY),
            "Test Case 1: Runtime Error\nInput\n1 2\nError\nOperation not permitted: the program "
            "may not use network, files or processes.",
        ),
        (
            CALL,
            result(Verdict.PROTOCOL, error=ErrorInfo("Protocol", "internal words")),
            "Test Case 1: Runtime Error\nInput\nadd(1, [2], k=None)\nError\nThe function returned "
            "something that can't be compared: return plain data.",
        ),
    ],
)
def test_each_failure_is_told_in_these_words(test: Any, outcome: TestResult, text: str) -> None:
    assert report_text(report(outcome), [test]) == text


def test_half_of_a_character_is_written_out_in_every_part() -> None:
    test = StdioTest("\ud800", "\udfff")
    wrong = TestResult(0, Verdict.WRONG_ANSWER, got="a\udc80")
    crash = TestResult(
        0, Verdict.RUNTIME_ERROR, error=ErrorInfo("E", "\ud83d", ((1, "f", "\udead"),))
    )
    for result, words in (
        (wrong, [r"\ud800", r"a\udc80", r"\udfff"]),
        (crash, [r"E: \ud83d", r"\udead"]),
    ):
        text = report_text(Report(result.verdict, 0, 1, (result,), "strong"), (test,))
        assert [word for word in words if word not in text] == []
        text.encode()


def test_reveal_decides_what_was_expected() -> None:
    wrong = report(result(Verdict.WRONG_ANSWER, got="4"))
    shown = {
        reveal: ["Expected" in report_text(wrong, [t], reveal_expected=reveal) for t in tests]
        for reveal in ("public", "all", "none")
        for tests in [(STDIO, HIDDEN)]
    }
    assert shown == {"public": [True, False], "all": [True, True], "none": [False, False]}


def test_a_pass_has_no_text_and_our_failure_no_reward() -> None:
    passed = feedback_of(report(verdict=Verdict.PASS), [STDIO], demonstration="so")
    assert (passed.reward, passed.text, passed.demonstration) == (1.0, None, "so")
    lost = feedback_of(report(verdict=Verdict.INFRA_ERROR), [STDIO])
    assert (lost.reward, lost.source) == (None, "execution")
    none = feedback_of(report(verdict=Verdict.NO_CODE), [STDIO])
    assert none.reward == 0
    assert none.text == (
        "No program was found in the answer. Give one, in a block that begins with ```python."
    )


# ---------------------------------------------------------------- which cases


def test_the_first_runtime_error_goes_before_time_outs_and_those_before_wrong_answers() -> None:
    results = [
        result(Verdict.WRONG_ANSWER, 0),
        result(Verdict.OUTPUT_LIMIT, 1),
        result(Verdict.TIME_LIMIT, 2),
        result(Verdict.RUNTIME_ERROR, 3, error=ERROR),
        result(Verdict.RUNTIME_ERROR, 4, error=ERROR),
    ]
    told = []
    while results:
        text = report_text(report(*results), [STDIO] * 5)
        told.append([line for line in text.split("\n") if line.startswith("Test Case")])
        named = int(told[-1][0].split()[2].rstrip(":")) - 1
        results = [r for r in results if r.index != named]
    assert told == [
        ["Test Case 4: Runtime Error"],
        ["Test Case 5: Runtime Error"],
        ["Test Case 3: Time Limit Exceeded"],
        ["Test Case 2: Output Limit Exceeded"],
        ["Test Case 1: Wrong Answer"],
    ]


def test_of_wrong_answers_the_two_shortest_are_told_in_the_order_of_the_tests() -> None:
    tests = [StdioTest("x" * n, "y") for n in (30, 1, 20, 2)]
    results = [result(Verdict.WRONG_ANSWER, i) for i in range(4)]
    text = report_text(report(*results), tests)
    assert [x for x in text.split("\n") if x.startswith("Test Case")] == [
        "Test Case 2: Wrong Answer",
        "Test Case 4: Wrong Answer",
    ]


# ---------------------------------------------------------------- bounded, and the same every time


def test_inputs_lose_their_middle_lines_and_long_lines_their_end() -> None:
    stdin = "\n".join([*(str(i) for i in range(20)), "z" * 300])
    text = report_text(report(result(Verdict.WRONG_ANSWER, got="w" * 300)), [StdioTest(stdin, "v")])
    lines = text.split("\n")
    assert lines[2:10] == ["0", "1", "2", "3", "4", "5", "... (14 more lines)", "z" * 250 + "..."]
    assert lines[11] == "w" * 250 + "..."


def test_the_whole_is_cut_at_a_line() -> None:
    stdin = "\n".join("x" * 250 for _ in range(8))
    wrong = [result(Verdict.WRONG_ANSWER, i, got="w" * 300) for i in range(2)]
    text = report_text(report(*wrong), [StdioTest(stdin, "v" * 300)] * 2)
    assert len(text) <= TEXT
    assert text.endswith("\n...")
    assert text.split("\n")[-2] == "x" * 250


def test_nothing_is_told_that_differs_from_run_to_run() -> None:
    error = ErrorInfo(
        "TypeError", "<A object at 0x7f00aa12bb> in /root/some/lib/python3.11/json.py\x1b[31m\x00"
    )
    text = report_text(report(result(Verdict.RUNTIME_ERROR, error=error)), [STDIO])
    assert text.endswith("TypeError: <A object at 0x...> in json.py[31m")


# ---------------------------------------------------------------- which program


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("```\nprint(1)\n```\n", "print(1)\n"),
        ("```py\na\n```\nthen\n```python\nb\n```", "b\n"),
        ("```python\na\n```\nrun it:\n```bash\npython a.py\n```", "a\n"),
        ("```c\nint x;\n```", None),
        ("Text.\n```python\nprint(1)\nprint(2)", "print(1)\nprint(2)"),
        ("```python\na\n```\n```python\nb", "a\n"),
        ("<think>```python\nwrong\n```</think>\n```python\nright\n```", "right\n"),
        ("```python\r\nprint(1)\r\n```", "print(1)\r\n"),
        ("````python\na\n````", "a\n"),
        ("``` python \na\n```", "a\n"),
        ("```Python title=x\na\n```", "a\n"),
        ("print(1)", None),
        ("", None),
        ("Use ```python inline``` only", None),
        ("```python\n```", ""),
    ],
)
def test_the_program_of_an_answer(completion: str, program: str | None) -> None:
    assert extract_program(completion) == program


def test_a_great_many_fences_are_read_once() -> None:
    assert extract_program("```python\n" * 200_001).strip() == ""


# ---------------------------------------------------------------- the share of tests that passed


def test_progress_is_the_share_of_tests_that_passed_where_all_were_run() -> None:
    ran = (result(Verdict.PASS), result(Verdict.WRONG_ANSWER, 1, got="4\n"))
    two = [STDIO, STDIO]
    whole = Report(Verdict.WRONG_ANSWER, 1, 2, ran, "standard")
    assert (feedback_of(whole, two).reward, feedback_of(whole, two).progress) == (0.0, 0.5)
    assert feedback_of(Report(Verdict.PASS, 2, 2, ran[:1] * 2, "standard"), two).progress == 1.0
    stopped = Report(Verdict.WRONG_ANSWER, 0, 2, ran[1:], "standard")
    assert feedback_of(stopped, two).progress is None
    assert feedback_of(Report(Verdict.NO_CODE, 0, 2, (), "standard"), two).progress == 0.0
    assert feedback_of(Report(Verdict.INFRA_ERROR, 0, 2, (), "standard"), two).progress is None
