"""Bias and variance of every estimator on random trees, as tables.

Table: trees of 5 tokens and at most 3 steps, token 0 ends; the sampler of stale rollouts has its
logits moved by 0.5. Cosines by length: four sizes (`SIZES`) and the sweep that the figure draws.
Left out: what the tables say (`treeclaims`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distil.theory.costs import COSTS, Array, forward_cross_entropy, likeliest
from distil.theory.estimators import enumerate_rollouts, moments
from distil.theory.stock import off_policy, on_policy, published_mean, stale, stock
from distil.theory.trees import Tree, finite_differences, gradient, make_tree

TREES, STALENESS, SUPPORT = 20, 0.5, 2
SIZES = ((3, 3), (3, 4), (3, 6), (2, 10))
PUBLISHED_COSINES = (0.990, 0.986, 0.943, 0.894)
"""Earlier single instances of SIZES for `mean`; how those trees were drawn isn't known."""


@dataclass(frozen=True)
class Row:
    """An estimator against the exact gradient; medians over trees, or one tree's.

    bias: ||E[g] - grad|| / ||grad||. variance: in units of the exact `sum`'s.
    noise: the variance over ||grad||^2, so that bias^2 + noise / n is the error of n rollouts.
    """

    bias: float
    cosine: float
    variance: float
    noise: float


def cosine(a: Array, b: Array) -> float:
    """Of two gradients."""
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def rows_of(tree: Tree, seed: int) -> dict[str, Row]:
    """Every estimator of `stock` on one tree."""
    rollouts = enumerate_rollouts(tree)
    exact = gradient(tree, forward_cross_entropy).whole
    length = float(np.linalg.norm(exact))
    found: dict[str, Row] = {}
    plain = None
    for name, estimator in stock(tree, rollouts, SUPPORT, stale(tree, STALENESS, seed)).items():
        got = moments(tree, rollouts, estimator)
        plain = got.variance if plain is None else plain
        error = float(np.linalg.norm(got.mean - exact))
        found[name] = Row(
            error / length, cosine(got.mean, exact), got.variance / plain, got.variance / length**2
        )
    return found


def sweep(seeds: Sequence[int] = range(TREES)) -> list[dict[str, Row]]:
    """`rows_of` for trees of 5 tokens and 3 steps with early ends."""
    return [rows_of(make_tree(5, 3, early_stop=True, seed=seed), seed) for seed in seeds]


def estimator_table(found: Sequence[dict[str, Row]]) -> dict[str, Row]:
    """Medians over trees, a row an estimator."""

    def middle(name: str, field: str) -> float:
        values = [getattr(rows[name], field) for rows in found]
        return float(np.median(values))

    fields = ("bias", "cosine", "variance", "noise")
    return {name: Row(*(middle(name, f) for f in fields)) for name in found[0]}


def mean_cosines(vocabulary: int, length: int, *, early_stop: bool, trees: int) -> list[float]:
    """Cosine of the published `mean` scaling with the exact gradient, for each of `trees` trees."""
    found = []
    for seed in range(trees):
        tree = make_tree(vocabulary, length, early_stop=early_stop, seed=seed)
        rollouts = enumerate_rollouts(tree)
        got = moments(tree, rollouts, published_mean(tree, rollouts))
        found.append(cosine(got.mean, gradient(tree, forward_cross_entropy).whole))
    return found


def variances(length: int, trees: int = 5) -> dict[str, float]:
    """Name -> variance over the squared length of the exact gradient; 2 tokens, no early ends."""
    names = ("sum (exact)", "sum, baseline", "mean (published)", "local credit only")
    found: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(trees):
        tree = make_tree(2, length, seed=seed)
        rollouts = enumerate_rollouts(tree)
        size = float((gradient(tree, forward_cross_entropy).whole ** 2).sum())
        own = on_policy(tree, rollouts)
        for name in names:
            found[name].append(moments(tree, rollouts, own[name]).variance / size)
    return {name: float(np.median(values)) for name, values in found.items()}


def overtaken(rows: dict[str, Row], biased: str, unbiased: str) -> float:
    """Rollouts n from which on the unbiased one errs less: bias^2 + noise / n = its noise / n."""
    return max((rows[unbiased].noise - rows[biased].noise) / rows[biased].bias ** 2, 0.0)


def largest_difference() -> float:
    """max | gradient - finite differences | over all costs, with and without early ends."""
    trees = [
        make_tree(3, 3, early_stop=early, seed=seed) for early in (False, True) for seed in (0, 1)
    ]
    return max(
        float(np.abs(finite_differences(tree, cost) - gradient(tree, cost).whole).max())
        for tree in trees
        for cost in COSTS.values()
    )


def cost_of_correction(length: int, trees: int = 10) -> float:
    """Variance of prefix ratios on old rollouts over that of `sum` on fresh ones; 2 tokens."""
    found = []
    for seed in range(trees):
        tree = make_tree(2, length, seed=seed)
        rollouts = enumerate_rollouts(tree)
        old = off_policy(tree, rollouts, stale(tree, STALENESS, seed))["stale, prefix ratio"]
        fresh = on_policy(tree, rollouts)["sum (exact)"]
        found.append(
            moments(tree, rollouts, old).variance / moments(tree, rollouts, fresh).variance
        )
    return float(np.median(found))


def covered(trees: int = TREES) -> tuple[float, float]:
    """The teacher's probability of its own top tokens, and of the student's top tokens."""
    masses = []
    for seed in range(trees):
        tree = make_tree(5, 3, early_stop=True, seed=seed)
        q, p = tree.teacher, tree.p()
        inside = (likeliest(q, SUPPORT), likeliest(p, SUPPORT))
        masses.append([(q * inside[0]).sum(-1).mean(), (q * inside[1]).sum(-1).mean()])
    return tuple(np.mean(masses, axis=0).tolist())
