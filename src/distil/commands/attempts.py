"""The failed attempts of a run, from its files of rollouts, also while the run is writing them.

Left out: what anybody thinks of them (`distil.commands.correct`).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.errors import RunError, perhaps
from distil.runs.folder import ROLLOUTS_FILE, rollout_files
from distil.types import Prompt, succeeds


@dataclass(frozen=True)
class FailedAttempt:
    """A rollout without success. said: (who, what) of every report on it."""

    problem: str
    prompt: Prompt
    completion: str
    reward: float | None
    said: tuple[tuple[str, str], ...]
    step: int


def failed_attempts(folder: Path) -> list[FailedAttempt]:
    """A run's failed attempts, newest first, those in rollouts-old.jsonl included.

    Half a last line is being written, and left alone. Raises RunError if there are no rollouts, or
    a line is none.
    """
    files = rollout_files(folder)
    if not files:
        raise RunError(
            f"There is no {ROLLOUTS_FILE} in {folder}: it is no run's folder, or no step of the "
            "run is over yet."
        )
    return [attempt for file in files for attempt in _failed(file)][::-1]


def selected(
    attempts: Sequence[FailedAttempt],
    corrected: Iterable[str],
    *,
    problem: str,
    every: bool,
    limit: int,
) -> list[FailedAttempt]:
    """Which ones to show: each problem's newest, of problems that nobody has corrected yet.

    problem: only this one's, corrected or not ("": any). every: all attempts at all problems, equal
    ones once. limit: at most so many (0: all). Raises RunError for a problem without any.
    """
    known = {a.problem for a in attempts}
    if problem and problem not in known:
        raise RunError(f"No attempt at problem {problem!r} has failed.{perhaps(problem, known)}")
    done = set() if every or problem else set(corrected)
    chosen: list[FailedAttempt] = []
    seen: set[tuple[str, str]] = set()
    for attempt in attempts:
        key = (attempt.problem, attempt.completion if every else "")
        if attempt.problem in done or key in seen or problem not in ("", attempt.problem):
            continue
        seen.add(key)
        chosen.append(attempt)
    return chosen[:limit] if limit else chosen


def _failed(file: Path) -> Iterator[FailedAttempt]:
    """Those of one file, in its order. By bytes and "\\n" only: text may hold U+2028."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"{file} can't be read ({error.strerror}). Try again.") from error
    whole = content.split(b"\n")[:-1]  # behind the last line's end: nothing, or half one
    for number, line in enumerate(whole, start=1):
        try:
            record = json.loads(line)
            if not succeeds(record["reward"]):
                yield _attempt(record)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{file}, line {number}, is no rollout of this version of distil "
                f"({type(error).__name__}: {error}). Remove the line to go on without it."
            ) from error


def _attempt(record: dict[str, Any]) -> FailedAttempt:
    return FailedAttempt(
        record["problem"],
        record["prompt"],
        record["completion"],
        record["reward"],
        tuple((f["source"], f["text"]) for f in record["feedback"] if f["text"]),
        record["step"],
    )
