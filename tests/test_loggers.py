"""The loggers that TRL's report_to names get every figure; a missing one is told at the start.

Those tests of which a package is missing are skipped: `pip install tensorboard trackio wandb`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import toy_recipe, train
from distil import loggers
from distil.errors import RecipeError
from distil.loggers import check_loggers
from test_trainer import lines, make_trainer

AT_THE_END = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss",
              "total_flos"}  # fmt: skip


def run(folder: Path, logger: str) -> tuple[Any, set[str]]:
    """A run of two steps; its trainer, and the names in its metrics.jsonl as a logger has them."""
    trainer = make_trainer(folder, report_to=[logger])
    trainer.train()
    return trainer, {f"train/{n}" for line in lines(folder / "metrics.jsonl") for n in line}


def at_the_end(names: set[str]) -> set[str]:
    return {f"train/{name}" for name in names}


# ---------------------------------------------------------------- before anything is loaded


def test_a_missing_logger_is_told_with_its_cure_before_the_model_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(loggers.INSTALLED, name, lambda: False)
    recipe = toy_recipe(
        tmp_path, model={"name": "./nowhere"}, train={"report_to": ["wandb", "trackio"]}
    )
    assert train(recipe, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "train.report_to asks for wandb and trackio, which isn't installed here" in said
    assert "`pip install wandb trackio`" in said
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'tensorbord'.*meant 'tensorboard'.*trackio, wandb"):
        check_loggers(["tensorbord"])
    with pytest.raises(RecipeError, match="report_to has 'wandbe'"):
        make_trainer(tmp_path, report_to=["wandbe"])


def test_what_is_there_or_somebody_elses_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loggers.INSTALLED, "wandb", lambda: True)
    check_loggers(["wandb", "mlflow"])
    check_loggers([])


def test_transformers_knows_the_same_three() -> None:
    assert set(loggers.INSTALLED) == {"tensorboard", "trackio", "wandb"}
    for name, installed in loggers.INSTALLED.items():
        assert isinstance(installed(), bool), name


# ---------------------------------------------------------------- every name arrives


def test_tensorboard_gets_every_figure(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, names = run(tmp_path, "tensorboard")
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == names - {"train/step"}
    assert [e.step for e in events.Scalars("train/reward")] == [1, 2]


def test_trackio_gets_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    trackio = pytest.importorskip("trackio")
    from trackio.cli import main

    _, names = run(tmp_path, "trackio")
    (stored,) = trackio.Api().runs("huggingface")
    asked = ["trackio", "list", "metrics", "--project", "huggingface", "--run", stored.name]
    monkeypatch.setattr(sys, "argv", [*asked, "--json"])
    capsys.readouterr()
    main()
    expected = names - {"train/step"} - at_the_end(AT_THE_END)
    assert set(json.loads(capsys.readouterr().out)["metrics"]) == expected | {"train/global_step"}


def test_wandb_gets_every_figure_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb = pytest.importorskip("wandb")
    _, names = run(tmp_path, "wandb")
    try:
        got = {name for name in wandb.run.summary.keys() if not name.startswith("_")}  # noqa: SIM118
    finally:
        wandb.finish()
    expected = names - {"train/step"} - at_the_end(AT_THE_END)
    assert got >= expected | {"train/global_step"}
    assert os.listdir(tmp_path / "wandb")
