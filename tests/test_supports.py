"""Which tokens are compared, how supports are joined and closed, and steps in policy space."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from distil.objectives import (
    COSTS,
    append_tail,
    drop_repeats,
    forward_kl,
    policy_space,
    renormalise,
    repeated,
    reverse_kl,
)
from distil.objectives.costs import NO_PROBABILITY
from trainertoys import generation_batch, gradient, make_trainer, rows_of, teacher_texts

Cost = Callable[[Tensor, Tensor], Tensor]
CLOSED = {"tail": append_tail, "renormalised": renormalise}


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()


def by_formula(name: str, p: Tensor, q: Tensor) -> Tensor:
    """The cost of probabilities p (student) and q (teacher), as in a textbook."""
    m = (p + q) / 2
    return {
        "forward_cross_entropy": -(q * p.log()),
        "forward_kl": q * (q / p).log(),
        "reverse_kl": p * (p / q).log(),
        "jensen_shannon": (q * (q / m).log() + p * (p / m).log()) / 2,
    }[name].sum()


# ---------------------------------------------------------------- supports joined


def test_an_id_is_repeated_where_it_stands_further_left() -> None:
    ids = torch.tensor([[[4, 1, 4, 4, 1, 0], [0, 0, 0, 1, 2, 3]], [[5, 4, 3, 2, 1, 0], [1, 2] * 3]])
    expected = [[[id_ in row[:i] for i, id_ in enumerate(row)] for row in r] for r in ids.tolist()]
    assert repeated(ids).tolist() == expected
    assert repeated(ids[..., :0]).shape == (2, 2, 0)


def test_repeats_have_no_probability_and_no_gradient() -> None:
    logps = torch.tensor([[[-1.0, -2.0, -1.0]]], requires_grad=True)
    dropped = drop_repeats(logps, torch.tensor([[[False, False, True]]]))
    assert dropped.tolist() == [[[-1.0, -2.0, NO_PROBABILITY]]]
    assert dropped.exp()[0, 0, 2] == 0
    (slope,) = torch.autograd.grad(dropped.sum(), logps)
    assert slope.tolist() == [[[1, 1, 0]]]


@pytest.mark.parametrize("closing", CLOSED)
@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([0, 1, 2, 3], id="all different"),
        pytest.param([4, 2, 4, 2], id="all the same"),
        pytest.param([4, 2, 2, 4], id="all the same in another order"),
        pytest.param([5, 0, 1, 5], id="some the same"),
    ],
)
def test_a_joined_support_costs_what_the_union_costs(
    name: str, closing: str, ids: list[int]
) -> None:
    logits = random_logits(7)
    teacher = random_logits(7, seed=1).detach().log_softmax(-1)
    joined = torch.tensor([[ids]])
    student = logits.log_softmax(-1)
    again = repeated(joined)
    ours = COSTS[name](
        CLOSED[closing](drop_repeats(student[joined], again)),
        CLOSED[closing](drop_repeats(teacher[joined], again)),
    )
    union = torch.tensor(sorted(set(ids)))
    p, q = student[union].exp(), teacher[union].exp()
    if closing == "tail":
        p, q = (torch.cat([x, 1 - x.sum(0, keepdim=True)]) for x in (p, q))
    else:
        p, q = p / p.sum(), q / q.sum()
    expected = by_formula(name, p, q)
    torch.testing.assert_close(ours[0, 0], expected, rtol=0, atol=1e-12)
    slopes = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (ours.sum(), expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-12)
    assert slopes[0].abs().max() > 1e-3


@pytest.mark.parametrize("closing", CLOSED)
@pytest.mark.parametrize("name", COSTS)
def test_joined_supports_of_the_whole_vocabulary_cost_what_the_vocabulary_costs(
    name: str, closing: str
) -> None:
    vocabulary = 12
    logits = random_logits(2, 3, vocabulary)
    student = logits.log_softmax(-1)
    teacher = random_logits(2, 3, vocabulary, seed=1).detach().log_softmax(-1)
    joined = torch.cat([teacher.topk(vocabulary).indices, student.topk(vocabulary).indices], -1)
    again = repeated(joined)
    assert again.sum(-1).unique().tolist() == [vocabulary]
    closed = [
        CLOSED[closing](drop_repeats(x.gather(-1, joined), again)) for x in (student, teacher)
    ]
    ours, full = COSTS[name](*closed), COSTS[name](student, teacher)
    torch.testing.assert_close(ours, full, rtol=0, atol=1e-10)
    slopes = [torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (ours, full)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl])
@pytest.mark.parametrize("whose", ["teacher", "student", "joined"])
def test_a_coarser_view_never_sees_more_divergence(divergence: Cost, whose: str) -> None:
    """The data-processing law: putting tokens into one bucket can't raise a KL divergence."""
    student = random_logits(20, 5, 12).detach().log_softmax(-1)
    teacher = random_logits(20, 5, 12, seed=1).detach().log_softmax(-1)
    full = divergence(student, teacher)
    for k in range(1, 12):
        tops = {"teacher": teacher.topk(k).indices, "student": student.topk(k).indices}
        tops["joined"] = torch.cat([tops["teacher"], tops["student"]], -1)
        ids = tops[whose]
        again = repeated(ids)
        p, q = (append_tail(drop_repeats(x.gather(-1, ids), again)) for x in (student, teacher))
        coarse = divergence(p, q)
        assert (coarse <= full + 1e-12).all()
        assert (coarse >= -1e-12).all()
        if k == 1 and whose != "joined":
            assert (coarse < 0.9 * full).any()


# ---------------------------------------------------------------- policy space


def slope_by_p(name: str, p: Tensor, q: Tensor) -> Tensor:
    """dD/dp_a, p's entries taken as free: METHOD.md section 7."""
    return {
        "forward_cross_entropy": -q / p,
        "forward_kl": -q / p,
        "reverse_kl": (p / q).log() + 1,
        "jensen_shannon": 0.5 * (2 * p / (p + q)).log(),
    }[name]


@pytest.mark.parametrize("name", COSTS)
def test_the_closed_forms_are_the_costs_derivatives(name: str) -> None:
    p = random_logits(6).softmax(-1).detach().requires_grad_()
    q = random_logits(6, seed=1).detach().log_softmax(-1)
    (slope,) = torch.autograd.grad(COSTS[name](p.log()[None, None], q[None, None]).sum(), p)
    expected = slope_by_p(name, p.detach(), q.exp())
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-12)


def centred(values: Tensor) -> Tensor:
    return values - values.mean(-1, keepdim=True)


@pytest.mark.parametrize("name", COSTS)
def test_a_policy_space_step_is_the_centred_derivative(name: str) -> None:
    logits = random_logits(2, 3, 6)
    teacher = random_logits(2, 3, 6, seed=1).detach().log_softmax(-1)
    student = logits.log_softmax(-1)
    ours = policy_space(COSTS[name], student, teacher, clip=1e9)
    torch.testing.assert_close(ours, COSTS[name](student, teacher), rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(ours.sum(), logits)
    p = student.detach().exp()
    g = slope_by_p(name, p, teacher.exp())
    expected = g - (p * g).sum(-1, keepdim=True)
    torch.testing.assert_close(centred(slope), centred(expected), rtol=0, atol=1e-9)
    # A shift of all logits changes no policy, so the gradient has none.
    assert slope.sum(-1).abs().max() < 1e-9


@pytest.mark.parametrize("name", COSTS)
def test_a_tail_is_stepped_as_one_token_in_policy_space(name: str) -> None:
    logits = random_logits(1, 1, 7)
    student = logits.log_softmax(-1)
    teacher = random_logits(1, 1, 7, seed=1).detach().log_softmax(-1)
    ours = policy_space(
        COSTS[name], append_tail(student[..., :3]), append_tail(teacher[..., :3]), 1e9
    )
    (slope,) = torch.autograd.grad(ours.sum(), logits)
    p_all, q_all = student.detach()[0, 0].exp(), teacher[0, 0].exp()
    p, q = (torch.cat([x[:3], x[3:].sum(0, keepdim=True)]) for x in (p_all, q_all))
    g = slope_by_p(name, p, q)
    bucket = centred(g - (p * g).sum())
    # Tokens in the bucket share its step as they share its probability.
    expected = torch.cat([bucket[:3], bucket[3] * p_all[3:] / p[3]])
    torch.testing.assert_close(slope[0, 0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", COSTS)
def test_a_tail_that_holds_nothing_is_no_token_in_policy_space(
    name: str, dtype: torch.dtype
) -> None:
    logits = random_logits(2, 3, 6).detach().to(dtype).requires_grad_()
    student = logits.log_softmax(-1)
    teacher = random_logits(2, 3, 6, seed=1).detach().to(dtype).log_softmax(-1)
    slopes = [
        torch.autograd.grad(
            policy_space(COSTS[name], close(student), close(teacher), 1e9).sum(), logits,
            retain_graph=True,
        )[0]
        for close in (append_tail, lambda logps: logps)
    ]  # fmt: skip
    close_to = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(slopes[0], slopes[1], **close_to)


# METHOD.md section 7: p, q, r of its bandit, and the first-order changes of J that it states.
ARMS = ((0.1, 0.6, 0.3), (0.6, 0.1, 0.3), (1.0, 0.8, 0.0))
STATED = {  # policy space, logits
    "forward_cross_entropy": ("0.10", "-0.045"),
    "reverse_kl": ("-0.161", "-0.106"),
    "jensen_shannon": ("-0.0093", "-0.0156"),
}


@pytest.mark.parametrize("name", STATED)
def test_the_three_armed_bandit_changes_as_stated(name: str) -> None:
    p, q, r = (torch.tensor(x, dtype=torch.float64) for x in ARMS)
    mean_reward = (p * r).sum()
    logits = p.log().requires_grad_()
    student, teacher = logits.log_softmax(-1)[None, None], q.log()[None, None]

    def change(cost: Tensor) -> float:
        """First-order change of E_p r, a unit step of gradient descent on the logits."""
        (slope,) = torch.autograd.grad(cost.sum(), logits, retain_graph=True)
        return (p * (r - mean_reward) * -slope).sum().item()

    found = (
        change(policy_space(COSTS[name], student, teacher, clip=1e9)),
        change(COSTS[name](student, teacher)),
    )
    g = slope_by_p(name, p, q)
    in_policy_space = -(p * (r - mean_reward) * g).sum().item()  # - Cov_p(r, g)
    in_logits = -(p * (r - mean_reward) * p * (g - (p * g).sum())).sum().item()
    assert found == pytest.approx((in_policy_space, in_logits), abs=1e-12)
    for ours, stated in zip(found, STATED[name], strict=True):
        assert f"{ours:.{len(stated.partition('.')[2])}f}" == stated
    if name == "forward_cross_entropy":
        assert found[0] == pytest.approx(((q - p) * r).sum().item(), abs=1e-12)  # J(q) - J(p)


def test_a_policy_space_step_is_cut_by_hand() -> None:
    p, q = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1)
    # g = -q/p = (-1/8, -8, -1); E_p g = -1; g - E_p g = (7/8, -7, 0); within 2: (7/8, -2, 0).
    cut = (7 / 8, -2, 0)
    expected = [x - sum(cut) / 3 for x in cut]
    logits = torch.tensor([[p]], dtype=torch.float64).log().requires_grad_()
    teacher = torch.tensor([[q]], dtype=torch.float64).log()
    cost = policy_space(COSTS["forward_cross_entropy"], logits.log_softmax(-1), teacher, clip=2.0)
    assert cost.item() == pytest.approx(-sum(b * math.log(a) for a, b in zip(p, q, strict=True)))
    (slope,) = torch.autograd.grad(cost.sum(), logits)
    assert slope[0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_a_policy_space_clip_of_nothing_is_refused(clip: float) -> None:
    x = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match="clip is"):
        policy_space(COSTS["forward_cross_entropy"], x, x, clip=clip)


def test_a_policy_space_step_is_also_found_without_gradients_asked_for() -> None:
    student = random_logits(1, 1, 4).log_softmax(-1)
    teacher = random_logits(1, 1, 4, seed=1).detach().log_softmax(-1)
    with torch.no_grad():
        value = policy_space(COSTS["reverse_kl"], student, teacher, clip=1.0)
    assert not value.requires_grad
    torch.testing.assert_close(value, reverse_kl(student, teacher))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("teachers_too", [False, True])
def test_costs_and_gradients_are_finite_where_a_probability_is_zero(
    name: str, wrapped: bool, teachers_too: bool
) -> None:
    logps = torch.tensor([[[0.5, 0.5, 1.0]]]).log()
    student = torch.cat([logps[..., :2], torch.full((1, 1, 1), NO_PROBABILITY)], -1)
    teacher = torch.tensor([[[0.75, 0.25, 1.0]]]).log()
    teacher[..., 2] = NO_PROBABILITY if teachers_too else -50.0
    student.requires_grad_()
    cost = COSTS[name]
    value = policy_space(cost, student, teacher, clip=5.0) if wrapped else cost(student, teacher)
    (slope,) = torch.autograd.grad(value.sum(), student)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()
    assert slope[0, 0, 2].abs() < 1e-6


def test_a_student_that_gives_almost_nothing_steps_in_policy_space_finitely() -> None:
    """float32: q / p overflows below about -88 nats, and the step must be the cut one, not NaN."""
    logits = torch.tensor([[[0.0, -95.0, -1.0]]]).requires_grad_()
    teacher = torch.tensor([[[0.25, 0.5, 0.25]]]).log()
    value = policy_space(COSTS["forward_cross_entropy"], logits.log_softmax(-1), teacher, clip=5.0)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()
    assert slope[0, 0].argmin() == 1  # descent raises what the teacher wants most


# ---------------------------------------------------------------- in the trainer


def full_logps(trainer, prompt: Tensor, completion: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """[tokens, V] the plain forward over one unpadded row."""
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.cat([prompt, completion])[None]).logits[0]
    return (logits[len(prompt) - 1 : -1] / trainer.temperature).log_softmax(-1)


@pytest.mark.parametrize("support", ["teacher", "student", "joined"])
def test_supports_hold_whose_likeliest_tokens_they_say(tmp_path: Path, support: str) -> None:
    trainer = make_trainer(
        tmp_path, objective={"support": support}, feedback_order=["expert"], temperature=0.7
    )
    batch = generation_batch(trainer)
    k = trainer.objective.top_k
    repeats = 0
    for row, text in enumerate(teacher_texts(trainer)):
        length = int(batch["completion_mask"][row].sum())
        completion = batch["completion_ids"][row, :length]
        own_prompt = batch["prompt_ids"][row][batch["prompt_mask"][row] > 0]
        shown = torch.tensor(trainer.processing_class(text)["input_ids"])
        student, teacher = (full_logps(trainer, x, completion) for x in (own_prompt, shown))
        assert batch["support_ids"].shape[-1] == (2 * k if support == "joined" else k)
        for t in range(length):
            ids, logps = batch["support_ids"][row, t], batch["teacher_logps"][row, t]
            tops = [x[t].topk(k).indices.tolist() for x in (teacher, student)]
            if support != "student":
                assert sorted(ids[:k].tolist()) == sorted(tops[0])
            if support != "teacher":
                assert sorted(ids[-k:].tolist()) == sorted(tops[1])
            again = torch.tensor([i in ids[:n].tolist() for n, i in enumerate(ids.tolist())])
            repeats += int(again.sum())
            assert (logps[again] == NO_PROBABILITY).all()
            expected = teacher[t][ids[~again]]
            torch.testing.assert_close(logps[~again], expected, rtol=0, atol=1e-4)
        sampled = teacher.gather(-1, completion[:, None])[:, 0]
        ours = batch["teacher_sampled_logps"][row, :length]
        torch.testing.assert_close(ours, sampled, rtol=0, atol=1e-4)
        entropy = -(teacher.exp() * teacher).sum(-1)
        ours = batch["teacher_entropy"][row, :length]
        torch.testing.assert_close(ours, entropy, rtol=0, atol=1e-4)
    assert (repeats > 0) == (support == "joined")


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("name", ["distil", "reverse_kl", "jensen_shannon"])
def test_a_joined_supports_cost_in_the_trainer_is_the_unions(
    tmp_path: Path, name: str, tail: bool
) -> None:
    trainer = make_trainer(
        tmp_path,
        objective={"name": name, "support": "joined", "tail": tail},
        feedback_order=["expert"],
    )
    batch = generation_batch(trainer)
    texts = teacher_texts(trainer)
    with torch.no_grad():
        scores = trainer.builder.score_student(trainer.model, batch)
    cost_name = {"distil": "forward_cross_entropy"}.get(name, name)
    for row in (0, 5):
        length = int(batch["completion_mask"][row].sum())
        completion = batch["completion_ids"][row, :length]
        own_prompt = batch["prompt_ids"][row][batch["prompt_mask"][row] > 0]
        shown = torch.tensor(trainer.processing_class(texts[row])["input_ids"])
        student, teacher = (full_logps(trainer, x, completion) for x in (own_prompt, shown))
        for t in range(length):
            ids = sorted(
                {*student[t].topk(5).indices.tolist(), *teacher[t].topk(5).indices.tolist()}
            )
            p, q = student[t][ids].exp(), teacher[t][ids].exp()
            if tail:
                p, q = (torch.cat([x, 1 - x.sum(0, keepdim=True)]) for x in (p, q))
            else:
                p, q = p / p.sum(), q / q.sum()
            expected = by_formula(cost_name, p, q).item()
            assert scores.cost[row, t].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "objective",
    [
        {"support": "joined"},
        {"support": "student", "tail": False},
        {"support": "joined", "name": "jensen_shannon", "tail": False},
        {"policy_space_clip": 5.0},
        {"reduction": "sequences"},
        {"reduction": "sequences", "future": "mean", "baseline": False},
    ],
    ids=str,
)
def test_splitting_a_batch_changes_no_gradient(
    tmp_path: Path, objective: dict[str, object]
) -> None:
    trainer = make_trainer(
        tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8, objective=objective
    )
    batch = generation_batch(trainer)
    whole = gradient(trainer, [batch]).clone()
    assert whole.abs().max() > 1e-4
    for splits in ([[3], [1], [0], [7], [2], [6], [5], [4]], [[5, 0, 3], [1, 7], [2, 4, 6]]):
        parts = gradient(trainer, [rows_of(batch, rows) for rows in splits])
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
