"""A teacher that only gives samples: the estimated cost is unbiased, and so is its variance.

Checked by enumeration of everything that can be drawn, on a tiny vocabulary; then through the
trainer, against a server on loopback.
"""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import make_model
from distil.endpoint import Failure
from distil.errors import FeedbackError
from distil.objectives import (
    distil_token_loss,
    forward_cross_entropy,
    future_credit,
    masked_mean,
    sampling_variance,
)
from distil.teacher.served import asking
from distil.teacher.served.answers import read_samples
from distil.teacher.served.teacher import _shares, sampled
from distil.trainer.scoring import compare
from trainertoys import generation_batch, gradient, lines, make_trainer
from vllmserver import other_tokenizer, served_trainer, vllm_server

VOCABULARY, DRAWS, TOKENS = 3, 2, 2


def drawn_support(draws: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(ids, logs of shares), each [support], as the teacher makes them of these draws."""
    shares = _shares(draws)
    return torch.tensor(shares.ids), torch.tensor(shares.logps)


def cost_of(student: Tensor, draws: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """[T] costs and their variances, estimated from each token's draws; student: [T, V] logs."""
    ids, teacher = (torch.stack(v) for v in zip(*map(drawn_support, draws), strict=True))
    at = student.gather(-1, ids)
    cost = compare(at, teacher, forward_cross_entropy, tail=True)[0]
    return cost, sampling_variance(at, teacher, len(draws[0]))


def all_draws(teacher: Tensor) -> list[tuple[float, tuple[int, ...]]]:
    """(probability, draws) of everything that can be drawn at one token."""
    tuples = itertools.product(range(VOCABULARY), repeat=DRAWS)
    return [(float(torch.stack([teacher[a] for a in d]).prod()), d) for d in tuples]


@pytest.fixture
def sides() -> tuple[Tensor, Tensor]:
    """(student's logits, teacher's probabilities), [T, V]."""
    torch.manual_seed(4)
    logits = torch.randn(TOKENS, VOCABULARY, dtype=torch.float64)
    return logits, (2 * torch.randn(TOKENS, VOCABULARY, dtype=torch.float64)).softmax(-1)


def test_the_estimated_cost_is_the_exact_one_on_average(sides: tuple[Tensor, Tensor]) -> None:
    logits, teacher = sides
    student = logits.log_softmax(-1)
    exact = -(teacher * student).sum(-1)
    for token in range(TOKENS):
        total = 0.0
        for probability, draws in all_draws(teacher[token]):
            (cost,), _ = cost_of(student[token : token + 1], (draws,))
            plain = -sum(float(student[token, a]) for a in draws) / DRAWS
            assert float(cost) == pytest.approx(plain, abs=1e-5)
            total += probability * float(cost)
        assert total == pytest.approx(float(exact[token]), abs=1e-5)


def test_the_reported_variance_is_the_estimators_on_average(sides: tuple[Tensor, Tensor]) -> None:
    logits, teacher = sides
    student = logits.log_softmax(-1)
    for token in range(TOKENS):
        exact = float(-(teacher[token] * student[token]).sum())
        true = reported = 0.0
        for probability, draws in all_draws(teacher[token]):
            (cost,), (variance,) = cost_of(student[token : token + 1], (draws,))
            true += probability * (float(cost) - exact) ** 2
            reported += probability * float(variance)
        assert reported == pytest.approx(true, rel=1e-4)
        assert true > 0.01


def test_the_gradient_with_future_credit_is_the_exact_one_on_average(
    sides: tuple[Tensor, Tensor],
) -> None:
    """Both tokens' draws enumerated, for one rollout (0, 2): local and future credit together."""
    logits, teacher = sides
    rollout, active = torch.tensor([[0, 2]]), torch.ones(1, TOKENS)

    def gradient_of(cost_at: Any) -> Tensor:
        leaf = logits.clone().requires_grad_()
        student = leaf.log_softmax(-1)
        cost = cost_at(student)[None]
        own = student[None].gather(-1, rollout[..., None])[..., 0]
        loss = distil_token_loss(cost, own, active, future="sum")
        masked_mean(loss, active, active.sum()).backward()
        assert leaf.grad is not None
        assert future_credit(cost.detach(), active)[0, 0] > 0
        return leaf.grad

    exact = gradient_of(lambda student: -(teacher * student).sum(-1))
    average = torch.zeros_like(exact)
    for (p, first), (q, second) in itertools.product(*map(all_draws, teacher)):
        average += p * q * gradient_of(lambda s, d=(first, second): cost_of(s, d)[0])
    torch.testing.assert_close(average, exact, rtol=0, atol=2e-6)
    assert exact.abs().max() > 0.1


# ---------------------------------------------------------------- through the trainer


def test_the_support_is_what_was_drawn_at_the_students_own_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1,000 draws at each state the shares are near the frozen teacher's probabilities."""
    monkeypatch.setattr(asking, "BACK_OFF", 0.001)
    draws = 1000
    exact = generation_batch(
        make_trainer(tmp_path / "a", teacher="frozen", objective={"top_k": 80}, temperature=0.7)
    )
    with vllm_server() as server:
        trainer = served_trainer(
            tmp_path / "b", server, served={"samples": draws, "concurrency": 1}, temperature=0.7
        )
        batch = generation_batch(trainer)
        assert {b["temperature"] for _, b in server.requests[2:]} == {0.7}
    assert torch.equal(batch["completion_ids"], exact["completion_ids"])
    active = batch["active"] > 0
    shares = torch.zeros(int(active.sum()), 80)
    shares.scatter_add_(-1, batch["support_ids"][active], batch["teacher_logps"][active].exp())
    expected = torch.zeros_like(shares)
    expected.scatter_add_(-1, exact["support_ids"][active], exact["teacher_logps"][active].exp())
    torch.testing.assert_close(shares.sum(-1), torch.ones(len(shares)))
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((shares - expected).abs() <= 5.5 * deviation + 1 / draws).all()
    assert (shares - expected).abs().max() > 0


def test_a_run_on_samples_logs_the_variance_and_nothing_that_samples_do_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "BACK_OFF", 0.001)
    untold = {"teacher/entropy", "distil/agreement", "distil/log_ratio_to_teacher"}
    with vllm_server() as server:
        for samples in (1, 6):
            folder = tmp_path / str(samples)
            options = {"served": {"samples": samples}, "max_steps": 1}
            served_trainer(folder, server, **options).train()
            (metrics, *_) = lines(folder / "metrics.jsonl")
            assert metrics["teacher/failed"] == 0
            assert not untold & set(metrics)
            assert ("teacher/sampling_variance" in metrics) == (samples > 1)
            # Of a nearly even student: var of log pi over 80 tokens, by 6.
            assert 0 < metrics.get("teacher/sampling_variance", 0.1) < 1


@pytest.mark.parametrize("ratio", ["token_clipped", "prefix"])
def test_the_variance_is_the_same_by_one_pass_and_by_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: str
) -> None:
    """A prefix ratio on stale rollouts needs whole rows; token ratios go in slices of columns."""
    monkeypatch.setattr(asking, "BACK_OFF", 0.001)
    with vllm_server() as server:
        trainer = served_trainer(
            tmp_path, server, served={"samples": 3}, objective={"ratio": ratio},
            steps_per_generation=4, gradient_accumulation_steps=2,
        )  # fmt: skip
        batch = generation_batch(trainer)
    with torch.no_grad():
        scores = trainer.builder.score_student(trainer.model, batch)
    student, _ = trainer.builder.loss(trainer.model, batch, 1.0)
    active = batch["active"] > 0
    torch.testing.assert_close(student.variance[active], scores.variance[active])
    row, token = active.nonzero()[0].tolist()
    counts = Counter(
        {
            int(i): round(3 * float(p))
            for i, p in zip(
                batch["support_ids"][row, token], batch["teacher_logps"][row, token].exp(),
                strict=True,
            )
            if p > 0
        }
    )  # fmt: skip
    with torch.no_grad():
        ids = torch.cat([batch["prompt_ids"][row], batch["completion_ids"][row]])
        mask = torch.cat([batch["prompt_mask"][row], batch["completion_mask"][row]])
        logits = trainer.model(input_ids=ids[None], attention_mask=mask[None]).logits[0]
    own = logits[len(batch["prompt_ids"][row]) - 1 + token].log_softmax(-1)
    values = torch.tensor([float(own[i]) for i in counts.elements()])
    assert float(scores.variance[row, token]) == pytest.approx(float(values.var() / 3), rel=1e-3)
    assert float(scores.cost[row, token]) == pytest.approx(float(-values.mean()), rel=1e-4)


FAULTS = ["500", "no ids", "two ids", "huge id", "same index", "no choices", "truncated"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_mended_and_a_row_without_samples_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(asking, "BACK_OFF", 0.001)
    with vllm_server() as server:
        trainer = served_trainer(tmp_path, server, served={"samples": 2})
        server.faults = [fault] * 3
        assert generation_batch(trainer)["active"].any(1).all()
        server.broken = lambda body: fault if len(body["prompt"]) == 6 else None
        batch = generation_batch(trainer)
        whole = batch["completion_mask"].sum(1) == 6
        assert 0 < whole.sum() < len(whole)
        assert torch.equal(batch["active"].any(1), ~whole)
        assert torch.isfinite(gradient(trainer, [batch])).all()
        server.always = fault
        with pytest.raises(FeedbackError, match="answered for not one"):
            generation_batch(trainer)


def test_a_black_box_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    model = make_model(tied=False)
    with torch.no_grad():  # it always says 20, which is Q there, and h for the student
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(100.0 * (torch.arange(80) == 20))
    for tokenize in (True, False):
        with vllm_server(model, other_tokenizer(("h", "Q"))) as server:
            server.knows_tokenize = tokenize
            with pytest.raises(FeedbackError, match="has another tokenizer"):
                served_trainer(tmp_path, server, served={"samples": 2})


def test_samples_are_sorted_by_their_prompt_whatever_their_order() -> None:
    choices = [{"index": i, "token_ids": [10 + i]} for i in (5, 0, 3, 2, 4, 1)]
    assert read_samples({"choices": choices}, 3, 2) == [[10, 11], [13, 12], [15, 14]]
    assert isinstance(read_samples({"choices": choices[1:]}, 3, 2), Failure)


def test_nothing_of_a_servers_own_settings_is_left_to_it() -> None:
    """A model's generation config would cut the distribution (vLLM reads it)."""
    assert sampled(3, 0.7) == {
        "max_tokens": 1, "n": 3, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "skip_special_tokens": False, "return_token_ids": True,
    }  # fmt: skip
