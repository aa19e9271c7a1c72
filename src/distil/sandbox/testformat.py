"""Tests as plain data, as a file or a data set's column `tests` has them.

    {"stdin": "1 2\\n", "expected": "3\\n"}                        a program's input and output
    {"function": "add", "args": [1, 2], "expected": 3}            a call (also "kwargs")
    {"code": "assert add(1, 2) == 3", "entry_point": null}        assertions (MBPP, HumanEval)

Each may say "checker" (but assertions) and "public" as `distil.sandbox.jobs` has them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from distil.errors import TaskError, perhaps
from distil.sandbox.jobjson import check_test
from distil.sandbox.jobs import AssertTest, CallTest, StdioTest, Test

_KINDS: dict[str, type] = {"stdin": StdioTest, "function": CallTest, "code": AssertTest}
_TYPES = {
    "stdin": str, "function": str, "code": str, "args": list, "kwargs": dict, "checker": str,
    "public": bool,
}  # fmt: skip


def read_tests(given: Any, where: str) -> tuple[Test, ...]:
    """The tests that plain data describes. Raises TaskError, naming `where`, the test and field."""
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise TaskError(
            f"{where}: the tests must be a list with at least one test in it (else any program "
            f"would pass), and are {_cut(given)}."
        )
    return tuple(_test(one, f"{where}, test {place}") for place, one in enumerate(given, 1))


def _test(given: Any, where: str) -> Test:
    if not isinstance(given, dict):
        raise TaskError(f"{where} is {_cut(given)}, and must be an object with named fields.")
    keys = [key for key in _KINDS if key in given]
    if len(keys) != 1:
        raise TaskError(
            f"{where} has the fields {', '.join(map(repr, given)) or 'none'}, and needs exactly "
            "one of 'stdin' (a program's input), 'function' (a call) and 'code' (assertions)."
        )
    kind = _KINDS[keys[0]]
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key, value in given.items():
        if key not in fields:
            raise TaskError(f"{where} has the unknown field {key!r}.{perhaps(str(key), fields)}")
        if key in _TYPES and not isinstance(value, _TYPES[key]):
            raise TaskError(
                f"{where}: {key!r} is {_cut(value)}, and must be a {_TYPES[key].__name__}."
            )
    needed = ("stdin", "expected") if kind is StdioTest else ("expected",)
    if kind is not AssertTest:
        for key in needed:
            if key not in given:
                raise TaskError(f"{where} lacks {key!r}: without it nothing can be judged.")
    if kind is StdioTest and not isinstance(given["expected"], str):
        raise TaskError(f"{where}: 'expected' is {_cut(given['expected'])}, and must be a str.")
    made: Test = kind(**{"args": (), **given, **_args(given)} if kind is CallTest else given)
    check_test(made, where)
    return made


def _args(given: dict[str, Any]) -> dict[str, Any]:
    return {"args": tuple(given.get("args", ()))}


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
