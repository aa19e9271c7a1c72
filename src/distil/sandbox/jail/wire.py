"""Plain values as JSON lines between a jail and the broker; what JSON lacks is tagged.

Tags: {"~": kind, "v": ...}. Nothing here ever makes an object of a class that a message names, so
a message can hold no code. Left out: pickle, on purpose.
"""

import json
import math
import numbers
from collections.abc import Callable
from typing import Any

TAG = "~"
SMALL_INT = 2**63
"""Larger whole numbers cross as hexadecimal, which is read in linear time."""


class WireError(Exception):
    """A value that can't cross, or a message that is none."""


class Opaque:
    """Something that isn't plain data and stayed on the other side. It equals nothing.

    Handed back, it's the object that it stood for (`ref` numbers it there).
    """

    def __init__(self, kind: str, ref: int) -> None:
        self.kind, self.ref = kind, ref

    def __repr__(self) -> str:
        return f"<{self.kind} object>"

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def encode(value: Any, keep: Callable[[Any], int] | None = None) -> Any:
    """A value as what `json.dumps` takes. Subclasses of plain types become those types.

    keep: stores an object that isn't plain data and gives its number. Raises WireError for a value
    that contains itself or lies too deep, and for objects without `keep`.
    """
    try:
        return _encode(value, keep)
    except RecursionError as error:
        raise WireError("The value contains itself, or is nested too deeply.") from error


def _encode(value: Any, keep: Callable[[Any], int] | None) -> Any:
    if value is None or type(value) is bool:
        return value
    if isinstance(value, str):
        # The bytes of the text itself, whatever a subclass's methods would say.
        return str.__str__(value)
    if isinstance(value, Opaque):
        return {TAG: "object", "v": [value.kind, value.ref]}
    if isinstance(value, numbers.Integral):
        return _encode_int(int(value))
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return _encode_float(float(value))
    if isinstance(value, complex):
        return {TAG: "complex", "v": [_encode_float(value.real), _encode_float(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {TAG: "bytes", "v": bytes(value).hex()}
    if isinstance(value, list):
        return [_encode(v, keep) for v in list.__iter__(value)]
    if isinstance(value, tuple):
        return {TAG: "tuple", "v": [_encode(v, keep) for v in tuple.__iter__(value)]}
    if isinstance(value, set | frozenset):
        return {TAG: "set", "v": [_encode(v, keep) for v in value]}
    if isinstance(value, dict):
        return _encode_dict(value, keep)
    if type(value).__module__.split(".")[0] == "numpy" and hasattr(value, "tolist"):
        return _encode(value.tolist(), keep)
    if keep is None:
        raise WireError(f"A {type(value).__name__} is no plain data.")
    return {TAG: "object", "v": [type(value).__name__[:100], keep(value)]}


def _encode_int(value: int) -> Any:
    return value if -SMALL_INT <= value < SMALL_INT else {TAG: "int", "v": hex(value)}


def _encode_float(value: float) -> Any:
    return value if math.isfinite(value) else {TAG: "float", "v": repr(value)}


def _encode_dict(value: dict[Any, Any], keep: Callable[[Any], int] | None) -> Any:
    items = list(dict.items(value))
    if all(type(k) is str for k, _ in items) and TAG not in value:
        return {k: _encode(v, keep) for k, v in items}
    return {TAG: "dict", "v": [[_encode(k, keep), _encode(v, keep)] for k, v in items]}


def decode(value: Any, given_back: Callable[[str, int], Any] | None = None) -> Any:
    """The value that `encode` made `value` of; objects become `given_back(kind, ref)`, or Opaque.

    Raises WireError for a message that `encode` never writes.
    """
    try:
        return _decode(value, given_back or Opaque)
    except (
        RecursionError, ValueError, TypeError, KeyError, IndexError, OverflowError
    ) as error:  # fmt: skip
        raise WireError(f"No message of ours: {type(error).__name__}.") from error


def _decode(value: Any, given_back: Callable[[str, int], Any]) -> Any:
    if isinstance(value, list):
        return [_decode(v, given_back) for v in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {k: _decode(v, given_back) for k, v in value.items()}
    if set(value) != {TAG, "v"}:
        raise ValueError
    kind, inner = value[TAG], value["v"]
    if kind not in _READERS:
        raise ValueError
    return _READERS[kind](inner, given_back)


def _read_object(inner: Any, given_back: Callable[[str, int], Any]) -> Any:
    kind, ref = inner
    if type(kind) is not str or type(ref) is not int:
        raise ValueError
    return given_back(kind, ref)


def _read_float(inner: Any, given_back: Any) -> float:
    if inner not in ("inf", "-inf", "nan"):
        raise ValueError
    return float(inner)


_READERS: dict[str, Callable[[Any, Callable[[str, int], Any]], Any]] = {
    "int": lambda v, _: int(v, 16),
    "float": _read_float,
    "complex": lambda v, g: complex(*(_decode(x, g) for x in v)),
    "bytes": lambda v, _: bytes.fromhex(v),
    "tuple": lambda v, g: tuple(_decode(x, g) for x in v),
    "set": lambda v, g: {_decode(x, g) for x in v},
    "dict": lambda v, g: {_decode(k, g): _decode(x, g) for k, x in v},
    "object": _read_object,
}


def to_line(message: Any) -> bytes:
    """One message as a line. ASCII only, so that its length is known and no newline is inside."""
    return json.dumps(message, allow_nan=False).encode("ascii") + b"\n"


def from_line(line: bytes) -> Any:
    """A line as a message. Raises WireError for anything that is no JSON, or nested too deeply."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError(f"No JSON: {type(error).__name__}.") from error


def render(value: Any, limit: int) -> str:
    """An encoded value as Python would write it, about `limit` characters of it.

    Nothing is built of it, so that neither its size nor its members cost anything.
    """
    parts: list[str] = []
    left = limit

    def write(text: str) -> None:
        nonlocal left
        parts.append(text if len(text) <= max(left, 0) else f"{text[: max(left, 0)]}...")
        left -= len(text)
        if left < 0:
            raise _Full

    try:
        _render(value, write)
    except _Full:
        pass
    except (RecursionError, ValueError, TypeError) as error:
        raise WireError(f"No message of ours: {type(error).__name__}.") from error
    return "".join(parts)


class _Full(Exception):
    """Enough is written."""


_BRACKETS = {"": ("[", "]"), "tuple": ("(", ")"), "set": ("{", "}"), "dict": ("{", "}")}


def _render(value: Any, write: Callable[[str], None]) -> None:
    kind, inner = "", value
    if isinstance(value, dict) and TAG in value:
        kind, inner = str(value[TAG]), value.get("v")
    if isinstance(inner, list) and kind in _BRACKETS:
        opening, closing = _BRACKETS[kind]
        write(opening)
        for place, item in enumerate(inner):
            write(", " if place else "")
            if kind == "dict":
                _render_pair(item, write)
            else:
                _render(item, write)
        write(",)" if kind == "tuple" and len(inner) == 1 else closing)
    elif kind == "" and isinstance(inner, dict):
        write("{")
        for place, (key, item) in enumerate(inner.items()):
            write(", " if place else "")
            write(f"{key!r}: ")
            _render(item, write)
        write("}")
    elif kind == "object" and isinstance(inner, list) and inner:
        write(f"<{inner[0]} object>")
    elif kind in ("", "int", "float"):
        write(str(inner) if kind else repr(inner))
    else:
        write(f"{kind}({inner!r})"[:1000])


def _render_pair(item: Any, write: Callable[[str], None]) -> None:
    key, value = item
    _render(key, write)
    write(": ")
    _render(value, write)


def show(value: Any, limit: int) -> str:
    """`repr` of a decoded value, at most `limit` characters of it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of very many digits
        text = f"<a {type(value).__name__} too long to be written>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
