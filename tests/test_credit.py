"""Future credit: its definition term by term, discount and mean, and none for a rollout's end."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distil.objectives import distil_token_loss, forward_cross_entropy, future_credit, not_an_end
from trainertoys import generation_batch, make_trainer
from trees import averaged, credit_by_loops, make_tree

# ---------------------------------------------------------------- discount and mean


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


# ---------------------------------------------------------------- ends


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
