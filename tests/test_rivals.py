"""The rivals in the trainer: GRPO as TRL's own, the advantage beside the cost, SFT, splits."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from conftest import conversations, make_model, make_tokenizer
from distil import Feedback
from distil.errors import RecipeError
from distil.objectives import reverse_kl
from trainertoys import (
    by_length,
    change_objective,
    generation_batch,
    gradient,
    lines,
    make_trainer,
    rows_of,
)

HALVES = [[0, 2, 4, 6], [1, 3, 5, 7]]


# ---------------------------------------------------------------- GRPO


def plain_grpo(folder: Path, **options: Any) -> GRPOTrainer:
    """TRL's own trainer with `make_trainer`'s settings."""
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "disable_dropout": True,
        "seed": 3,
    }
    return GRPOTrainer(
        make_model(),
        by_length,
        GRPOConfig(**(settings | options)),
        Dataset.from_list(conversations(8)),
        processing_class=make_tokenizer(),
    )


@pytest.mark.parametrize("scale_rewards", ["group", "none"])
def test_grpos_gradient_is_trls(tmp_path: Path, scale_rewards: str) -> None:
    ours = make_trainer(
        tmp_path / "ours", objective={"name": "grpo", "scale_rewards": scale_rewards}
    )
    theirs = plain_grpo(tmp_path / "theirs", scale_rewards=scale_rewards)
    batches = [generation_batch(t) for t in (ours, theirs)]
    for key in ("completion_ids", "advantages"):
        assert torch.equal(batches[0][key], batches[1][key])
    gradients = [
        gradient(t, [rows_of(b, rows) for rows in HALVES]).clone()
        for t, b in zip((ours, theirs), batches, strict=True)
    ]
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 1e-3


def test_a_grpo_run_is_trls_run_and_its_rollouts_are_written(tmp_path: Path) -> None:
    ours = make_trainer(tmp_path / "ours", objective={"name": "grpo"})
    before = [p.clone() for p in ours.model.parameters()]
    ours.train()
    theirs = plain_grpo(tmp_path / "theirs")
    theirs.train()
    pairs = list(zip(ours.model.parameters(), theirs.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(before, ours.model.parameters(), strict=True))
    rollouts = lines(tmp_path / "ours" / "rollouts.jsonl")
    assert [r["step"] for r in rollouts] == [1] * 8 + [2] * 8
    assert {"prompt", "completion", "reward"} <= set(rollouts[0])


def only_first_prompt(prompts: list[Any], answer: list[str], **columns: Any) -> list[Any]:
    return [Feedback(demonstration="one") if a == "1" else None for a in answer]


@pytest.mark.parametrize("rows_with_context", [8, 4])
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_hybrids_advantage_part_is_grpos_gradient_on_all_rows(
    tmp_path: Path, rows_with_context: int, weight: float
) -> None:
    feedback = {} if rows_with_context == 8 else {"feedback_funcs": only_first_prompt}
    hybrid = make_trainer(
        tmp_path / "hybrid", feedback_order=["expert"],
        objective={"name": "distil+grpo", "advantage_weight": weight}, **feedback,
    )  # fmt: skip
    theirs = plain_grpo(tmp_path / "theirs", loss_type="dapo")
    theirs_batch = generation_batch(theirs)
    batch = generation_batch(hybrid)
    assert int((batch["active"].sum(1) > 0).sum()) == rows_with_context
    assert torch.equal(batch["completion_ids"], theirs_batch["completion_ids"])

    def of(trainer: Any, batch: dict[str, Tensor]) -> Tensor:
        return gradient(trainer, [rows_of(batch, rows) for rows in HALVES]).clone()

    whole = of(hybrid, batch)
    change_objective(hybrid, advantage_weight=0.0)
    alone = of(hybrid, batch)
    expected = weight * of(theirs, theirs_batch)
    torch.testing.assert_close(whole - alone, expected, rtol=1e-4, atol=1e-5)
    assert expected.abs().max() > 1e-2
    distil = make_trainer(tmp_path / "distil", feedback_order=["expert"], **feedback)
    torch.testing.assert_close(alone, of(distil, generation_batch(distil)), rtol=1e-4, atol=1e-5)


def test_only_sampled_tokens_have_an_advantage(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"advantage_weight": 1.0}, feedback_order=["expert"])
    batch = generation_batch(trainer)
    assert batch["completion_mask"].min() == 0  # there is padding
    assert int(batch["sampled_count"]) == int(batch["completion_mask"].sum())
    assert torch.equal(batch["scored"] > 0, batch["completion_mask"] > 0)


# ---------------------------------------------------------------- SFT


def plain_cross_entropy(trainer: Any, batch: dict[str, Tensor], words: list[str | None]) -> Tensor:
    """Mean over all demonstrations' tokens, row by row, without padding."""
    losses = []
    for row, text in enumerate(words):
        if text is None:
            continue
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row] > 0]
        answer = torch.tensor([*trainer.processing_class(text)["input_ids"], 2])  # 2: <|end|>
        logits = trainer.model(input_ids=torch.cat([prompt, answer])[None]).logits[0]
        logps = (logits[len(prompt) - 1 : -1] / trainer.temperature).log_softmax(-1)
        losses.append(-logps.gather(-1, answer[:, None])[:, 0])
    return torch.cat(losses).mean()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sft_is_cross_entropy_on_the_demonstrations(tmp_path: Path, temperature: float) -> None:
    trainer = make_trainer(
        tmp_path, objective={"name": "sft"}, feedback_order=["expert"], temperature=temperature
    )
    batch = generation_batch(trainer)
    words: list[str | None] = ["the answer is 1"] * 4 + ["the answer is 2"] * 4
    ours = gradient(trainer, [rows_of(batch, rows) for rows in HALVES]).clone()
    total = sum(trainer._compute_loss(trainer.model, rows_of(batch, r)).item() for r in HALVES)
    expected = plain_cross_entropy(trainer, batch, words)
    assert total == pytest.approx(expected.item(), rel=1e-5)
    trainer.model.zero_grad()
    expected.backward()
    slopes = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    torch.testing.assert_close(ours, slopes, rtol=1e-4, atol=1e-6)
    assert slopes.abs().max() > 1e-2


def test_rows_without_a_demonstration_teach_sft_nothing(tmp_path: Path) -> None:
    def two(prompts: list[Any], answer: list[str], **columns: Any) -> list[Any]:
        of_first = {0: Feedback(demonstration="one"), 3: Feedback(text="no"), 5: "words"}
        said = [of_first.get(i) for i in range(len(prompts))]
        return [*said[:6], Feedback(demonstration="a longer one"), None]

    trainer = make_trainer(
        tmp_path, objective={"name": "sft"}, feedback_funcs=two, feedback_order=["expert"]
    )
    batch = generation_batch(trainer)
    words = ["one", None, None, None, None, None, "a longer one", None]
    with torch.no_grad():
        loss = trainer._compute_loss(trainer.model, batch)
        expected = plain_cross_entropy(trainer, batch, words)
    # The batch holds two micro-batches, all in one update: its loss is the whole mean.
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    silent = [rows_of(batch, [1, 2, 3, 4, 5, 7])]
    assert gradient(trainer, silent).abs().max() == 0


def test_the_rollouts_have_no_influence_on_sft(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"name": "sft"}, feedback_order=["expert"])
    batch = generation_batch(trainer)
    before = gradient(trainer, [batch]).clone()
    batch["completion_ids"] = torch.randint_like(batch["completion_ids"], 3, 50)
    batch["completion_mask"] = torch.ones_like(batch["completion_mask"])
    batch["advantages"] = -3 * batch["advantages"] + 1
    assert torch.equal(gradient(trainer, [batch]), before)
    assert before.abs().max() > 1e-2


# ---------------------------------------------------------------- splits, one generation


@pytest.mark.parametrize("name", ["distil+grpo", "sft", "as_released_math", "grpo"])
def test_splitting_a_rivals_batch_changes_no_gradient(tmp_path: Path, name: str) -> None:
    released = name == "as_released_math"
    trainer = make_trainer(
        tmp_path, objective={"name": name}, feedback_order=["expert"],
        # A near-certain model, so that some costs are below the published clamp of 0.05 nat.
        model=make_model(4 if released else 0), temperature=0.02 if released else 1.0,
        per_device_train_batch_size=1, gradient_accumulation_steps=8,
    )  # fmt: skip
    batch = generation_batch(trainer)
    whole = gradient(trainer, [batch]).clone()
    assert whole.abs().max() > 1e-4
    for splits in ([[3], [1], [0], [7], [2], [6], [5], [4]], [[5, 0, 3], [1, 7], [2, 4, 6]]):
        parts = gradient(trainer, [rows_of(batch, rows) for rows in splits])
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["distil", "reverse_kl", "sft"])
def test_one_rollout_a_prompt_trains_with_an_expert(tmp_path: Path, name: str) -> None:
    trainer = make_trainer(
        tmp_path, num_generations=1, objective={"name": name}, feedback_order=["expert"]
    )
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.global_step == 2
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert all(math.isfinite(x) for x in losses)
    assert any(
        not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True)
    )
    prompts = [r["prompt"][0]["content"] for r in lines(tmp_path / "rollouts.jsonl")]
    assert len(set(prompts[:8])) == 8  # a step's rollouts are of eight different prompts


def test_one_rollout_a_prompt_has_no_baseline(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_generations=1, feedback_order=["expert"])
    assert generation_batch(trainer)["baseline"].abs().max() == 0


@pytest.mark.parametrize("name", ["grpo", "distil+grpo"])
def test_one_rollout_a_prompt_is_refused_where_rewards_are_compared(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(RecipeError, match=r"num_generations is 1.*Set it to 2 or more"):
        make_trainer(tmp_path, num_generations=1, objective={"name": name})


def test_reverse_kl_is_sdpos_local_loss_over_the_students_support(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"name": "reverse_kl"}, feedback_order=["expert"])
    batch = generation_batch(trainer)
    with torch.no_grad():
        scores = trainer.builder.score_student(trainer.model, batch)
        loss = trainer._compute_loss(trainer.model, batch)
    active = batch["active"] > 0
    assert trainer.builder.cost is reverse_kl
    torch.testing.assert_close(loss, scores.cost[active].mean(), rtol=1e-5, atol=1e-6)
