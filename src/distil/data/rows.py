"""One row of a published set, and what can be wrong with it.

A `BadRow` is a fault of the data: an error that names file, row and field, or dropped and counted.
A `Filtered` row is fine and not wanted. Left out: reading files (`distil.data.reading`).
"""

import re
from dataclasses import dataclass
from typing import Any

SHOWN = 80
"""Characters of a wrong value that an error shows."""


class BadRow(Exception):
    """This row can't be a problem: `field` (None: the whole row), and the fault with its fix."""

    def __init__(self, field: str | None, fault: str) -> None:
        super().__init__(fault)
        self.field = field


class Filtered(Exception):
    """This row belongs to no table; the message is the reason that is counted."""


@dataclass(frozen=True)
class Row:
    """file: its path below the source; number: its line, or its place in the file, from 1.

    values: what was read: an object with named fields, or else a row that can't be used.
    unreadable: why not, where nothing could be read.
    """

    file: str
    number: int
    values: Any
    unreadable: str = ""

    @property
    def place(self) -> str:
        """As errors name it."""
        return f"{self.file}, row {self.number}"

    @property
    def part(self) -> str:
        """train or test, where the file is called so (test-00000-of-00001.parquet), else ""."""
        name = re.split(r"[-_.]", self.file.rsplit("/", 1)[-1])[0]
        return name if name in ("train", "test") else ""

    def fields(self) -> dict[str, Any]:
        """The row's named fields. Raises BadRow if it has none."""
        if self.unreadable:
            raise BadRow(None, self.unreadable)
        if not isinstance(self.values, dict):
            raise BadRow(None, f"{shown(self.values)} is no object with named fields.")
        return self.values

    def name(self, *names: str) -> str:
        """The first of these names that the row has. Raises BadRow if it has none of them."""
        fields = self.fields()
        found = [name for name in names if name in fields]
        if not found:
            others = f" (nor {', '.join(map(repr, names[1:]))})" if names[1:] else ""
            has = ", ".join(map(str, fields)) or "no fields"
            raise BadRow(names[0], f"is missing{others}. The row has {has}.")
        return found[0]

    def text(self, *names: str) -> str:
        """The text of the first of these fields that there is. Raises BadRow."""
        name = self.name(*names)
        return as_text(self.fields()[name], name)

    def optional_text(self, *names: str) -> str | None:
        """As `text`; None where there is no such field, or nothing in it."""
        fields = self.fields()
        found = [name for name in names if fields.get(name) not in (None, "")]
        return as_text(fields[found[0]], found[0]) if found else None

    def object(self, name: str) -> dict[str, Any]:
        """A field that is an object. Raises BadRow."""
        value = self.fields()[self.name(name)]
        if not isinstance(value, dict):
            raise BadRow(name, f"is {shown(value)}. Make it an object with named fields.")
        return value


def as_text(value: Any, field: str) -> str:
    """The value, if it is a text that can be written. Raises BadRow."""
    if not isinstance(value, str) or not value.strip():
        raise BadRow(field, f"is {shown(value)}. Make it a text that isn't blank.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(field, f"is no Unicode text ({error.reason}).") from error
    return value


def as_answer(value: Any, field: str) -> str:
    """A text or a number as text; 27.0 is 27. Raises BadRow."""
    if type(value) in (int, float):
        value = str(value)
    text = as_text(value, field).strip()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def shown(value: Any) -> str:
    """A value in an error, not too long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
