"""Recipes and flags: one parser, one kind of complaint, and nothing loaded before it's right."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from distil.algorithms import resolved
from distil.checks import check_recipe
from distil.cli import load_recipe, main
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
from distil.errors import RecipeError
from distil.flags import EvalFlags
from distil.runs import begin_run, reopen_run

FOLDER = Path(__file__).parent.parent / "recipes"
# But for accelerate's own settings.
RECIPES = sorted(f for f in FOLDER.rglob("*.yaml") if f.parent.name != "accelerate")
Write = Callable[[str], str]

# What null stands for under objective.name's default, distil.
DISTIL: dict[str, Any] = {"future": "sum", "support": "teacher", "advantage_weight": 0.0}
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


@pytest.fixture
def recipe_file(tmp_path: Path) -> Write:
    def write(text: str) -> str:
        file = tmp_path / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return write


@pytest.fixture(autouse=True)  # a mistake that goes untold must not start a real run either
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `distil train` and `distil eval` were about to run, in place of running it."""
    calls: list[Any] = []

    def train(recipe: Recipe, *, resume: bool, profile: bool) -> int:
        calls.append((recipe, resume, profile) if profile else (recipe, resume))
        return 0

    def evaluate_model(flags: EvalFlags) -> int:
        calls.append(flags)
        return 0

    # Their real modules load torch and trl.
    fakes = {"train": SimpleNamespace(train=train)}
    fakes["eval"] = SimpleNamespace(evaluate_model=evaluate_model)
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, f"distil.commands.{name}", fake)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "1")  # the command line sets them: put back afterwards
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    return calls


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error message of a command that must fail with exit status 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("distil: RecipeError: ")
    assert "Traceback" not in captured.err
    return captured.err


def with_field(path: str, value: Any, recipe: Recipe | None = None) -> Recipe:
    """The recipe (else the default one) with one field changed."""
    recipe = recipe or Recipe()
    group, *inner, name = path.split(".")
    part = getattr(recipe, group)
    if inner:
        changed = replace(part, **{inner[0]: replace(getattr(part, inner[0]), **{name: value})})
    else:
        changed = replace(part, **{name: value})
    return replace(recipe, **{group: changed})


def as_run(recipe: Recipe) -> Recipe:
    """A recipe of the objective distil as it is run: what null stands for is filled in."""
    assert recipe.objective.name == "distil"
    nulls = {name: v for name, v in DISTIL.items() if getattr(recipe.objective, name) is None}
    return replace(recipe, objective=replace(recipe.objective, **nulls))


def leaves(plain: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested fields as {"train.steps": 3, ...}; task.options is one field."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        path = f"{where}{key}"
        group = isinstance(value, dict) and path != "task.options"
        found |= leaves(value, f"{path}.") if group else {path: value}
    return found


# ---------------------------------------------------------------- nothing is loaded

PROBE = """
import contextlib, io, json, sys
from distil.cli import main
heavy = ("torch", "transformers", "trl", "datasets", "peft", "accelerate", "reasoning_gym", "numpy")
statuses = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            statuses.append(main(arguments))
        except SystemExit as stop:
            statuses.append(stop.code or 0)
print(json.dumps([statuses, [m for m in heavy if m in sys.modules]]))
"""


def statuses_and_modules(*commands: list[str]) -> tuple[list[int], list[str]]:
    """Exit statuses of the commands in one fresh process, and what heavy modules it had loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
    )
    statuses, loaded = json.loads(done.stdout)
    return statuses, loaded


def test_help_loads_nothing_heavy() -> None:
    commands = [[], ["--help"], ["-h"], ["train", "--help"], ["eval", "--help"]]
    commands += [["doctor", "--help"], ["train", str(RECIPES[0]), "--help"], ["compare", "--help"]]
    commands += [["correct", "--help"]]
    assert statuses_and_modules(*commands) == ([0] * 9, [])


def test_mistakes_are_told_before_anything_is_loaded(recipe_file: Write) -> None:
    good = str(RECIPES[0])
    commands = [
        ["train", good, "--train.stepz", "3"],
        ["train", good, "--train.steps", "many"],
        ["train", good, "--train.steps", "0"],
        ["train", good, "--objective.name", "forward_KL"],
        ["train", good, "--objective.name", "missing.py:mine"],
        ["train", good, "--preset", "sdpo-scince"],
        ["train", recipe_file("train: {stepz: 3}")],
        ["train", good + ".missing"],
        ["train"],
        ["eval"],
        ["eval", "some-model", "--eval.samples", "0"],
        ["trian", good],
        ["doctor", "now"],
        ["correct"],
        ["correct", good, "--limit", "-1"],
        ["correct", good + ".missing"],
    ]
    assert statuses_and_modules(*commands) == ([2] * len(commands), [])


def test_the_installed_command_exits_with_2_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distil.cli", "trian"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "distil: RecipeError: There is no command 'trian'. Perhaps you meant 'train'.\n"
    )


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_usage_names_every_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: distil COMMAND")
    for command in ("train RECIPE", "eval MODEL", "compare SUITE", "correct RUN", "doctor"):
        assert f"\n  {command} " in out


def test_help_of_train_shows_the_recipes_own_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", str(RECIPES[0]), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "--train.learning-rate" in out
    assert str(load_recipe(RECIPES[0]).train.output_dir) in out


def test_a_command_far_from_any_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Known: compare, correct, data, doctor, eval, run-code, theory, train." in complaint(
        ["xyz"], capsys
    )


def test_doctor_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert "takes no arguments, got --fast" in complaint(["doctor", "--fast"], capsys)


# ---------------------------------------------------------------- mistakes in a recipe


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
    ],
)
def test_a_mistake_in_a_recipe_names_file_and_field(
    recipe_file: Write, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    file = recipe_file(text)
    said = complaint(["train", file], capsys)
    assert expected in said
    assert file in said


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


# ---------------------------------------------------------------- mistakes in flags


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


# ---------------------------------------------------------------- impossible values


@pytest.mark.parametrize(
    ("path", "value", "demand"),
    [
        ("task.train_size", 0, "at least 1"),
        ("task.eval_size", -1, "at least 0"),
        ("model.lora.rank", -1, "at least 0"),
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


def test_profile_is_handed_on(started: list[Any]) -> None:
    assert main(["train", str(RECIPES[0]), "--profile"]) == 0
    assert started[0][2] is True


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


def test_a_run_is_resumed_from_its_folder_wherever_that_lies_now(
    tmp_path: Path, started: list[Any]
) -> None:
    recipe = Recipe(train=TrainConfig(output_dir="runs/elsewhere", steps=3))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.as_dict()))
    assert main(["train", str(tmp_path), "--resume"]) == 0
    here = replace(recipe, train=replace(recipe.train, output_dir=str(tmp_path)))
    assert started == [(as_run(here), True)]


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("objective: {name: distil+grpo, future: null}", []),
        ("preset: distil-science\nobjective: {name: reverse_kl, future: ~, support: ~}", []),
        ("preset: as-released-math", []),
        ("preset: grpo-on-policy\ntrain: {steps: 3}", ["--preset", "sdpo-science"]),
    ],
)
def test_a_run_is_resumed_with_the_very_recipe_that_it_was_begun_with(
    recipe_file: Write, tmp_path: Path, started: list[Any], text: str, flags: list[str]
) -> None:
    run = tmp_path / "run"
    out = ["--train.output-dir", str(run)]
    assert main(["train", recipe_file(text), *flags, *out]) == 0
    begin_run(run, started[0][0].as_dict(), seed=0)
    assert main(["train", str(run), "--resume"]) == 0
    assert started == [(started[0][0], False), (started[0][0], True)]
    assert reopen_run(run, started[1][0].as_dict()) == run


def test_flags_on_resuming_are_not_dropped_in_silence(tmp_path: Path, started: list[Any]) -> None:
    # Handed on, so that `reopen_run` can refuse what differs.
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(Recipe().as_dict()))
    flags = ["--train.steps", "5", "--train.output-dir", "elsewhere"]
    assert main(["train", str(tmp_path), "--resume", *flags]) == 0
    assert started[0][0].train == TrainConfig(steps=5, output_dir="elsewhere")


def test_eval_takes_task_eval_and_length_from_a_recipe(
    recipe_file: Write, started: list[Any]
) -> None:
    file = recipe_file(
        "task: {name: gcd, train_size: 2}\neval: {samples: 3}\n"
        "rollout: {prompts_per_step: 2, max_completion_length: 24}\n"
    )
    assert main(["eval", "a/b", "--recipe", file, "--eval.seed", "9", "--out", "x.json"]) == 0
    assert main(["eval", "a/b", f"--recipe={file}", "--max-completion-length", "9"]) == 0
    assert main(["eval", "a/b"]) == 0
    task = TaskConfig(name="gcd", train_size=2)
    assert started == [
        EvalFlags(
            "a/b", file, task=task, eval=EvalConfig(samples=3, seed=9), max_completion_length=24,
            out="x.json",
        ),
        EvalFlags("a/b", file, task=task, eval=EvalConfig(samples=3), max_completion_length=9),
        EvalFlags("a/b", task=TaskConfig(), eval=EvalConfig(), max_completion_length=256),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--eval.samples", "0"], "eval.samples is 0"),
        (["--max-completion-length", "0"], "max_completion_length is 0"),
        (["--eval.sampels", "3"], "--eval.samples"),
        (["--task.eval-size", "few"], "--task.eval-size"),
        (["--recipe", "missing.yaml"], "'missing.yaml' can't be read"),
    ],
)
def test_mistakes_in_evals_flags_are_told(
    started: list[Any], capsys: pytest.CaptureFixture[str], flags: list[str], expected: str
) -> None:
    assert expected in complaint(["eval", "a/b", *flags], capsys)
    assert started == []


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def train(recipe: Recipe, **options: bool) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["distil.commands.train"], "train", train)
    assert main(["train", str(RECIPES[0])]) == 130
    assert "--resume" in capsys.readouterr().err


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
