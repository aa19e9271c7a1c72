"""A recipe's fields: the vetted defaults, and that each value survives being written and read."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from commandline import DISTIL, Write, recipe_file, with_field
from distil.cli import load_recipe
from distil.config import (
    AlarmConfig,
    CritiqueConfig,
    EvalConfig,
    FeedbackConfig,
    LoraSettings,
    ModelConfig,
    ObjectiveConfig,
    Recipe,
    RolloutConfig,
    SandboxConfig,
    ServedConfig,
    TaskConfig,
    TeacherConfig,
    TrainConfig,
)
from distil.recipe.checks import check_recipe

__all__ = ["recipe_file"]  # a fixture

# ---------------------------------------------------------------- defaults


def test_the_default_objective_is_exact_but_for_the_credit_of_ends() -> None:
    """docs/results.md: with it, answers shrink to nothing on cipher; on sums it makes no odds."""
    default = ObjectiveConfig(
        name="distil",
        future=None,
        future_weight=1.0,
        discount=1.0,
        baseline=True,
        credit_end=False,
        support=None,
        top_k=100,
        tail=True,
        advantage_weight=None,
        scale_rewards="group",
        reduction="tokens",
        ratio="token_clipped",
        ratio_clip=2.0,
        prompt_weight="none",
        max_teacher_entropy=None,
        first_error_margin=None,
        first_error="from",
        replay_batches=0,
        policy_space_clip=None,
    )
    assert ObjectiveConfig() == default
    run = check_recipe(Recipe()).objective
    assert run == replace(default, future="sum", support="teacher", advantage_weight=0.0)


def test_the_default_teacher_is_a_slow_average() -> None:
    assert TeacherConfig() == TeacherConfig(
        kind="ema", ema_rate=0.01, shadow_device="same", max_prompt_length=10_240, samples=0,
        gate=False,
    )  # fmt: skip


def test_by_default_every_update_has_fresh_rollouts() -> None:
    train = TrainConfig()
    assert (train.updates_per_batch, train.num_iterations) == (1, 1)


def test_by_default_a_model_is_judged_before_and_after_only() -> None:
    assert EvalConfig().every == 0


def test_by_default_there_is_no_preset() -> None:
    assert Recipe().preset == ""


def test_the_default_feedback_prefers_the_students_own_success() -> None:
    assert FeedbackConfig() == FeedbackConfig(
        order=("sibling", "report", "expert"), combine="first", max_tokens=0, sibling="shortest"
    )


def test_the_default_sampler_is_the_policy_itself() -> None:
    rollout = RolloutConfig()
    assert (rollout.temperature, rollout.top_p, rollout.top_k) == (1.0, 1.0, 0)


def test_the_defaults_can_run() -> None:
    assert check_recipe(Recipe()) == replace(Recipe(), objective=ObjectiveConfig(**DISTIL))


# ---------------------------------------------------------------- written and read

# Every field that may be null, as it is by default, with another value.
NULLABLE: dict[str, Any] = {
    "task.check": "exact",
    "rollout.max_tool_calling_iterations": 3,
    "objective.future": "mean",
    "objective.support": "joined",
    "objective.advantage_weight": 0.25,
    "objective.max_teacher_entropy": 2e-7,
    "objective.first_error_margin": 1.5,
    "objective.policy_space_clip": 3.0,
}


def leaves(plain: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested fields as {"train.steps": 3, ...}; task.options is one field."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        path = f"{where}{key}"
        group = isinstance(value, dict) and path != "task.options"
        found |= leaves(value, f"{path}.") if group else {path: value}
    return found


def test_every_default_survives_being_written_and_read(recipe_file: Write) -> None:
    assert load_recipe(recipe_file(yaml.safe_dump(Recipe().as_dict()))) == Recipe()


def test_every_kind_of_value_survives_being_written_and_read(recipe_file: Write) -> None:
    options = {"n": -3, "x": 1.5, "tiny": 2e-7, "yes": True, "no": False, "s": "3", "t": "-v"}
    recipe = Recipe(
        preset="opsd-math",
        task=TaskConfig(
            name="gcd",
            options={**options, "empty": "", "a b": "c = {d} %s"},
            system="You are: 'x'\n",
            instruction="--brief: 'yes'\n#",
            extract="whole",
            check="tolerant",
            sandbox=SandboxConfig("strong", 3, ("numpy", "a b"), 1.5, 77, True),
            train_size=7,
            eval_size=5,
            validation_size=2,
            eval_file="b c.jsonl",
            seed=3,
        ),
        model=ModelConfig(
            "a/b", "bfloat16", "off", LoraSettings(8, 16, 0.05, "q_proj"), allow_pickle=True
        ),
        feedback=FeedbackConfig(
            order=("expert", "sibling"),
            combine="all",
            max_tokens=400,
            sibling="random",
            corrections="-my own/ä.jsonl",
            demonstration_header="",
            critique=CritiqueConfig(
                by="judge",
                steps=True,
                show_answer=True,
                per_step=3,
                max_tokens=99,
                temperature=0.0,
                model="org/a: b",
                base_url="http://h:1/v1",
                api_key_env="-KEY",
                concurrency=2,
                timeout=1.5,
                deadline=7.0,
            ),
        ),
        teacher=TeacherConfig(
            "frozen",
            0.05,
            "cpu",
            512,
            samples=4,
            gate=True,
            served=ServedConfig("http://h:2/v1", "org/b: c", "-KEY", 3, 2, 1.5, 7.0),
        ),
        objective=ObjectiveConfig(
            name="-my own/ä.py:mine",
            future="none",
            future_weight=0.5,
            discount=0.9,
            baseline=False,
            credit_end=True,
            support="joined",
            top_k=7,
            tail=False,
            advantage_weight=0.25,
            scale_rewards="none",
            reduction="sequences",
            ratio="prefix",
            ratio_clip=3.0,
            prompt_weight="pass_rate",
            max_teacher_entropy=2e-7,
            first_error_margin=1.5,
            first_error="until",
            replay_batches=2,
            policy_space_clip=3.0,
        ),
        rollout=RolloutConfig(
            3,
            1,
            17,
            0.7,
            0.95,
            20,
            share_prompts=True,
            use_vllm=True,
            vllm_mode="server",
            vllm_server_base_url="http://h:3",
            vllm_gpu_memory_utilization=0.5,
            vllm_tensor_parallel_size=2,
            tools=("a b.py:f", "g.py:h"),
            max_tool_calling_iterations=4,
        ),
        train=TrainConfig(
            output_dir="-runs/ä b",
            steps=3,
            updates_per_batch=2,
            num_iterations=4,
            learning_rate=2e-5,
            warmup_steps=1,
            weight_decay=0.0,
            max_grad_norm=0.1,
            micro_batch=5,
            gradient_checkpointing=True,
            padding_free=False,
            save_every=2,
            keep_checkpoints=3,
            seed=4,
            log_rollouts=0,
            rollouts_mb=7.5,
            report_to=("wandb", "x"),
        ),
        eval=EvalConfig(
            16, 0.6, 0.95, 20, 3, 7, every=5, teacher_samples=0, k=(1, 16), keep_best="maj@16"
        ),
        alarms=AlarmConfig(7, None, None, 3.5, None, 0.25, None, stop=True),
    )
    default, given = leaves(Recipe().as_dict()), leaves(recipe.as_dict())
    assert [path for path, value in default.items() if given[path] == value] == []  # every field
    assert load_recipe(recipe_file(yaml.safe_dump(recipe.as_dict()))) == recipe


def test_every_field_that_may_be_null_is_tried() -> None:
    plain = leaves(Recipe().as_dict())
    assert {path for path, value in plain.items() if value is None} == set(NULLABLE)


@pytest.mark.parametrize("path", NULLABLE)
@pytest.mark.parametrize("preset", ["", "distil-science", "sdpo-science"])
def test_null_survives_being_written_and_read_and_so_does_a_value(
    recipe_file: Write, path: str, preset: str
) -> None:
    others = Recipe(preset=preset)
    for other, value in NULLABLE.items():
        others = with_field(other, value, others)
    alone = with_field(path, NULLABLE[path], Recipe(preset=preset))
    for recipe, stored in (
        (alone, NULLABLE[path]),  # a value, all others null
        (with_field(path, None, others), None),  # null, all others with a value
        (others, NULLABLE[path]),
    ):
        text = yaml.safe_dump(recipe.as_dict())
        assert leaves(yaml.safe_load(text))[path] == stored
        assert load_recipe(recipe_file(text)) == recipe
