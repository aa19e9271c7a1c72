"""The local-only trap: a decision problem of two steps that local credit alone can't solve.

A hall with three doors and a way out; behind each door a lock with four keys, of which one fits.
The teacher knows which (that is its feedback f) and prefers the doors, `BOLD` of the time; the
student doesn't know, so behind a door it can but guess. Four tokens, two steps, token 0 of the
first step ends: a tree of `trees`, one for each key that fits, all four with the same student.

    objective L = E_f E_{y ~ student} [ sum_t H(q_f(s_t), p(s_t)) ]

In the lock's room every key is as likely as another: p = 1/4, cost C = log 4, whatever the student
does. In the hall, with x the student's probability of a door:

    local credit alone stands still at      x = BOLD
    local and future credit stand still at  x - BOLD + x (1 - x) C = 0

Reward: 1 for the right key, `SAFE` for the way out. Where the rewards are turned round, so is the
trap: future credit knows disagreement only, not rewards. Source of the claim: the project page of
arXiv 2606.05152, which gives no numbers; the problem and its numbers are ours.
"""

from dataclasses import dataclass

import numpy as np

from distil.theory.claims import Claim
from distil.theory.costs import Array, forward_cross_entropy, softmax
from distil.theory.trees import Tree, gradient, grow, objective

SECTION = "local-only trap"
BOLD, SAFE, KEYS = 0.9, 0.8, 4
SURE = 0.5
"""The way out's reward where the trap is turned round, with JACKPOT for the right key."""
JACKPOT = 4.0


@dataclass(frozen=True)
class Point:
    """A student: its probability of a door, its objective and reward, and both gradients there."""

    door: float
    objective: float
    reward: float
    local: float  # largest entry of the local gradient
    whole: float  # largest entry of local + future


def problem(student: Array) -> list[Tree]:
    """One tree for each key that fits. student: [4, 4] logits; row 0 is the hall."""
    child, levels = grow(KEYS, 2, early_stop=True)
    hall = np.array([1 - BOLD, *[BOLD / (KEYS - 1)] * (KEYS - 1)])
    trees = []
    for key in range(KEYS):
        teacher = np.tile(np.eye(KEYS)[key], (len(child), 1))
        teacher[0] = hall
        trees.append(Tree(student, teacher, child, levels))
    return trees


def gradients(student: Array) -> tuple[Array, Array]:
    """(local, local + future) of the objective, each [4, 4], averaged over the keys."""
    found = [gradient(tree, forward_cross_entropy) for tree in problem(student)]
    return (
        np.mean([g.local for g in found], axis=0),
        np.mean([g.whole for g in found], axis=0),
    )


def student_at(door: float) -> Array:
    """[4, 4] logits of the student that takes a door with this probability, and guesses the key."""
    p = np.full((KEYS, KEYS), 1 / KEYS)
    p[0] = [1 - door, *[door / (KEYS - 1)] * (KEYS - 1)]
    return np.log(p)


def reward(student: Array, out: float = SAFE, right: float = 1.0) -> float:
    """E[reward]: `out` for the way out, `right` for the key that fits, by chance one in KEYS."""
    p = softmax(student)
    return float(p[0, 0] * out + sum(p[0, 1:] * p[1:].mean(-1)) * right)


def look(student: Array) -> Point:
    """What there is to know about a student."""
    local, whole = gradients(student)
    total = float(np.mean([objective(tree, forward_cross_entropy) for tree in problem(student)]))
    door = 1 - float(softmax(student)[0, 0])
    return Point(
        door, total, reward(student), float(np.abs(local).max()), float(np.abs(whole).max())
    )


def with_future(bold: float = BOLD, keys: int = KEYS) -> float:
    """x with x - bold + x (1 - x) log(keys) = 0: the root in (0, 1)."""
    c = np.log(keys)
    return float(((1 + c) - np.sqrt((1 + c) ** 2 - 4 * c * bold)) / (2 * c))


def train(start: Array, *, future: bool, steps: int, rate: float = 1.0) -> list[Array]:
    """The students along gradient descent with local credit, or with both; start included."""
    students = [start]
    for _ in range(steps):
        students.append(students[-1] - rate * gradients(students[-1])[future])
    return students


def claims() -> list[Claim]:
    """Both stationary points, their objectives and rewards, and the trap turned round."""
    local, whole = look(student_at(BOLD)), look(student_at(with_future()))
    start = np.random.default_rng(0).standard_normal((KEYS, KEYS))
    ends = [look(train(start, future=future, steps=600)[-1]) for future in (False, True)]
    turned = [reward(student_at(x), SURE, JACKPOT) for x in (BOLD, with_future())]
    return [
        Claim(
            SECTION, "Local credit alone stands still at a worse objective and a lower reward than "
            "local and future credit.", "two steps, teacher knows the key",
            {"local: door": local.door, "L": local.objective, "reward": local.reward,
             "local gradient": local.local, "whole gradient": local.whole,
             "both: door": whole.door, "both: L": whole.objective, "both: reward": whole.reward,
             "both: whole gradient": whole.whole},
            local.local < 1e-12 < 1e-3 < local.whole and whole.whole < 1e-12
            and whole.objective < local.objective and whole.reward > local.reward,
        ),
        Claim(
            SECTION, "Gradient descent from a random student ends there.",
            "z <- z - g", {"local: door": ends[0].door, "local: reward": ends[0].reward,
            "both: door": ends[1].door, "both: reward": ends[1].reward},
            abs(ends[0].door - BOLD) < 1e-6 and abs(ends[1].door - with_future()) < 1e-6,
        ),
        Claim(
            SECTION, "Future credit never lowers the reward at the stationary point.",
            f"way out {SURE:g}, right key {JACKPOT:g}", {"local: reward": turned[0],
            "both: reward": turned[1]}, turned[1] >= turned[0],
        ),
    ]  # fmt: skip
