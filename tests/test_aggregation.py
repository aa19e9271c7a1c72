"""Aggregation: what is kept, which rows are drawn, what they cost, how a run with it resumes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from conftest import make_model
from distil.config import ObjectiveConfig
from distil.errors import RunError
from distil.objectives import masked_mean
from distil.trainer.aggregation import COMPLETION_KEYS, PROMPT_KEYS, ReplayBuffer
from distil.trainer.assembly import replay_loss
from distil.trainer.scoring import StudentScores
from test_resume import log_lines
from trainertoys import change_objective, generation_batch, gradient, lines, make_trainer, rows_of

KEYS = {*PROMPT_KEYS, *COMPLETION_KEYS} - {"score_weight"}  # only there without credit_end
ALWAYS = KEYS - {"baseline"}


def made_batch(
    first: int, rows: int = 2, prompt: int = 3, length: int = 4, *, baseline: bool = False
) -> dict[str, Tensor]:
    """Rows that can be told apart: row i's ids are all first + i; unpadded."""
    ids = torch.arange(first, first + rows)[:, None]
    batch = {
        "prompt_ids": ids.expand(rows, prompt),
        "prompt_mask": torch.ones(rows, prompt, dtype=torch.long),
        "completion_ids": ids.expand(rows, length),
        "completion_mask": torch.ones(rows, length, dtype=torch.long),
        "active": torch.ones(rows, length, dtype=torch.long),
        "weight": torch.full((rows, length), 0.5),
        "support_ids": ids[..., None].expand(rows, length, 2),
        "teacher_logps": ids[..., None].expand(rows, length, 2) * -0.25,
        "old_logps": ids.expand(rows, length) * -0.125,
    }
    if baseline:
        batch["baseline"] = ids.expand(rows, length) * 0.5
    return batch | {"advantages": torch.zeros(rows), "active_count": batch["active"].sum()}


def drawn_rows(drawn: dict[str, Tensor]) -> list[int]:
    return drawn["completion_ids"][:, 0].tolist()


def test_nothing_is_drawn_from_nothing() -> None:
    assert ReplayBuffer(2).draw(4, "seed") == {}
    none = ReplayBuffer(0)
    none.push(made_batch(10))
    assert none.draw(4, "seed") == {}


@pytest.mark.parametrize("baseline", [False, True])
def test_what_is_pushed_is_what_is_drawn(baseline: bool) -> None:
    buffer, batch = ReplayBuffer(1), made_batch(10, baseline=baseline)
    buffer.push(batch)
    drawn = buffer.draw(2, "seed")
    assert set(drawn) == (KEYS if baseline else ALWAYS)
    order = [row - 10 for row in drawn_rows(drawn)]
    for key in drawn:
        assert torch.equal(drawn[key], batch[key][order]), key
        assert drawn[key].dtype == batch[key].dtype, key


def test_what_is_kept_has_no_gradient() -> None:
    buffer, batch = ReplayBuffer(1), made_batch(10)
    batch["weight"].requires_grad_()
    buffer.push(batch)
    assert not buffer.draw(2, "seed")["weight"].requires_grad


def test_the_oldest_batch_goes() -> None:
    buffer = ReplayBuffer(2)
    for first in (10, 20, 30):
        buffer.push(made_batch(first))
    drawn = buffer.draw(100, "seed")
    assert sorted(drawn_rows(drawn)) == [20, 21, 30, 31]


def test_rows_are_distinct_and_as_many_as_asked_for() -> None:
    buffer = ReplayBuffer(3)
    for first in (10, 20, 30):
        buffer.push(made_batch(first))
    for seed in range(20):
        rows = drawn_rows(buffer.draw(4, str(seed)))
        assert len(set(rows)) == len(rows) == 4
        assert set(rows) <= {10, 11, 20, 21, 30, 31}


def test_the_seed_decides_the_draw_and_each_row_is_drawn_about_as_often() -> None:
    buffer = ReplayBuffer(3)
    for first in (10, 20, 30):
        buffer.push(made_batch(first))
    draws = [drawn_rows(buffer.draw(2, f"seed/{i}")) for i in range(300)]
    assert draws == [drawn_rows(buffer.draw(2, f"seed/{i}")) for i in range(300)]
    counts = {row: sum(row in d for d in draws) for row in (10, 11, 20, 21, 30, 31)}
    # 300 draws of 2 out of 6: 100 each, standard deviation sqrt(300 x 1/3 x 2/3) = 8.
    assert all(abs(count - 100) < 5 * 8.2 for count in counts.values())
    assert len({tuple(d) for d in draws}) == 6 * 5


def test_rows_of_different_lengths_are_padded_where_pads_belong() -> None:
    buffer = ReplayBuffer(2)
    buffer.push(made_batch(10, rows=1, prompt=2, length=5))
    buffer.push(made_batch(20, rows=1, prompt=4, length=3))
    drawn = buffer.draw(2, "seed")
    short_prompt = drawn_rows(drawn).index(10)
    assert drawn["prompt_ids"][short_prompt].tolist() == [0, 0, 10, 10]
    assert drawn["prompt_mask"][short_prompt].tolist() == [0, 0, 1, 1]
    short_answer = 1 - short_prompt
    assert drawn["completion_ids"][short_answer].tolist() == [20, 20, 20, 0, 0]
    for mask in ("completion_mask", "active"):
        assert drawn[mask][short_answer].tolist() == [1, 1, 1, 0, 0]
    assert drawn["weight"][short_answer].tolist() == [0.5, 0.5, 0.5, 0, 0]
    assert drawn["support_ids"].shape == drawn["teacher_logps"].shape == (2, 5, 2)
    assert drawn["teacher_logps"][short_answer, :, 0].tolist() == [-5, -5, -5, 0, 0]


@pytest.mark.parametrize("pushes", [0, 1, 3])
def test_a_saved_buffer_draws_on_as_before(tmp_path: Path, pushes: int) -> None:
    buffer = ReplayBuffer(2)
    for i in range(pushes):
        buffer.push(made_batch(10 * (i + 1), length=3 + i))
    buffer.save(tmp_path, 0)
    loaded = ReplayBuffer(2)
    loaded.push(made_batch(90))  # gone after loading
    loaded.load(tmp_path, 0)
    for further in (50, 60):
        ours, theirs = buffer.draw(3, "seed"), loaded.draw(3, "seed")
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), key
            assert ours[key].dtype == theirs[key].dtype, key
        for b in (buffer, loaded):  # and the same batch goes next
            b.push(made_batch(further))


def test_more_than_ten_saved_batches_keep_their_order(tmp_path: Path) -> None:
    buffer, loaded = ReplayBuffer(12), ReplayBuffer(12)
    for i in range(12):
        buffer.push(made_batch(10 * i, rows=1))
    buffer.save(tmp_path, 0)
    loaded.load(tmp_path, 0)
    for b in (buffer, loaded):
        b.push(made_batch(500, rows=1))
    assert sorted(drawn_rows(loaded.draw(99, ""))) == [*range(10, 120, 10), 500]
    assert drawn_rows(loaded.draw(99, "")) == drawn_rows(buffer.draw(99, ""))


def test_a_checkpoint_without_a_buffer_is_refused(tmp_path: Path) -> None:
    ReplayBuffer(1).save(tmp_path, 0)
    with pytest.raises(RunError, match=r"no replay-1\.safetensors.*fewer processes"):
        ReplayBuffer(1).load(tmp_path, 1)


# ---------------------------------------------------------------- the loss


def case(ratios: list[list[float]]) -> tuple[StudentScores, dict[str, Tensor]]:
    """Two rollouts whose prefix ratios, token after token, are the products of `ratios`."""
    cost = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 7.0]], dtype=torch.float64, requires_grad=True)
    logps = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -1.5, -2.5]], dtype=torch.float64)
    logps.requires_grad_()
    nothing = torch.zeros(2, 3, dtype=torch.float64)
    active = torch.tensor([[1, 1, 1], [1, 1, 0]])
    batch = {
        "active": active,
        "weight": torch.tensor([[1.0, 0.5, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64),
        "old_logps": logps.detach() - torch.tensor(ratios, dtype=torch.float64).log(),
        "active_count": active.sum(),
    }
    return StudentScores(cost, logps, nothing, nothing), batch


def test_score_terms_out_of_the_ratios_bounds_are_left_out() -> None:
    # Prefix ratios through each token: 1.5, 3 (out), 0.75; and 0.25 (out), 1, -.
    scores, batch = case([[1.5, 2.0, 0.25], [0.25, 4.0, 9.0]])
    objective = ObjectiveConfig(future="sum", ratio_clip=2.0)
    loss = replay_loss(objective, scores, batch, share=1.0)
    local = (1 * 1 + 0.5 * 2 + 1 * 4) + (3 + 5)
    # Credit: weighted costs still to come. Row 0: .5 x 2 + 4, then 4, then 0. Row 1: 5, then 0.
    scored = 1.5 * -1.0 * 5
    assert loss.item() == pytest.approx((local + scored) / 5)
    by_cost, by_logp = torch.autograd.grad(loss, [scores.cost, scores.sampled_logps])
    assert by_cost.flatten().tolist() == pytest.approx([1 / 5, 0.5 / 5, 1 / 5, 1 / 5, 1 / 5, 0])
    assert by_logp.flatten().tolist() == pytest.approx([1.5 * 5 / 5, 0, 0, 0, 0, 0])


def test_ratios_at_the_bounds_are_within_them() -> None:
    scores, batch = case([[2.0, 0.25, 1.0], [0.5, 4.0, 1.0]])  # through: 2, .5; .5, 2
    loss = replay_loss(ObjectiveConfig(future="sum", ratio_clip=2.0), scores, batch, share=1.0)
    (by_logp,) = torch.autograd.grad(loss, scores.sampled_logps)
    expected = [2 * 5 / 5, 0.5 * 4 / 5, 0, 0.5 * 5 / 5, 0, 0]
    assert by_logp.flatten().tolist() == pytest.approx(expected)


def test_the_baseline_is_taken_off_the_credit_before_the_ratio_weighs_it() -> None:
    scores, batch = case([[1.5, 2.0, 0.25], [0.8, 0.25, 9.0]])
    batch["baseline"] = torch.tensor([[3.0, 9.0, 9.0], [1.0, 9.0, 9.0]], dtype=torch.float64)
    loss = replay_loss(ObjectiveConfig(future="sum", ratio_clip=2.0), scores, batch, share=1.0)
    (by_logp,) = torch.autograd.grad(loss, scores.sampled_logps)
    # Row 0's third token, whose ratio is .75, has a credit of 0 - 9.
    expected = [1.5 * (5 - 3) / 5, 0, 0.75 * (0 - 9) / 5, 0.8 * (5 - 1) / 5, 0, 0]
    assert by_logp.flatten().tolist() == pytest.approx(expected)


def test_local_replay_has_no_ratio_at_all() -> None:
    scores, batch = case([[9.0, 9.0, 9.0], [0.1, 0.1, 0.1]])
    loss = replay_loss(ObjectiveConfig(future="none"), scores, batch, share=0.5)
    expected = masked_mean(scores.cost * batch["weight"], batch["active"])
    assert loss.item() == pytest.approx(2 * expected.item())


def test_replayed_tokens_without_a_teacher_count_nothing() -> None:
    scores, batch = case([[1.0] * 3] * 2)
    batch["active"] = torch.tensor([[1, 1, 1], [0, 0, 0]])
    loss = replay_loss(ObjectiveConfig(future="none"), scores, batch, share=1.0)
    assert loss.item() == pytest.approx((1 + 0.5 * 2 + 4) / 5)  # active_count is the batch's: 5


def replayed(trainer: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two generation batches at unchanged weights, the second with the first's rows replayed."""
    return generation_batch(trainer), generation_batch(trainer)


@pytest.mark.parametrize("objective", [{}, {"support": "joined"}, {"name": "reverse_kl"}], ids=str)
def test_at_unchanged_weights_replayed_rows_cost_what_they_did(
    tmp_path: Path, objective: dict[str, Any]
) -> None:
    trainer = make_trainer(
        tmp_path,
        objective=objective | {"replay_batches": 1, "future": "none"},
        feedback_order=["expert"],
    )
    first, second = replayed(trainer)
    assert "replay_active" not in first
    assert torch.equal(first["completion_ids"], second["completion_ids"])  # the same seed
    alone = gradient(trainer, [first]).clone()
    # All of the first batch's rows are drawn, so both halves of the loss are equal.
    assert int(second["replay_active"].sum()) == int(first["active"].sum())
    both = gradient(trainer, [second])
    torch.testing.assert_close(both, 2 * alone, rtol=1e-4, atol=1e-6)
    assert alone.abs().max() > 1e-3


@pytest.mark.parametrize("baseline", [False, True])
def test_at_unchanged_weights_replay_credits_the_future_as_it_did(
    tmp_path: Path, baseline: bool
) -> None:
    trainer = make_trainer(
        tmp_path, objective={"replay_batches": 1, "baseline": baseline}, feedback_order=["expert"]
    )
    first, second = replayed(trainer)
    alone = gradient(trainer, [first]).clone()
    both = gradient(trainer, [second])
    torch.testing.assert_close(both, 2 * alone, rtol=1e-4, atol=1e-5)
    change_objective(trainer, future="none")
    assert (gradient(trainer, [first]) - alone).abs().max() > 1e-3  # the future does count


def test_replayed_rows_keep_their_teacher_as_it_was(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"replay_batches": 2}, feedback_order=["expert"])
    first = generation_batch(trainer)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.mul_(1.1)
    second = generation_batch(trainer)

    def rows(batch: dict[str, Tensor], head: str) -> list[tuple[Any, ...]]:
        """Each row's ids, teacher and old log-probabilities at its active tokens, to compare."""
        found = []
        for row in range(8):
            kept = batch[f"{head}active"][row] > 0
            found.append(
                tuple(
                    tuple(batch[head + key][row][kept].flatten().tolist())
                    for key in ("completion_ids", "support_ids", "teacher_logps", "old_logps")
                )
            )
        return sorted(found)

    assert rows(second, "replay_") == rows(first, "")
    assert rows(second, "") != rows(first, "")


def test_splitting_a_batch_with_replay_changes_no_gradient(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8,
        objective={"replay_batches": 1},
    )  # fmt: skip
    generation_batch(trainer)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.mul_(1.02)
    batch = generation_batch(trainer)
    assert "replay_active" in batch
    whole = gradient(trainer, [batch]).clone()
    for splits in ([[3], [1], [0], [7], [2], [6], [5], [4]], [[5, 0, 3], [1, 7], [2, 4, 6]]):
        parts = gradient(trainer, [rows_of(batch, rows) for rows in splits])
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    fresh = {k: v for k, v in batch.items() if not k.startswith("replay_")}
    assert (gradient(trainer, [fresh]) - whole).abs().max() > 1e-3  # replay does count


# ---------------------------------------------------------------- a run


class StopAt(TrainerCallback):
    """Breaks a run off in the middle of training, as a crash does."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            raise InterruptedError("stopped by the test")


def test_an_interrupted_run_with_replay_goes_on_bit_for_bit(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "feedback_order": ["expert"],
        "objective": {"replay_batches": 2},
    }  # fmt: skip
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    broken = make_trainer(tmp_path / "broken", **options)
    broken.add_callback(StopAt(3))
    with pytest.raises(InterruptedError):
        broken.train()
    resumed = make_trainer(tmp_path / "broken", model=make_model(), **options)
    resumed.train(resume_from_checkpoint=True)
    for (name, ours), theirs in zip(
        whole.model.named_parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    ours, theirs = whole.replay.draw(99, "end"), resumed.replay.draw(99, "end")
    assert all(torch.equal(ours[key], theirs[key]) for key in KEYS)
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "broken")
    costs = [m.get("distil/replay_cost") for m in lines(tmp_path / "whole" / "metrics.jsonl")]
    assert costs[0] is None  # there is nothing to replay at first
    assert all(c is not None and math.isfinite(c) for c in costs[1:4])


def test_a_run_without_replay_keeps_no_batches(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    assert trainer.replay.draw(1, "") == {}
    assert (tmp_path / "checkpoint-2").is_dir()
    assert not list((tmp_path / "checkpoint-2").glob("replay-*"))
