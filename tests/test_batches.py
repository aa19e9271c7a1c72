"""A batch and its loss in the trainer: the plain gradient, however it is padded, split, masked."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_model
from distil import Feedback
from distil.objectives import forward_cross_entropy
from trainertoys import (
    generation_batch,
    gradient,
    make_trainer,
    plain_gradient,
    rows_of,
    teacher_texts,
)

# ---------------------------------------------------------------- the gradient


@pytest.mark.parametrize(("tied", "temperature"), [(True, 1.0), (False, 1.0), (True, 0.7)])
def test_gradient_equals_the_plain_computation(
    tmp_path: Path, tied: bool, temperature: float
) -> None:
    model = make_model(tied=tied)
    trainer = make_trainer(
        tmp_path, model=model, feedback_order=["expert"], temperature=temperature,
        objective={"credit_end": True},
    )  # fmt: skip
    batch = generation_batch(trainer)
    texts = teacher_texts(trainer)
    assert len({int(n) for n in batch["completion_mask"].sum(1)}) > 1  # lengths differ
    halves = [rows_of(batch, [0, 2, 4, 6]), rows_of(batch, [1, 3, 5, 7])]
    ours = gradient(trainer, halves).clone()
    torch.testing.assert_close(ours, plain_gradient(trainer, batch, texts), rtol=1e-4, atol=1e-6)
    assert ours.abs().max() > 1e-3


def test_one_batch_or_many_micro_batches_in_any_order_give_one_gradient(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8)
    batch = generation_batch(trainer)
    whole = gradient(trainer, [batch]).clone()
    for splits in ([[3], [1], [0], [7], [2], [6], [5], [4]], [[5, 0, 3], [1, 7], [2, 4, 6]]):
        parts = gradient(trainer, [rows_of(batch, rows) for rows in splits])
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_padding_on_either_side_changes_nothing(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = generation_batch(trainer)
    padded = dict(batch)
    pad = torch.nn.functional.pad
    padded["prompt_ids"] = pad(batch["prompt_ids"], (5, 0), value=2)
    padded["prompt_mask"] = pad(batch["prompt_mask"], (5, 0))
    padded["completion_ids"] = pad(batch["completion_ids"], (0, 4), value=2)
    also = ("scored", "teacher_entropy", "baseline", "weight", "score_weight")
    for name in ("completion_mask", "active", *also):
        padded[name] = pad(batch[name], (0, 4))
    padded["teacher_sampled_logps"] = pad(batch["teacher_sampled_logps"], (0, 4))
    for name in ("support_ids", "teacher_logps"):
        padded[name] = pad(batch[name], (0, 0, 0, 4))
    torch.testing.assert_close(
        gradient(trainer, [padded]), gradient(trainer, [batch]).clone(), rtol=1e-5, atol=1e-6
    )


def test_teacher_batch_size_changes_no_score(tmp_path: Path) -> None:
    one = generation_batch(
        make_trainer(tmp_path / "a", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    )
    two = generation_batch(
        make_trainer(tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=8)
    )
    assert torch.equal(one["completion_ids"], two["completion_ids"])
    torch.testing.assert_close(one["teacher_logps"], two["teacher_logps"], rtol=0, atol=1e-5)
    torch.testing.assert_close(one["baseline"], two["baseline"], rtol=0, atol=1e-5)


def test_a_baseline_within_the_pass_is_the_one_computed_before(tmp_path: Path) -> None:
    """One micro-batch sees whole groups, several don't: the gradient is the same."""
    one = make_trainer(tmp_path / "a", per_device_train_batch_size=8, gradient_accumulation_steps=1)
    two = make_trainer(tmp_path / "b", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    whole, parts = generation_batch(one), generation_batch(two)
    assert "baseline" not in whole
    assert "group" not in parts
    torch.testing.assert_close(whole["completion_ids"], parts["completion_ids"])
    halves = [rows_of(parts, [0, 1, 4, 5]), rows_of(parts, [2, 3, 6, 7])]
    expected = gradient(two, halves).clone()
    assert expected.abs().max() > 1e-3
    shuffled = rows_of(whole, [5, 2, 7, 0, 3, 6, 1, 4])
    torch.testing.assert_close(gradient(one, [shuffled]), expected, rtol=1e-5, atol=1e-6)


def test_sampler_mismatch_ratios_of_trl_are_used(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = generation_batch(trainer)
    plain = gradient(trainer, [batch]).clone()
    batch["importance_sampling_ratio"] = torch.full(batch["completion_ids"].shape, 0.5)
    torch.testing.assert_close(gradient(trainer, [batch]), 0.5 * plain)


def test_cost_matches_the_public_objective_on_the_logged_tokens(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"top_k": 10_000, "tail": False})
    batch = generation_batch(trainer)
    with torch.no_grad():
        scores = trainer.builder.score_student(trainer.model, batch)
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        logits = trainer.model(
            input_ids=ids, attention_mask=attention, position_ids=positions
        ).logits
    length = batch["completion_ids"].shape[1]
    full = logits[:, -length - 1 : -1].log_softmax(-1).gather(-1, batch["support_ids"])
    expected = forward_cross_entropy(full, batch["teacher_logps"]) * batch["active"]
    torch.testing.assert_close(scores.cost, expected, rtol=0, atol=1e-5)


def test_local_credit_moves_the_student_to_the_teacher(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"name": "forward_kl"}, feedback_order=["expert"])
    batch = generation_batch(trainer)
    optimiser = torch.optim.Adam(trainer.model.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


# ---------------------------------------------------------------- masks


def test_rows_without_a_context_enter_neither_sums_nor_means(tmp_path: Path) -> None:
    def only_first_prompt(prompts: list[Any], answer: list[str], **columns: Any) -> list[Any]:
        return [Feedback(demonstration="one") if a == "1" else None for a in answer]

    trainer = make_trainer(tmp_path, feedback_funcs=only_first_prompt, feedback_order=["expert"])
    batch = generation_batch(trainer)
    assert batch["active"][4:].sum() == 0
    assert batch["active_count"] == batch["completion_mask"][:4].sum()
    alone = gradient(trainer, [rows_of(batch, [0, 1, 2, 3])]).clone()
    torch.testing.assert_close(gradient(trainer, [batch]), alone, rtol=1e-5, atol=1e-7)


def test_a_batch_without_any_context_gives_a_zero_loss_that_trains(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, feedback_funcs=[], feedback_order=["report"])
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["loss"] for log in logs] == [0.0, 0.0]
    assert logs[0]["feedback/none"] == 1.0
    assert all(torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


def test_tool_tokens_are_masked_but_read(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, feedback_order=["expert"])
    batch = generation_batch(trainer)
    row = int(batch["completion_mask"].sum(1).argmax())
    assert batch["completion_mask"][row].sum() >= 3
    masked = dict(batch)
    masked["scored"] = batch["scored"].clone()
    masked["scored"][row, 1] = 0
    with torch.no_grad():
        scores = trainer.builder.score_student(trainer.model, masked)
        whole = trainer.builder.score_student(trainer.model, batch)
    assert scores.cost[row, 1] == 0
    torch.testing.assert_close(scores.cost[row, 2:], whole.cost[row, 2:])
