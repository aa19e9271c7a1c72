"""Your own problems, one JSON object a line: task.name: path/to/problems.jsonl, task.check: math.

    {"question": "What is 1/2 + 1/3?", "answer": "5/6", "solution": "3/6 + 2/6 = 5/6."}

Fields: question, answer (text or a number), and optional: id (else the line's number), solution (a
worked one, the demonstration in the answer's place), hint (told below the report on a failed
attempt), split (train or test, in every row or none), and what the check wants (choices, tests;
with tests, the answer is optional). Other fields are left alone, unless they look like a typo.
Without a split column the rows are shuffled and split as task.seed decides.
Left out: how an answer is judged (`distil.tasks.kinds`).
"""

import difflib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from distil.config import TaskConfig
from distil.errors import TaskError, perhaps
from distil.feedback.answers import HINT
from distil.tasks.kinds import KINDS, Fault, Kind
from distil.types import SUCCESS_REWARD, Feedback, Problem

FIELDS = ("question", "answer", "id", "solution", "hint", "split")
SPLITS = ("train", "test")


class TableTask:
    """A file of problems as a Task.

    Raises TaskError, naming file, line and field, for anything that can't be a problem, for two
    problems with one id or one question, for an answer that the check itself wouldn't give full
    marks, and where there are fewer rows than the recipe asks for.
    """

    def __init__(self, config: TaskConfig) -> None:
        self.instruction = config.instruction
        self._file = config.name
        self._kind = _kind(config)
        rows = [(line, row) for line, row in _rows(Path(config.name))]
        problems = [self._problem(line, row) for line, row in rows]
        lines = [line for line, _ in rows]
        self._check_distinct(lines, problems)
        self._check_gold(lines, problems)
        self.train, self.heldout = _split(problems, [row.get("split") for _, row in rows], config)

    def check(self, problem: Problem, completion: str) -> Feedback:
        """The verdict of the recipe's check."""
        return self.check_all([problem], [completion])[0]

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """The verdicts of the recipe's check; a failed attempt's report ends in the row's hint."""
        verdicts = self._kind.check_all(problems, completions)
        return [_hinted(p, verdict) for p, verdict in zip(problems, verdicts, strict=True)]

    def facts(self) -> dict[str, Any]:
        """What a run's folder should say about how answers were judged here."""
        return self._kind.facts()

    def read(self, completion: str) -> str | None:
        """What counts as the completion's answer."""
        return self._kind.read(completion)

    def _problem(self, line: int, row: Mapping[str, Any]) -> Problem:
        known = (*FIELDS, *self._kind.fields)
        for name in row:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            if name not in known and near and near[0] not in row:
                self._refuse(line, name, f"isn't known. Perhaps you meant {near[0]!r}.")
        question = self._text(line, row, "question")
        answer = None
        if self._kind.needs_answer or row.get("answer") is not None:
            answer = self._text(line, row, "answer")
        solution = self._text(line, row, "solution") if row.get("solution") is not None else None
        hint = {"hint": self._text(line, row, "hint")} if row.get("hint") is not None else {}
        name = self._text(line, row, "id") if row.get("id") is not None else str(line)
        if row.get("split") not in (None, *SPLITS):
            self._refuse(line, "split", f"is {row['split']!r}. Make it 'train' or 'test'.")
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

    def _check_distinct(self, lines: Sequence[int], problems: Sequence[Problem]) -> None:
        parts: dict[str, Callable[[Problem], str]] = {
            "id": lambda p: p.id,
            "question": lambda p: p.question,
        }
        for field, part in parts.items():
            seen: dict[str, int] = {}
            for line, problem in zip(lines, problems, strict=True):
                before = seen.setdefault(part(problem), line)
                if before != line:
                    self._refuse(line, field, f"is that of line {before}. Take one of them out.")

    def _check_gold(self, lines: Sequence[int], problems: Sequence[Problem]) -> None:
        """A grader must give its own gold answers full marks."""
        known = [(n, p) for n, p in zip(lines, problems, strict=True) if p.answer is not None]
        written = [self._kind.written(p) for _, p in known]
        verdicts = self._kind.check_all([p for _, p in known], written)
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


def _hinted(problem: Problem, verdict: Feedback) -> Feedback:
    hint = problem.data.get("hint")
    if hint is None or verdict.reward is None or verdict.reward >= SUCCESS_REWARD:
        return verdict
    said = [verdict.text] if verdict.text else []
    return replace(verdict, text="\n\n".join([*said, HINT.format(hint=hint)]))


def _kind(config: TaskConfig) -> Kind:
    """The recipe's judge, its options checked."""
    if config.check is None:
        raise TaskError(
            f"task.check isn't set, and it says how the answers of {config.name!r} are judged. "
            f"Set it to one of {', '.join(KINDS)}."
        )
    kind = KINDS[config.check]
    for option, value in config.options.items():
        if option not in kind.options:
            raise TaskError(
                f"The check {config.check!r} has no option {option!r}."
                f"{perhaps(option, kind.options)}"
            )
        if type(value) not in kind.options[option] or not float(value) >= 0:
            wanted = "true or false" if bool in kind.options[option] else "a number from 0 up"
            raise TaskError(f"The option {option!r} is {value!r}, and must be {wanted}.")
    return kind(config)


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
    def no_number(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON's")

    try:
        row = json.loads(content, parse_constant=no_number)
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


def _split(
    problems: Sequence[Problem], splits: Sequence[Any], config: TaskConfig
) -> tuple[list[Problem], list[Problem]]:
    """train_size problems to train on and eval_size held out, in an order that the seed decides."""
    if None in splits and set(splits) != {None}:
        raise TaskError(
            f"{config.name}: {splits.count(None)} of {len(splits)} rows have no 'split'. Give "
            "every row one ('train' or 'test'), or none."
        )
    shuffled = list(zip(problems, splits, strict=True))
    random.Random(f"split/table/{config.seed}").shuffle(shuffled)
    if None in splits:
        pool = [problem for problem, _ in shuffled]
        heldout, train = pool[: config.eval_size], pool[config.eval_size :]
        enough = len(pool) >= config.train_size + config.eval_size
        there = f"{len(pool)} rows"
    else:
        heldout = [problem for problem, split in shuffled if split == "test"]
        train = [problem for problem, split in shuffled if split == "train"]
        enough = len(train) >= config.train_size and len(heldout) >= config.eval_size
        there = f"{len(train)} rows to train on and {len(heldout)} to test on"
    if not enough:
        raise TaskError(
            f"{config.name} has {there}, and the recipe asks for {config.train_size} to train on "
            f"(task.train_size) and {config.eval_size} held out (task.eval_size). Lower them."
        )
    return train[: config.train_size], heldout[: config.eval_size]
