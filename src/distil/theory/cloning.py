"""Behaviour cloning's compounding error beside DAgger's, as the horizon grows: a chain.

A walk of T steps on a path. On it, the token 0 is right and keeps one on it, token 1 leads off; off
it, token 0 goes on in the wrong, token 1 leads back. The teacher knows both. The student's class
can't do better than a mistake of `EPSILON` a step; a state that its training never came to is left
to habit, which is token 0 all but `EPSILON` of the time. Cost: steps spent off the path,

    E = sum_{t<T} P(off at t),   P(off at t) = a / (a + b) (1 - (1 - a - b)^t),   a: off, b: back

Cloning trains on the teacher's own walks, never off: b = EPSILON, E about EPSILON T^2 / 2.
DAgger trains on the student's walks, sees what is off, learns b = 1 - EPSILON: E about EPSILON T.
Where nothing leads back, neither helps. Both train by `regret.best_in_class` on exact expectations;
left out: how many rollouts it takes until one goes wrong, about 1 / (EPSILON T). Source of the
construction: Ross and Bagnell 2010; Ross, Gordon and Bagnell, arXiv 1011.0686.
"""

from dataclasses import dataclass

import numpy as np

from distil.theory.claims import Claim
from distil.theory.costs import Array
from distil.theory.regret import best_in_class

SECTION = "compounding error"
EPSILON = 0.001
HORIZONS = (8, 16, 32, 64, 128, 256)
ON, OFF = 0, 1
TEACHER = np.eye(2)
HABIT = np.array([[0.5, 0.5], [1 - EPSILON, EPSILON]])
"""[state, token] the student before any training; its row for a state never seen stays so."""


@dataclass(frozen=True)
class Errors:
    """Expected steps off the path, by horizon, and the exponent in T that fits them."""

    steps: Array  # [len(HORIZONS)]
    exponent: float


def walk(policy: Array, horizon: int, *, way_back: bool = True) -> Array:
    """[T, 2] probability of being on and off the path before each step."""
    off, back = policy[ON, 1], policy[OFF, 1] if way_back else 0.0
    moves = np.array([[1 - off, off], [back, 1 - back]])
    found = np.zeros((horizon, 2))
    now = np.array([1.0, 0.0])
    for t in range(horizon):
        found[t], now = now, now @ moves
    return found


def learn(visits: Array) -> Array:
    """[2, 2] the class's best imitation of the teacher where visits, [2], aren't 0; else habit."""
    best = best_in_class(visits[:, None] * TEACHER, EPSILON)
    return np.where(visits[:, None] > 0, best, HABIT)


def clone(horizon: int) -> Array:
    """The policy of behaviour cloning: trained on the teacher's walks."""
    return learn(walk(TEACHER, horizon).sum(0))


def dagger(horizon: int, rounds: int = 3) -> Array:
    """The policy after rounds of DAgger from the cloned one: trained on all walks so far."""
    policy = clone(horizon)
    visits = np.zeros(2)
    for _ in range(rounds):
        visits = visits + walk(policy, horizon).sum(0)
        policy = learn(visits)
    return policy


def off_path(policy: Array, horizon: int, *, way_back: bool = True) -> float:
    """E, the expected steps off the path, by walking."""
    return float(walk(policy, horizon, way_back=way_back)[:, OFF].sum())


def by_formula(a: float, b: float, horizon: int) -> float:
    """E by the closed form in the head of this file."""
    t = np.arange(horizon)
    return float((a / (a + b) * (1 - (1 - a - b) ** t)).sum())


def errors(*, cloned: bool, way_back: bool = True) -> Errors:
    """Over all HORIZONS; the exponent is the slope of log E against log T."""
    make = clone if cloned else dagger
    steps = np.array([off_path(make(t), t, way_back=way_back) for t in HORIZONS])
    return Errors(steps, float(np.polyfit(np.log(HORIZONS), np.log(steps), 1)[0]))


def claims() -> list[Claim]:
    """Quadratic against linear, and the case where neither helps."""
    cloned, corrected = errors(cloned=True), errors(cloned=False)
    lost = errors(cloned=False, way_back=False)
    last = HORIZONS[-1]
    return [
        Claim(
            SECTION, "Cloning's steps off the path grow with the square of the horizon, DAgger's "
            "linearly, at the same loss on the teacher's states.", "E ~ eps T^2 / 2 and eps T",
            {"cloning: exponent": cloned.exponent, f"cloning: T = {last}": cloned.steps[-1],
             "DAgger: exponent": corrected.exponent, f"DAgger: T = {last}": corrected.steps[-1]},
            1.85 < cloned.exponent < 2.15 and 0.9 < corrected.exponent < 1.1,
        ),
        Claim(
            SECTION, "DAgger's error grows linearly whatever the problem.", "no way back: b = 0",
            {"exponent": lost.exponent, f"T = {last}": lost.steps[-1]}, lost.exponent < 1.1,
        ),
    ]  # fmt: skip
