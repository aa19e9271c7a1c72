"""pass@N of each objective's optimum, at equal mean reward and at equal distance from the start.

Many prompts with success rates b at the start. A policy is a rate p for each, and moves away from
the start at a price of kl(p || b) (two outcomes, nats): the KL-regularised optimum of an objective,

    max over p of  sum_x F(p_x) - price * sum_x kl(p_x || b_x)

F: reward p; log-success log p (the cross-entropy to one's own success posterior, EM); GRPO with
std 2 arcsin sqrt(p); and minus a divergence to the start's posterior t under a grader that errs at
rate e, t = b (1 - e) / (b (1 - e) + (1 - b) e): forward cross-entropy, Jensen-Shannon, reverse KL.
The price is such that the mean reward (or the KL) is the same for all; pass@N = mean 1 - (1 - p)^N.
Left out: shared parameters, except `matching`, where prompts can't be told apart at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from distil.theory.costs import Array

GRID = 1 / (1 + np.exp(-np.linspace(-12.0, 12.0, 2401)))
"""Rates that an optimum is looked for among: 0.01 apart in logits."""


def binary_kl(p: Array, b: Array) -> Array:
    """kl(p || b) of two outcomes, in nats."""
    return p * np.log(p / b) + (1 - p) * np.log((1 - p) / (1 - b))


def noisy_posterior(b: Array, error: float) -> Array:
    """P(answer right | the grader, wrong with probability `error`, passed it)."""
    return b * (1 - error) / (b * (1 - error) + (1 - b) * error)


def _jensen_shannon(p: Array, t: Array) -> Array:
    m = (p + t) / 2
    return 0.5 * (binary_kl(p, m) + binary_kl(t, m))


Gain = Callable[[Array, Array], Array]
OBJECTIVES: dict[str, Gain] = {
    "log-success (EM)": lambda p, t: np.log(p),
    "forward cross-entropy": lambda p, t: t * np.log(p) + (1 - t) * np.log(1 - p),
    "Jensen-Shannon": lambda p, t: -_jensen_shannon(p, t),
    "reverse KL": lambda p, t: -binary_kl(p, t),
    "reward, with std": lambda p, t: 2 * np.arcsin(np.sqrt(p)),
    "reward": lambda p, t: p,
}
"""F(p, t), each of [...] and [...]."""


@dataclass(frozen=True)
class Optimum:
    """An objective's best rates; [X]."""

    p: Array
    mean: float
    kl: float  # mean over prompts, nats

    def pass_at(self, n: int) -> float:
        """mean of 1 - (1 - p)^n."""
        return float((1 - (1 - self.p) ** n).mean())


def start(prompts: int = 200) -> Array:
    """Rates at the start: quantiles of normal logits about -2.5, spread 2; mean 0.16, most hard."""
    quantile = NormalDist(-2.5, 2.0).inv_cdf
    logits = np.array([quantile((i + 0.5) / prompts) for i in range(prompts)])
    return np.asarray(1 / (1 + np.exp(-logits)))


@dataclass(frozen=True)
class Landscape:
    """F and the price's kl on the grid of rates, for each prompt; [X, grid]."""

    gain: Array
    kl: Array

    def best(self, price: float) -> Optimum:
        """The optimum at this price, by trying every rate for each prompt."""
        at = (self.gain - price * self.kl).argmax(-1)
        kl = np.take_along_axis(self.kl, at[:, None], -1)
        return Optimum(GRID[at], float(GRID[at].mean()), float(kl.mean()))


def landscape(name: str, b: Array, error: float = 0.02) -> Landscape:
    """Of one of OBJECTIVES, with prompts that start at b; [X]."""
    t = noisy_posterior(b, error)[:, None]
    gain = OBJECTIVES[name](GRID[None], t)
    return Landscape(np.broadcast_to(gain, (len(b), len(GRID))), binary_kl(GRID[None], b[:, None]))


def matched(
    name: str, b: Array, goal: float, *, by: Literal["mean", "kl"] = "mean", error: float = 0.02
) -> Optimum:
    """The optimum whose mean reward, or kl, is `goal`; by bisection of the log price.

    Raises ValueError where no price gives it within 0.005 (a teacher may be too poor).
    """
    space, low, high = landscape(name, b, error), -12.0, 12.0
    for _ in range(40):
        found = space.best(np.exp((low + high) / 2))
        reached = found.mean if by == "mean" else found.kl
        if reached > goal:  # a higher price stays nearer to the start
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    if abs(reached - goal) > 0.005:
        raise ValueError(f"{name}: the {by} nearest to {goal} is {reached:.3f}.")
    return found


def matching(shares: Array, n: int, objective: str) -> dict[str, float]:
    """One policy over strategies, blind to the prompt: strategy s solves a share w_s of prompts.

    log-success: max sum_s w_s log pi_s, so pi = w. reward: max sum_s w_s pi_s, all on the largest.
    """
    pi = shares if objective == "log-success" else np.eye(len(shares))[int(shares.argmax())]
    return {
        "mean reward": float(shares @ pi),
        f"pass@{n}": float(shares @ (1 - (1 - pi) ** n)),
    }
