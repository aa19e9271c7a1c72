"""The teacher's entropy in future credit: where cross-entropy and KL part, and where that leads.

H(q, p) = KL(q || p) + H(q). In a state's own slope H(q) is a constant; in what a token leads to it
is not. So the exact objective with the cross-entropy isn't least at the teacher: per state it is

    min_p  - sum_a q_a log p_a + sum_a p_a U(s a)     =>     p_a = q_a / (lambda + U(s a))

with lambda such that p sums to 1, solved from the deepest states up. With KL, reverse KL or
Jensen-Shannon U is 0 at the teacher, which is then the optimum. Left out: shared parameters.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from distil.theory.claims import Claim
from distil.theory.costs import (
    COSTS,
    Array,
    entropy,
    forward_cross_entropy,
    forward_kl,
    in_logits,
)
from distil.theory.estimators import enumerate_rollouts, moments
from distil.theory.stock import on_policy
from distil.theory.treebias import cosine
from distil.theory.trees import (
    Tree,
    after,
    cost_to_go,
    expected_length,
    gradient,
    make_tree,
    objective,
    reach,
)

SECTION = "entropy in future credit"
TREES, VOCABULARY, LENGTH = 20, 3, 6
SHARPNESS = (1.5, 3.0, 6.0, 12.0, 24.0)


@dataclass(frozen=True)
class Lengths:
    """Expected tokens of a rollout of the teacher, and of the optimum of the exact objective."""

    teacher: float
    optimum: float
    entropy: float  # nats a token of the teacher, along its own rollouts


def at_teacher(tree: Tree) -> Tree:
    """The tree with a student that equals its teacher everywhere."""
    return replace(tree, student=np.log(tree.teacher))


def optimum(tree: Tree) -> Tree:
    """The tree whose student minimises E[ sum_t H(q, p) ]: the formula above, exactly."""
    best = tree.teacher.copy()
    u = np.zeros(len(best))
    for first, last in reversed(tree.levels):
        later = after(tree, u)[first:last]
        p = best[first:last] = tilted(tree.teacher[first:last], later)
        u[first:last] = forward_cross_entropy(p, tree.teacher[first:last])[0] + (p * later).sum(-1)
    return replace(tree, student=np.log(best))


def tilted(q: Array, later: Array) -> Array:
    """[S, V] p_a = q_a / (lambda + U_a), rows summing to 1; lambda by bisection.

    At lambda = 1 - min U the sum is at most 1, towards -min U it grows without bound.
    """
    least = later.min(-1, keepdims=True)
    low, high = -least, 1 - least
    for _ in range(200):
        middle = (low + high) / 2
        too_much = (q / (middle + later)).sum(-1, keepdims=True) > 1
        low, high = np.where(too_much, middle, low), np.where(too_much, high, middle)
    p = q / (high + later)
    return np.asarray(p / p.sum(-1, keepdims=True))


def entropy_gradient(tree: Tree) -> Array:
    """[S, V] d/dz E[ sum_t H(q_t) ], the difference between the two objectives' gradients."""
    u = cost_to_go(tree, entropy(tree.teacher))
    return reach(tree)[:, None] * in_logits(tree.p(), after(tree, u))


def length_gradient(tree: Tree) -> Array:
    """[S, V] d/dz E[number of tokens]."""
    u = cost_to_go(tree, np.ones(len(tree.child)))
    return reach(tree)[:, None] * in_logits(tree.p(), after(tree, u))


def lengths(tree: Tree) -> Lengths:
    """How long the teacher's answers are, and those of the optimum."""
    same = at_teacher(tree)
    tokens = expected_length(same)
    hesitation = objective(same, forward_cross_entropy) / tokens
    return Lengths(tokens, expected_length(optimum(tree)), hesitation)


def pulls(tree: Tree) -> dict[str, float]:
    """Name -> d E[tokens] for a small step of size 1 x against an estimator's mean, at p = q."""
    same = at_teacher(tree)
    rollouts = enumerate_rollouts(same)
    towards = length_gradient(same)
    return {
        name: -float((moments(same, rollouts, estimator).mean * towards).sum())
        for name, estimator in on_policy(same, rollouts).items()
    }


def by_sharpness(sharpness: float, trees: int = TREES) -> Lengths:
    """Means over trees; the sharper the teacher, the less it has to hesitate about."""
    found = [
        lengths(make_tree(VOCABULARY, LENGTH, early_stop=True, seed=seed, sharpness=sharpness))
        for seed in range(trees)
    ]
    fields = ("teacher", "optimum", "entropy")
    return Lengths(*(float(np.mean([getattr(x, f) for x in found])) for f in fields))


def claims() -> list[Claim]:
    """Where the entropy goes, and that the teacher isn't the optimum of the exact objective."""
    trees = [make_tree(VOCABULARY, LENGTH, early_stop=True, seed=seed) for seed in range(TREES)]
    return [*_parts(trees), *_optimum(trees), _pull(trees[:10])]


def _parts(trees: list[Tree]) -> list[Claim]:
    both = [(gradient(t, forward_cross_entropy), gradient(t, forward_kl)) for t in trees]
    local = max(float(np.abs(a.local - b.local).max()) for a, b in both)
    rest = max(
        float(np.abs(a.future - b.future - entropy_gradient(t)).max())
        for t, (a, b) in zip(trees, both, strict=True)
    )
    share = [np.linalg.norm(a.future - b.future) / np.linalg.norm(a.future) for a, b in both]
    angle = [cosine(a.whole, b.whole) for a, b in both]
    numbers = {"local parts differ by": local, "future parts, beside dE[sum H(q)], by": rest}
    return [
        Claim(
            SECTION, "Cross-entropy and forward KL have one local credit; their future credits "
            "differ by the teacher's entropies alone.", "H(q, p) = KL(q || p) + H(q)",
            numbers, max(local, rest) < 1e-12,
        ),
        Claim(
            SECTION, "The entropies are no small part of future credit.",
            "||dE[sum H(q)]|| / ||future||", {"share": float(np.median(share)),
            "cosine of whole gradients": float(np.median(angle))}, bool(np.median(share) > 0.2),
        ),
    ]  # fmt: skip


def _optimum(trees: list[Tree]) -> list[Claim]:
    norms = {
        name: max(float(np.abs(gradient(at_teacher(t), cost).whole).max()) for t in trees)
        for name, cost in COSTS.items()
    }
    rivals = max(v for k, v in norms.items() if k != "forward_cross_entropy")
    least = max(
        float(np.abs(gradient(optimum(t), forward_cross_entropy).whole).max()) for t in trees
    )
    found = [lengths(t) for t in trees]
    surer = [by_sharpness(s) for s in SHARPNESS]
    shorter = float(np.mean([x.optimum < x.teacher for x in found]))
    return [
        Claim(
            SECTION, "A student that equals its teacher is stationary for the exact objective.",
            "grad L at p = q", {"cross-entropy": norms["forward_cross_entropy"],
            "KL, reverse KL, JSD": rivals}, norms["forward_cross_entropy"] < 1e-12,
        ),
        Claim(
            SECTION, "Its optimum is the teacher tilted against later cost, and shorter.",
            "p_a = q_a / (lambda + U_a)", {"gradient there": least, "teacher's tokens":
            float(np.mean([x.teacher for x in found])), "optimum's tokens":
            float(np.mean([x.optimum for x in found])), "share shorter": shorter},
            least < 1e-9 and shorter == 1,
        ),
        Claim(
            SECTION, "The tilt fades as the teacher grows sure.",
            "optimum's tokens / teacher's, by the teacher's nats a token",
            {f"{x.entropy:.2f} nats": x.optimum / x.teacher for x in surer},
            all(a.optimum / a.teacher < b.optimum / b.teacher for a, b in pairwise(surer))
            and surer[-1].optimum / surer[-1].teacher > 0.95,
        ),
    ]  # fmt: skip


def _pull(trees: list[Tree]) -> Claim:
    found = [pulls(tree) for tree in trees]
    middle = {name: float(np.median([x[name] for x in found])) for name in found[0]}
    least = "mean, baseline, no score at endings"
    return Claim(
        SECTION, "At p = q, where there is nothing left to learn, every future credit of the "
        "cross-entropy still shortens; `mean`, and leaving out endings' scores, weaken the pull.",
        "- <E[g], dE[tokens]/dz>", {name: middle[name] for name in (
            "sum (exact)", "sum, baseline, no score at endings", "mean (published)", least)},
        middle["sum (exact)"] < min(middle["mean (published)"], middle[least]) and max(
            x for name, x in middle.items() if name != "local credit only") < 0,
    )  # fmt: skip
