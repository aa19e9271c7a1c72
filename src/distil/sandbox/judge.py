"""The verdicts: what a program printed or returned, against what was expected.

Pure functions on plain data, run by the broker, where no program's code ever is. Left out: limits
and crashes, which the run's end tells (`distil.sandbox.endings`).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from distil.errors import DistILError

FLOAT = "float:"


def check_checker(checker: str, known: Sequence[str]) -> None:
    """Raises DistILError unless `checker` is one of `known`, or float:TOLERANCE."""
    if checker in known:
        return
    if checker.startswith(FLOAT) and tolerance(checker) is not None:
        return
    raise DistILError(
        f"There is no checker {checker!r}. Known: {', '.join(known)}, and float:TOLERANCE such as "
        "float:1e-6."
    )


def tolerance(checker: str) -> float | None:
    """The number in float:NUMBER; None if it's none, or not above 0."""
    try:
        value = float(checker.removeprefix(FLOAT))
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def printed(got: str, expected: str, checker: str) -> bool:
    """Whether a program's output is right. `checker`: lines, tokens or float:TOLERANCE."""
    if checker == "lines":
        return _lines(got) == _lines(expected)
    ours, theirs = expected.split(), got.split()
    if checker == "tokens":
        return ours == theirs
    near = tolerance(checker)
    assert near is not None
    return len(ours) == len(theirs) and all(
        _same_word(a, b, near) for a, b in zip(ours, theirs, strict=True)
    )


def _lines(text: str) -> list[str]:
    """Without white space at the ends of lines, and blank lines at the end."""
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_word(expected: str, got: str, near: float) -> bool:
    if expected == got:
        return True
    try:
        return _close(float(expected), float(got), near)
    except ValueError:
        return False


def returned(got: Any, expected: Any, checker: str) -> bool:
    """Whether a returned value is right. `checker`: json_eq, set or float:TOLERANCE.

    Both are plain data made by our own reader, so `==` runs nobody's code.
    """
    if checker == "set":
        return _same_members(got, expected)
    near = tolerance(checker) if checker.startswith(FLOAT) else None
    return _equal(got, expected, near)


def _equal(got: Any, expected: Any, near: float | None) -> bool:
    """Equal as JSON has it: a tuple is a list; numbers within `near`, if that's given."""
    if isinstance(expected, list | tuple):
        return (
            isinstance(got, list | tuple)
            and len(got) == len(expected)
            and all(_equal(g, e, near) for g, e in zip(got, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and got.keys() == expected.keys()
            and all(_equal(got[k], e, near) for k, e in expected.items())
        )
    if _is_number(expected) and _is_number(got):
        both_nan = got != got and expected != expected
        return both_nan or (got == expected if near is None else _close(expected, got, near))
    return type(got) is type(expected) and bool(got == expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _close(expected: float, got: float, near: float) -> bool:
    """Within `near`, absolute or relative to what's expected; infinities equal themselves only."""
    if got == expected:
        return True
    try:
        return abs(got - expected) <= near * max(1.0, abs(expected)) < math.inf
    except OverflowError:  # a whole number beyond all floats
        return False


def _same_members(got: Any, expected: Any) -> bool:
    """The same members as often, in any order (a tuple is a list there too)."""
    kinds = (list, tuple, set, frozenset)
    if not isinstance(got, kinds) or not isinstance(expected, kinds):
        return False
    return Counter(map(_key, got)) == Counter(map(_key, expected))


def _key(value: Any) -> Any:
    """Something hashable that is equal where values are."""
    if isinstance(value, list | tuple):
        return ("list", *map(_key, value))
    if isinstance(value, dict):
        return ("dict", frozenset((k, _key(v)) for k, v in value.items()))
    return ("set", value) if isinstance(value, set | frozenset) else value
