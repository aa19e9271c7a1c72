"""The one-pass loss equals the plain composition, in value and gradients, whatever the chunks.

Tolerances: 1e-10 in float64; in half precision 1.3 times the error of the plain way.
"""

import dataclasses
from functools import partial

import pytest
import torch

from distil import objectives
from distil.objectives import COSTS, append_tail, distil_token_loss, masked_mean, renormalise
from distil.objectives.costs import NO_PROBABILITY
from distil.vocab import fused_distil_loss, fused_loss, last_to_first
from trees import make_tree

ROWS, LENGTH, HIDDEN, VOCAB, SUPPORT = 6, 7, 5, 23, 4

CREDIT = {
    "sum": {},
    "mean": {"future": "mean"},
    "local": {"future": "none"},
    "discount": {"discount": 0.6, "future_weight": 0.3},
    "baseline": {"group_size": 3},
    "discounted mean, baseline": {"future": "mean", "discount": 0.8, "group_size": 2},
}
FORMS = {
    "plain": {},
    "all": {"temperature": 1.3, "logit_scale": 2.5, "softcap": 4.0},
}


@dataclasses.dataclass
class Case:
    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    support: torch.Tensor
    teacher: torch.Tensor
    sampled: torch.Tensor
    mask: torch.Tensor

    @property
    def leaves(self):
        return self.hidden, self.weight, self.bias


def case(dtype=torch.float64, *, rows=ROWS, length=LENGTH, hidden=HIDDEN, vocab=VOCAB):
    """Unequal lengths, a hole (a tool's output), a row without any token, repeated ids."""
    make = torch.Generator().manual_seed(0)
    shapes = ((rows, length, hidden), (vocab, hidden), (vocab,))
    leaves = [torch.randn(s, generator=make).to(dtype).requires_grad_() for s in shapes]
    support = torch.rand(rows, length, vocab, generator=make).argsort(-1)[..., :SUPPORT]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    teacher = torch.randn(rows, length, vocab, generator=make, dtype=wide).log_softmax(-1)
    teacher = teacher.gather(-1, support)
    support[0, 1, 2], teacher[0, 1, 2] = support[0, 1, 0], NO_PROBABILITY
    sampled = torch.randint(vocab, (rows, length), generator=make)
    lengths = torch.tensor([length, length - 2, 0, 1, length - 1, length])[:rows]
    mask = (torch.arange(length) < lengths[:, None]).to(wide)
    mask[0, 2] = mask[4, 3] = mask[4, 4] = 0
    return Case(*leaves, support, teacher, sampled, mask)


def plain_logps(case, temperature=1.0, logit_scale=1.0, softcap=None, *, bias=True):
    logits = case.hidden @ case.weight.T + (case.bias if bias else 0)
    logits = logits * logit_scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return torch.log_softmax(logits.to(wide) / temperature, -1)


def plain_loss(case, cost, *, tail=True, form=None, **credit):
    """The composition of `distil.objectives`, from the whole matrix of log-probabilities."""
    logps = plain_logps(case, **(form or {}))
    close = append_tail if tail else renormalise
    student = objectives.drop_repeats(
        logps.gather(-1, case.support), case.teacher <= NO_PROBABILITY
    )
    costs = cost(close(student), close(case.teacher))
    sampled = logps.gather(-1, case.sampled[..., None])[..., 0]
    return masked_mean(distil_token_loss(costs, sampled, case.mask, **credit), case.mask)


def fused(case, cost, *, form=None, **options):
    return fused_distil_loss(
        case.hidden, case.weight, case.support, case.teacher, case.sampled, case.mask,
        cost=cost, bias=case.bias, **(form or {}), **options,
    )  # fmt: skip


def assert_same(got, expected, leaves, tolerance=1e-10):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    for own, theirs in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(own, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunk", [None, 1, 5])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("credit", CREDIT.values(), ids=CREDIT)
def test_one_pass_equals_the_plain_composition(credit, form, chunk):
    x = case()
    cost = objectives.forward_cross_entropy
    got = fused(x, cost, form=form, chunk=chunk, **credit)
    assert_same(got, plain_loss(x, cost, form=form, **credit), x.leaves)


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("name", COSTS)
def test_every_cost_over_both_kinds_of_support(name, tail):
    x = case()
    got = fused(x, COSTS[name], tail=tail, chunk=4, group_size=3)
    assert_same(got, plain_loss(x, COSTS[name], tail=tail, group_size=3), x.leaves)


def test_a_step_in_policy_space():
    x = case()
    cost = partial(objectives.policy_space, COSTS["forward_cross_entropy"], clip=2.0)
    assert_same(fused(x, cost, chunk=3), plain_loss(x, cost), x.leaves)


def test_baseline_and_score_weight_that_come_from_elsewhere():
    x = case()
    extra = {"baseline": torch.rand_like(x.mask), "score_weight": torch.rand_like(x.mask)}
    cost = COSTS["forward_cross_entropy"]
    assert_same(fused(x, cost, chunk=4, **extra), plain_loss(x, cost, **extra), x.leaves)


@pytest.mark.parametrize(("vocabulary", "length"), [(3, 3), (2, 5)])
@pytest.mark.parametrize("early_stop", [False, True])
def test_the_gradient_equals_exact_enumeration(vocabulary, length, early_stop):
    """With the tree's logits as hidden states and the unit matrix as the output layer."""
    tree = make_tree(vocabulary, length, early_stop=early_stop)
    every = torch.arange(vocabulary).expand(*tree.tokens.shape, vocabulary)
    one = torch.eye(vocabulary, dtype=torch.float64)
    chance = tree.probability().detach()
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(tree.tokens)):
        row = slice(i, i + 1)
        total = total + chance[i] * fused_distil_loss(
            tree.student[tree.states[row]], one, every[row],
            tree.teacher[tree.states[row]], tree.tokens[row], tree.mask[row],
            tail=False, count=1, chunk=2,
        )  # fmt: skip
    (got,) = torch.autograd.grad(total, tree.student)
    expected = tree.exact_gradient(objectives.forward_cross_entropy)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errs_as_the_plain_way_does(dtype):
    x = case(dtype, length=16, hidden=48, vocab=301)
    wide = dataclasses.replace(
        x,
        **{
            name: getattr(x, name).detach().double().requires_grad_()
            for name in ("hidden", "weight", "bias")
        },
        teacher=x.teacher.double(), mask=x.mask.double(),
    )  # fmt: skip
    cost = COSTS["forward_cross_entropy"]
    oracle = plain_loss(wide, cost, group_size=3)
    losses = plain_loss(x, cost, group_size=3), fused(x, cost, group_size=3, chunk=20)
    truth = torch.autograd.grad(oracle, wide.leaves)
    errors = [
        [(g - t).norm() for g, t in zip(torch.autograd.grad(loss, x.leaves), truth, strict=True)]
        for loss in losses
    ]
    for plain, ours in zip(*errors, strict=True):
        assert ours < 1.3 * plain
    assert abs(losses[1] - oracle) < 2 * abs(losses[0] - oracle) + 1e-5


def test_only_what_wants_a_gradient_gets_one():
    """A frozen output layer, as under LoRA; a frozen model; no gradient at all."""
    x, cost = case(), COSTS["forward_cross_entropy"]
    (whole,) = torch.autograd.grad(fused(x, cost), x.hidden)
    x.weight.requires_grad_(False), x.bias.requires_grad_(False)
    (alone,) = torch.autograd.grad(fused(x, cost), x.hidden)
    torch.testing.assert_close(alone, whole, rtol=0, atol=0)
    with torch.no_grad():
        loss = fused(x, cost)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, fused(x, cost).detach(), rtol=0, atol=0)
    x.hidden.requires_grad_(False)
    assert not fused(x, cost).requires_grad


def test_what_arrives_multiplies_the_gradients():
    x, cost = case(), COSTS["forward_cross_entropy"]
    once = torch.autograd.grad(fused(x, cost), x.leaves)
    third = torch.autograd.grad(fused(x, cost) / 3, x.leaves)
    torch.testing.assert_close(third, tuple(g / 3 for g in once), rtol=1e-12, atol=0)


def test_a_second_backward_pass_is_refused():
    x = case()
    loss = fused(x, COSTS["forward_cross_entropy"])
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="sent backward before"):
        loss.backward()


def test_nothing_scored_is_a_zero_with_zero_gradients():
    x = dataclasses.replace(case(), mask=torch.zeros(ROWS, LENGTH, dtype=torch.float64))
    loss = fused(x, COSTS["forward_cross_entropy"])
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, x.leaves):
        assert not gradient.any()


@pytest.mark.parametrize("most", [1, 4, 9, 10_000])
def test_chunks_are_whole_columns_from_the_right_that_leave_out_nothing(most):
    scored = case().mask
    chunks = last_to_first(scored, most)
    assert [c.part.stop for c in chunks] == [LENGTH, *[c.part.start for c in chunks[:-1]]]
    assert chunks[-1].part.start == 0
    seen = torch.zeros_like(scored)
    for chunk in chunks:
        assert ((chunk.columns >= chunk.part.start) & (chunk.columns < chunk.part.stop)).all()
        columns = scored[:, chunk.part].sum(0)
        assert len(chunk.rows) <= most or (columns > 0).sum() == 1
        seen[chunk.rows, chunk.columns] += 1
        torch.testing.assert_close(chunk.spread(chunk.take(scored), ROWS), scored[:, chunk.part])
    torch.testing.assert_close(seen, scored)


def test_credit_in_slices_is_the_credit_of_the_whole():
    cost, mask = torch.rand(ROWS, 9, dtype=torch.float64), case(length=9).mask
    for options in ({}, {"discount": 0.7}, {"reduction": "mean"}):
        whole = objectives.future_credit(cost, mask, **options)
        later, found = None, []
        for part in (slice(6, 9), slice(5, 6), slice(0, 5)):
            here = cost[:, part], mask[:, part]
            found.insert(0, objectives.future_credit(*here, later=later, **options))
            later = objectives.later_than(*here, options.get("discount", 1.0), later)
        torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-12, atol=1e-12)


def test_the_baseline_follows_its_group_wherever_the_rows_lie():
    values, mask = torch.rand(6, 5), case(length=5).mask
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    groups = torch.arange(6) // 3
    expected = objectives.leave_one_out(values, mask, 3)[order]
    got = objectives.leave_one_out_of(values[order], mask[order], groups[order])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("grad", [True, False])
def test_a_look_sees_each_chunks_logits_before_the_gradient_takes_their_place(form, grad):
    x = case()
    seen = torch.full((ROWS, LENGTH, VOCAB), torch.nan, dtype=torch.float64)

    def look(chunk, product, form):
        seen[chunk.rows, chunk.columns] = form.forward_(product.clone())

    def summed(chunk, logps, entropy):
        return logps.sum()

    with torch.set_grad_enabled(grad):
        loss = fused_loss(
            x.hidden, x.weight, x.support, x.mask, summed, look=look, bias=x.bias, chunk=5, **form
        )
    logits = form.get("logit_scale", 1.0) * (x.hidden @ x.weight.T + x.bias)
    if cap := form.get("softcap"):
        logits = cap * torch.tanh(logits / cap)
    logits = (logits / form.get("temperature", 1.0)).detach()
    scored = x.mask > 0
    torch.testing.assert_close(seen[scored], logits[scored], rtol=1e-12, atol=1e-12)
    assert seen[~scored].isnan().all()
    assert loss.requires_grad == grad


def test_wrong_shapes_are_refused_before_any_product():
    x = case()

    def nothing(*_):
        raise AssertionError("called")

    with pytest.raises(ValueError, match="of the same hidden size"):
        fused_loss(x.hidden[..., 1:], x.weight, x.support, x.mask, nothing)
    with pytest.raises(ValueError, match="rows 0 to 22"):
        fused_loss(x.hidden, x.weight, x.support + VOCAB, x.mask, nothing)
