"""The verdicts: what a program printed or returned, against what was expected.

Pure functions on plain data, run by the broker, where no program's code ever is. Left out: limits
and crashes, which the run's end tells (`distil.sandbox.endings`).
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from distil.errors import DistILError
from distil.sandbox.jail.wire import TAG, WireError, decode

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
    wanted, said = expected.split(), got.split()
    if checker == "tokens":
        return wanted == said
    near = tolerance(checker)
    assert near is not None
    return len(wanted) == len(said) and all(
        _same_word(a, b, near) for a, b in zip(wanted, said, strict=True)
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

    Both are values as `wire.encode` writes them: a program's sets and dicts are never built here,
    since members may be chosen so that building takes hours. Raises WireError for what `encode`
    never writes.
    """
    try:
        if checker == "set":
            return _same_members(got, expected)
        near = tolerance(checker) if checker.startswith(FLOAT) else None
        return _equal(got, expected, near)
    except (RecursionError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise WireError(f"No value of ours: {type(error).__name__}.") from error


def _equal(got: Any, expected: Any, near: float | None) -> bool:
    """Equal as JSON has it: a tuple is a list; numbers within `near`, if that's given."""
    (kind, said), (other, wanted) = _opened(got), _opened(expected)
    if kind == "number" and other == "number":
        both_nan = said != said and wanted != wanted
        return both_nan or (said == wanted if near is None else _close(wanted, said, near))
    if kind != other or kind == "object":
        return False
    if kind == "list":
        return len(said) == len(wanted) and all(
            _equal(a, b, near) for a, b in zip(said, wanted, strict=True)
        )
    if kind == "dict":
        return said.keys() == wanted.keys() and all(
            _equal(said[k], wanted[k], near) for k in wanted
        )
    return bool(said == wanted)


def _opened(value: Any) -> tuple[str, Any]:
    """(kind, content) of an encoded value. Keys and members become texts, whose hashes are safe."""
    if isinstance(value, bool | int | float):
        return "number", value
    if isinstance(value, list):
        return "list", value
    if not isinstance(value, dict):
        return type(value).__name__, value
    if TAG not in value:
        return "dict", {_text(k): v for k, v in value.items()}
    kind, inner = value[TAG], value["v"]
    if kind == "tuple":
        return "list", _listed(inner)
    if kind == "set":
        return "set", {_text(v) for v in _listed(inner)}
    if kind == "dict":
        return "dict", {_text(k): v for k, v in _listed(inner)}
    if kind in ("int", "float"):
        return "number", decode(value)
    return kind, inner


def _listed(inner: Any) -> list[Any]:
    if not isinstance(inner, list):
        raise ValueError
    return inner


def _text(value: Any) -> str:
    """A text that is the same for equal values only: 1, 1.0 and True are equal, as in Python."""
    kind, content = _opened(value)
    if kind == "number":
        whole = content == content and abs(content) < math.inf and content == int(content)
        return hex(int(content)) if whole else repr(content)
    if kind == "object":
        raise WireError("An object that is no data can't be compared.")
    if kind == "list":
        return f"[{','.join(map(_text, content))}]"
    if kind == "set":
        return f"{{{','.join(sorted(content))}}}"
    if kind == "dict":
        return f"{{{','.join(sorted(f'{k}:{_text(v)}' for k, v in content.items()))}}}"
    return f"{kind} {json.dumps(content)}"


def _close(expected: float, got: float, near: float) -> bool:
    """Within `near`, absolute or relative to what's expected; infinities equal themselves only."""
    if got == expected:
        return True
    try:
        return abs(got - expected) <= near * max(1.0, abs(expected)) < math.inf
    except OverflowError:  # a whole number beyond all floats
        return False


def _same_members(got: Any, expected: Any) -> bool:
    """The same members as often, in any order, of lists, tuples or sets."""
    members = []
    for value in (got, expected):
        kind, content = _opened(value)
        if kind not in ("list", "set"):
            return False
        members.append(sorted(content if kind == "set" else map(_text, content)))
    return members[0] == members[1]
