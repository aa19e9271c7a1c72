"""The figures of an evaluation, from its attempts alone: avg@n, pass@k, maj@k, lengths, rates.

Intervals are 95% bootstrap intervals over *problems* (samples of one problem aren't independent);
two evaluations are compared problem by problem. Nothing here needs torch, a model or a task.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb
from statistics import fmean

import numpy as np

from distil.figures.figurenames import figure_ks, figure_names
from distil.types import succeeds

BOOTSTRAP_DRAWS = 10_000
DRAWN_AT_ONCE = 1_000_000
"""Indices of the bootstrap held in memory at a time."""

Figures = dict[str, list[float]]
"""A figure's name -> its value for each problem."""


@dataclass(frozen=True)
class Attempt:
    """One sampled completion and its verdict; `tokens` counts the end-of-text token too.

    truncated: it came to the token limit without an end; None in files from before it was noted.
    """

    problem: str
    completion: str
    answer: str | None
    reward: float | None
    tokens: int
    truncated: bool | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that k of n samples hold a correct one, unbiased.

    Raises ValueError unless 1 <= k <= n and 0 <= c <= n. Source: Chen et al. 2021, section 2.1.
    """
    if not (1 <= k <= samples and 0 <= correct <= samples):
        raise ValueError(
            f"pass@{k} of {samples} samples with {correct} correct: k must lie in 1..n, and the "
            "correct ones in 0..n."
        )
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Chance that the commonest answer among k of the n samples, drawn evenly, is correct.

    Equals the mean over all C(n, k) subsets. Ties are shared; None is no answer, and a subset of
    Nones counts as wrong. An answer whose samples were judged differently counts as correct by
    their share. Raises ValueError unless 1 <= k <= n.
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"maj@{k} of {len(answers)} samples: k must lie in 1..n.")
    right: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for answer, verdict in zip(answers, correct, strict=True):
        if answer is not None:
            counts[answer] += 1
            right[answer] += verdict
    chance = 0.0
    for answer, count in counts.items():
        if right[answer]:
            others = sorted(c for a, c in counts.items() if a != answer)
            won = _chance_to_win(count, tuple(others), len(answers) - counts.total(), k)
            chance += right[answer] / count * won
    return chance


@lru_cache(maxsize=100_000)
def _chance_to_win(own: int, others: tuple[int, ...], nones: int, k: int) -> float:
    """Expected share of the majority of an answer that `own` of the samples gave.

    The subsets in which it is drawn t times, no other answer oftener, and s others as often, are
    counted by the coefficients of x^(k-t) y^s in
        C(own, t) (1 + x)^nones prod_others (sum_{i<t} C(c, i) x^i + C(c, t) x^t y).
    """
    total = Fraction(0)
    for t in range(1, min(own, k) + 1):
        ways = {(drawn, 0): comb(nones, drawn) for drawn in range(min(nones, k - t) + 1)}
        for count in others:
            grown: dict[tuple[int, int], int] = {}
            for (drawn, tied), number in ways.items():
                for i in range(min(t, count, k - t - drawn) + 1):
                    key = (drawn + i, tied + (i == t))
                    grown[key] = grown.get(key, 0) + number * comb(count, i)
            ways = grown
        whole = ((tied, number) for (drawn, tied), number in ways.items() if drawn == k - t)
        total += comb(own, t) * sum(Fraction(number, tied + 1) for tied, number in whole)
    return float(total / comb(own + sum(others) + nones, k))


def mean_interval(values: Sequence[float], draws: int = BOOTSTRAP_DRAWS) -> Estimate:
    """Mean of per-problem values with its 95% percentile bootstrap interval (fixed seed)."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("No problems to average over: the interval of nothing isn't defined.")
    generator = np.random.default_rng(0)
    rows = max(1, DRAWN_AT_ONCE // array.size)
    resampled = [
        array[generator.integers(0, array.size, (min(rows, draws - done), array.size))].mean(1)
        for done in range(0, draws, rows)
    ]
    low, high = np.percentile(np.concatenate(resampled), [2.5, 97.5])
    return Estimate(float(array.mean()), float(low), float(high))


def by_problem(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    """Problem -> its attempts, problems in order of appearance."""
    grouped: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        grouped.setdefault(attempt.problem, []).append(attempt)
    return grouped


def samples_of(attempts: Sequence[Attempt]) -> int:
    """n, the attempts at each problem; the fewest, where an evaluation isn't finished."""
    return min(len(group) for group in by_problem(attempts).values())


def summarise(attempts: Sequence[Attempt], ks: Sequence[int] = ()) -> Figures:
    """Per-problem values of avg@n, pass@k and maj@k, problems in order of appearance.

    Ungraded attempts count as failures here, and are counted apart by `count_ungraded`. Without
    `ks`, k runs over the powers of two up to n, and n; a k above n is passed over.
    """
    grouped = by_problem(attempts)
    n = samples_of(attempts)
    figures: Figures = {name: [] for name in figure_names(n, ks)}
    for group in grouped.values():
        correct = [succeeds(a.reward) for a in group]
        answers = [a.answer for a in group]
        figures[f"avg@{n}"].append(sum(correct) / len(correct))
        for k in figure_ks(n, ks):
            figures[f"pass@{k}"].append(pass_at_k(len(group), sum(correct), k))
            if k > 1:
                figures[f"maj@{k}"].append(maj_at_k(answers, correct, k))
    return figures


def lengths_and_rates(attempts: Sequence[Attempt]) -> Figures:
    """Per-problem mean tokens, share truncated, and share with an answer that could be read.

    "truncated" is missing where it isn't known of every attempt.
    """
    found: Figures = {"tokens": [], "truncated": [], "format": []}
    for group in by_problem(attempts).values():
        n = len(group)
        found["tokens"].append(sum(a.tokens for a in group) / n)
        found["truncated"].append(sum(bool(a.truncated) for a in group) / n)
        found["format"].append(sum(a.answer is not None for a in group) / n)
    if any(a.truncated is None for a in attempts):
        del found["truncated"]
    return found


def truncated_tokens(attempts: Sequence[Attempt]) -> float | None:
    """Mean tokens of the truncated attempts; None where there is none."""
    cut = [a.tokens for a in attempts if a.truncated]
    return sum(cut) / len(cut) if cut else None


def count_ungraded(attempts: Sequence[Attempt]) -> int:
    """Attempts that the task couldn't judge."""
    return sum(a.reward is None for a in attempts)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Mean of after - before over the same problems, in the same order, with its interval."""
    if len(before) != len(after):
        raise ValueError(
            f"{len(before)} problems before and {len(after)} after: a paired comparison needs the "
            "same problems on both sides."
        )
    return mean_interval([b - a for a, b in zip(before, after, strict=True)])


def means(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Each figure's mean over problems."""
    return {name: fmean(values) for name, values in figures.items()}
