"""The account of a profile: which parts a step has, and what several steps spent on each.

Read from RUN/profile.json too, so nothing here imports torch. Left out: who measures (`parts`), and
the table that a run prints (`profiler`).
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MIB = 2**20

OTHER = "other"
JUDGING = "judging"

PARTS = {
    "sampling": "the rollouts (and a stale batch's older log-probabilities, which TRL computes)",
    "grading": "reward functions",
    "feedback": "feedback functions and critiques; who is shown what",
    "teacher": "teacher prompts, and its pass over the rollouts",
    "teacher's samples": "the teacher's own answers, where they are asked for",
    "student pre-pass": "the student before an update: baselines, older log-probabilities, support",
    "student forward": "the student's decoder",
    "output layer": "log-probabilities from hidden states, and their gradient",
    "loss": "cost, credit and loss from log-probabilities",
    "backward": "the decoder's gradient; TRL's splitting of a batch",
    "optimiser": "clipping and update",
    "EMA": "the teacher's weights",
    "logging": "metrics and rollouts, gathered and written",
    "checkpoint": "weights, optimiser and teacher, written",
    JUDGING: "evaluations between steps: no part of one",
    OTHER: "what is left: data, buffers, callbacks",
}
"""name -> what it covers, in a step's order."""


@dataclass
class Spent:
    """What a part took. peak: bytes, None where memory can't be measured. tokens: that it read."""

    seconds: float = 0.0
    peak: int | None = None
    tokens: int = 0

    def add(self, seconds: float, peak: int | None) -> None:
        """One more stretch."""
        self.seconds += seconds
        if peak is not None:
            self.peak = max(self.peak or 0, peak)


Step = dict[str, Spent]


@dataclass(frozen=True)
class Row:
    """One part over several steps. mean, median: seconds; tokens: a step's mean; peak: bytes."""

    name: str
    mean: float
    median: float
    tokens: float
    peak: int | None

    @property
    def rate(self) -> float | None:
        """Tokens a second; None for a part that reads none."""
        return self.tokens / self.mean if self.tokens and self.mean else None


def steps_of(profile: Mapping[str, Any]) -> list[Step]:
    """The steps in a profile.json; none where there is no such file (an empty mapping)."""
    return [{n: Spent(**s) for n, s in step.items()} for step in profile.get("steps", [])]


def summary(steps: Sequence[Step], parts: Iterable[str] = PARTS) -> list[Row]:
    """A row a part that took time in any step, in the parts' order; the means add up to `whole`'s.

    parts: a profile.json's own, where an earlier version of distil wrote it.
    """
    found = []
    for name in parts:
        spent = [step.get(name, Spent()) for step in steps]
        seconds = [s.seconds for s in spent]
        if any(seconds):
            peaks = [s.peak for s in spent if s.peak is not None]
            found.append(
                Row(
                    name,
                    statistics.mean(seconds),
                    statistics.median(seconds),
                    statistics.mean(s.tokens for s in spent),
                    max(peaks, default=None),
                )
            )
    return found


def whole(steps: Sequence[Step]) -> Row:
    """All parts of a step together."""
    totals = [sum(s.seconds for s in step.values()) for step in steps]
    peaks = [s.peak for step in steps for s in step.values() if s.peak is not None]
    mean, median = statistics.mean(totals), statistics.median(totals)
    return Row("whole step", mean, median, 0, max(peaks, default=None))
