"""The training runs behind the claims about wrong teachers, each made once, and what is read off.

100 prompts, one seed; every mean over prompts has the half-width of its 95% interval beside it.
"""

from functools import cache

import numpy as np

from distil.theory import divergences, following, teachers
from distil.theory.costs import Array
from distil.theory.divergences import Geometry, reward
from distil.theory.following import NO_GATE, Gate, Objective, Outcome
from distil.theory.teachers import Corruption

PROMPT_GATE = Gate("reward", each=False)
SAMPLED_GATE = Gate("reward", probes=2)
SAMPLED_PROMPT_GATE = Gate("reward", each=False, probes=2)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2)
DIVERGENCES: tuple[Objective, ...] = ("forward_cross_entropy", "jensen_shannon", "reverse_kl")
WRONG: tuple[Corruption, ...] = ("scattered", "systematic")
SHORT = divergences.SHORT | {name: name for name in ("sft", "grpo", "forward+grpo")}


@cache
def world() -> teachers.World:
    """The prompts of all claims."""
    return teachers.world()


@cache
def taught(kind: Corruption) -> teachers.Teachers:
    """Their teachers, at each level."""
    return teachers.corrupted(world(), kind)


@cache
def outcome(
    kind: Corruption,
    objective: Objective,
    gate: Gate = NO_GATE,
    geometry: Geometry = "policy",
    steps: int = following.STEPS,
) -> Outcome:
    """One training run for each prompt and level."""
    return following.follow(world(), taught(kind), objective, gate, geometry, steps)


def start() -> float:
    """The students' mean reward before training."""
    return float(reward(world().p, world().r).mean())


def at(kind: Corruption, level: float, result: Outcome, name: str) -> dict[str, float]:
    """The mean reward at one level, and its half-width, as numbers of a claim."""
    i = taught(kind).levels.index(level)
    return {name: float(result.mean()[i]), f"{name} ±": float(result.half_width()[i])}


def break_even(kind: Corruption, result: Outcome) -> float:
    """The lowest level, interpolated, from which training ends below the start, or nan."""
    levels, lead = taught(kind).levels, result.mean() - start()
    for i in range(1, len(levels)):
        if lead[i] < -1e-3 <= lead[i - 1]:
            share = lead[i - 1] / (lead[i - 1] - lead[i])
            return levels[i - 1] + float(share) * (levels[i] - levels[i - 1])
    return float("nan")


def mean_of_teachers(t: teachers.Teachers) -> Array:
    """sum_f w_f q_f: the forward cross-entropy's end; [L, X, A]."""
    return (t.w[..., None] * t.q).sum(-2)


def geometric_mean_of_teachers(t: teachers.Teachers) -> Array:
    """prod_f q_f^(w_f) / Z: reverse KL's end; [L, X, A]."""
    logs = (t.w[..., None] * np.log(t.q)).sum(-2)
    return np.exp(logs - np.logaddexp.reduce(logs, -1, keepdims=True))


def at_each(
    objectives: tuple[Objective, ...], kind: Corruption, level: float, gate: Gate = NO_GATE
) -> dict[str, float]:
    """`at` for several objectives, by their short names."""
    numbers: dict[str, float] = {}
    for o in objectives:
        numbers |= at(kind, level, outcome(kind, o, gate), SHORT[o])
    return numbers


def best_threshold(kind: Corruption, level: float) -> tuple[float, float, float]:
    """The best entropy gate: (threshold, end reward, end reward with honest feedback)."""
    i = taught(kind).levels.index(level)
    results = {
        m: outcome(kind, "forward_cross_entropy", Gate("entropy", maximum=m)).mean()
        for m in THRESHOLDS
    }
    best = max(THRESHOLDS, key=lambda m: results[m][i])
    return best, float(results[best][i]), float(results[best][0])
