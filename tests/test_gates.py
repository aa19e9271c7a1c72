"""Weights on costs: by hand, against enumeration, and in the trainer."""

import math
from pathlib import Path

import pytest
import torch

from distil.objectives import (
    confident_teacher,
    distil_token_loss,
    forward_cross_entropy,
    from_first_error,
    pass_rate_weight,
    until_first_error,
)
from trainertoys import generation_batch, make_trainer
from trees import COSTS, Cost, averaged, credit_by_loops, make_tree

# ---------------------------------------------------------------- the functions


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


@pytest.mark.parametrize(("token", "error"), [(0, 0.43), (-1, 0.90)], ids=["first", "last"])
def test_a_context_that_depends_on_the_rollout_is_no_part_of_the_gradient(
    token: int, error: float
) -> None:
    """docs/method.md states both: an early token decides what its successors are taught."""
    tree = make_tree(4, 3)
    has_context = (tree.tokens[:, token] == 1).double()[:, None].expand_as(tree.mask)
    costs = has_context * tree.cost(forward_cross_entropy)
    ours = averaged(tree, distil_token_loss(costs, tree.sampled(), tree.mask))
    objective = (tree.probability() * (costs * tree.mask).sum(-1)).sum()
    (exact,) = torch.autograd.grad(objective, tree.student)
    assert float((ours - exact).norm() / exact.norm()) == pytest.approx(error, abs=0.005)


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


# ---------------------------------------------------------------- in the trainer


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
