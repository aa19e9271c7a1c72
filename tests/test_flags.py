"""Flags over recipes: which mistakes are told, what overrides what, and presets as flags."""

from dataclasses import replace
from typing import Any

import pytest

from commandline import DISTIL, RECIPES, Write, complaint, recipe_file, started, with_field
from distil.cli import main
from distil.config import (
    FeedbackConfig,
    ObjectiveConfig,
    Recipe,
    RolloutConfig,
    TaskConfig,
    TeacherConfig,
    TrainConfig,
)

__all__ = ["recipe_file", "started"]  # fixtures

# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--train.step", "3"], ["--train.step", "Perhaps you meant", "--train.steps"]),
        (["--train.stepz=3"], ["--train.stepz", "Perhaps you meant", "--train.steps"]),
        (["--learning-rate", "1e-5"], ["Perhaps you meant", "--train.learning-rate"]),
        (["--objective.baselin"], ["--objective.baselin", "--objective.baseline"]),
        (["--train.steps", "many"], ["--train.steps", "'many'"]),
        (["--train.steps", "3.5"], ["--train.steps", "'3.5'"]),
        (["--train.steps"], ["Missing value", "--train.steps"]),
        (["--train.learning-rate", "fast"], ["--train.learning-rate", "'fast'"]),
        (["--objective.name", "forward_KL"], ["objective 'forward_KL'", "'forward_kl'"]),
        (["--objective.future", "all"], ["--objective.future", "'all'", "'sum'"]),
        (["--objective.support", "teachers"], ["--objective.support", "'teachers'", "'teacher'"]),
        (["--objective.advantage-weight", "x"], ["--objective.advantage-weight", "'x'"]),
        (["--prest", "sdpo-science"], ["--prest", "Perhaps you meant", "--preset"]),
        (["--preset", "sdpo-scince"], ["preset 'sdpo-scince'", "'sdpo-science'"]),
        (["--preset"], ["Missing value", "--preset"]),
        (["--feedback.order", "expert", "siblings"], ["--feedback.order", "'sibling'"]),
        (["--resum"], ["--resum", "--resume"]),
        (["another.yaml"], ["another.yaml"]),
    ],
)
def test_a_mistake_in_a_flag_names_it_and_the_nearest_right_one(
    capsys: pytest.CaptureFixture[str], flags: list[str], expected: list[str]
) -> None:
    said = complaint(["train", str(RECIPES[0]), *flags], capsys)
    assert [word for word in expected if word not in said] == []


def test_flags_before_the_recipe_are_refused_and_not_run_without_it(
    started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in (["--train.steps", "3"], ["--resume"]):
        said = complaint(["train", *flags, str(RECIPES[0])], capsys)
        assert f"distil train RECIPE {flags[0]} ..." in said
    assert started == []


def test_train_without_a_recipe_says_that_it_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "RECIPE" in complaint(["train"], capsys)


# ---------------------------------------------------------------- flags over recipes


def test_flags_override_the_recipe_and_leave_the_rest(
    recipe_file: Write, started: list[Any]
) -> None:
    file = recipe_file(
        "train: {steps: 3, learning_rate: 2e-5, report_to: [wandb]}\n"
        "objective: {baseline: false}\n"
        "task: {options: {min_terms: 2, max_terms: 2}}\n"
    )
    flags = ["--train.steps", "5", "--train.micro_batch=4", "--objective.baseline", "--resume"]
    flags += [
        "--task.options",
        "min_terms",
        "2",
        "max_terms",
        "4",
        "--feedback.order",
        "expert",
        "report",
    ]
    assert main(["train", file, *flags]) == 0
    [(recipe, resume)] = started
    expected = Recipe(
        task=TaskConfig(options={"min_terms": 2, "max_terms": 4}),
        feedback=FeedbackConfig(order=("expert", "report")),
        objective=ObjectiveConfig(**DISTIL),
        train=TrainConfig(steps=5, learning_rate=2e-5, micro_batch=4, report_to=("wandb",)),
    )
    assert (recipe, resume) == (expected, True)


def test_a_flag_sets_null_and_overrides_it(recipe_file: Write, started: list[Any]) -> None:
    file = recipe_file("objective: {future: mean, support: null, first_error_margin: 2}\n")
    assert main(["train", file]) == 0
    flags = ["--objective.future", "None", "--objective.first-error-margin=None"]
    assert main(["train", file, *flags, "--objective.support", "joined"]) == 0
    found = [r.objective for r, _ in started]
    assert [(o.future, o.support, o.first_error_margin) for o in found] == [
        ("mean", "teacher", 2.0),
        ("sum", "joined", None),
    ]


def test_options_of_the_recipe_stay_with_their_dataset(
    recipe_file: Write, started: list[Any]
) -> None:
    file = recipe_file("task: {name: chain_sum, options: {min_terms: 2}}\n")
    assert main(["train", file]) == 0
    assert main(["train", file, "--task.name", "gcd"]) == 0
    assert main(["train", file, "--task.name", "gcd", "--task.options", "max_value", "30"]) == 0
    options = [recipe.task.options for recipe, _ in started]
    assert options == [{"min_terms": 2}, {}, {"max_value": 30}]


def test_any_recipe_takes_a_table_and_its_check_as_flags(
    recipe_file: Write, started: list[Any]
) -> None:
    file = recipe_file("task: {name: gcd, extract: last_number, options: {max_value: 9}}\n")
    for check in ("math", "choice", "exact", "tolerant"):
        assert main(["train", file, "--task.name", "my.jsonl", "--task.check", check]) == 0
    tasks = [recipe.task for recipe, _ in started]
    assert [t.check for t in tasks] == ["math", "choice", "exact", "tolerant"]
    assert {t.name for t in tasks} == {"my.jsonl"}
    assert all(t.options == {} for t in tasks)


# ---------------------------------------------------------------- presets as flags

SDPO_SCIENCE = Recipe(
    preset="sdpo-science",
    feedback=FeedbackConfig(order=("sibling",)),
    teacher=TeacherConfig(kind="ema", ema_rate=0.05),
    objective=ObjectiveConfig(
        "jensen_shannon", future="none", support="student", advantage_weight=0.0
    ),
    rollout=RolloutConfig(prompts_per_step=32, max_completion_length=8192),
    train=TrainConfig(learning_rate=1e-5, warmup_steps=10),
)


def test_a_preset_as_flag_overrides_the_recipe_and_other_flags_override_it(
    recipe_file: Write, started: list[Any]
) -> None:
    file = recipe_file(
        "preset: grpo-off-policy\n"
        "task: {name: gcd, options: {max_value: 30}}\n"
        "feedback: {order: [expert], sibling: random}\n"
        "teacher: {kind: frozen}\n"
        "objective: {name: forward_kl, support: joined, top_k: 7, tail: false}\n"
        "rollout: {max_completion_length: 24, temperature: 0.5}\n"
        "train: {learning_rate: 0.25, steps: 3, updates_per_batch: 2}\n"
    )
    assert main(["train", file, "--preset", "sdpo-science"]) == 0
    assert main(["train", file, "--preset=sdpo-science", "--train.learning-rate", "0.5"]) == 0
    assert main(["train", file, "--rollout.top-k", "9", "--preset", "sdpo-science"]) == 0
    expected = replace(
        SDPO_SCIENCE,
        task=TaskConfig(name="gcd", options={"max_value": 30}),  # a preset names none
        feedback=replace(SDPO_SCIENCE.feedback, sibling="random"),
        train=replace(SDPO_SCIENCE.train, steps=3),  # the objective is the preset's as a whole
    )
    assert started == [
        (expected, False),
        (with_field("train.learning_rate", 0.5, expected), False),
        (with_field("rollout.top_k", 9, expected), False),
    ]


def test_a_preset_as_flag_over_an_empty_recipe_is_the_one_that_a_file_names(
    recipe_file: Write, started: list[Any]
) -> None:
    assert main(["train", recipe_file(""), "--preset", "sdpo-science"]) == 0
    assert main(["train", recipe_file("preset: sdpo-science")]) == 0
    assert main(["train", recipe_file("preset: sdpo-science"), "--preset", "sdpo-science"]) == 0
    assert started == [(SDPO_SCIENCE, False)] * 3


def test_a_preset_as_flag_leaves_no_credit_of_the_recipes_own_objective(
    recipe_file: Write, started: list[Any]
) -> None:
    # Else a run would be called sdpo-science, and be SDPO with DistIL's future credit.
    file = recipe_file("objective: {name: distil, future: mean}\n")
    assert main(["train", file, "--preset", "sdpo-science"]) == 0
    assert started == [(SDPO_SCIENCE, False)]


def test_of_two_presets_as_flags_one_is_taken_whole(recipe_file: Write, started: list[Any]) -> None:
    flags = ["--preset", "grpo-on-policy", "--preset", "sdpo-science"]
    assert main(["train", recipe_file(""), *flags]) == 0
    assert started == [(SDPO_SCIENCE, False)]


def test_a_mistake_in_a_recipe_is_told_under_a_preset_as_flag_too(
    recipe_file: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, expected in (
        ("rollout: 3", "'rollout' is 3, and must be a group of fields: "),
        ("train: {stepz: 3}", "Unknown field 'train.stepz'."),
        ("teacher: {kind: [live]}", "'teacher.kind' is ['live'], and must be one value"),
    ):
        file = recipe_file(text)
        assert expected in complaint(["train", file, "--preset", "sdpo-science"], capsys)
