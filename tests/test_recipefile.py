"""Recipes as files: mistakes are told by file and field, and a right value reaches its field."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from commandline import RECIPES, Write, complaint, recipe_file, started
from distil.cli import load_recipe, main
from distil.config import Recipe
from distil.recipe.algorithms import resolved
from distil.recipe.checks import check_recipe

__all__ = ["recipe_file", "started"]  # fixtures

# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {step: 3}", "Unknown field 'train.step'. Perhaps you meant 'steps'."),
        ("trian: {steps: 3}", "Unknown field 'trian'. Perhaps you meant 'train'."),
        ("model: {lora: {rnk: 4}}", "Unknown field 'model.lora.rnk'. Perhaps you meant 'rank'."),
        ("task: {sed: 1}", "Unknown field 'task.sed'. Perhaps you meant 'seed'."),
        ("steps: 3", "Unknown field 'steps'. Known: alarms, eval, feedback,"),
        ("1: 2", "Unknown field '1'."),
        ("train: {on: 2}", "Unknown field 'train.True'."),
        ("train: 3", "'train' is 3, and must be a group of fields: gradient_checkpointing,"),
        ("train:", "'train' is None, and must be a group of fields: "),
        ("model: {lora: 4}", "'model.lora' is 4, and must be a group of fields: alpha,"),
        ("train: {steps: many}", "--train.steps: invalid literal for int"),
        ("train: {steps: 3.5}", "--train.steps: invalid literal for int"),
        ("train: {steps: true}", "Field 'train.steps' is True, and must be one value"),
        ("train: {steps: }", "Field 'train.steps' is None, and must be one value"),
        ("train: {steps: {}}", "Field 'train.steps' is {}, and must be one value"),
        ("train: {steps: [3]}", "Field 'train.steps' is [3], and must be one value"),
        ("train: {learning_rate: fast}", "--train.learning-rate: could not convert"),
        ("task: {instruction: }", "'task.instruction' is None, and must be one value, in quotes"),
        ("task: {instruction: no}", "'task.instruction' is False, and must be one value, in quo"),
        ("train: {output_dir: ~}", "Field 'train.output_dir' is None"),
        ("objective: {baseline: 0}", "'objective.baseline' is 0, and must be true or false."),
        ("objective: {tail: 'no'}", "Field 'objective.tail' is 'no', and must be true or false."),
        ("objective: {name: }", "'objective.name' is None, and must be one value, in quotes"),
        ("objective: {futur: sum}", "Unknown field 'objective.futur'. Perhaps you meant 'future'."),
        ("objective: {future: all}", "invalid choice 'all' for argument '--objective.future'"),
        ("objective: {future: no}", "'objective.future' is False, and must be one value, in quo"),
        ("objective: {support: [joined]}", "'objective.support' is ['joined'], and must be one"),
        ("objective: {policy_space_clip: {}}", "'objective.policy_space_clip' is {}, and must be"),
        ("objective: {advantage_weight: much}", "could not convert string to float: 'much'"),
        ("objective: {ratio: clipped}", "invalid choice 'clipped' for argument"),
        ("teacher: {gate: 1}", "Field 'teacher.gate' is 1, and must be true or false."),
        ("train: {num_iterations: ~}", "Field 'train.num_iterations' is None, and must be one"),
        ("preset: sdpo-scince", "no preset 'sdpo-scince'. Perhaps you meant 'sdpo-science'."),
        ("preset: ", "Field 'preset' is None, and must be one value, in quotes if it is text."),
        ("preset: [sdpo-science]", "Field 'preset' is ['sdpo-science'], and must be one value"),
        ("preset: 3", "There is no preset "),
        ("feedback: {order: [siblings]}", "invalid choice 'siblings' for argument"),
        ("feedback: {order: {a: b}}", "'feedback.order' is {'a': 'b'}, and must be a list"),
        ("train: {report_to: }", "Field 'train.report_to' is None, and must be a list of names."),
        ("task: {options: 3}", "Field 'task.options' is 3, and must be names with one number,"),
        ("task: {options: [a]}", "Field 'task.options' is ['a'], and must be names with"),
        ("task: {options: {a: [1, 2]}}", "Field 'task.options' is {'a': [1, 2]}, and must be"),
        ("task: {options: {a: }}", "Field 'task.options' is {'a': None}, and must be"),
        ("task: {options: {1: 2}}", "Field 'task.options' is {1: 2}, and must be"),
        ("- train", "must be groups of fields, such as task: ..."),
        ("[]", "must be groups of fields, such as task: ..."),
        ("just words", "must be groups of fields, such as task: ..."),
        ("train: [", "is no valid YAML: while parsing"),
        ("train: {steps: 3", "is no valid YAML: while parsing"),
        ("\x00", "is no valid YAML"),
        ("train: {steps: 2026-05-32}", "is no valid YAML: day is out of range"),
        (
            "task: {}\ntrain: {}\ntask: {}",
            "has 'task' twice in one group, in line 1 and in line 3,",
        ),
        (
            "train:\n  steps: 3\n  seed: 1\n  'steps': 4",
            "has 'steps' twice in one group, in line 2 and in line 4, and only the last would be "
            "read. Take one of them out.",
        ),
        ("model: {lora: {rank: 4, rank: 8}}", "has 'rank' twice in one group, in line 1 and in l"),
        ("task: {options: {a: 1, b: 2, a: 1}}", "has 'a' twice in one group"),
    ],
)
def test_a_mistake_in_a_recipe_names_file_and_field(
    recipe_file: Write, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    file = recipe_file(text)
    said = complaint(["train", file], capsys)
    assert expected in said
    assert file in said


def test_a_mistake_in_a_recipe_points_to_a_command_that_there_is(
    recipe_file: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recipe_file("train: {steps: many}")
    assert complaint(["train", file], capsys).endswith(" see distil train RECIPE --help\n")


def test_an_unknown_objective_is_told_the_known_ones_from_file_and_flag_alike(
    recipe_file: Write, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = (
        "distil: RecipeError: There is no objective 'forward_KL'. Perhaps you meant 'forward_kl'. "
        "Known: distil, forward_kl, reverse_kl, jensen_shannon, grpo, sft, distil+grpo, "
        "as_released_math; or your own as path/to/file.py:function.\n"
    )
    assert complaint(["train", recipe_file("objective: {name: forward_KL}")], capsys) == expected
    flags = ["--objective.name", "forward_KL"]
    assert complaint(["train", str(RECIPES[0]), *flags], capsys) == expected
    assert started == []


def test_a_cost_is_no_objective(recipe_file: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = recipe_file("objective: {name: forward_cross_entropy}")
    assert "There is no objective 'forward_cross_entropy'. " in complaint(["train", file], capsys)


@pytest.mark.parametrize("text", ["objective: {name: xyzzy}", "preset: xyzzy"])
def test_a_name_far_from_any_is_told_the_known_ones_once(
    recipe_file: Write, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    said = complaint(["train", recipe_file(text)], capsys)
    assert "'xyzzy'" in said
    assert said.count("Known: ") == 1


def test_a_recipe_that_is_no_text_is_no_valid_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"\xff\xfe\xfa")
    assert "is no valid YAML" in complaint(["train", str(file)], capsys)


def test_an_unreadable_recipe_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.yaml"
    assert f"'{missing}' can't be read: No such file or directory." in complaint(
        ["train", str(missing)], capsys
    )
    (tmp_path / "empty folder").mkdir()
    assert "No such file" in complaint(["train", str(tmp_path / "empty folder")], capsys)


# ---------------------------------------------------------------- recipes that are right


def holds(taken: Any, given: Any) -> bool:
    """Whether every value that a file gives is the one that was taken."""
    if isinstance(given, dict):
        return all(holds(taken[name], value) for name, value in given.items())
    if taken is None or given is None:
        return taken is given
    return taken == type(taken)(given)


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: f.stem)
def test_every_recipe_that_we_ship_can_run(file: Path, started: list[Any]) -> None:
    assert main(["train", str(file)]) == 0
    recipe = load_recipe(file)
    assert started == [(replace(recipe, objective=resolved(recipe.objective)), False)]
    assert holds(recipe.as_dict(), yaml.safe_load(file.read_text(encoding="utf-8")))


def test_there_is_a_recipe_to_ship() -> None:
    assert {"demo", "cipher", "programs", "sums"} <= {file.stem for file in RECIPES}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "{}"])
def test_an_empty_recipe_is_the_default_one(recipe_file: Write, text: str) -> None:
    assert load_recipe(recipe_file(text)) == Recipe()


def test_merged_groups_may_be_overridden(recipe_file: Write) -> None:
    text = """
        task: {options: &base {future: none, top_k: 3}}
        objective: {<<: *base, top_k: 4}
    """
    recipe = load_recipe(recipe_file(text))
    assert (recipe.objective.future, recipe.objective.top_k) == ("none", 4)
    assert recipe.task.options == {"future": "none", "top_k": 3}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("{}", ("sum", "teacher", 0.0)),
        ("{future: null, support: ~, advantage_weight: }", ("sum", "teacher", 0.0)),
        ("{name: reverse_kl}", ("none", "student", 0.0)),
        ("{name: forward_kl, future: null}", ("none", "teacher", 0.0)),
        ("{name: distil+grpo}", ("sum", "teacher", 1.0)),
        ("{name: distil+grpo, advantage_weight: 0}", ("sum", "teacher", 0.0)),
        ("{name: jensen_shannon, future: mean}", ("mean", "student", 0.0)),
        ("{future: none, support: joined, advantage_weight: 2}", ("none", "joined", 2.0)),
    ],
)
def test_a_run_has_what_the_name_brings_where_the_recipe_has_null(
    recipe_file: Write, started: list[Any], objective: str, expected: tuple[str, str, float]
) -> None:
    file = recipe_file(f"objective: {objective}")
    assert main(["train", file]) == 0
    [(recipe, _)] = started
    found = recipe.objective
    assert (found.future, found.support, found.advantage_weight) == expected
    future, support, weight = expected
    filled = {"future": future, "support": support, "advantage_weight": weight}
    given = load_recipe(file)
    assert recipe == replace(given, objective=replace(given.objective, **filled))
    assert check_recipe(recipe) == recipe  # nothing is left to resolve
    assert load_recipe(recipe_file(yaml.safe_dump(recipe.as_dict()))) == recipe


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("train: {learning_rate: 2e-5}", "train.learning_rate", 2e-5),  # a string in YAML 1.1
        ("train: {learning_rate: 2.0e-5}", "train.learning_rate", 2e-5),
        ("train: {max_grad_norm: 1}", "train.max_grad_norm", 1.0),
        ("train: {report_to: []}", "train.report_to", ()),
        ("train: {report_to: [wandb, trackio]}", "train.report_to", ("wandb", "trackio")),
        ("train: {report_to: wandb}", "train.report_to", ("wandb",)),
        ("feedback: {order: [expert]}", "feedback.order", ("expert",)),
        ("objective: {baseline: no}", "objective.baseline", False),
        ("objective: {baseline: yes}", "objective.baseline", True),
        ("train: {gradient_checkpointing: on}", "train.gradient_checkpointing", True),
        ("task: {instruction: ''}", "task.instruction", ""),
        ("task: {instruction: --resume}", "task.instruction", "--resume"),
        ("task: {instruction: -5}", "task.instruction", "-5"),
        ("task: {options: {a: 1, b: x}}", "task.options", {"a": 1, "b": "x"}),
        ("task: {options: {}}", "task.options", {}),
        ("objective: {future: null}", "objective.future", None),
        ("objective: {future: ~}", "objective.future", None),
        ("objective: {future: }", "objective.future", None),
        ("objective: {future: none}", "objective.future", "none"),
        ("objective: {advantage_weight: 0}", "objective.advantage_weight", 0.0),
        ("objective: {max_teacher_entropy: 2e-5}", "objective.max_teacher_entropy", 2e-5),
        ("objective: {policy_space_clip: null}", "objective.policy_space_clip", None),
        ("objective: {name: a/b c.py:mine}", "objective.name", "a/b c.py:mine"),
        ("teacher: {gate: yes}", "teacher.gate", True),
        ("rollout: {num_generations: 1}", "rollout.num_generations", 1),
        ("preset: distil-science", "objective.future", "mean"),
        ("preset: distil-science\nobjective: {future: null}", "objective.future", None),
        ("objective: {future: none}\npreset: distil-science", "objective.future", "none"),
    ],
)
def test_a_value_reaches_its_field(recipe_file: Write, text: str, path: str, value: Any) -> None:
    group, name = path.split(".")
    found = getattr(getattr(load_recipe(recipe_file(text)), group), name)
    assert found == value
    assert type(found) is type(value)
