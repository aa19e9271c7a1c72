"""Token trees: the objective and its gradient exactly, by dynamic programming over prefixes.

Every prefix is a state s with its own row of student logits z(s), so that nothing is approximated.
With d(s) the probability that a rollout of the student comes to s, c(s) the state's cost, and

    U(s) = c(s) + sum_a p(a|s) U(s a)          cost from s on;  0 where the sequence has ended

the method's objective and gradient (docs/method.md) are

    L           = U(root)
    dL/dz(s, a) = d(s) dc(s)/dz(s, a)                                      local credit
                + d(s) p(a|s) ( U(s a) - sum_b p(b|s) U(s b) )             future credit

Token 0 ends a sequence early in trees that are grown so. Left out: rollouts and estimators
(`estimators`). Source of the objective: arXiv 2606.05152.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distil.theory.costs import Array, Cost, in_logits, softmax

IntArray = NDArray[np.int64]
ENDED = -1


@dataclass(frozen=True)
class Tree:
    """S states, breadth first (0 is the root), V tokens; sequences have at most `length` tokens."""

    student: Array  # [S, V] logits
    teacher: Array  # [S, V] probabilities
    child: IntArray  # [S, V] the state that a token leads to; ENDED where the sequence is over
    levels: tuple[tuple[int, int], ...]  # level t holds the states [first, last) of t tokens

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return len(self.levels)

    def p(self) -> Array:
        """[S, V] the student's probabilities."""
        return softmax(self.student)


@dataclass(frozen=True)
class Gradient:
    """dL/dz, in two parts of shape [S, V]."""

    local: Array
    future: Array

    @property
    def whole(self) -> Array:
        """Local and future credit together: the gradient of the objective."""
        return self.local + self.future


def grow(
    vocabulary: int, length: int, *, early_stop: bool
) -> tuple[IntArray, tuple[tuple[int, int], ...]]:
    """(child, levels) of the tree of all sequences; with early_stop, token 0 ends one."""
    rows: list[list[int]] = []
    levels, first, last = [], 0, 1
    for depth in range(length):
        levels.append((first, last))
        new = last
        for _ in range(first, last):
            row = []
            for token in range(vocabulary):
                goes_on = depth + 1 < length and not (early_stop and token == 0)
                row.append(new if goes_on else ENDED)
                new += goes_on
            rows.append(row)
        first, last = last, new
    return np.array(rows, dtype=np.int64), tuple(levels)


def make_tree(
    vocabulary: int, length: int, *, early_stop: bool = False, seed: int = 0, sharpness: float = 1.5
) -> Tree:
    """A random tree: student's logits normal, teacher's normal times `sharpness`."""
    draw = np.random.default_rng(seed)
    child, levels = grow(vocabulary, length, early_stop=early_stop)
    student = draw.standard_normal(child.shape)
    return Tree(student, softmax(sharpness * draw.standard_normal(child.shape)), child, levels)


def reach(tree: Tree) -> Array:
    """[S] d(s): the probability that the student's rollout comes to s. A level's sum is <= 1."""
    d, p = np.zeros(len(tree.child)), tree.p()
    d[0] = 1
    for first, last in tree.levels:
        child = tree.child[first:last]
        steps = d[first:last, None] * p[first:last]
        d[child[child >= 0]] = steps[child >= 0]
    return d


def after(tree: Tree, values: Array) -> Array:
    """[S, V] the values of the states that each token leads to; 0 where the sequence ends."""
    return np.where(tree.child >= 0, values[np.maximum(tree.child, 0)], 0.0)


def cost_to_go(tree: Tree, costs: Array) -> Array:
    """[S] U(s) = c(s) + sum_a p(a|s) U(s a), from the deepest level up."""
    u, p = costs.copy(), tree.p()
    for first, last in reversed(tree.levels):
        child = tree.child[first:last]
        later = np.where(child >= 0, u[np.maximum(child, 0)], 0.0)
        u[first:last] += (p[first:last] * later).sum(-1)
    return u


def objective(tree: Tree, cost: Cost) -> float:
    """L = E_{y ~ student} [ sum_t c(s_t) ], in nats."""
    return float(cost_to_go(tree, cost(tree.p(), tree.teacher)[0])[0])


def gradient(tree: Tree, cost: Cost) -> Gradient:
    """dL/dz in its local and its future part, as in the head of this file."""
    p, d = tree.p(), reach(tree)[:, None]
    c, g = cost(p, tree.teacher)
    return Gradient(d * in_logits(p, g), d * in_logits(p, after(tree, cost_to_go(tree, c))))


def expected_length(tree: Tree) -> float:
    """E[number of tokens] of the student's rollouts: the states that they come to."""
    return float(reach(tree).sum())


def finite_differences(tree: Tree, cost: Cost, step: float = 1e-5) -> Array:
    """[S, V] dL/dz by central differences of the objective: the check on `gradient`."""
    slopes = np.zeros(tree.student.shape)
    for place in np.ndindex(slopes.shape):
        for sign in (1, -1):
            moved = tree.student.copy()
            moved[place] += sign * step
            slopes[place] += sign * objective(replace(tree, student=moved), cost) / (2 * step)
    return slopes
