"""Verdicts by hand: what was printed, what was returned, how a run ended; values on the wire."""

import math
import random
import signal
from typing import Any

import numpy
import pytest

from distil.errors import DistILError
from distil.sandbox.endings import Ended, read_traceback, verdict
from distil.sandbox.jail.wire import (
    Opaque,
    WireError,
    decode,
    encode,
    from_line,
    render,
    to_line,
)
from distil.sandbox.jobs import ErrorInfo, Limits, Verdict
from distil.sandbox.judge import check_checker, printed, returned

# ---------------------------------------------------------------- printed


@pytest.mark.parametrize(
    ("got", "expected", "checker", "right"),
    [
        ("3\n", "3", "lines", True),
        ("3  \n\n\n", "3", "lines", True),
        (" 3", "3", "lines", False),
        ("1\n2", "1\n2\n3", "lines", False),
        ("1\n2\n3", "1\n2", "lines", False),
        ("1\n\n2", "1\n2", "lines", False),
        ("", "", "lines", True),
        ("1 2\n3", "1  2 3", "tokens", True),
        ("1 2", "1 2 3", "tokens", False),
        ("1.0", "1", "tokens", False),
        ("0.3333333", "0.33333333", "float:1e-6", True),
        ("1000001", "1000000", "float:1e-6", True),  # within a millionth of what's expected
        ("1000002", "1000000", "float:1e-6", False),
        ("yes 1.0", "yes 1", "float:1e-6", True),
        ("no 1.0", "yes 1", "float:1e-6", False),
        ("nan", "1", "float:1e-6", False),
        ("inf", "inf", "float:1e-6", True),
        ("inf", "1e308", "float:1e-6", False),
        ("1", "1 1", "float:1e-6", False),
    ],
)
def test_what_was_printed(got: str, expected: str, checker: str, right: bool) -> None:
    assert printed(got, expected, checker) is right


@pytest.mark.parametrize("checker", ["exact", "float:", "float:0", "float:-1", "float:inf"])
def test_an_unknown_checker_is_refused_with_the_known_ones(checker: str) -> None:
    with pytest.raises(DistILError, match="Known: lines, tokens, and float:TOLERANCE"):
        check_checker(checker, ("lines", "tokens"))


# ---------------------------------------------------------------- returned

NAN = float("nan")


@pytest.mark.parametrize(
    ("got", "expected", "checker", "right"),
    [
        (3, 3, "json_eq", True),
        (3.0, 3, "json_eq", True),
        (True, 1, "json_eq", True),
        ("3", 3, "json_eq", False),
        (None, None, "json_eq", True),
        (None, 0, "json_eq", False),
        ((1, 2), [1, 2], "json_eq", True),
        ([(1,), "a"], [[1], "a"], "json_eq", True),
        ([1, 2], [2, 1], "json_eq", False),
        ([1, 2], [1, 2, 3], "json_eq", False),
        ({"a": (1, 2)}, {"a": [1, 2]}, "json_eq", True),
        ({"a": 1}, {"b": 1}, "json_eq", False),
        ({1: "x", (2, 3): "y"}, {(2, 3): "y", 1: "x"}, "json_eq", True),
        ({1: "x"}, {"1": "x"}, "json_eq", False),
        ({1, 2}, {2, 1}, "json_eq", True),
        ({1, 2}, [1, 2], "json_eq", False),
        (NAN, NAN, "json_eq", True),
        (math.inf, math.inf, "json_eq", True),
        (math.inf, -math.inf, "json_eq", False),
        (2**100, 2**100, "json_eq", True),
        (2**100 + 1, 2**100, "json_eq", False),
        (10**400, 1.5, "float:1e-6", False),
        (0.1 + 0.2, 0.3, "float:1e-9", True),
        ([0.1 + 0.2], [0.3], "float:1e-9", True),
        ({"x": 1.01}, {"x": 1.0}, "float:1e-3", False),
        (b"ab", b"ab", "json_eq", True),
        (1 + 2j, 1 + 2j, "json_eq", True),
        ([2, 1, 1], [1, 2, 1], "set", True),
        ([2, 1], [1, 2, 1], "set", False),
        ({1, 2}, [2, 1], "set", True),
        ([[1, 2], [3]], [(3,), (1, 2)], "set", True),
        ([{1, 2}, {3}], [{3}, {2, 1}], "set", True),
        ([1.0, True], [1, 1], "set", True),
        (3, [3], "set", False),
        ("ab", ["a", "b"], "set", False),
    ],
)
def test_what_was_returned(got: Any, expected: Any, checker: str, right: bool) -> None:
    assert returned(encode(got), encode(expected), checker) is right


def test_an_object_that_is_no_data_equals_nothing() -> None:
    thing = encode(object(), keep=lambda value: 0)
    assert not returned(thing, 1, "json_eq")
    assert not returned(thing, thing, "json_eq")
    with pytest.raises(WireError, match="can't be compared"):
        returned([thing], [1], "set")


def test_whatever_a_program_sends_is_judged_or_refused_as_no_value() -> None:
    rng = random.Random("messages")
    tags = ["int", "float", "set", "dict", "tuple", "object", "bytes", "complex", "other", 3, None]

    def message(depth: int) -> Any:
        leaves = [None, True, 0, -1.5, 1e308, math.inf, "", "0x1f", "nan", "\ud800", 10**30]
        if depth == 0 or rng.random() < 0.3:
            return rng.choice(leaves)
        inner = [message(depth - 1) for _ in range(rng.randint(0, 3))]
        kind = rng.randrange(4)
        if kind == 0:
            return inner
        if kind == 1:
            return {rng.choice("ab~"): item for item in inner}
        fields = {"~": rng.choice(tags), "v": rng.choice([inner, message(depth - 1)])}
        return fields if kind == 2 else {**fields, "more": 1}

    verdicts = set()
    for _ in range(3000):
        for checker in ("json_eq", "set", "float:1e-6"):
            try:
                verdicts.add(returned(message(3), message(2), checker))
                assert len(render(message(3), 50)) < 1100
            except WireError:
                verdicts.add("refused")
    assert verdicts == {True, False, "refused"}


# ---------------------------------------------------------------- on the wire


class Loud(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -7, 2**200, -(2**70), 1.5, math.inf, -math.inf, "", "ä\n\0", b"\0\xff",
        [], [1, [2]], (), (1,), ((), [()]), {"a": 1}, {}, {1: 2, None: (3,)}, {"~": 1},
        {1, 2}, frozenset({(1, 2)}), 1 + 2j,
    ],
)  # fmt: skip
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    back = decode(from_line(to_line(encode(value))))
    assert back == value
    assert type(back) is (set if isinstance(value, frozenset) else type(value))


def test_subclasses_and_numpys_values_cross_as_the_plain_ones() -> None:
    assert type(decode(encode(Loud(3)))) is int
    assert encode(numpy.float32(0.5)) == 0.5
    assert encode(numpy.int64(3)) == 3
    assert encode(numpy.bool_(True)) is True
    assert encode(numpy.arange(4).reshape(2, 2)) == [[0, 1], [2, 3]]


def test_what_contains_itself_or_is_no_data_does_not_cross() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(WireError, match="contains itself"):
        encode(loop)
    with pytest.raises(WireError, match="A object is no plain data"):
        encode([object()])


def test_an_object_left_behind_comes_back_by_its_number() -> None:
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    thing = object()
    there = decode(encode([thing], keep))
    assert isinstance(there[0], Opaque)
    assert there[0] != there[0]
    assert decode(encode(there), lambda kind, ref: kept[ref]) == [thing]


@pytest.mark.parametrize(
    "message",
    [
        {"~": "int", "v": "xyz"}, {"~": "int", "v": 3}, {"~": "float", "v": "1.5"},
        {"~": "object", "v": ["x"]}, {"~": "object", "v": ["x", "1"]}, {"~": "os.system", "v": []},
        {"~": "set", "v": [[1]]}, {"~": "dict", "v": [[1]]}, {"~": "tuple"},
        {"~": "bytes", "v": "g"},
        {"~": "complex", "v": [int("1" + "0" * 400), 0]},
    ],
)  # fmt: skip
def test_a_message_that_encode_never_writes_is_refused(message: Any) -> None:
    with pytest.raises(WireError):
        decode(message)


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_a_line_that_is_no_json_is_refused(line: bytes) -> None:
    with pytest.raises(WireError, match="No JSON"):
        from_line(line)


def test_a_value_is_shown_within_its_limit() -> None:
    assert render(encode([(1,), {"a"}, {1: 2.5}, {"k": None}, "x"]), 99) == (
        "[(1,), {'a'}, {1: 2.5}, {'k': None}, 'x']"
    )
    assert render(encode(list(range(1000))), 10) == "[0, 1, 2, ..."


# ---------------------------------------------------------------- how a run ended

LIMITS = Limits(cpu_s=1.0, mem_mb=100, threads=8)
TRACE = b'Traceback (most recent call last):\n  File "Solution.py", line 2, in f\n    1 / 0\n'


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended(0, 0.1, 10), None),
        (Ended(0, 1.2, 10), Verdict.TIME_LIMIT),
        (Ended(signal.SIGKILL, 1.6, 10, "cpu"), Verdict.TIME_LIMIT),
        (Ended(signal.SIGXCPU, 0.9, 10), Verdict.TIME_LIMIT),
        (Ended(signal.SIGKILL, 0.1, 10, "idle"), Verdict.IDLE_LIMIT),
        (Ended(signal.SIGKILL, 0.1, 10, "starved"), Verdict.INFRA_ERROR),
        (Ended(signal.SIGKILL, 0.1, 10, "threads"), Verdict.RUNTIME_ERROR),
        (Ended(signal.SIGKILL, 0.1, 10, "killed"), None),
        (Ended(signal.SIGKILL, 0.1, 10, "killed", full="stdout"), Verdict.OUTPUT_LIMIT),
        (Ended(signal.SIGSYS, 0.1, 10), Verdict.SECURITY),
        (Ended(signal.SIGSEGV, 0.1, 10), Verdict.RUNTIME_ERROR),
        (Ended(40, 0.1, 10), Verdict.RUNTIME_ERROR),
        (Ended(signal.SIGKILL, 0.1, 95), Verdict.MEMORY_LIMIT),
        (Ended(signal.SIGKILL, 0.1, 10), Verdict.RUNTIME_ERROR),
        (Ended(1 << 8, 0.1, 10), Verdict.RUNTIME_ERROR),
        (Ended(1 << 8, 0.1, 10, stderr=TRACE + b"MemoryError\n"), Verdict.MEMORY_LIMIT),
        (
            Ended(1 << 8, 0.1, 10, stderr=TRACE + b"MyMemoryError\n"),
            Verdict.RUNTIME_ERROR,
        ),
    ],
)
def test_an_end_means(ended: Ended, expected: Verdict | None) -> None:
    found = verdict(ended, LIMITS)
    assert (found and found[0]) == expected


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (
            TRACE.decode() + "ZeroDivisionError: division by zero\n",
            ErrorInfo("ZeroDivisionError", "division by zero", ((2, "f", "1 / 0"),)),
        ),
        (
            '  File "Solution.py", line 3\n    print(\n         ^\nSyntaxError: never closed\n',
            ErrorInfo("SyntaxError", "never closed", ((3, "<module>", "print("),)),
        ),
        (
            "noise\n" + TRACE.decode() + "ValueError: two\nlines\n",
            ErrorInfo("ValueError", "two\nlines", ((2, "f", "1 / 0"),)),
        ),
        (TRACE.decode() + "KeyError\n", ErrorInfo("KeyError", "", ((2, "f", "1 / 0"),))),
        (
            TRACE.decode() + "KeyError: 1\n\nDuring handling of the above exception, another "
            "exception occurred:\n\n" + TRACE.decode() + "RuntimeError: no\n",
            ErrorInfo("RuntimeError", "no", ((2, "f", "1 / 0"),)),
        ),
        ("just some words\n", None),
        ("", None),
    ],
)
def test_a_traceback_is_read(stderr: str, expected: ErrorInfo | None) -> None:
    assert read_traceback(stderr) == expected
