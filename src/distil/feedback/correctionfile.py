"""Corrections as a file: one JSON object a line, appended by hand, program or `distil correct`.

    {"problem_id": "sum-7", "correction": "...", "attempt": "...", "by": "...", "at": "..."}
    {"prompt": "What is 2 + 3?", "correction": "..."}

`problem_id` is the dataset's column of that name; a dataset without one is named by the prompt
itself, a text or a list of messages. `attempt` (the completion that was corrected), `by` and `at`
are optional. Left out: who reads the file, and when (`distil.feedback.correction`).
"""

import errno
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.errors import FeedbackError
from distil.types import Prompt

CORRECTIONS_FILE = "corrections.jsonl"
FIELDS = ("problem_id", "prompt", "correction", "attempt", "by", "at")


@dataclass(frozen=True)
class Correction:
    """One line: `problem` is `problem_key` of what it corrects."""

    problem: str
    text: str
    attempt: str | None = None


@dataclass(frozen=True)
class Parsed:
    """A file's contents: its rows, oldest first, and what is wrong with other lines.

    malformed: line number -> fault; torn: the fault of a last line that has no end yet.
    """

    rows: tuple[Correction, ...] = ()
    malformed: tuple[tuple[int, str], ...] = ()
    torn: tuple[int, str] | None = None


def problem_key(prompt: Prompt, problem_id: Any = None) -> str:
    """What a problem's corrections are found by: its id, else a digest of its prompt.

    A text and a conversation of that one user message are the same prompt.
    """
    if problem_id is not None:
        return str(problem_id)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    words = json.dumps([[m["role"], m.get("content")] for m in messages], ensure_ascii=False)
    return "prompt:" + hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def parse(content: bytes) -> Parsed:
    """Reads a file's bytes line by line; blank lines are nothing.

    A last line without its newline counts if it is whole; else it is torn: being written, maybe.
    """
    rows: list[Correction] = []
    malformed: list[tuple[int, str]] = []
    lines = content.split(b"\n")  # never at U+2028, which text may hold
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line))
        except ValueError as fault:
            if number == len(lines):
                return Parsed(tuple(rows), tuple(malformed), (number, str(fault)))
            malformed.append((number, str(fault)))
    return Parsed(tuple(rows), tuple(malformed))


def append(file: Path, row: dict[str, Any]) -> None:
    """Adds one row, on the disk when this returns, whole or not at all; others may append too.

    Raises FeedbackError for a row that could not be read back, for a file that ends in half a line
    (the new row would be lost in it), and where the file can't be written.
    """
    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    if fault := parse(line).malformed:
        raise FeedbackError(f"This correction can't be stored: {fault[0][1]}.")
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = _ended_size(file, descriptor)
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # gives the lock back too
    except OSError as error:
        raise FeedbackError(
            f"The correction can't be written to {file} ({error.strerror}). Nothing of it was "
            "stored; mend that and type it again."
        ) from error


def _ended_size(file: Path, descriptor: int) -> int:
    """The file's size in bytes. Raises FeedbackError if its last line has no end."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        raise FeedbackError(
            f"{file} ends in a line without a newline, in which the next row would be lost. End or "
            "delete that line."
        )
    return size


def _row(line: bytes) -> Correction:
    """One line as a Correction. Raises ValueError with the fault."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError("it is no UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError('it is no JSON object such as {"problem_id": "7", "correction": "..."}')
    if unknown := [name for name in row if name not in FIELDS]:
        raise ValueError(f"unknown field {unknown[0]!r}; known: {', '.join(FIELDS)}")
    text, attempt = row.get("correction"), row.get("attempt")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("'correction' must be a text that isn't empty")
    if attempt is not None and not isinstance(attempt, str):
        raise ValueError("'attempt' must be a text, the whole completion that was corrected")
    return Correction(_key_of(row), text, attempt)


def _key_of(row: dict[str, Any]) -> str:
    name, prompt = row.get("problem_id"), row.get("prompt")
    if (name is None) == (prompt is None):
        raise ValueError("it must have 'problem_id', or else 'prompt'")
    if name is not None:
        if isinstance(name, bool | dict | list):
            raise ValueError("'problem_id' must be a text or a number")
        return problem_key("", name)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
        raise ValueError("'prompt' must be a text, or a list of messages with role and content")
    return problem_key(messages)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(field), str) for field in ("role", "content")
    )
