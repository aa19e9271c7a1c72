"""Every rollout of a run, looked at once: what it's about, and how striking its tokens are.

A line is parsed and forgotten; what stays is some hundred bytes and where it lies in its file, so
that a run's gigabytes needn't fit into memory. Left out: which are shown (`distil.report.pack`).
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from distil.errors import RunError
from distil.types import succeeds

PREVIEW = 90
"""Characters of a completion that a table shows."""


@dataclass(frozen=True)
class Striking:
    """What stands out among a rollout's active tokens; `..._at`: the token's place.

    cost: the mean, nats. peak: the highest cost. credit: the one furthest from 0.
    doubt: how sure the teacher was of what the verdict says is wrong (`teacher_doubt`).
    """

    cost: float
    peak: float
    peak_at: int
    credit: float
    credit_at: int
    doubt: float | None
    doubt_at: int


@dataclass(frozen=True)
class Entry:
    """One rollout. It lies at `offset` of `file`, `size` bytes long; `bare` without its tokens."""

    file: Path
    offset: int
    size: int
    bare: int
    step: int
    row: int
    group: int
    problem: str
    reward: float | None
    context: str | None
    preview: str
    striking: Striking | None

    def record(self) -> dict[str, Any]:
        """The whole of it, read again."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            found: dict[str, Any] = json.loads(file.read(self.size))
        return found


def scan(files: Sequence[Path]) -> list[Entry]:
    """An entry a rollout, in the order of the files; half a last line is being written.

    Raises RunError for a line that is no rollout.
    """
    return [entry for file in files for entry in _entries(file)]


def _entries(file: Path) -> Iterator[Entry]:
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):
                try:
                    yield _entry(file, offset, len(line), json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise RunError(
                        f"{file}, line {number}, is no rollout of this version of distil "
                        f"({type(error).__name__}: {error}). Remove the line to go on without it."
                    ) from error
            offset += len(line)


def _entry(file: Path, offset: int, size: int, record: dict[str, Any]) -> Entry:
    tokens = record.pop("tokens", None)
    bare = size if tokens is None else len(json.dumps(record, ensure_ascii=False).encode())
    text = " ".join(record["completion"].split())
    return Entry(
        file, offset, size, bare, record["step"], record["row"], record["group"],
        record["problem"], record["reward"], record["context"],
        text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…",
        striking(tokens, record["reward"]) if tokens else None,
    )  # fmt: skip


def striking(tokens: dict[str, Any], reward: float | None) -> Striking | None:
    """What stands out; None where no token is active, or one isn't a finite number."""
    active = [i for i, on in enumerate(tokens["mask"]) if on]
    costs = {i: tokens["cost"][i] for i in active}
    credits = {i: tokens["credit"][i] for i in active}
    logps = [tokens["logp"][i] for i in active]
    if not active or None in [*costs.values(), *credits.values(), *logps]:
        return None
    peak_at = max(active, key=lambda i: costs[i])
    credit_at = max(active, key=lambda i: abs(credits[i]))
    doubt, doubt_at = teacher_doubt(tokens, active, reward)
    return Striking(
        round(fmean(costs.values()), 4), costs[peak_at], peak_at,
        credits[credit_at], credit_at, doubt, doubt_at,
    )  # fmt: skip


def teacher_doubt(
    tokens: dict[str, Any], active: Sequence[int], reward: float | None
) -> tuple[float | None, int]:
    """(how confident the teacher is, and wrong, from 0 to 1; the token that shows it).

    In a rollout that failed: exp(mean log teacher(y_t)), the teacher's mean probability of an
    answer that is wrong, shown at the token that it finds likeliest of those the student doubted
    most. In one that succeeded: the highest teacher(a) student(y_t) over its tokens, a being the
    teacher's likeliest where that is another: both were sure, and the student was right. None where
    nobody graded it, or the teacher says no probabilities.
    """
    if reward is None:
        return None, active[0]
    if succeeds(reward):
        against = {
            i: tokens["teacher_top"][i][0][1] * math.exp(tokens["logp"][i])
            for i in active
            if tokens["teacher_top"][i] and tokens["teacher_top"][i][0][0] != tokens["text"][i]
        }
        at = max(against, key=lambda i: against[i], default=active[0])
        return round(against.get(at, 0.0), 4), at
    said = tokens.get("teacher_logp")
    if said is None or any(said[i] is None for i in active):
        return None, active[0]
    at = max(active, key=lambda i: said[i] - tokens["logp"][i])
    return round(math.exp(fmean(said[i] for i in active)), 4), at
