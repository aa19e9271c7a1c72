"""A student that follows imperfect teachers, exactly: objectives, gates, and the whole way.

Each step uses the expected slope over the feedbacks, g = sum_f w_f gate_f g(q_f, p): no sampling.
"""

from dataclasses import dataclass
from math import comb
from typing import Literal

import numpy as np

from distil.theory.costs import Array
from distil.theory.divergences import SLOPES, Geometry, direction, first_order, move, reward
from distil.theory.teachers import Teachers, World

Objective = Literal[
    "forward_cross_entropy", "reverse_kl", "jensen_shannon", "sft", "grpo", "forward+grpo"
]
OBJECTIVES: tuple[Objective, ...] = (
    "forward_cross_entropy", "jensen_shannon", "reverse_kl", "sft", "grpo", "forward+grpo",
)  # fmt: skip
GROUP = 8
RATES: dict[Geometry, float] = {"policy": 0.1, "logit": 1.0}
STEPS, LONGEST = 200, 0.25


@dataclass(frozen=True)
class Gate:
    """Which teachers count: all, those of low entropy, or those that beat the student's reward.

    each: a reward gate judges every feedback's own teacher; else their mean over the prompt's
    feedbacks, all or none. probes: it sees that many sampled answers of the teacher against GROUP
    of the student's, anew at each step (in expectation); None: the rates themselves.
    """

    kind: Literal["none", "entropy", "reward"] = "none"
    each: bool = True
    probes: int | None = None
    maximum: float = 0.8  # nats, of log 5 = 1.6; an honest teacher here has 0.3 on average


NO_GATE, ENTROPY_GATE, REWARD_GATE = Gate(), Gate("entropy"), Gate("reward")


@dataclass(frozen=True)
class Outcome:
    """Rewards at the end, [L, X], and the lowest first-order change on the way, [L]."""

    reward: Array
    lowest: Array

    def mean(self) -> Array:
        """[L]."""
        return self.reward.mean(-1)

    def half_width(self) -> Array:
        """[L] of the 95% interval of the mean over prompts (normal)."""
        return 1.96 * self.reward.std(-1, ddof=1) / np.sqrt(self.reward.shape[-1])


def chance_of_passing(teacher: Array, student: Array, probes: int, group: int) -> Array:
    """P(Bin(probes, teacher) / probes > Bin(group, student) / group); of rates [...]."""
    teacher, student = teacher.clip(0, 1), student.clip(0, 1)

    def of(hits: int, n: int, rate: Array) -> Array:
        return comb(n, hits) * rate**hits * (1 - rate) ** (n - hits)

    total = np.zeros(np.broadcast_shapes(teacher.shape, student.shape))
    for k in range(1, probes + 1):
        below = sum(of(j, group, student) for j in range(group + 1) if j * probes < k * group)
        total = total + of(k, probes, teacher) * below
    return total


def opened(gate: Gate, q: Array, w: Array, p: Array, r: Array) -> Array:
    """The weight of each feedback's teacher, in [0, 1]; [L, X, F], or broadcastable."""
    if gate.kind == "none":
        return np.ones(1)
    if gate.kind == "entropy":
        return (-(q * np.log(q.clip(1e-300))).sum(-1) <= gate.maximum).astype(float)
    teachers, student = reward(q, r[:, None]), reward(p, r)[..., None]
    if not gate.each:
        teachers = (w * teachers).sum(-1, keepdims=True)
    if gate.probes is None:
        return (teachers > student).astype(float)
    return chance_of_passing(teachers, student, gate.probes, GROUP)


def slope(objective: Objective, q: Array, weight: Array, p: Array, r: Array) -> Array:
    """g_a = sum_f weight_f g_a(q_f, p) (- r_a, with the reward's own); [L, X, A]."""
    if objective == "grpo":
        return np.broadcast_to(-r, p.shape)
    name = objective if objective in SLOPES else "forward_cross_entropy"
    g = (weight[..., None] * SLOPES[name](q, p[..., None, :])).sum(-2)
    return g - r if objective == "forward+grpo" else g


def follow(
    world: World, teachers: Teachers, objective: Objective, gate: Gate = NO_GATE,
    geometry: Geometry = "policy", steps: int = STEPS,
) -> Outcome:  # fmt: skip
    """Trains from the world's students; a step moves no logit further than LONGEST.

    The whole step is scaled down where it would, which leaves its direction.
    """
    r, rate = world.r, RATES[geometry]
    p = np.broadcast_to(world.p, (len(teachers.levels), *world.p.shape))
    q = teachers.demonstrations if objective == "sft" else teachers.q
    lowest = np.full(len(teachers.levels), np.inf)
    for _ in range(steps):
        weight = teachers.w * opened(gate, q, teachers.w, p, r)
        step = direction(p, slope(objective, q, weight, p, r), geometry)
        lowest = np.minimum(lowest, first_order(p, r, step).min(-1))
        longest = np.abs(step).max(-1, keepdims=True)
        scale = np.minimum(rate, LONGEST / longest.clip(1e-300))
        p = move(p, scale * step, 1.0)
    return Outcome(reward(p, r), lowest)
