"""Impossible values, alone and together: refused by name, with the way out, all at once."""

from dataclasses import replace
from typing import Any

import pytest

from commandline import Write, as_run, complaint, recipe_file, started, with_field
from distil.config import (
    FeedbackConfig,
    LoraSettings,
    ModelConfig,
    ObjectiveConfig,
    Recipe,
    RolloutConfig,
    TaskConfig,
    TeacherConfig,
    TrainConfig,
)
from distil.errors import RecipeError
from distil.recipe.checks import check_recipe

__all__ = ["recipe_file", "started"]  # fixtures


@pytest.mark.parametrize(
    ("path", "value", "demand"),
    [
        ("task.train_size", 0, "at least 1"),
        ("task.eval_size", -1, "at least 0"),
        ("model.lora.rank", -1, "at least 0"),
        ("model.lora.alpha", 0, "above 0"),
        ("model.lora.dropout", 1.0, "in [0, 1)"),
        ("model.lora.dropout", float("nan"), "in [0, 1)"),
        ("teacher.max_prompt_length", 15, "at least 16"),
        ("teacher.samples", -1, "at least 0"),
        ("teacher.ema_rate", 0.0, "in (0, 1]"),
        ("teacher.ema_rate", 1.5, "in (0, 1]"),
        ("objective.top_k", 0, "at least 1"),
        ("objective.discount", 0.0, "in (0, 1]"),
        ("objective.discount", 1.01, "in (0, 1]"),
        ("objective.future_weight", -0.5, "at least 0"),
        ("objective.future_weight", float("nan"), "at least 0"),
        ("objective.advantage_weight", -0.5, "at least 0"),
        ("objective.advantage_weight", float("nan"), "at least 0"),
        ("objective.ratio_clip", 0.5, "at least 1"),
        ("objective.replay_batches", -1, "at least 0"),
        ("objective.policy_space_clip", 0.0, "above 0"),
        ("objective.policy_space_clip", float("nan"), "above 0"),
        ("rollout.prompts_per_step", 0, "at least 1"),
        ("rollout.num_generations", 0, "at least 1"),
        ("rollout.max_completion_length", 0, "at least 1"),
        ("rollout.temperature", 0.0, "above 0"),
        ("rollout.temperature", float("nan"), "above 0"),
        ("rollout.top_p", 0.0, "in (0, 1]"),
        ("rollout.top_k", -1, "at least 0"),
        ("train.steps", 0, "at least 1"),
        ("train.updates_per_batch", 0, "at least 1"),
        ("train.num_iterations", 0, "at least 1"),
        ("train.micro_batch", 0, "at least 1"),
        ("train.learning_rate", 0.0, "above 0"),
        ("train.learning_rate", -1e-5, "above 0"),
        ("train.max_grad_norm", 0.0, "above 0"),
        ("train.weight_decay", -0.1, "at least 0"),
        ("train.warmup_steps", -1, "at least 0"),
        ("train.seed", -1, "at least 0"),
        ("train.save_every", 0, "at least 1"),
        ("train.keep_checkpoints", 0, "at least 1"),
        ("train.log_rollouts", -1, "at least 0"),
        ("eval.every", -1, "at least 0"),
        ("eval.samples", 0, "at least 1"),
        ("eval.teacher_samples", -1, "at least 0"),
        ("eval.batch_size", 0, "at least 1"),
        ("eval.temperature", 0.0, "above 0"),
        ("eval.top_p", 1.1, "in (0, 1]"),
        ("eval.top_k", -1, "at least 0"),
    ],
)
def test_an_impossible_value_is_refused_by_name(path: str, value: Any, demand: str) -> None:
    with pytest.raises(RecipeError) as refused:
        check_recipe(with_field(path, value))
    assert f"  - {path} is {value}, and must " in str(refused.value)
    assert demand in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("task.eval_size", 0),
        ("task.train_size", 8),
        ("teacher.ema_rate", 1.0),
        ("teacher.samples", 8),
        ("objective.top_k", 1),
        ("objective.future_weight", 0.0),
        ("objective.advantage_weight", 0.0),
        ("objective.advantage_weight", 0.5),
        ("objective.ratio_clip", 1.0),
        ("objective.replay_batches", 1),
        ("objective.policy_space_clip", 1e-3),
        ("objective.future", "none"),
        ("objective.support", "student"),
        ("rollout.num_generations", 1),
        ("rollout.num_generations", 2),
        ("train.steps", 1),
        ("train.updates_per_batch", 8),
        ("train.num_iterations", 2),
        ("train.micro_batch", 64),
        ("train.weight_decay", 0.0),
        ("train.log_rollouts", 0),
        ("eval.every", 1),
        ("eval.teacher_samples", 0),
        ("eval.top_p", 0.9),
        ("eval.top_k", 20),
        ("teacher.kind", "ema"),
    ],
)
def test_a_value_on_the_right_side_of_its_bound_is_taken(path: str, value: Any) -> None:
    recipe = with_field(path, value)
    assert check_recipe(recipe) == as_run(recipe)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            replace(Recipe(), train=TrainConfig(micro_batch=7)),
            "train.micro_batch is 7 and train.updates_per_batch 1: together they don't divide the "
            "64 rollouts of a step (rollout.prompts_per_step x rollout.num_generations).",
        ),
        (
            replace(Recipe(), train=TrainConfig(micro_batch=8, updates_per_batch=16)),
            "train.micro_batch is 8 and train.updates_per_batch 16: together they don't divide the "
            "64 rollouts of a step (rollout.prompts_per_step x rollout.num_generations).",
        ),
        (
            replace(Recipe(), task=TaskConfig(train_size=4)),
            "rollout.prompts_per_step is 8, more than the 4 problems there are (task.train_size).",
        ),
        (
            replace(Recipe(), task=TaskConfig(check="math")),
            "task.check is math, but 'chain_sum' is no file of problems (*.jsonl) and brings its",
        ),
        (
            replace(Recipe(), task=TaskConfig(name="a.jsonl")),
            "task.check isn't set, and it says how the answers of 'a.jsonl' are judged. Set it to",
        ),
        (
            replace(Recipe(), teacher=TeacherConfig(kind="lora_off")),
            "teacher.kind is lora_off, but no LoRA is trained (model.lora.rank is 0).",
        ),
        (
            replace(Recipe(), teacher=TeacherConfig(kind="live", shadow_device="cpu")),
            "teacher.shadow_device is cpu, but a live teacher has no weights of its own",
        ),
        (
            replace(Recipe(), teacher=TeacherConfig(gate=True)),
            "teacher.samples is 0. Set teacher.samples to 1 or more.",
        ),
        (
            replace(Recipe(), teacher=TeacherConfig(samples=9)),
            "teacher.samples is 9, more than rollout.num_generations (8)",
        ),
        (
            replace(Recipe(), rollout=RolloutConfig(top_p=0.9)),
            "top_p, top_k, min_p or repetition_penalty make the sampler another policy than the "
            "one that is trained, and future credit would be biased. Leave them off, or set "
            "objective.future: none (local credit may be taken on any sampler's states).",
        ),
        (
            replace(Recipe(), rollout=RolloutConfig(top_k=20)),
            "top_p, top_k, min_p or repetition_penalty make the sampler another policy than the "
            "one that is trained, and future credit would be biased. Leave them off, or set "
            "objective.future: none (local credit may be taken on any sampler's states).",
        ),
        (replace(Recipe(), feedback=FeedbackConfig(order=())), "feedback.order is empty"),
        (
            replace(Recipe(), feedback=FeedbackConfig(order=("report", "expert", "report"))),
            "feedback.order names report more than once",
        ),
        (
            with_field("feedback.corrections", "mine.jsonl"),
            "feedback.order doesn't name correction",
        ),
        (
            with_field("train.output_dir", ""),
            "train.output_dir is ''. Name the folder that the run",
        ),
        (with_field("train.output_dir", " "), "train.output_dir is ' '. Name the folder that the"),
        (with_field("feedback.max_tokens", -1), "feedback.max_tokens is -1"),
        (with_field("feedback.max_tokens", 15), "at least 16: less has no room"),
    ],
)
def test_values_that_are_impossible_together_are_refused(recipe: Recipe, expected: str) -> None:
    with pytest.raises(RecipeError) as refused:
        check_recipe(recipe)
    assert expected in str(refused.value)


def test_the_way_out_that_a_refusal_names_is_taken() -> None:
    lora = ModelConfig(lora=LoraSettings(rank=8))
    check_recipe(replace(Recipe(), model=lora, teacher=TeacherConfig(kind="lora_off")))
    local = ObjectiveConfig(future="none")
    check_recipe(replace(Recipe(), objective=local, rollout=RolloutConfig(top_p=0.9)))
    check_recipe(replace(Recipe(), teacher=TeacherConfig(gate=True, samples=1)))
    check_recipe(replace(Recipe(), train=TrainConfig(micro_batch=4, updates_per_batch=16)))


def test_several_impossible_values_are_told_at_once(
    recipe_file: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recipe_file(
        "train: {steps: 0, micro_batch: 7}\nobjective: {name: grpo, future: sum, top_k: 0}"
    )
    said = complaint(["train", file, "--eval.samples", "0"], capsys)
    lines = [line for line in said.splitlines() if line.startswith("  - ")]
    assert [line.split()[1] for line in lines] == [
        "objective.top_k",
        "train.steps",
        "eval.samples",
        "train.micro_batch",
        "objective.future",
    ]
