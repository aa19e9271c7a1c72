"""The objectives that train networks and the exact ones of `distil.theory` agree on trees: 1e-8."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from distil.objectives import (
    append_tail,
    distil_token_loss,
    forward_cross_entropy,
    forward_kl,
    jensen_shannon,
    not_an_end,
    policy_space,
    prefix_ratios,
    renormalise,
    reverse_kl,
    token_ratio,
)
from distil.theory import costs, divergences
from distil.theory.costs import Array, in_logits, likeliest, on_support
from distil.theory.estimators import Estimator, each_gradient, later_sum, moments
from distil.theory.estimators import probability_of_tokens as chances
from distil.theory.stock import off_policy, on_policy, stale
from distil.theory.trees import Tree, gradient, make_tree, objective
from theoryclaims import Torch, in_torch

TOLERANCE = 1e-8
TREES = [(3, 3, False), (3, 4, True), (2, 8, False), (4, 3, True)]
NEURAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_cross_entropy": forward_cross_entropy,
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "jensen_shannon .2": partial(jensen_shannon, teacher_weight=0.2),
    "jensen_shannon .9": partial(jensen_shannon, teacher_weight=0.9),
}
EXACT: dict[str, costs.Cost] = {
    **costs.COSTS,
    "jensen_shannon .2": partial(costs.jensen_shannon, weight=0.2),
    "jensen_shannon .9": partial(costs.jensen_shannon, weight=0.9),
}


def expected(batch: Torch, token_loss: Tensor, draw: Tensor | None = None) -> Array:
    """The token losses' gradient, averaged over all rollouts."""
    weight = batch.probability().detach() if draw is None else draw
    return batch.gradient((weight * token_loss.sum(-1)).sum())


def close(a: Array, b: Array) -> None:
    assert np.abs(a - b).max() < TOLERANCE
    assert np.abs(b).max() > 1e-3


def agree(name: str) -> None:
    """Values, the objective, local credit, and local and future credit, on every tree."""
    for seed, (vocabulary, length, early) in enumerate(TREES):
        tree = make_tree(vocabulary, length, early_stop=early, seed=seed)
        batch, rollouts = in_torch(tree)
        cost = NEURAL[name](batch.logps(), batch.teacher)
        by_hand = rollouts.at(EXACT[name](tree.p(), tree.teacher)[0])
        close((cost * batch.mask).detach().numpy(), by_hand)
        total = (batch.probability() * (cost * batch.mask).sum(-1)).sum()
        assert total.item() == pytest.approx(objective(tree, EXACT[name]), abs=TOLERANCE)
        exact = gradient(tree, EXACT[name])
        close(batch.gradient(total), exact.whole)
        sampled = batch.sampled()
        local = distil_token_loss(cost, sampled, batch.mask, future="none")
        close(expected(batch, local), exact.local)
        close(expected(batch, distil_token_loss(cost, sampled, batch.mask)), exact.whole)


def test_forward_cross_entropy_agrees() -> None:
    agree("forward_cross_entropy")


def test_forward_kl_agrees() -> None:
    agree("forward_kl")


def test_reverse_kl_agrees() -> None:
    agree("reverse_kl")


@pytest.mark.parametrize("name", [n for n in EXACT if "shannon" in n])
def test_jensen_shannon_agrees_at_every_weight(name: str) -> None:
    agree(name)


# ---------------------------------------------------------------- future credit and baselines


def mean_of(tree: Tree, name: str) -> Array:
    """What an estimator of the stock gives in expectation."""
    _, rollouts = in_torch(tree)
    stock = on_policy(tree, rollouts) | off_policy(tree, rollouts, stale(tree, 0.5, 0))
    return moments(tree, rollouts, stock[name]).mean


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sum (exact)", {}),
        ("mean (published)", {"future": "mean"}),
        ("discount 0.9", {"discount": 0.9}),
        ("discount 0.5", {"discount": 0.5}),
        ("local credit only", {"future": "none"}),
    ],
)
def test_future_credit_agrees(name: str, options: dict[str, object]) -> None:
    for vocabulary, length, early in TREES[:2]:
        tree = make_tree(vocabulary, length, early_stop=early)
        batch, _ = in_torch(tree)
        cost = forward_cross_entropy(batch.logps(), batch.teacher)
        loss = distil_token_loss(cost, batch.sampled(), batch.mask, **options)  # type: ignore[arg-type]
        close(expected(batch, loss), mean_of(tree, name))


@pytest.mark.parametrize("future", ["sum", "mean"])
@pytest.mark.parametrize("endings", [True, False])
def test_the_baseline_agrees_group_by_group(future: str, endings: bool) -> None:
    tree = make_tree(3, 3, early_stop=True)
    batch, rollouts = in_torch(tree)
    n = len(batch.ids)
    first, second = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    rows = torch.stack([first, second], 1).flatten()  # every pair is a group of two
    cost = forward_cross_entropy(batch.logps(), batch.teacher)[rows]
    mask, sampled = batch.mask[rows], batch.sampled()[rows]
    score = None if endings else not_an_end(batch.ids[rows], mask, [0])
    loss = distil_token_loss(
        cost, sampled, mask, future=future, group_size=2, score_weight=score  # type: ignore[arg-type]
    )  # fmt: skip
    by_group = loss.view(n * n, 2, -1).sum((1, 2)) / 2
    both = (batch.probability()[first] * batch.probability()[second]).detach()
    kept = "" if endings else ", no score at endings"
    name = f"{future}, baseline{kept}"
    close(batch.gradient((both * by_group).sum()), mean_of(tree, name))
    slopes = np.stack([batch.gradient(one) for one in by_group])
    mean = np.tensordot(both.numpy(), slopes, 1)
    variance = 2 * float(both.numpy() @ ((slopes - mean) ** 2).sum((1, 2)))
    got = moments(tree, rollouts, on_policy(tree, rollouts)[name]).variance
    assert got == pytest.approx(variance, abs=TOLERANCE)


def test_every_rollouts_own_gradient_agrees() -> None:
    tree = make_tree(3, 3, early_stop=True, seed=2)
    batch, rollouts = in_torch(tree)
    cost = forward_cross_entropy(batch.logps(), batch.teacher)
    loss = distil_token_loss(cost, batch.sampled(), batch.mask, future="mean").sum(-1)
    slopes = np.stack([batch.gradient(one) for one in loss])
    by_hand = on_policy(tree, rollouts)["mean (published)"]
    close(slopes, each_gradient(tree, rollouts, by_hand))


# ---------------------------------------------------------------- supports


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("whose", ["teacher", "student"])
@pytest.mark.parametrize("closing", ["tail", "rescaled"])
def test_costs_on_a_support_agree(name: str, whose: str, closing: str) -> None:
    tree = make_tree(5, 3, early_stop=True, seed=1)
    batch, rollouts = in_torch(tree)
    logps = batch.logps()
    ranked = batch.teacher if whose == "teacher" else logps.detach()
    ids = ranked.topk(2).indices
    shut = append_tail if closing == "tail" else renormalise
    student, teacher = (shut(x.gather(-1, ids)) for x in (logps, batch.teacher))
    cost = NEURAL[name](student, teacher)
    p, q = tree.p(), tree.teacher
    inside = likeliest(q if whose == "teacher" else p, 2)
    c, slope = on_support(EXACT[name], p, q, inside, closing)  # type: ignore[arg-type]
    close((cost * batch.mask).detach().numpy(), rollouts.at(c))
    loss = distil_token_loss(cost, batch.sampled(), batch.mask)
    draw = chances(rollouts, p).prod(-1)
    by_hand = Estimator(slope, rollouts.mask, later_sum(rollouts.at(c)), draw)
    close(expected(batch, loss), moments(tree, rollouts, by_hand).mean)


# ---------------------------------------------------------------- rollouts of an older policy


@pytest.mark.parametrize("kind", ["none", "token", "token <= 2", "prefix", "prefix <= 2"])
def test_ratios_agree(kind: str) -> None:
    tree = make_tree(3, 4, early_stop=True, seed=3)
    batch, rollouts = in_torch(tree)
    old = chances(rollouts, stale(tree, 0.5, 0))
    before, draw = torch.from_numpy(np.log(old)), torch.from_numpy(old.prod(-1))
    cost = forward_cross_entropy(batch.logps(), batch.teacher)
    logps, mask = batch.sampled(), batch.mask
    clip = 2.0 if kind.endswith("<= 2") else 1e9
    if kind.startswith("prefix"):
        weight, _ = prefix_ratios(logps, before, mask, clip=clip)
        loss = distil_token_loss(cost * weight, logps, mask)
        name = "stale, prefix ratio" + (" <= 2" if clip == 2 else "")
    elif kind.startswith("token"):
        ratio = token_ratio(logps, before, mask, clip=clip)
        loss = ratio * distil_token_loss(cost, logps, mask)
        name = "stale, token ratio" + (" <= 2" if clip == 2 else "")
    else:
        loss, name = distil_token_loss(cost, logps, mask), "stale, no ratio"
    close(expected(batch, loss, draw), mean_of(tree, name))


# ---------------------------------------------------------------- one state


@pytest.mark.parametrize("name", ["forward_cross_entropy", "reverse_kl", "jensen_shannon"])
def test_a_step_in_policy_space_agrees_with_the_bandits(name: str) -> None:
    tree = make_tree(6, 1, seed=4)
    p, q = tree.p(), tree.teacher
    logits = torch.from_numpy(tree.student.copy()).requires_grad_()
    logps, teacher = logits.log_softmax(-1)[None], torch.from_numpy(q).log()[None]
    value = policy_space(NEURAL[name], logps, teacher, clip=1e9)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    step = divergences.direction(p, divergences.SLOPES[name](q, p), "policy")
    close(-slope.numpy(), step - step.mean(-1, keepdims=True))
    plain = divergences.direction(p, divergences.SLOPES[name](q, p), "logit")
    close(-plain, in_logits(p, EXACT[name](p, q)[1]))
