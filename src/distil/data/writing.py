"""Tables and report onto the disk: all of them, or none.

Everything is written beside its place first and renamed when all is there. Left out: what is
written.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distil.data.dataset import Item
from distil.errors import DataError


def table_bytes(items: Sequence[Item]) -> bytes:
    """One JSON object a line."""
    return "".join(f"{_line(item)}\n" for item in items).encode()


def report_bytes(report: Mapping[str, Any]) -> bytes:
    """The report as JSON for people, too."""
    return (json.dumps(report, indent=2) + "\n").encode()


def digest(content: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(content).hexdigest()


def write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes the files, replacing those of the same names. Raises DataError, leaving none."""
    beside = {folder / name: folder / f".{name}.{os.getpid()}" for name in contents}
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, temporary in beside.items():
            temporary.write_bytes(contents[place.name])
        for place, temporary in beside.items():
            temporary.replace(place)
    except OSError as error:
        for temporary in beside.values():
            with suppress(OSError):  # not there, or no folder above it
                temporary.unlink()
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise DataError(f"{str(folder)!r} can't be written to: {error.strerror}.") from error


def _line(item: Item) -> str:
    """Letters as they are; as escapes where a test holds half of a surrogate pair."""
    line = json.dumps(item, ensure_ascii=False, allow_nan=False)
    halves = any("\ud800" <= letter <= "\udfff" for letter in line)
    return json.dumps(item, allow_nan=False) if halves else line
