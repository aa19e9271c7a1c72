"""The rivals' losses by hand: as released for mathematics and science, advantages, means."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from distil.config import ObjectiveConfig
from distil.objectives import (
    advantage_token_loss,
    append_tail,
    forward_cross_entropy,
    mean_of_sequence_means,
    released_math_token_loss,
)
from distil.trainer.assembly import assemble
from distil.trainer.scoring import StudentScores
from trees import make_tree


def test_the_released_math_loss_by_hand() -> None:
    cost = torch.tensor([[0.02, 0.06, 0.01, 0.03]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 0]])
    loss = released_math_token_loss(cost, mask)
    # Cut at 0.05: .02 .05 .01 .03. Later sums, the pad's too: .09 .04 .03. Unmasked later: 2 1 0.
    expected = [0.02 * (1 + 0.09 / 2), 0.05 * (1 + 0.04 / 1), 0.01 * (1 + 0.03 / 1), 0.0]
    assert loss[0].tolist() == pytest.approx(expected)
    (slope,) = torch.autograd.grad(loss.sum(), cost)
    # None above 0.05, none through the factor, none at the pad.
    assert slope[0].tolist() == pytest.approx([1 + 0.09 / 2, 0, 1 + 0.03, 0])


def test_padding_inflates_the_released_math_losss_last_token() -> None:
    for pads in (0, 10, 700):
        cost = torch.full((1, 2 + pads), 0.05, dtype=torch.float64)
        mask = (torch.arange(2 + pads) < 2).double()[None]
        weight = released_math_token_loss(cost, mask)[0, 1] / 0.05
        assert weight.item() == pytest.approx(1 + 0.05 * pads)


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def test_the_released_math_losss_future_has_nothing_to_do_with_the_true_one() -> None:
    """Cosine about 0 on average over trees, and on many the wrong way round.

    The clamp is lifted, to judge the form alone.
    """
    found = []
    for seed in range(20):
        tree = make_tree(3, 4, seed=seed)
        cost = tree.cost(forward_cross_entropy)
        probability = tree.probability().detach()

        def averaged(
            token_loss: Tensor, tree: Any = tree, probability: Tensor = probability
        ) -> Tensor:
            total = (probability * token_loss.sum(-1)).sum()
            return torch.autograd.grad(total, tree.student, retain_graph=True)[0]

        local = averaged(cost * tree.mask)
        true_future = tree.exact_gradient(forward_cross_entropy) - local
        whole = averaged(released_math_token_loss(cost, tree.mask, clamp=math.inf))
        found.append(cosine(whole - local, true_future))
    assert abs(sum(found) / len(found)) < 0.2
    assert sum(c < 0 for c in found) >= 5


def test_the_released_clamp_leaves_no_gradient_on_a_tree_of_real_costs() -> None:
    tree = make_tree(3, 4)
    cost = tree.cost(forward_cross_entropy)
    assert cost[tree.mask > 0].min() > 0.05
    loss = released_math_token_loss(cost, tree.mask).sum()
    assert torch.autograd.grad(loss, tree.student)[0].abs().max() == 0


def science_case() -> tuple[StudentScores, dict[str, Tensor], Tensor, Tensor]:
    """Three rollouts of three tokens: one whole, one of two tokens, one without a context."""
    student = torch.tensor(
        [
            [[0.5, 0.3], [0.6, 0.1], [0.25, 0.25]],
            [[0.7, 0.2], [0.4, 0.4], [0.5, 0.1]],
            [[0.5, 0.3], [0.6, 0.1], [0.2, 0.7]],
        ],
        dtype=torch.float64,
    )
    teacher = torch.tensor(
        [
            [[0.2, 0.7], [0.9, 0.05], [0.5, 0.25]],
            [[0.1, 0.6], [0.3, 0.5], [0.5, 0.1]],
            [[0.2, 0.7], [0.9, 0.05], [0.5, 0.25]],
        ],
        dtype=torch.float64,
    )
    logps = torch.tensor(
        [[0.5, 0.1, 0.25], [0.2, 0.4, 0.9], [0.5, 0.6, 0.7]], dtype=torch.float64
    ).log()
    logps.requires_grad_()
    ratios = torch.tensor([[3.0, 0.5, 1.0], [1.5, 2.5, 9.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    active = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]])
    cost = forward_cross_entropy(append_tail(student.log()), append_tail(teacher.log()))
    batch = {
        "active": active,
        "scored": active,
        "weight": torch.ones(3, 3, dtype=torch.float64),
        "old_logps": logps.detach() - ratios.log(),
        "active_count": active.sum(),
        "row_count": torch.tensor(3),
    }
    nothing = torch.zeros_like(cost)
    return StudentScores(cost, logps, nothing, nothing), batch, student, teacher


def test_the_released_science_loss_by_hand() -> None:
    scores, batch, student, teacher = science_case()
    objective = ObjectiveConfig(
        future="mean", baseline=False, support="student", reduction="sequences",
        ratio="token_clipped", ratio_clip=2.0, advantage_weight=0.0,
    )  # fmt: skip
    loss = assemble(objective, scores, batch, share=1.0).loss

    def cross_entropy(row: int, t: int) -> float:
        p, q = student[row, t].tolist(), teacher[row, t].tolist()
        pairs = zip([*q, 1 - sum(q)], [*p, 1 - sum(p)], strict=True)
        return -sum(b * math.log(a) for b, a in pairs)

    a, b, c = (cross_entropy(0, t) for t in range(3))
    d, e = (cross_entropy(1, t) for t in range(2))
    whole_row = (
        2 * (a + math.log(0.5) * (b + c) / 2)  # the ratio of 3 is cut
        + 0.5 * (b + math.log(0.1) * c / 1)
        + 1 * (c + math.log(0.25) * 0)
    ) / 3
    short_row = (1.5 * (d + math.log(0.2) * e / 1) + 2 * (e + math.log(0.4) * 0)) / 2
    assert loss.item() == pytest.approx((whole_row + short_row + 0) / 3)
    (slope,) = torch.autograd.grad(loss, scores.sampled_logps)
    expected = [2 * (b + c) / 2 / 9, 0.5 * c / 9, 0, 1.5 * e / 6, 0, 0, 0, 0, 0]
    assert slope.flatten().tolist() == pytest.approx(expected)


def test_the_mean_over_tokens_differs_from_that_over_sequences() -> None:
    scores, batch, *_ = science_case()
    objective = ObjectiveConfig(future="none", ratio="none", advantage_weight=0.0)
    loss = assemble(objective, scores, batch, share=1.0).loss
    kept = [*scores.cost[0, :3].tolist(), *scores.cost[1, :2].tolist()]
    assert loss.item() == pytest.approx(sum(kept) / 5)
    half = assemble(objective, scores, batch, share=0.5).loss
    assert half.item() == pytest.approx(2 * sum(kept) / 5)
    sequences = assemble(replace(objective, reduction="sequences"), scores, batch, share=1.0).loss
    assert sequences.item() == pytest.approx((sum(kept[:3]) / 3 + sum(kept[3:]) / 2) / 3)


def test_the_advantages_loss_by_hand() -> None:
    logps = torch.tensor([[-1.0, -2.0, math.nan], [-0.5, -3.0, -1.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    advantages = torch.tensor([2.0, -0.5])
    loss = advantage_token_loss(logps, advantages, mask)
    assert loss.tolist() == [[2.0, 4.0, 0.0], [-0.25, -1.5, -0.5]]
    ratio = torch.tensor([[2.0, 0.5, 1.0], [1.0, 4.0, 1.0]], requires_grad=True)
    loss = advantage_token_loss(logps, advantages, mask, ratio)
    assert loss.tolist() == [[4.0, 2.0, 0.0], [-0.25, -6.0, -0.5]]
    (slope,) = torch.autograd.grad(loss.sum(), logps)  # - A ratio, and none through the ratio
    assert slope.tolist() == [[-4.0, -1.0, 0.0], [0.5, 2.0, 0.5]]
    assert ratio.grad is None


def test_the_mean_of_sequence_means_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0, 9.0], [5.0, math.nan, 9.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert mean_of_sequence_means(values, mask).item() == pytest.approx((2 + 5 + 0) / 3)
    assert mean_of_sequence_means(values, mask, 6).item() == pytest.approx((2 + 5 + 0) / 6)
    parts = [mean_of_sequence_means(values[r], mask[r], 3) for r in ([2, 0], [1])]
    assert sum(parts).item() == pytest.approx((2 + 5 + 0) / 3)  # type: ignore[union-attr]
