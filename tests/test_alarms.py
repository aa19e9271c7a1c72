"""Alarms sound once, when a figure stays beyond its bound, and keep the checkpoint from before."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import toy_recipe, train
from distil.config import AlarmConfig
from distil.runs.alarms import Alarms, signs
from distil.runs.checkpoints import MARKER, checkpoint_step, mark_complete

FIGURES = {
    "student entropy low": ("student/entropy", 0.5, 0.001),
    "length limit": ("completions/clipped_ratio", 0.2, 0.99),
    "answers grow": ("completions/mean_length", 10, 45),
    "answers shrink": ("completions/mean_length", 10, 2),
    "teacher unsure": ("teacher/entropy", 0.1, 1.3),
    "teacher right less": ("teacher/success", 0.9, 0.3),
}


def heard(config: AlarmConfig, figure: str, values: list[float | None]) -> list[tuple[int, str]]:
    """(log, alarm) of each that sounds."""
    watching = signs(config)
    return [
        (place, sign.name)
        for place, value in enumerate(values)
        for sign in watching
        if sign.sounds({} if value is None else {figure: value}, config.patience, place)
    ]


@pytest.mark.parametrize("name", FIGURES)
def test_each_sounds_once_after_patience_and_again_after_it_was_well(name: str) -> None:
    figure, well, ill = FIGURES[name]
    values = [well, well, ill, well, ill, ill, ill, None, ill, well, ill, ill]
    assert heard(AlarmConfig(patience=2), figure, values) == [(5, name), (11, name)]
    assert heard(AlarmConfig(patience=20), figure, values) == []


def test_null_turns_an_alarm_off() -> None:
    bounds = [name for name in AlarmConfig.__dataclass_fields__ if name.startswith("m")]
    silent = AlarmConfig(patience=1, **dict.fromkeys(bounds, None))
    assert len(bounds) == len(FIGURES)
    assert signs(silent) == []


def test_a_resumed_run_knows_the_start_and_what_was_said(tmp_path: Path) -> None:
    history = [{"teacher/entropy": v} for v in (0.1, 0.1, 2.0)]
    alarms = Alarms(AlarmConfig(patience=2), tmp_path)
    alarms.on_train_begin(None, SimpleNamespace(log_history=history), None)
    state = SimpleNamespace(global_step=4)
    alarms.on_log(None, state, SimpleNamespace(), logs={"teacher/entropy": 2.0})
    (line,) = (tmp_path / "alarms.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "step": 4, "alarm": "teacher unsure", "figure": "teacher/entropy", "value": 2.0,
        "at_the_start": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize("every", [1, 2])
def test_the_checkpoint_that_is_kept_is_from_before_the_first_bad_log(
    tmp_path: Path, every: int
) -> None:
    """A figure of rollouts is logged with a batch's first update alone, here every so many."""
    for step in range(1, 14):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        mark_complete(checkpoint, step)
    alarms = Alarms(AlarmConfig(patience=3), tmp_path, every)
    control = SimpleNamespace()
    for update in range(1, 14):
        logs = {"loss": 1.0}
        if (update - 1) % every == 0:
            logs["completions/mean_length"] = 10.0 if update < 9 else 100.0
        alarms.on_log(None, SimpleNamespace(global_step=update), control, logs=logs)
    assert checkpoint_step(tmp_path / "before-alarm") == 8


@pytest.mark.parametrize("stop", [False, True])
def test_a_run_tells_keeps_its_checkpoint_and_stops_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stop: bool
) -> None:
    """The bound on entropy is above any, so that the alarm sounds at the third log."""
    recipe = toy_recipe(
        tmp_path,
        train={"steps": 5, "micro_batch": 4, "save_every": 1, "keep_checkpoints": 1},
        alarms={"patience": 3, "min_student_entropy": 100.0, "stop": stop},
        eval={"samples": 2, "teacher_samples": 0},
    )
    run = tmp_path / "run"
    assert train(recipe, run) == (130 if stop else 0)
    assert "Alarm, step 3: student entropy low." in "".join(capsys.readouterr())
    (line,) = (run / "alarms.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 3
    kept: Any = json.loads((run / "before-alarm" / MARKER).read_text())
    assert kept["step"] <= 2
    assert (run / "before-alarm" / "model.safetensors").is_file()
    steps = [json.loads(x)["step"] for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == (3 if stop else 5)


def test_bounds_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = toy_recipe(tmp_path, alarms={"patience": 0, "max_length_growth": 0.5})
    assert train(recipe, tmp_path / "run") != 0
    said = capsys.readouterr().err
    assert "alarms.patience is 0" in said
    assert "alarms.max_length_growth is 0.5" in said
    assert not (tmp_path / "run").exists()
