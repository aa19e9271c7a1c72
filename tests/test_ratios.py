"""Ratios for old rollouts: exact by enumeration, by hand, and on stale batches in the trainer."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from distil.config import ObjectiveConfig
from distil.objectives import (
    advantage_token_loss,
    answer_ratio,
    distil_token_loss,
    forward_cross_entropy,
    future_credit,
    prefix_ratios,
    token_ratio,
)
from distil.trainer.assembly import assemble
from distil.trainer.scoring import StudentScores
from trainertoys import STALE, change_objective, generation_batch, gradient, make_trainer
from trees import COSTS, Cost, averaged, make_tree, other_policy

# ---------------------------------------------------------------- the functions


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize(("vocabulary", "length"), [(3, 3), (2, 5)])
def test_prefix_ratios_give_the_exact_gradient_on_old_rollouts(
    cost: Cost, early_stop: bool, vocabulary: int, length: int
) -> None:
    tree = make_tree(vocabulary, length, early_stop=early_stop)
    old = other_policy(tree, seed=7)
    before, _ = prefix_ratios(tree.sampled(), old.sampled(), tree.mask)
    loss = distil_token_loss(tree.cost(cost) * before, tree.sampled(), tree.mask)
    exact = tree.exact_gradient(cost)
    assert (averaged(tree, loss, old) - exact).abs().max() < 1e-8
    uncorrected = distil_token_loss(tree.cost(cost), tree.sampled(), tree.mask)
    assert (averaged(tree, uncorrected, old) - exact).abs().max() > 1e-3


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize(("vocabulary", "length"), [(2, 3), (3, 2)])
def test_a_baseline_from_another_old_rollout_keeps_the_gradient_exact(
    cost: Cost, early_stop: bool, vocabulary: int, length: int
) -> None:
    tree = make_tree(vocabulary, length, early_stop=early_stop)
    old = other_policy(tree, seed=7)
    logps, mask = tree.sampled(), tree.mask
    before, through = prefix_ratios(logps, old.sampled(), mask)
    n = len(tree.tokens)
    mine, others = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    baseline = future_credit(tree.cost(cost), mask)[others]  # unweighted, as BatchBuilder's
    weighted = (tree.cost(cost) * before)[mine]
    both = (old.probability()[mine] * old.probability()[others]).detach()

    def gradient_with(b: Tensor) -> Tensor:
        loss = distil_token_loss(weighted, logps[mine], mask[mine], baseline=b)
        total = (both * loss.sum(-1)).sum()
        return torch.autograd.grad(total, tree.student, retain_graph=True)[0]

    exact = tree.exact_gradient(cost)
    assert baseline.abs().max() > 0.01
    assert (gradient_with(baseline * through[mine]) - exact).abs().max() < 1e-8
    # Weighed by `before`, or not at all, the baseline's term would not average to 0.
    assert (gradient_with(baseline * before[mine]) - exact).abs().max() > 1e-4
    assert (gradient_with(baseline) - exact).abs().max() > 1e-4


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize(("vocabulary", "length"), [(3, 3), (2, 5)])
def test_the_answers_ratio_gives_the_exact_gradient_of_a_reward_on_old_rollouts(
    early_stop: bool, vocabulary: int, length: int
) -> None:
    tree = make_tree(vocabulary, length, early_stop=early_stop)
    old, logps, mask = other_policy(tree, seed=7), tree.sampled(), tree.mask
    generator = torch.Generator().manual_seed(3)
    advantage = torch.randn(len(tree.tokens), generator=generator, dtype=torch.float64)
    (exact,) = torch.autograd.grad(-(tree.probability() * advantage).sum(), tree.student)

    def bias(ratio: Tensor) -> float:
        loss = advantage_token_loss(logps, advantage, mask, ratio)
        return float((averaged(tree, loss, old) - exact).abs().max())

    these = logps, old.sampled(), mask
    assert bias(answer_ratio(*these)) < 1e-8
    for biased in (
        torch.ones_like(logps), prefix_ratios(*these)[1], answer_ratio(*these, clip=1.2),
        token_ratio(*these, clip=1e9),
    ):  # fmt: skip
        assert bias(biased) > 1e-3


@pytest.mark.parametrize("kind", ["token_clipped", "token_symmetric"])
@pytest.mark.parametrize("length", [2, 3])
def test_token_ratios_are_biased_where_prefix_ratios_are_not(kind: str, length: int) -> None:
    tree = make_tree(3, length)
    old = other_policy(tree, seed=7)
    ratio = token_ratio(tree.sampled(), old.sampled(), tree.mask, kind=kind, clip=1e9)
    loss = ratio * distil_token_loss(tree.cost(forward_cross_entropy), tree.sampled(), tree.mask)
    exact = tree.exact_gradient(forward_cross_entropy)
    assert (averaged(tree, loss, old) - exact).abs().max() > 1e-3


def test_prefix_ratios_are_biased_once_they_are_cut() -> None:
    tree = make_tree(3, 3)
    old = other_policy(tree, seed=7)
    exact = tree.exact_gradient(forward_cross_entropy)
    before, _ = prefix_ratios(tree.sampled(), old.sampled(), tree.mask, clip=1.2)
    cut = distil_token_loss(tree.cost(forward_cross_entropy) * before, tree.sampled(), tree.mask)
    assert (averaged(tree, cut, old) - exact).abs().max() > 1e-3


def test_prefix_ratios_by_hand() -> None:
    mask = torch.tensor([[1, 1, 0, 1]])
    old = torch.tensor([[-1.0, -2.0, -3.0, -4.0]], dtype=torch.float64)
    logps = old + torch.tensor([[2.0, 0.5, 5.0, 3.0]], dtype=torch.float64).log()
    before, through = prefix_ratios(logps, old, mask)
    close = {"rtol": 0, "atol": 1e-12}
    expected = torch.tensor([[1.0, 2, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(before, expected, **close)
    expected = torch.tensor([[2.0, 1, 1, 3]], dtype=torch.float64)
    torch.testing.assert_close(through, expected, **close)
    before, through = prefix_ratios(logps, old, mask, clip=1.5)
    expected = torch.tensor([[1.0, 1.5, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(before, expected, **close)
    expected = torch.tensor([[1.5, 1, 1, 1.5]], dtype=torch.float64)
    torch.testing.assert_close(through, expected, **close)


def test_token_ratios_by_hand() -> None:
    mask = torch.tensor([[1, 1, 1, 0]])
    old = torch.tensor([[-1.0, -2.0, -3.0, -4.0]], dtype=torch.float64)
    logps = old + torch.tensor([[4.0, 0.1, 1.5, 7.0]], dtype=torch.float64).log()
    for kind, expected in (
        ("token_clipped", [2.0, 0.1, 1.5, 1.0]),
        ("token_symmetric", [2.0, 0.5, 1.5, 1.0]),
    ):
        ratio = token_ratio(logps, old, mask, kind=kind, clip=2.0)
        assert ratio[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_masked_tokens_have_ratio_one_whatever_they_hold() -> None:
    logps = torch.tensor([[-1.0, math.nan, -1.0]])
    old = torch.tensor([[-1.0, 0.0, -1.0]])
    mask = torch.tensor([[1, 0, 1]])
    assert token_ratio(logps, old, mask).tolist() == [[1, 1, 1]]
    for ratios in prefix_ratios(logps, old, mask):
        assert ratios.tolist() == [[1, 1, 1]]


def test_no_gradient_flows_through_a_ratio() -> None:
    logps = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    old, mask = torch.tensor([[-2.0, -1.0]]), torch.ones(1, 2)
    ratios = [token_ratio(logps, old, mask), *prefix_ratios(logps, old, mask)]
    assert not any(r.requires_grad for r in ratios)


def test_impossible_ratios_are_refused() -> None:
    x, mask = torch.zeros(1, 2), torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"clip is 0\.9"):
        token_ratio(x, x, mask, clip=0.9)
    with pytest.raises(ValueError, match=r"clip is nan"):
        prefix_ratios(x, x, mask, clip=math.nan)
    with pytest.raises(ValueError, match="'prefix'"):
        token_ratio(x, x, mask, kind="prefix")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Shapes differ"):
        token_ratio(x, torch.zeros(2, 1), mask)
    with pytest.raises(ValueError, match="Shapes differ"):
        prefix_ratios(x, x, torch.ones(2, 1))


def test_prefix_ratios_weigh_costs_and_baseline_as_assembled() -> None:
    logps = torch.tensor([[-1.0, -2.0, -3.0]], dtype=torch.float64, requires_grad=True)
    cost = torch.tensor([[1.0, 3.0, 5.0]], dtype=torch.float64)
    nothing, active = torch.zeros_like(cost), torch.ones(1, 3, dtype=torch.long)
    ratios = torch.tensor([[2.0, 0.5, 1.5]], dtype=torch.float64)
    batch = {
        "active": active,
        "scored": active,
        "weight": torch.tensor([[1.0, 1.0, 0.5]], dtype=torch.float64),
        "old_logps": logps.detach() - ratios.log(),
        "baseline": torch.tensor([[4.0, 2.0, 1.0]], dtype=torch.float64),
        "active_count": active.sum(),
    }
    objective = ObjectiveConfig(future="sum", advantage_weight=0.0, ratio="prefix", ratio_clip=10.0)
    scores = StudentScores(cost, logps, nothing, nothing)
    found = assemble(objective, scores, batch, share=1.0)
    # Before: 1, 2, 1. Through: 2, 1, 1.5. Weighted costs: 1, 6, 2.5; still to come: 8.5, 2.5, 0.
    credit = [8.5 - 4 * 2, 2.5 - 2 * 1, 0 - 1 * 1.5]
    assert found.credit[0].tolist() == pytest.approx(credit)
    scored = sum(c * lp for c, lp in zip(credit, (-1, -2, -3), strict=True))
    assert found.loss.item() == pytest.approx((1 + 6 + 2.5 + scored) / 3)
    assert found.ratio[0].tolist() == pytest.approx([1, 2, 1])
    # Token by token, the whole of each token's loss is weighed, its baseline too.
    found = assemble(replace(objective, ratio="token_clipped"), scores, batch, share=1.0)
    token_loss = [1 - 1 * (5.5 - 4), 3 - 2 * (2.5 - 2), 2.5 - 3 * (0 - 1)]
    expected = sum(r * x for r, x in zip((2, 0.5, 1.5), token_loss, strict=True)) / 3
    assert found.loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ratio", "weights"),
    [("none", [1, 1, 1]), ("token_clipped", [2, 0.5, 1.5]), ("prefix", [1.5, 1.5, 1.5])],
)
def test_an_advantage_is_weighed_by_what_the_recipe_asks_for(
    ratio: str, weights: list[float]
) -> None:
    logps = torch.tensor([[-1.0, -2.0, -3.0]], dtype=torch.float64, requires_grad=True)
    nothing, active = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.long)
    ratios = torch.tensor([[2.0, 0.5, 1.5]], dtype=torch.float64)
    batch = {
        "active": active, "scored": active, "weight": nothing + 1, "active_count": active.sum(),
        "sampled_count": active.sum(), "advantages": torch.tensor([0.4], dtype=torch.float64),
        "old_logps": logps.detach() - ratios.log(),
    }  # fmt: skip
    objective = ObjectiveConfig(future="none", advantage_weight=1.0, ratio=ratio, ratio_clip=10.0)  # type: ignore[arg-type]
    found = assemble(objective, StudentScores(nothing, logps, nothing, nothing), batch, share=1.0)
    (slope,) = torch.autograd.grad(found.loss, logps)
    assert slope[0].tolist() == pytest.approx([-0.4 * w / 3 for w in weights])


# ---------------------------------------------------------------- in the trainer


class Ratios(TrainerCallback):
    """Keeps what was logged as distil/ratio, update by update."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # type: ignore[no-untyped-def]
        if "distil/ratio" in logs:
            self.seen.append(logs["distil/ratio"])


@pytest.mark.parametrize("ratio", ["token_clipped", "prefix"])
def test_ratios_are_one_at_a_batchs_first_update_only(tmp_path: Path, ratio: str) -> None:
    trainer = make_trainer(
        tmp_path, max_steps=5, objective={"ratio": ratio, "ratio_clip": 1e3}, **STALE
    )
    ratios = Ratios()
    trainer.add_callback(ratios)
    trainer.train()
    first, *stale, next_batch = ratios.seen  # a batch lasts four updates
    assert len(stale) == 3
    assert first == pytest.approx(1, abs=1e-5)
    assert next_batch == pytest.approx(1, abs=1e-5)
    assert min(abs(r - 1) for r in stale) > 1e-3


def test_fresh_rollouts_have_no_old_logps_and_stale_ones_the_sampling_policys(
    tmp_path: Path,
) -> None:
    assert "old_logps" not in generation_batch(make_trainer(tmp_path / "fresh"))
    trainer = make_trainer(tmp_path / "stale", **STALE)
    batch = generation_batch(trainer)
    with torch.no_grad():
        own = trainer.builder.score_student(trainer.model, batch).sampled_logps
    mask = batch["active"] > 0
    torch.testing.assert_close(batch["old_logps"][mask], own[mask], rtol=0, atol=1e-5)
    assert own[mask].abs().max() > 0.1


@pytest.mark.parametrize("ratio", ["token_clipped", "token_symmetric", "prefix"])
def test_any_ratio_on_the_sampling_policy_itself_changes_nothing(
    tmp_path: Path, ratio: str
) -> None:
    trainer = make_trainer(tmp_path, objective={"ratio": ratio, "ratio_clip": 1e6}, **STALE)
    batch = generation_batch(trainer)
    assert "old_logps" in batch
    with_ratio = gradient(trainer, [batch]).clone()
    change_objective(trainer, ratio="none")
    torch.testing.assert_close(with_ratio, gradient(trainer, [batch]), rtol=1e-4, atol=1e-6)


def test_a_stale_batchs_loss_is_weighed_as_assembled_by_hand(tmp_path: Path) -> None:
    """old_logps two nats higher at every token: each prefix ratio is exp(-2 x tokens before)."""
    for ratio in ("token_clipped", "prefix"):
        trainer = make_trainer(
            tmp_path / ratio,
            objective={"ratio": ratio, "ratio_clip": 2.0, "future": "none"},
            **STALE,
        )
        batch = generation_batch(trainer)
        with torch.no_grad():
            scores = trainer.builder.score_student(trainer.model, batch)
        batch["old_logps"] = scores.sampled_logps + 2
        active = batch["active"].float()
        places = active.cumsum(-1) - 1
        weight = torch.exp(-2 * places) if ratio == "prefix" else math.exp(-2)
        # One update takes half of the batch, so the batch's mean counts half as many tokens.
        expected = (weight * scores.cost * active).sum() / (active.sum() / 2)
        with torch.no_grad():
            loss = trainer._compute_loss(trainer.model, batch)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
