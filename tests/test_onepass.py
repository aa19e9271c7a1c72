"""The trainer's one-pass loss equals scoring first and assembling then, for every objective.

Scores and credits to 1e-5, gradients to 1e-4 relative and 1e-6 absolute, in float32.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from distil import vocab
from distil.trainer import onepass
from distil.trainer.assembly import assemble
from distil.trainer.onepass import takes_one_pass
from trainertoys import STALE, generation_batch, gradient, make_trainer

OBJECTIVES: dict[str, dict[str, Any]] = {
    "distil": {},
    "mean, no baseline": {"future": "mean", "baseline": False},
    "discount": {"discount": 0.5, "future_weight": 2.0},
    "local": {"name": "forward_kl"},
    "reverse": {"name": "reverse_kl", "future": "sum"},
    "student's support": {"support": "student", "tail": False},
    "joined": {"name": "jensen_shannon", "support": "joined", "future": "mean"},
    "hybrid": {"name": "distil+grpo", "advantage_weight": 0.7},
    "sequences": {"reduction": "sequences", "credit_end": False},
    "gates": {"first_error_margin": 0.01, "first_error": "until", "prompt_weight": "pass_rate"},
    "policy space": {"policy_space_clip": 1.5},
}


@pytest.mark.parametrize("whole", [True, False], ids=["whole groups", "micro-batches"])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_one_pass_is_scoring_and_assembling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: dict[str, Any], whole: bool
) -> None:
    rows = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1} if whole else {}
    trainer = make_trainer(tmp_path, objective=objective, **rows)
    check_the_same(trainer, monkeypatch)


@pytest.mark.parametrize("ratio", ["none", "token_clipped", "token_symmetric"])
def test_ratios_of_stale_rollouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: str
) -> None:
    trainer = make_trainer(tmp_path, objective={"ratio": ratio, "ratio_clip": 1.5}, **STALE)

    def another_policy(batch: dict[str, Any]) -> None:
        shift = torch.linspace(-1, 1, batch["old_logps"].numel())
        batch["old_logps"] = batch["old_logps"] + shift.view_as(batch["old_logps"])

    check_the_same(trainer, monkeypatch, another_policy)


def check_the_same(trainer: Any, monkeypatch: pytest.MonkeyPatch, change: Any = None) -> None:
    """In several slices of columns: a chunk holds nine tokens, at eight rows of six."""
    monkeypatch.setattr(vocab.fused, "default_chunk", lambda *_: 9)
    calls = []
    original = onepass._Slices.loss_of
    monkeypatch.setattr(
        onepass._Slices, "loss_of", lambda self, *a: calls.append(a) or original(self, *a)
    )
    batch = generation_batch(trainer)
    if change is not None:
        change(batch)
    assert takes_one_pass(trainer.objective, batch)
    share = trainer._share
    look = [5, 1]
    scores, got = trainer.builder.loss(trainer.model, batch, share, look)
    assert len(calls) > 2
    expected_scores = trainer.builder.score_student(trainer.model, batch, look)
    expected = assemble(trainer.objective, expected_scores, batch, share=share)
    for name in ("cost", "sampled_logps", "entropy", "agreement"):
        close(getattr(scores, name), getattr(expected_scores, name))
    assert (scores.choices.logps < 0).any(-1).sum() == (batch["scored"][look] > 0).sum() > 2
    assert torch.equal(scores.choices.ids, expected_scores.choices.ids)
    close(scores.choices.logps, expected_scores.choices.logps)
    for name in ("loss", "credit", "ratio", "cost"):
        close(getattr(got, name), getattr(expected, name))
    own = gradient(trainer, [batch]).clone()
    trainer.model.zero_grad()
    expected.loss.backward()
    theirs = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert theirs.abs().max() > 1e-3
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-6)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected.expand_as(got), rtol=1e-5, atol=1e-5)


def test_what_looks_back_keeps_the_way_that_computes_logits_again(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"ratio": "prefix"}, **STALE)
    batch = generation_batch(trainer)
    assert not takes_one_pass(trainer.objective, batch)
    fresh = make_trainer(tmp_path, objective={"ratio": "prefix"})
    assert takes_one_pass(fresh.objective, generation_batch(fresh))
    released = make_trainer(tmp_path, objective={"name": "as_released_math"})
    assert not takes_one_pass(released.objective, generation_batch(released))
