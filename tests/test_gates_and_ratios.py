"""Weights on costs, ratios for old rollouts, discounts: against enumeration, and in the trainer."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from distil.assembly import assemble
from distil.config import ObjectiveConfig
from distil.objectives import (
    confident_teacher,
    distil_token_loss,
    forward_cross_entropy,
    from_first_error,
    future_credit,
    jensen_shannon,
    not_an_end,
    pass_rate_weight,
    prefix_ratios,
    reverse_kl,
    token_ratio,
    until_first_error,
)
from distil.scoring import StudentScores
from trainertoys import change_objective, generation_batch, gradient, make_trainer
from trees import Tree, make_tree, other_policy

COSTS = [forward_cross_entropy, reverse_kl, jensen_shannon]
Cost = Callable[[Tensor, Tensor], Tensor]


def averaged(tree: Tree, token_loss: Tensor, behaviour: Tree | None = None) -> Tensor:
    """Gradient of the token losses' sum, averaged over sequences of the (behaviour) policy."""
    probability = (behaviour or tree).probability().detach()
    expected = (probability * token_loss.sum(-1)).sum()
    return torch.autograd.grad(expected, tree.student, retain_graph=True)[0]


# ---------------------------------------------------------------- ratios


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


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("early_stop", [False, True])
def test_weights_of_states_keep_the_gradient_of_the_weighted_loss_exact(
    cost: Cost, early_stop: bool
) -> None:
    tree = make_tree(3, 3, early_stop=early_stop)
    generator = torch.Generator().manual_seed(5)
    of_state = torch.rand(len(tree.student), generator=generator, dtype=torch.float64)
    weight = of_state[tree.states]
    exact = tree.exact_gradient(lambda s, t: weight * cost(s, t))
    inside = distil_token_loss(weight * tree.cost(cost), tree.sampled(), tree.mask)
    assert (averaged(tree, inside) - exact).abs().max() < 1e-8
    outside = weight * distil_token_loss(tree.cost(cost), tree.sampled(), tree.mask)
    assert (averaged(tree, outside) - exact).abs().max() > 1e-3


def test_the_gate_by_the_teachers_entropy_is_a_weight_of_states() -> None:
    tree = make_tree(3, 3)
    entropy = -(tree.teacher.exp() * tree.teacher).sum(-1)[tree.states]
    gate = confident_teacher(entropy, entropy.median().item())
    assert 0 < gate.mean() < 1
    exact = tree.exact_gradient(lambda s, t: gate * forward_cross_entropy(s, t))
    loss = distil_token_loss(gate * tree.cost(forward_cross_entropy), tree.sampled(), tree.mask)
    assert (averaged(tree, loss) - exact).abs().max() < 1e-8


def test_the_gate_by_first_error_lacks_just_its_own_tokens_score() -> None:
    """Its weight looks at the judged token: with that token's own cost credited, it'd be exact."""
    tree = make_tree(3, 3)
    at_token = tree.teacher[tree.states].gather(-1, tree.tokens[..., None])[..., 0]
    gate = from_first_error(tree.sampled(), at_token, tree.mask, margin=0.5)
    assert 0 < gate.mean() < 1
    weighted = gate * tree.cost(forward_cross_entropy)
    exact = tree.exact_gradient(lambda s, t: gate * forward_cross_entropy(s, t))
    loss = distil_token_loss(weighted, tree.sampled(), tree.mask)
    own = tree.sampled() * weighted.detach()
    assert (averaged(tree, loss) - exact).abs().max() > 1e-3
    assert (averaged(tree, loss + own) - exact).abs().max() < 1e-8


def test_pass_rate_weight_by_hand() -> None:
    succeeded = torch.tensor([0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1.0])
    expected = [0.0] * 4 + [0.5] * 4 + [0.0] * 4 + [math.sqrt(1 / 4 * 3 / 4)] * 4
    assert pass_rate_weight(succeeded, 4).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("group_size", [0, -2, 3, 5])
def test_pass_rate_weight_refuses_parts_of_groups(group_size: int) -> None:
    with pytest.raises(ValueError, match=f"4 rows can't be split into groups of {group_size}"):
        pass_rate_weight(torch.ones(4), group_size)


def test_confident_teacher_by_hand() -> None:
    entropy = torch.tensor([[0.0, 1.0, 1.5, 2.0]])
    assert confident_teacher(entropy, 1.5).tolist() == [[1, 1, 1, 0]]


def test_from_first_error_by_hand() -> None:
    teacher = torch.tensor([[-3.0, -1.0, -4.0, -1.0]] * 4)
    student = torch.tensor(
        [
            [-3.0, -1.0, -1.0, -9.0],  # 3 nats likelier at the third token
            [-3.0, -1.0, -2.0, -1.0],  # exactly the margin, 2: no objection
            [-3.0, -1.0, -1.0, -1.0],  # the objection is at a masked token
            [-0.5, -1.0, -9.0, -9.0],  # at the first token: all count
        ]
    )
    mask = torch.ones(4, 4)
    mask[2, 2] = 0
    expected = [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert from_first_error(student, teacher, mask, margin=2.0).tolist() == expected


def test_from_first_error_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="Shapes differ"):
        from_first_error(torch.zeros(1, 2), torch.zeros(1, 3), torch.ones(1, 2), 1.0)
    with pytest.raises(ValueError, match="Shapes differ"):
        from_first_error(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 3), 1.0)


# ---------------------------------------------------------------- discount and mean


def credit_by_loops(cost: Tensor, mask: Tensor, discount: float, *, mean: bool) -> Tensor:
    """The definition in `future_credit`'s docstring, term by term."""
    credit = torch.zeros_like(cost)
    for row in range(len(cost)):
        sampled = [t for t in range(cost.shape[1]) if mask[row, t]]
        for place, t in enumerate(sampled):
            later = sampled[place + 1 :]
            total = sum(discount**n * float(cost[row, i]) for n, i in enumerate(later))
            credit[row, t] = total / max(len(later), 1) if mean else total
    return credit


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("discount", [1.0, 0.9, 0.3])
def test_future_credit_equals_its_definition_term_by_term(discount: float, mean: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    cost = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    mask = (torch.rand(6, 9, generator=generator) > 0.4).double()
    ours = future_credit(cost, mask, reduction="mean" if mean else "sum", discount=discount)
    expected = credit_by_loops(cost, mask, discount, mean=mean)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("future", ["sum", "mean"])
def test_a_discounted_future_term_equals_its_enumeration_and_is_biased(
    early_stop: bool, future: str
) -> None:
    tree = make_tree(3, 4, early_stop=early_stop)
    cost = tree.cost(forward_cross_entropy)
    loss = distil_token_loss(cost, tree.sampled(), tree.mask, future=future, discount=0.5)
    credit = credit_by_loops(cost.detach(), tree.mask, 0.5, mean=future == "mean")
    expected = (cost + tree.sampled() * credit) * tree.mask
    ours = averaged(tree, loss)
    by_definition = averaged(tree, expected)
    torch.testing.assert_close(ours, by_definition, rtol=0, atol=1e-12)
    assert (ours - tree.exact_gradient(forward_cross_entropy)).abs().max() > 1e-3


def test_future_weight_scales_the_future_term_alone() -> None:
    tree = make_tree(3, 3)

    def with_weight(future_weight: float) -> Tensor:
        cost = tree.cost(forward_cross_entropy)
        return averaged(
            tree,
            distil_token_loss(cost, tree.sampled(), tree.mask, future_weight=future_weight),
        )

    local, whole = with_weight(0.0), with_weight(1.0)
    expected = local + 0.25 * (whole - local)
    torch.testing.assert_close(with_weight(0.25), expected, rtol=0, atol=1e-12)
    assert (whole - local).abs().max() > 1e-2


# ---------------------------------------------------------------- in the trainer


class Ratios(TrainerCallback):
    """Keeps what was logged as distil/ratio, update by update."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # type: ignore[no-untyped-def]
        if "distil/ratio" in logs:
            self.seen.append(logs["distil/ratio"])


STALE = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
}


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


def test_pass_rate_weighs_each_row_by_its_groups_rewards(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"prompt_weight": "pass_rate"})
    batch = generation_batch(trainer)
    rewards = [r["reward"] for r in trainer.rollout_log._records]
    for group in (slice(0, 4), slice(4, 8)):
        rate = sum(r >= 0.5 for r in rewards[group]) / 4
        expected = torch.full_like(batch["weight"][group], math.sqrt(rate * (1 - rate)))
        torch.testing.assert_close(batch["weight"][group], expected)
    assert batch["weight"].max() > 0


def test_tokens_of_an_unsure_teacher_weigh_nothing(tmp_path: Path) -> None:
    entropy = generation_batch(make_trainer(tmp_path / "plain"))["teacher_entropy"]
    maximum = entropy[entropy > 0].median().item()
    batch = generation_batch(
        make_trainer(tmp_path / "gated", objective={"max_teacher_entropy": maximum})
    )
    assert torch.equal(batch["weight"], (batch["teacher_entropy"] <= maximum).float())
    assert 0 < (batch["weight"] * batch["active"]).sum() < batch["active"].sum()


def test_tokens_before_the_first_objection_weigh_nothing(tmp_path: Path) -> None:
    margin = 0.05
    trainer = make_trainer(tmp_path, objective={"first_error_margin": margin})
    batch = generation_batch(trainer)
    with torch.no_grad():
        student = trainer.builder.score_student(trainer.model, batch).sampled_logps
    gaps = student - batch["teacher_sampled_logps"]
    for row in range(8):
        started = False
        for t in range(int(batch["completion_mask"][row].sum())):
            started = started or bool(batch["active"][row, t] and gaps[row, t] > margin)
            assert batch["weight"][row, t] == started
    kept = batch["weight"][batch["active"] > 0]
    assert 0 < kept.mean() < 1


def test_gates_multiply_and_the_baseline_sees_the_weighted_cost(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, objective={"prompt_weight": "pass_rate", "first_error_margin": 0.05}
    )
    batch = generation_batch(trainer)
    rewards = [r["reward"] for r in trainer.rollout_log._records]
    rates = [sum(r >= 0.5 for r in rewards[i : i + 4]) / 4 for i in (0, 4)]
    weighed = {round(math.sqrt(r * (1 - r)), 5) for r in rates}
    assert {round(w, 5) for w in batch["weight"].unique().tolist()} <= weighed | {0.0}
    with torch.no_grad():
        cost = trainer.builder.score_student(trainer.model, batch).cost
    credit = credit_by_loops(cost * batch["weight"], batch["active"], 1.0, mean=False)
    for row in range(8):
        others = [r for r in range(row // 4 * 4, row // 4 * 4 + 4) if r != row]
        for t in range(credit.shape[1]):
            alive = [float(credit[r, t]) for r in others if batch["active"][r, t]]
            expected = sum(alive) / len(alive) if alive else 0.0
            assert batch["baseline"][row, t].item() == pytest.approx(expected, abs=1e-4)
    assert batch["baseline"].abs().max() > 1e-3


def test_only_a_rows_own_end_token_loses_its_score() -> None:
    """Row by row: ends with 2; ends at once; is cut off; has a 4 before its end; is all masked."""
    ids = torch.tensor([[5, 9, 2], [2, 7, 7], [5, 9, 9], [4, 5, 4], [2, 2, 2]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]])
    expected = [[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]]
    assert not_an_end(ids, mask, [2, 4]).tolist() == expected
    assert not_an_end(ids, mask, []).tolist() == [[1, 1, 1]] * 5


def test_without_credit_for_ends_only_their_score_is_gone(tmp_path: Path) -> None:
    options: dict[str, Any] = {"feedback_order": ["expert"]}
    with_ends = make_trainer(tmp_path / "a", objective={"credit_end": True}, **options)
    without = make_trainer(tmp_path / "b", objective={"credit_end": False}, **options)
    batch, other = generation_batch(with_ends), generation_batch(without)
    lengths = other["completion_mask"].sum(1)
    last = other["completion_ids"].gather(1, lengths[:, None] - 1)[:, 0]
    ended = torch.isin(last, torch.tensor([2, *range(3, 13)]))  # the toy model's end tokens
    assert ended.sum() > 0
    assert (other["score_weight"] == 0).sum(1).tolist() == ended.long().tolist()
    student = with_ends.builder.score_student(with_ends.model, batch)
    credit = future_credit(student.cost, batch["active"]) - batch["baseline"]
    ends = other["score_weight"] == 0
    lost = (credit * student.sampled_logps)[ends].sum() / batch["active_count"]
    torch.testing.assert_close(
        without._compute_loss(without.model, other),
        with_ends._compute_loss(with_ends.model, batch) - lost,
    )
    assert lost.abs() > 1e-3


def test_until_the_first_error_counts_that_token_and_none_after_it() -> None:
    """Student minus teacher, in nats: an objection is above 1; a masked one is none."""
    gap = torch.tensor([[0.0, 2.0, 0.0, 3.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.5, 1.0, -4.0],
                        [2.0, 0.0, 2.0, 0.0]])  # fmt: skip
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]])
    expected = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert until_first_error(gap, torch.zeros(4, 4), mask, 1.0).tolist() == expected
    from_it = from_first_error(gap, torch.zeros(4, 4), mask, 1.0)
    both = from_it * until_first_error(gap, torch.zeros(4, 4), mask, 1.0)
    assert both.sum(1).tolist() == [1, 1, 0, 1]  # the first error itself, where there is one


@pytest.mark.parametrize("cost", COSTS)
def test_distilling_until_the_first_error_has_an_exact_gradient(cost: Cost) -> None:
    """The weight looks at earlier tokens only: a plain derivative of the enumerated gated sum."""
    tree = make_tree(3, 4, early_stop=True, seed=3)
    teacher = tree.teacher[tree.states].gather(-1, tree.tokens[..., None])[..., 0]
    weight = until_first_error(tree.sampled(), teacher, tree.mask, 0.3).detach()
    assert 0 < (weight * tree.mask).sum() < tree.mask.sum()
    costs = tree.cost(cost)
    exact = torch.autograd.grad(
        (tree.probability() * (weight * costs * tree.mask).sum(-1)).sum(), tree.student,
        retain_graph=True,
    )[0]  # fmt: skip
    ours = averaged(tree, distil_token_loss(weight * costs, tree.sampled(), tree.mask))
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-8)


def test_the_trainer_distils_until_the_first_error(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, objective={"first_error_margin": 0.1, "first_error": "until"},
        feedback_order=["expert"],
    )  # fmt: skip
    batch = generation_batch(trainer)
    student = trainer.builder.score_student(trainer.model, batch)
    gap = student.sampled_logps.detach() - batch["teacher_sampled_logps"]
    kept = []
    for row, length in enumerate(batch["completion_mask"].sum(1).tolist()):
        objected = [i for i in range(length) if gap[row, i] > 0.1]
        kept.append(objected[0] + 1 if objected else batch["weight"].shape[1])
    first_zero = (batch["weight"] == 0).long().cumsum(1).eq(0).sum(1)
    assert [min(a, b) for a, b in zip(first_zero.tolist(), kept, strict=True)] == kept
    assert (batch["weight"].sum(1) == first_zero).all()
    assert min(kept) < batch["weight"].shape[1]
