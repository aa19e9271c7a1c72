"""Every estimator of the gradient from rollouts: its bias and variance, by enumerating rollouts.

A rollout y of N possible ones visits states s_t and takes tokens y_t. All estimators here are

    g(y) = sum_t  local_t(y) dc(s_t)/dz(s_t)  +  score_t(y) ( onehot(y_t) - p(s_t) )

with their own weights, cost and sampler; a baseline takes b_t(y, y') off the score's weight, from
the other rollout of a group of two. Variance: trace of the covariance, of *one* rollout's share,
twice that of the mean of a group of two. Left out: what the numbers say (`treebias`).
"""

from dataclasses import dataclass

import numpy as np

from distil.theory.costs import Array
from distil.theory.trees import IntArray, Tree


@dataclass(frozen=True)
class Rollouts:
    """All N sequences of a tree, padded to T tokens; whatever is padding is 0."""

    tokens: IntArray  # [N, T]
    states: IntArray  # [N, T] the state before each token
    mask: Array  # [N, T] 1 at tokens, 0 at padding
    ends: Array  # [N, T] 1 at a token that ends its sequence before the longest length

    def at(self, values: Array) -> Array:
        """[N, T] the states' values, [S], along the rollouts; 0 at padding."""
        return np.asarray(values[self.states] * self.mask)


@dataclass(frozen=True)
class Estimator:
    """The weights of the formula above. baseline[i, j] is what rollout j tells about rollout i."""

    slope: Array  # [S, V] dc/dz of each state
    local: Array  # [N, T]
    score: Array  # [N, T]
    draw: Array  # [N] probability of each rollout under its sampler
    baseline: Array | None = None  # [N, N, T]


@dataclass(frozen=True)
class Moments:
    """mean [S, V] of an estimator, and its variance."""

    mean: Array
    variance: float


def enumerate_rollouts(tree: Tree) -> Rollouts:
    """Walks the tree; row order is that of the tokens."""
    rows: list[tuple[list[int], list[int]]] = []

    def walk(state: int, tokens: list[int], states: list[int]) -> None:
        for token, child in enumerate(tree.child[state].tolist()):
            path = ([*tokens, token], [*states, state])
            if child < 0:
                rows.append(path)
            else:
                walk(child, *path)

    walk(0, [], [])
    shape = (len(rows), tree.length)
    tokens, states = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    mask, ends = np.zeros(shape), np.zeros(shape)
    for i, (taken, visited) in enumerate(rows):
        tokens[i, : len(taken)], states[i, : len(taken)] = taken, visited
        mask[i, : len(taken)] = 1
        ends[i, len(taken) - 1] = len(taken) < tree.length
    return Rollouts(tokens, states, mask, ends)


def probability_of_tokens(rollouts: Rollouts, p: Array) -> Array:
    """[N, T] p(y_t | s_t); 1 at padding."""
    taken = p[rollouts.states, rollouts.tokens]
    return np.where(rollouts.mask > 0, taken, 1.0)


def later_sum(costs: Array, discount: float = 1.0) -> Array:
    """[N, T] G_t = sum_{i>t} discount^(i-t-1) c_i, strictly later; costs are 0 at padding."""
    g = np.zeros_like(costs)
    for t in range(costs.shape[1] - 2, -1, -1):
        g[:, t] = costs[:, t + 1] + discount * g[:, t + 1]
    return g


def later_mean(costs: Array, mask: Array) -> Array:
    """[N, T] G_t divided by the number of later tokens (at least 1): the published scaling."""
    return later_sum(costs) / np.maximum(later_sum(mask), 1)


def from_the_other(credit: Array, mask: Array) -> Array:
    """[N, N, T] b_t(i, j) = G_t(j) where both still run at t, else 0 (leave one out of two)."""
    return np.asarray(credit[None] * mask[None] * mask[:, None])


def scores(tree: Tree, rollouts: Rollouts) -> Array:
    """[N, T, S, V] onehot(y_t) - p(s_t), in the row of s_t; 0 at padding. Small trees only."""
    n, length = rollouts.tokens.shape
    dense = np.zeros((n, length, *tree.student.shape))
    rows, steps = np.nonzero(rollouts.mask)
    states, tokens = rollouts.states[rows, steps], rollouts.tokens[rows, steps]
    dense[rows, steps, states] = -tree.p()[states]
    dense[rows, steps, states, tokens] += 1
    return dense


def each_gradient(tree: Tree, rollouts: Rollouts, estimator: Estimator) -> Array:
    """[N, S, V] g(y) of every rollout, without any baseline."""
    p = tree.p()
    dense = np.zeros((len(rollouts.tokens), *tree.student.shape))
    rows, steps = np.nonzero(rollouts.mask)
    states, tokens = rollouts.states[rows, steps], rollouts.tokens[rows, steps]
    local, score = estimator.local[rows, steps], estimator.score[rows, steps]
    dense[rows, states] = local[:, None] * estimator.slope[states] - score[:, None] * p[states]
    dense[rows, states, tokens] += score
    return dense


def moments(tree: Tree, rollouts: Rollouts, estimator: Estimator) -> Moments:
    """Mean and variance of an estimator over its sampler's rollouts, or groups of two of them."""
    own = each_gradient(tree, rollouts, estimator).reshape(len(rollouts.tokens), -1)
    draw = estimator.draw
    if estimator.baseline is None:
        mean, square = draw @ own, float(draw @ (own**2).sum(-1))
        variance = square - float((mean**2).sum())
        return Moments(mean.reshape(tree.student.shape), variance)
    score = scores(tree, rollouts).reshape(*rollouts.tokens.shape, -1)
    mean, square = np.zeros(own.shape[1]), 0.0
    for i, chance in enumerate(draw):  # of the group (i, j), for all j at once
        of_i = own[i] - estimator.baseline[i] @ score[i]
        of_j = own - np.einsum("jt,jtk->jk", estimator.baseline[:, i], score)
        both = (of_i + of_j) / 2
        mean += chance * (draw @ both)
        square += chance * float(draw @ (both**2).sum(-1))
    return Moments(mean.reshape(tree.student.shape), 2 * (square - float((mean**2).sum())))
