"""The command line: nothing is loaded before it's right, usage, what train and eval are handed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from commandline import RECIPES, Write, as_run, complaint, recipe_file, started
from distil.cli import COMMANDS, load_recipe, main
from distil.commands.evalflags import EvalFlags
from distil.config import EvalConfig, Recipe, TaskConfig, TrainConfig
from distil.runs.folder import begin_run, reopen_run

__all__ = ["recipe_file", "started"]  # fixtures

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


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"]])
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "distil.cli", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_another_broken_pipe_is_no_quiet_end(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    def broken(argv: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setitem(COMMANDS, "doctor", broken)
    with pytest.raises(BrokenPipeError):
        main(["doctor"])


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
    assert (
        "Known: compare, correct, data, doctor, eval, report, run-code, theory, train."
        in complaint(["xyz"], capsys)
    )


def test_doctor_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert "takes no arguments, got --fast" in complaint(["doctor", "--fast"], capsys)


# ---------------------------------------------------------------- what train is handed


def test_profile_is_handed_on(started: list[Any]) -> None:
    assert main(["train", str(RECIPES[0]), "--profile"]) == 0
    assert started[0][2] is True


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


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def train(recipe: Recipe, **options: bool) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["distil.commands.train"], "train", train)
    assert main(["train", str(RECIPES[0])]) == 130
    assert "--resume" in capsys.readouterr().err


# ---------------------------------------------------------------- what eval is handed


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
