"""How much a prompt pulls, by its success rate p: who weighs hard prompts, and up to where.

A gradient step on one prompt is weight(p) times grad p. The cross-entropy to the success posterior
has weight 1/p, since grad log p = grad p / p. With groups of N rollouts:

    sibling    a rollout has a teacher if *another* rollout of its group succeeded:
               weight (1 - (1 - p)^(N-1)) / p, at most N - 1
    expert     a demonstration from outside: 1/p, without limit
    grpo       advantages (r - mean) over the group: weight (N - 1) / N
    grpo, std  divided by the group's std: weight E sqrt(k (1 - k)) / (p (1 - p)), k the group's
               share of successes; at most about sqrt(N - 1)

Left out: how near a prompted teacher comes to the posterior; the future term.
"""

from math import comb
from typing import Literal

import numpy as np

from distil.theory.costs import Array

Method = Literal["expert", "sibling", "grpo", "grpo, std"]
METHODS: tuple[Method, ...] = ("expert", "sibling", "grpo, std", "grpo")


def weight(method: Method, p: Array, group: int = 8) -> Array:
    """The factor on grad p, exactly; see the module's first lines. p: [...], in (0, 1)."""
    if method == "expert":
        return 1 / p
    if method == "sibling":
        return (1 - (1 - p) ** (group - 1)) / p
    if method == "grpo":
        return np.full_like(p, (group - 1) / group)
    total = np.zeros_like(p)
    for hits in range(group + 1):
        share = hits / group
        chance = comb(group, hits) * p**hits * (1 - p) ** (group - hits)
        total += chance * np.sqrt(share * (1 - share))
    return total / (p * (1 - p))


def simulated_weight(method: Method, p: float, group: int, groups: int, seed: int = 0) -> float:
    """The same by sampling: the mean step on the one logit z of p = sigmoid(z), over dp/dz.

    Two answers, right and wrong: the posterior is all on the right one, so that the cross-entropy's
    step is d log p / dz = 1 - p; a rollout's score is its reward minus p.
    """
    generator = np.random.default_rng([seed, group, groups])
    rewards = (generator.random((groups, group)) < p).astype(float)
    if method in ("expert", "sibling"):
        others = rewards.sum(1, keepdims=True) - rewards
        has_teacher = others > 0 if method == "sibling" else np.ones_like(rewards, dtype=bool)
        step = (has_teacher * (1 - p)).mean()
    else:
        advantage = rewards - rewards.mean(1, keepdims=True)
        if method == "grpo, std":
            spread = rewards.std(1, keepdims=True)
            advantage = np.divide(advantage, spread, out=np.zeros_like(advantage), where=spread > 0)
        step = (advantage * (rewards - p)).mean()
    return float(step / (p * (1 - p)))


def fitted_power(method: Method, low: float, high: float, group: int = 8) -> float:
    """b in weight ~ p^b, by least squares of logs between two success rates."""
    p = np.geomspace(low, high, 50)
    return float(np.polyfit(np.log(p), np.log(weight(method, p, group)), 1)[0])
