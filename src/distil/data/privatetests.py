"""LiveCodeBench's hidden tests, decoded without trusting them.

They are a JSON list, or base64 of zlib of a pickle of one string that holds the JSON list. Nothing
is unpickled: `pickle.loads` would run whatever the file says. A pickle of a string is a handful of
opcodes, and these are read off; any other opcode is refused. Sizes are bounded, so that a few
kilobytes can't unpack to more memory than there is. Left out: what the tests mean.
"""

import base64
import binascii
import pickletools
import zlib
from typing import Any

from distil.data.rows import BadRow
from distil.tasks.rows import parse_json

MAX_BYTES = 1 << 30
"""Of one problem's tests, unpacked: 1 GiB. The largest published ones have some tens of MB."""

FIELD = "private_test_cases"
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_HARMLESS = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}


def private_tests(text: str, field: str = FIELD, max_bytes: int = MAX_BYTES) -> Any:
    """What the JSON says. Raises BadRow, naming the step that failed."""
    if text.lstrip().startswith(("[", "{")):
        return _json(text, field)
    try:
        packed = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRow(field, f"is neither a JSON list nor base64 ({error}).") from error
    return _json(_only_string(_unpacked(packed, field, max_bytes), field), field)


def _unpacked(packed: bytes, field: str, max_bytes: int) -> bytes:
    machine = zlib.decompressobj()
    try:
        data = machine.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise BadRow(field, f"is base64, but not of zlib data ({error}).") from error
    if len(data) > max_bytes:
        raise BadRow(field, f"unpacks to more than {max_bytes:,} bytes, which no tests need.")
    if not machine.eof:
        raise BadRow(field, "is base64 of zlib data that breaks off before its end.")
    return data


def _only_string(data: bytes, field: str) -> str:
    """The one string that this pickle holds; nothing in it is run."""
    found: list[str] = []
    try:
        for opcode, value, _ in pickletools.genops(data):
            if opcode.name in _STRINGS:
                found.append(str(value))
            elif opcode.name not in _HARMLESS:
                raise BadRow(
                    field,
                    f"is a pickle with the opcode {opcode.name}, and only a pickle of one text is "
                    "read: others could run a program when they are loaded. Nothing was run.",
                )
    except ValueError as error:
        raise BadRow(field, f"is no pickle that can be read ({error}).") from error
    if len(found) != 1:
        raise BadRow(field, f"is a pickle of {len(found)} texts, and must be of one.")
    return found[0]


def _json(text: str, field: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise BadRow(field, f"holds no valid JSON ({error}).") from error
