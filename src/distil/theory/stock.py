"""The estimators that people use for the forward cross-entropy, as weights on tokens.

Each is one entry of `stock`, in `estimators.Estimator`'s terms; the names are those of the table in
docs/theory.md. Stale samplers draw rollouts from an older student: `stale` moves the student's
logits by a normal draw.
"""

from typing import Literal

import numpy as np

from distil.theory.costs import (
    Array,
    forward_cross_entropy,
    in_logits,
    likeliest,
    on_support,
    softmax,
)
from distil.theory.estimators import (
    Estimator,
    Rollouts,
    from_the_other,
    later_mean,
    later_sum,
    probability_of_tokens,
)
from distil.theory.trees import Tree

Close = Literal["tail", "rescaled"]
CLIP = 2.0
"""The released code's cut of ratios."""


def stale(tree: Tree, size: float, seed: int) -> Array:
    """[S, V] an older student's probabilities: logits moved by normal draws of that size."""
    draw = np.random.default_rng([seed, 1])
    return softmax(tree.student + size * draw.standard_normal(tree.student.shape))


def stock(tree: Tree, rollouts: Rollouts, support: int, old: Array) -> dict[str, Estimator]:
    """Name -> estimator, the exact one first. support: K of top-K; old: a stale sampler's p."""
    return {
        **on_policy(tree, rollouts),
        **on_supports(tree, rollouts, support),
        **off_policy(tree, rollouts, old),
    }


def on_policy(tree: Tree, rollouts: Rollouts) -> dict[str, Estimator]:
    """Future credit's scalings, discounts and baselines, on fresh rollouts and whole rows."""
    p, mask = tree.p(), rollouts.mask
    c, g = forward_cross_entropy(p, tree.teacher)
    costs = rollouts.at(c)
    total, mean = later_sum(costs), later_mean(costs, mask)
    goes_on = 1 - rollouts.ends

    def weighed(score: Array, baseline: Array | None = None) -> Estimator:
        draw = probability_of_tokens(rollouts, p).prod(-1)
        return Estimator(in_logits(p, g), mask, score, draw, baseline)

    others, centre = from_the_other(total, mask), from_the_other(mean, mask)
    return {
        "sum (exact)": weighed(total),
        "sum, baseline": weighed(total, others),
        "sum, no score at endings": weighed(total * goes_on),
        "sum, baseline, no score at endings": weighed(total * goes_on, others * goes_on[:, None]),
        "mean (published)": weighed(mean),
        "mean, baseline": weighed(mean, centre),
        "mean, baseline, no score at endings": weighed(mean * goes_on, centre * goes_on[:, None]),
        "discount 0.9": weighed(later_sum(costs, 0.9)),
        "discount 0.5": weighed(later_sum(costs, 0.5)),
        "local credit only": weighed(0 * total),
    }


def published_mean(tree: Tree, rollouts: Rollouts) -> Estimator:
    """`mean` alone, without the baselines' [N, N, T]: for trees of a thousand rollouts."""
    p = tree.p()
    c, g = forward_cross_entropy(p, tree.teacher)
    score = later_mean(rollouts.at(c), rollouts.mask)
    draw = probability_of_tokens(rollouts, p).prod(-1)
    return Estimator(in_logits(p, g), rollouts.mask, score, draw)


def on_supports(tree: Tree, rollouts: Rollouts, count: int) -> dict[str, Estimator]:
    """The exact sum over costs that see `count` tokens of either side only."""
    p, q = tree.p(), tree.teacher
    draw = probability_of_tokens(rollouts, p).prod(-1)
    closes: tuple[Close, Close] = ("tail", "rescaled")
    found = {}
    for whose, rows in (("teacher", q), ("student", p)):
        for close in closes:
            inside = likeliest(rows, count)
            c, slope = on_support(forward_cross_entropy, p, q, inside, close)
            score = later_sum(rollouts.at(c))
            name = f"{whose}'s top {count}, {close}"
            found[name] = Estimator(slope, rollouts.mask, score, draw)
    return found


def off_policy(tree: Tree, rollouts: Rollouts, old: Array) -> dict[str, Estimator]:
    """Rollouts of an older student: uncorrected, by token ratios, by prefix ratios."""
    p, mask = tree.p(), rollouts.mask
    c, g = forward_cross_entropy(p, tree.teacher)
    costs, before = rollouts.at(c), probability_of_tokens(rollouts, old)
    ratio = probability_of_tokens(rollouts, p) / before
    prefix = np.concatenate([np.ones((len(ratio), 1)), ratio.cumprod(-1)[:, :-1]], -1)

    slope, draw = in_logits(p, g), before.prod(-1)

    def token(weight: Array) -> Estimator:
        return Estimator(slope, weight * mask, weight * later_sum(costs), draw)

    def through(weight: Array) -> Estimator:
        return Estimator(slope, weight * mask, later_sum(weight * costs), draw)

    return {
        "stale, no ratio": token(np.ones_like(ratio)),
        "stale, token ratio": token(ratio),
        f"stale, token ratio <= {CLIP:g}": token(np.minimum(ratio, CLIP)),
        "stale, prefix ratio": through(prefix),
        f"stale, prefix ratio <= {CLIP:g}": through(np.minimum(prefix, CLIP)),
    }
