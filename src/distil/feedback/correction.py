"""A person's (or a program's) corrections: what the answer should have been, problem by problem.

    DistILTrainer(..., feedback_funcs=[mine, corrections("corrections.jsonl")])   # or a function

`corrections` makes the feedback function; `correction` is the source that shows what it finds. Of
several corrections of a problem, the newest counts, unless one was written for this very attempt
(the same completion, letter by letter): then that one does.
A file is read again for every batch of rollouts, by the main process, which tells the others: all
have the same corrections at a step, and what is typed while a step runs counts from the next one.
So a resumed run repeats a step bit for bit only if the file is as it was; rollouts.jsonl has the
words that each rollout's teacher was shown.
"""

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from distil.errors import FeedbackError
from distil.feedback.correctionfile import Correction, Parsed, parse, problem_key
from distil.feedback.said import first_demonstration
from distil.feedback.sibling import SiblingChoice
from distil.recipe.ownfunctions import own_function
from distil.types import (
    Feedback,
    Prompt,
    Rollout,
    TeacherContext,
    completion_text,
    without_halves,
)

Corrector: TypeAlias = Callable[[str, Prompt, str], str | None]
"""(problem's key, prompt, attempt) -> the correction, None without one."""

FromMain: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Calls a function on the main process, and returns on all of them what it returned there."""

MOST_FAULTS_SHOWN = 5

log = logging.getLogger(__name__)


def correction(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """The demonstration whose `Feedback.source` is "correction", for success and failure alike."""
    words = first_demonstration(group[index], "correction")
    return None if words is None else TeacherContext("correction", demonstration=words)


def corrections(
    source: str | Path | Corrector, *, must_exist: bool = True
) -> "CorrectionFile | CorrectionFunction":
    """A feedback function out of a JSONL file (`distil.feedback.correctionfile`), a function of
    (problem's key, prompt, attempt), or the path of one, "my_file.py:my_function".

    must_exist: False allows a file that isn't there yet. Raises FeedbackError for a file that can't
    be read or has a malformed line, and for a path that leads to no function.
    """
    if isinstance(source, str) and ".py:" in source:
        function = own_function(
            source, "Corrections come from", "It must take (problem, prompt, attempt) and return "
            "the correction's text, or None.", FeedbackError,
        )  # fmt: skip
        return CorrectionFunction(function)
    if isinstance(source, str | Path):
        return CorrectionFile(source, must_exist=must_exist)
    return CorrectionFunction(source)


class CorrectionFunction:
    """The feedback function that asks a `Corrector` about each rollout, on its own process."""

    def __init__(self, function: Corrector) -> None:
        self._function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any
    ) -> list[Feedback | None]:
        """One Feedback a completion, None where the function has no correction."""
        keys = _keys(prompts, columns)
        rows = zip(keys, prompts, completions, strict=True)
        return [_said(self._function(k, p, completion_text(c))) for k, p, c in rows]


class CorrectionFile:
    """The feedback function that looks corrections up in a file, as it was at `refresh`."""

    __name__ = "corrections"

    def __init__(self, file: str | Path, *, must_exist: bool) -> None:
        self._file = Path(file)
        self._content: bytes | None = None
        self._told = False
        """Whether the main process has told the others anything yet."""
        self._reported: set[tuple[int, str]] = set()
        self._take(self._read_strictly() if must_exist or self._file.exists() else Parsed())

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any
    ) -> list[Feedback | None]:
        """One Feedback a completion, None where the file has no correction of its problem."""
        pairs = zip(_keys(prompts, columns), completions, strict=True)
        return [_said(self._correction_of(key, completion_text(c))) for key, c in pairs]

    @property
    def problems(self) -> int:
        """How many problems have a correction."""
        return len(self._found)

    @property
    def unread(self) -> int:
        """How many lines couldn't be read at the last refresh, a torn one included."""
        return len(self._parsed.malformed) + (self._parsed.torn is not None)

    def refresh(self, from_main: FromMain = lambda read: read()) -> None:
        """Reads the file again, if it has changed, on the main process alone; never raises.

        A torn last line waits for its end (a person may be writing it). A malformed line is passed
        over, counted, and logged once. While the file can't be read, the last reading stands.
        """
        changed = from_main(self._read_leniently)
        if changed is not None:
            self._take(changed)

    def _read_strictly(self) -> Parsed:
        """Raises FeedbackError with every line that can't be read."""
        try:
            self._content = self._file.read_bytes()
        except OSError as error:
            raise FeedbackError(
                f"The corrections {str(self._file)!r} can't be read: {error.strerror}."
            ) from error
        parsed = parse(self._content)
        faults = [*parsed.malformed, *([parsed.torn] if parsed.torn else [])]
        if faults:
            told = [f"  line {n}: {fault}" for n, fault in faults[:MOST_FAULTS_SHOWN]]
            more = len(faults) - len(told)
            raise FeedbackError(
                f"The corrections {str(self._file)!r} can't be used:\n"
                + "\n".join([*told, *([f"  and {more} more lines"] if more else [])])
                + "\nMend these lines or delete them, then start again."
            )
        return parsed

    def _read_leniently(self) -> Parsed | None:
        """What the file says now; None if the other processes know it already."""
        untold, self._told = not self._told, True
        try:
            content = self._file.read_bytes()
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            if not missing or self._content is not None:  # else nobody has corrected anything yet
                fault = f"the file can't be read ({error.strerror}). What it said last still counts"
                self._report(0, fault)
            return self._parsed if untold else None
        if content == self._content:
            return self._parsed if untold else None
        self._content = content
        parsed = parse(content)
        for number, fault in parsed.malformed:
            self._report(number, f"line {number}: {fault}. It is passed over until it is mended")
        return parsed

    def _report(self, number: int, fault: str) -> None:
        """Logs a fault, once."""
        if (number, fault) not in self._reported:
            self._reported.add((number, fault))
            log.warning("Corrections %s, %s.", self._file, fault)

    def _take(self, parsed: Parsed) -> None:
        self._parsed = parsed
        self._found: dict[str, list[Correction]] = {}
        for row in parsed.rows:
            self._found.setdefault(row.problem, []).append(row)

    def _correction_of(self, problem: str, attempt: str) -> str | None:
        newest_first = self._found.get(problem, [])[::-1]
        of_this = (row.text for row in newest_first if row.attempt == attempt)
        return next(of_this, newest_first[0].text if newest_first else None)


def _keys(prompts: Sequence[Prompt], columns: dict[str, Any]) -> list[str]:
    names = columns.get("problem_id", [None] * len(prompts))
    return [problem_key(prompt, name) for prompt, name in zip(prompts, names, strict=True)]


def _said(text: str | None) -> Feedback | None:
    if text is not None and not isinstance(text, str):
        raise TypeError(f"a correction is a {type(text).__name__}, and must be a text or None")
    return Feedback(demonstration=without_halves(text), source="correction") if text else None
