"""The objectives against exact enumeration, and the laws that padding and batching must keep."""

import math

import pytest
import torch
from torch import Tensor

from distil.objectives import (
    append_tail,
    distil_token_loss,
    forward_cross_entropy,
    forward_kl,
    future_credit,
    jensen_shannon,
    leave_one_out,
    masked_mean,
    renormalise,
    reverse_kl,
)
from trees import Tree, make_tree

COSTS = {
    "forward_cross_entropy": forward_cross_entropy,
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "skewed_jensen_shannon": lambda s, t: jensen_shannon(s, t, teacher_weight=0.3),
}
TREES = [(3, 3), (3, 4), (2, 10)]


def surrogate_gradient(tree: Tree, cost: str, **options: object) -> Tensor:
    """sum_y pi(y) grad(surrogate of y): what sampling gives in expectation."""
    token_loss = distil_token_loss(tree.cost(COSTS[cost]), tree.sampled(), tree.mask, **options)
    expected = (tree.probability().detach() * token_loss.sum(-1)).sum()
    return torch.autograd.grad(expected, tree.student)[0]


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize(("vocabulary", "length"), TREES)
def test_expected_gradient_equals_enumeration(
    cost: str, vocabulary: int, length: int, early_stop: bool
) -> None:
    tree = make_tree(vocabulary, length, early_stop=early_stop)
    exact = tree.exact_gradient(COSTS[cost])
    assert (surrogate_gradient(tree, cost) - exact).abs().max() < 1e-8
    assert exact.abs().max() > 1e-3


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize(("vocabulary", "length"), [(3, 3), (3, 4)])
def test_leave_one_out_baseline_keeps_the_gradient_exact(
    cost: str, vocabulary: int, length: int, early_stop: bool
) -> None:
    tree = make_tree(vocabulary, length, early_stop=early_stop)
    n = len(tree.tokens)
    first, second = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    rows = torch.stack([first, second], 1).flatten()  # every pair is a group of two
    token_loss = distil_token_loss(
        tree.cost(COSTS[cost])[rows], tree.sampled()[rows], tree.mask[rows], group_size=2
    )
    probability = tree.probability().detach()
    weight = (probability[first] * probability[second]).repeat_interleave(2)
    expected = (weight * token_loss.sum(-1)).sum() / 2
    gradient = torch.autograd.grad(expected, tree.student)[0]
    assert (gradient - tree.exact_gradient(COSTS[cost])).abs().max() < 1e-8


def test_baseline_lowers_the_variance_of_the_gradient() -> None:
    tree = make_tree(3, 4)
    n = len(tree.tokens)
    first, second = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    rows = torch.stack([first, second], 1).flatten()
    cost, sampled = tree.cost(forward_cross_entropy).detach(), tree.sampled().detach()
    credit = future_credit(cost, tree.mask)[rows]
    baseline = leave_one_out(credit, tree.mask[rows], 2)
    probability = tree.probability().detach()
    weight = (probability[first] * probability[second]).repeat_interleave(2)[:, None] / 2
    assert sampled.shape == tree.mask.shape
    plain, centred = ((weight * x**2).sum() for x in (credit, credit - baseline))
    assert centred < 0.7 * plain


@pytest.mark.parametrize("future", ["mean", "none"])
def test_mean_and_local_credit_are_biased(future: str) -> None:
    tree = make_tree(2, 10)
    exact = tree.exact_gradient(forward_cross_entropy)
    other = surrogate_gradient(tree, "forward_cross_entropy", future=future)
    cosine = torch.nn.functional.cosine_similarity(exact.flatten(), other.flatten(), dim=0)
    assert 0.3 < cosine < 0.999


def test_forward_cross_entropy_and_kl_differ_only_in_future_credit() -> None:
    tree = make_tree(3, 3)
    local = [
        surrogate_gradient(tree, c, future="none") for c in ("forward_cross_entropy", "forward_kl")
    ]
    whole = [surrogate_gradient(tree, c) for c in ("forward_cross_entropy", "forward_kl")]
    torch.testing.assert_close(local[0], local[1], rtol=0, atol=1e-12)
    assert (whole[0] - whole[1]).abs().max() > 1e-3


def test_costs_by_hand() -> None:
    p, q = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.25, 0.75]]]).log()
    log2 = math.log(2)
    assert forward_cross_entropy(p, q).item() == pytest.approx(log2)
    kl_qp = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    kl_pq = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert forward_kl(p, q).item() == pytest.approx(kl_qp)
    assert reverse_kl(p, q).item() == pytest.approx(kl_pq)
    m = (0.375, 0.625)
    js = 0.5 * (
        0.25 * math.log(0.25 / m[0]) + 0.75 * math.log(0.75 / m[1])
        + 0.5 * math.log(0.5 / m[0]) + 0.5 * math.log(0.5 / m[1])
    )  # fmt: skip
    assert jensen_shannon(p, q).item() == pytest.approx(js)


def test_teacher_gets_no_gradient_and_zero_probability_counts_nothing() -> None:
    teacher = torch.tensor([[[0.0, -math.inf]]], requires_grad=True)
    student = torch.tensor([[[math.log(0.5), math.log(0.5)]]], requires_grad=True)
    cost = forward_cross_entropy(student, teacher)
    assert cost.item() == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(cost.sum(), student)
    assert torch.equal(gradient, torch.tensor([[[-1.0, 0.0]]]))
    assert torch.isfinite(forward_kl(student, teacher)).all()
    assert torch.isfinite(jensen_shannon(student, teacher)).all()


def test_half_precision_is_widened() -> None:
    logps = torch.randn(1, 2, 5, dtype=torch.bfloat16).log_softmax(-1)
    assert forward_cross_entropy(logps, logps).dtype == torch.float32


def test_tail_completes_the_distribution() -> None:
    whole = torch.randn(2, 3, 10, dtype=torch.float64).log_softmax(-1)
    part = append_tail(whole[..., :4])
    torch.testing.assert_close(part.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(part[..., -1], whole[..., 4:].logsumexp(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tail_is_stable_as_its_mass_vanishes(dtype: torch.dtype) -> None:
    for mass in (1e-3, 1e-6, 1e-12, 0.0):
        support = torch.tensor([[[math.log1p(-mass)]]], dtype=dtype, requires_grad=True)
        tail = append_tail(support)[..., -1]
        assert torch.isfinite(tail).all()
        (gradient,) = torch.autograd.grad(tail.sum(), support)
        assert torch.isfinite(gradient).all()
        if dtype == torch.float64 and mass > 1e-9:
            assert tail.item() == pytest.approx(math.log(mass), rel=1e-6)


@pytest.mark.parametrize("close", [append_tail, renormalise])
def test_support_of_the_whole_vocabulary_equals_the_full_objective(close: object) -> None:
    tree = make_tree(3, 3)
    full = tree.cost(forward_cross_entropy)
    permuted = torch.argsort(torch.rand_like(tree.logps().detach()), -1)
    student = tree.logps().gather(-1, permuted)
    teacher = tree.teacher[tree.states].gather(-1, permuted)
    supported = forward_cross_entropy(close(student), close(teacher))  # type: ignore[operator]
    torch.testing.assert_close(supported, full, rtol=0, atol=1e-12)


def test_future_credit_by_hand() -> None:
    cost = torch.tensor([[1.0, 2.0, 4.0, 8.0, 99.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0]])  # a tool's token in the middle, a pad last
    assert future_credit(cost, mask).tolist() == [[10.0, 8.0, 0.0, 0.0, 0.0]]
    assert future_credit(cost, mask, reduction="mean").tolist() == [[5.0, 8.0, 0.0, 0.0, 0.0]]
    discounted = future_credit(cost, mask, discount=0.5)
    assert discounted.tolist() == [[2.0 + 0.5 * 8.0, 8.0, 0.0, 0.0, 0.0]]


def test_discount_of_one_in_the_loop_equals_the_cumulative_sum() -> None:
    cost, mask = torch.rand(3, 7, dtype=torch.float64), (torch.rand(3, 7) > 0.3).double()
    almost = future_credit(cost, mask, discount=1 - 1e-12)
    torch.testing.assert_close(almost, future_credit(cost, mask), rtol=0, atol=1e-9)


def test_last_token_has_no_future() -> None:
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    credit = future_credit(torch.rand(2, 4) + 1, mask)
    assert credit[0, 2] == 0
    assert credit[1].abs().sum() == 0


def test_masked_values_never_leak_even_if_they_are_nan() -> None:
    cost = torch.tensor([[1.0, math.nan, 2.0]], requires_grad=True)
    logps = torch.tensor([[-1.0, math.nan, -1.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 0.0, 1.0]])
    loss = masked_mean(distil_token_loss(cost, logps, mask), mask)
    assert loss.item() == pytest.approx((1 + 2 - 1 * 2) / 2)
    for gradient in torch.autograd.grad(loss, [cost, logps]):
        assert torch.isfinite(gradient).all()


def test_fully_masked_rows_give_a_finite_zero_with_a_gradient() -> None:
    cost = torch.rand(2, 3, requires_grad=True)
    mask = torch.zeros(2, 3)
    loss = masked_mean(distil_token_loss(cost, cost, mask, group_size=2), mask)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, cost)
    assert torch.equal(gradient, torch.zeros(2, 3))


def test_leave_one_out_by_hand() -> None:
    values = torch.tensor([[1.0, 10.0], [3.0, 20.0], [5.0, 30.0], [7.0, 70.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    expected = [[3.0, 0.0], [1.0, 10.0], [7.0, 70.0], [5.0, 0.0]]
    assert leave_one_out(values, mask, 2).tolist() == expected
    assert leave_one_out(values, mask, 1).abs().sum() == 0


def _random_batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(8, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    logps = (-torch.rand(8, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    lengths = torch.tensor([6, 3, 1, 5, 2, 6, 4, 3])
    return cost, logps, (torch.arange(6) < lengths[:, None]).double()


def test_micro_batches_add_up_to_the_whole() -> None:
    cost, logps, mask = _random_batch()
    options = {"future": "sum", "group_size": 4}
    whole = masked_mean(distil_token_loss(cost, logps, mask, **options), mask)
    parts = [
        masked_mean(
            distil_token_loss(cost[i:j], logps[i:j], mask[i:j], **options), mask[i:j], mask.sum()
        )
        for i, j in ((0, 4), (4, 8))
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(x, logps, retain_graph=True)[0] for x in (sum(parts), whole)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_a_baseline_from_elsewhere_equals_the_groups_own() -> None:
    cost, logps, mask = _random_batch()
    own = distil_token_loss(cost, logps, mask, group_size=4)
    baseline = leave_one_out(future_credit(cost, mask), mask, 4)
    order = torch.randperm(8)
    given = distil_token_loss(cost[order], logps[order], mask[order], baseline=baseline[order])
    torch.testing.assert_close(given, own[order], rtol=0, atol=1e-12)


def test_padding_does_not_change_the_loss() -> None:
    cost, logps, mask = _random_batch()
    padded = [
        torch.nn.functional.pad(x, (0, 3), value=v)
        for x, v in ((cost, 9.0), (logps, 5.0), (mask, 0.0))
    ]
    for future in ("sum", "mean", "none"):
        a = masked_mean(distil_token_loss(cost, logps, mask, future=future, group_size=4), mask)
        b = masked_mean(distil_token_loss(*padded, future=future, group_size=4), padded[2])
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_order_of_groups_does_not_change_the_loss() -> None:
    cost, logps, mask = _random_batch()
    order = torch.tensor([5, 4, 7, 6, 1, 3, 0, 2])
    a = masked_mean(distil_token_loss(cost, logps, mask, group_size=4), mask)
    b = masked_mean(
        distil_token_loss(cost[order], logps[order], mask[order], group_size=4), mask[order]
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_impossible_arguments_are_refused() -> None:
    x = torch.rand(2, 3)
    with pytest.raises(ValueError, match="Shapes differ"):
        future_credit(x, torch.ones(2, 2))
    with pytest.raises(ValueError, match="discount"):
        future_credit(x, torch.ones(2, 3), discount=0.0)
    with pytest.raises(ValueError, match="reduction"):
        future_credit(x, torch.ones(2, 3), reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups"):
        leave_one_out(x, torch.ones(2, 3), 3)
    with pytest.raises(ValueError, match="teacher_weight"):
        jensen_shannon(x[None], x[None], teacher_weight=1.0)
