"""Tests as plain data: what they become, and what each fault is told."""

from typing import Any

import pytest

from distil.errors import TaskError
from distil.sandbox import AssertTest, CallTest, StdioTest
from distil.sandbox.testformat import read_tests


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"stdin": "1\n", "expected": "2"}, StdioTest("1\n", "2")),
        (
            {"stdin": "", "expected": "", "checker": "float:1e-6", "public": False},
            StdioTest("", "", "float:1e-6", public=False),
        ),
        ({"function": "f", "args": [1, [2]], "expected": None}, CallTest("f", (1, [2]), None)),
        (
            {"function": "A.f", "expected": 1, "kwargs": {"x": 2}, "checker": "set"},
            CallTest("A.f", (), 1, {"x": 2}, "set"),
        ),
        ({"code": "assert f(1) == 2"}, AssertTest("assert f(1) == 2")),
        ({"code": "def check(c): pass", "entry_point": "f"}, AssertTest("def check(c): pass", "f")),
    ],
)
def test_plain_data_becomes_a_test(given: dict[str, Any], expected: Any) -> None:
    assert read_tests([given], "row 3") == (expected,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "row 3: the tests must be a list with at least one test in it"),
        ([], "at least one test in it (else any program would pass), and are []"),
        ("assert 1", "and are 'assert 1'"),
        ([3], "row 3, test 1 is 3, and must be an object"),
        ([{"expected": "1"}], "row 3, test 1 has the fields 'expected', and needs exactly one of"),
        ([{"stdin": "", "code": "", "expected": ""}], "needs exactly one of 'stdin'"),
        ([{"stdin": "a"}], "row 3, test 1 lacks 'expected': without it nothing can be judged"),
        ([{"function": "f", "args": []}], "lacks 'expected'"),
        ([{"stdin": 5, "expected": ""}], "'stdin' is 5, and must be a str"),
        ([{"stdin": "", "expected": 5}], "'expected' is 5, and must be a str"),
        ([{"function": "f", "args": "12", "expected": 1}], "'args' is '12', and must be a list"),
        (
            [{"function": "f", "arg": [1], "expected": 1}],
            "'arg'. Perhaps you meant 'args'",
        ),
        (
            [{"stdin": "", "expected": "", "checker": "sets"}],
            "no checker 'sets'. Known: lines",
        ),
        ([{"function": "f", "expected": 1, "checker": "lines"}], "Known: json_eq, set"),
        ([{"code": "assert ("}], "row 3, test 1 can't be run"),
        ([{"stdin": "", "expected": "", "public": "no"}], "'public' is 'no', and must be a bool"),
        ([{"stdin": "", "expected": ""}, {"stdin": ""}], "row 3, test 2 lacks"),
    ],
)
def test_a_fault_is_told_with_its_place(given: Any, message: str) -> None:
    with pytest.raises(TaskError) as told:
        read_tests(given, "row 3")
    assert message in str(told.value)
