"""A file of problems, one JSON object a line, read and checked row by row (`distil.tasks.table`).

Left out: which rows are trained on and which are held out.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from distil.errors import TaskError
from distil.tasks.kinds import Fault, Kind
from distil.types import Problem

FIELDS = ("question", "answer", "id", "solution", "hint", "split")
SPLITS = ("train", "validation", "test")


class Rows:
    """A file's `problems`, and of each the `splits` entry (a name in SPLITS, or None).

    Raises TaskError, naming file, line and field, for anything that can't be a problem, for two
    problems with one id or one question, for an answer that the check itself wouldn't give full
    marks, and where some rows have a split and others none.
    """

    def __init__(self, file: str, kind: Kind) -> None:
        self._file, self._kind = file, kind
        rows = _rows(Path(file))
        self._lines = [line for line, _ in rows]
        self.problems = [self._problem(line, row) for line, row in rows]
        self.splits: list[str | None] = [row.get("split") for _, row in rows]
        self._check_splits()
        self._check_distinct()
        self._check_gold()

    def _problem(self, line: int, row: Mapping[str, Any]) -> Problem:
        known = (*FIELDS, *self._kind.fields)
        for name in row:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            if name not in known and near and near[0] not in row:
                self._refuse(line, name, f"isn't known. Perhaps you meant {near[0]!r}.")
        for name in (n for n in known if n in row and n != "tests"):  # a program may be fed any
            self._check_characters(line, name, row[name])
        question = self._text(line, row, "question")
        answer = None
        if self._kind.needs_answer or row.get("answer") is not None:
            answer = self._text(line, row, "answer")
        solution = self._text(line, row, "solution") if row.get("solution") is not None else None
        hint = {"hint": self._text(line, row, "hint")} if row.get("hint") is not None else {}
        name = self._text(line, row, "id") if row.get("id") is not None else str(line)
        if row.get("split") not in (None, *SPLITS):
            self._refuse(
                line, "split", f"is {row['split']!r}. Make it 'train', 'validation' or 'test'."
            )
        try:
            question, data = self._kind.row(question, answer or "", row)
        except Fault as fault:
            self._refuse(line, fault.field, str(fault))
        return Problem(name, question, answer, {"solution": solution, **hint, **data})

    def _text(self, line: int, row: Mapping[str, Any], field: str) -> str:
        """A field as text; a number is one too, but for the question and the solution."""
        value = row.get(field)
        if type(value) in (int, float) and field in ("answer", "id"):
            value = str(value)
        if field not in row:
            self._refuse(line, field, f"is missing. The row has {', '.join(row) or 'no fields'}.")
        if not isinstance(value, str) or not value.strip():
            self._refuse(line, field, f"is {value!r}. Make it a text that isn't blank.")
        return value

    def _check_characters(self, line: int, field: str, value: Any) -> None:
        """JSON's \\ud800 alone is half a character, which no tokenizer takes."""
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            self._refuse(
                line,
                field,
                f"has {half}, half of a character (a lone surrogate), which is no text. Write the "
                "whole character, or take it out.",
            )

    def _check_splits(self) -> None:
        if None in self.splits and set(self.splits) != {None}:
            raise TaskError(
                f"{self._file}: {self.splits.count(None)} of {len(self.splits)} rows have no "
                "'split'. Give every row one ('train', 'validation' or 'test'), or none."
            )

    def _check_distinct(self) -> None:
        parts: dict[str, Callable[[Problem], str]] = {
            "id": lambda p: p.id,
            "question": lambda p: p.question,
        }
        for field, part in parts.items():
            seen: dict[str, int] = {}
            for line, problem in zip(self._lines, self.problems, strict=True):
                before = seen.setdefault(part(problem), line)
                if before != line:
                    self._refuse(line, field, f"is that of line {before}. Take one of them out.")

    def _check_gold(self) -> None:
        """A grader must give its own gold answers full marks."""
        pairs = zip(self._lines, self.problems, strict=True)
        known = [(line, problem) for line, problem in pairs if problem.answer is not None]
        verdicts = self._kind.check_gold([p for _, p in known])
        for (line, problem), verdict in zip(known, verdicts, strict=True):
            if verdict.reward != 1:
                self._refuse(
                    line,
                    "answer",
                    f"is {problem.answer!r}, and wouldn't get full marks itself: {verdict.text} "
                    "Mend it, or set another task.check or task.extract.",
                )

    def _refuse(self, line: int, field: str, fault: str) -> NoReturn:
        raise TaskError(f"{self._file}, line {line}: the field {field!r} {fault}")


def parse_json(text: str) -> Any:
    """JSON, without the NaN and Infinity that Python lets through. Raises ValueError."""

    def no_number(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON's")

    try:
        return json.loads(text, parse_constant=no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that isn't blank. Raises TaskError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TaskError(
            f"The problems {str(file)!r} can't be read: {error.strerror}. A path is taken from the "
            f"folder that the command runs in, {str(Path.cwd())!r}."
        ) from error
    except UnicodeDecodeError as error:
        raise TaskError(f"The problems {str(file)!r} are no UTF-8 text: {error}.") from error
    rows = [
        (line, _object(file, line, content))
        for line, content in enumerate(text.split("\n"), start=1)
        if content.strip()
    ]
    if not rows:
        raise TaskError(f"The problems {str(file)!r} have no rows. Write one JSON object a line.")
    return rows


def _object(file: Path, line: int, content: str) -> dict[str, Any]:
    try:
        row = parse_json(content)
    except ValueError as error:
        raise TaskError(
            f"{file}, line {line}: no valid JSON ({error}). Write one object a line."
        ) from error
    if not isinstance(row, dict):
        raise TaskError(
            f"{file}, line {line}: {content.strip()[:60]} is no object. Write one, such as "
            '{"question": "...", "answer": "..."}.'
        )
    return row
