"""Student's t over training seeds, and the choice of a learning rate. Exact, without scipy.

Intervals are over seeds on the same problems: they cover the luck of training, not of the problems.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean over n values and its 95% interval; low and high are None for one value."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def text(self, *, signed: bool = False) -> str:
        """'0.512 [0.401, 0.623]', '0.512 (one seed)'."""
        form = "+.3f" if signed else ".3f"
        if self.low is None or self.high is None:
            return f"{self.mean:{form}} (one seed)"
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def t_interval(values: Sequence[float]) -> Interval:
    """mean -+ t(0.975, n-1) s / sqrt(n), s the sample's standard deviation (n - 1 below).

    Raises ValueError if there are no values.
    """
    if not values:
        raise ValueError("There are no values, and the interval of nothing isn't defined.")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = t_quantile(n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired(ours: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """The interval of ours - reference over the seeds that both have; None if there is none."""
    shared = sorted(set(ours) & set(reference))
    return t_interval([ours[s] - reference[s] for s in shared]) if shared else None


def t_quantile(freedom: int, coverage: float = 0.95) -> float:
    """t with P(|T| <= t) = coverage for T of `freedom` degrees, to 1e-9; by bisection."""
    low, high = 0.0, 1.0
    while t_coverage(high, freedom) < coverage:
        high *= 2
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if t_coverage(middle, freedom) < coverage else (low, middle)
    return (low + high) / 2


def t_coverage(t: float, freedom: int) -> float:
    """P(|T| <= t), with a = atan(t / sqrt(f)) and f degrees of freedom.

    f odd:  2/pi (a + sin a (cos a + 2/3 cos^3 a + ... up to cos^(f-2) a))
    f even: sin a (1 + 1/2 cos^2 a + 3/8 cos^4 a + ... up to cos^(f-2) a)
    Source: Abramowitz and Stegun 26.7.3 and 26.7.4. Raises ValueError if f < 1.
    """
    if freedom < 1:
        raise ValueError(f"Student's t has at least 1 degree of freedom, got {freedom}.")
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


@dataclass(frozen=True)
class Choice:
    """A contender's learning rate; `how`: tuned, tuned at the grid's edge, fixed or given.

    `means`: each rate's mean over the tuning seeds, None where a run of it failed. `rate` is None
    if every rate failed.
    """

    rate: float | None
    how: str
    means: Mapping[float, float | None]


def choose_rate(finals: Mapping[float, Sequence[float | None]]) -> Choice:
    """The rate whose final figure is best on average over tuning seeds; ties go to the smaller.

    finals: rate -> one final figure a seed, None for a failed run, which rules its rate out.
    """
    means = {
        rate: None if None in values else statistics.fmean(v for v in values if v is not None)
        for rate, values in sorted(finals.items())
    }
    standing = {rate: mean for rate, mean in means.items() if mean is not None}
    if not standing:
        return Choice(None, "every rate failed", means)
    best = max(standing.values())
    rate = min(r for r, mean in standing.items() if mean == best)
    edge = rate in (min(finals), max(finals))
    return Choice(rate, "tuned, at the grid's edge" if edge else "tuned", means)
