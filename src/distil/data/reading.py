"""A file as rows: JSON Lines (also gzipped), a JSON list, or Parquet.

A line that can't be read is a row that says so, not the end of the file. A `.json` file that isn't
one JSON value is read line by line, as published sets have it. Left out: what is in the rows.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from distil.data.rows import Row, shown
from distil.errors import DataError
from distil.tasks.rows import parse_json


def read_rows(path: Path, label: str) -> Iterator[Row]:
    """The file's rows, one after the other. Raises DataError for a file that can't be read."""
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path) as stream:
                yield from _lines(stream, label)
        elif path.suffix == ".parquet":
            yield from _parquet(path, label)
        elif path.suffix == ".json":
            yield from _json(path, label)
        else:
            with path.open("rb") as stream:
                yield from _lines(stream, label)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{label} can't be read: {error}. Download or unpack it again.") from error


def read_document(path: Path, label: str) -> Any:
    """A file that is one JSON value. Raises DataError."""
    try:
        return parse_json(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{label} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{label} is no valid JSON ({error}).") from error


def _lines(stream: BinaryIO | gzip.GzipFile, label: str) -> Iterator[Row]:
    for number, line in enumerate(stream, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if text.strip():
            yield _row(text, label, number)


def _row(line: bytes, label: str, number: int) -> Row:
    try:
        return Row(label, number, parse_json(line.decode()))
    except ValueError as error:  # no UTF-8 is one, too
        return Row(label, number, None, f"no valid JSON ({error}). Write one object a line.")


def _json(path: Path, label: str) -> Iterator[Row]:
    try:
        document = read_document(path, label)
    except DataError:
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        if len(lines) < 2 or not lines[0].strip().endswith(b"}"):
            raise
        with path.open("rb") as stream:
            yield from _lines(stream, label)
        return
    if isinstance(document, dict):
        lists = [name for name, value in document.items() if isinstance(value, list)]
        document = document[lists[0]] if len(lists) == 1 else document
    if not isinstance(document, list):
        raise DataError(
            f"{label} is {shown(document)}, and must be a list of objects, or an object with one "
            "list in it."
        )
    yield from (Row(label, number, value) for number, value in enumerate(document, start=1))


def _parquet(path: Path, label: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(label, number, values)
    except pyarrow.ArrowException as error:
        raise DataError(f"{label} is no Parquet file that can be read ({error}).") from error
