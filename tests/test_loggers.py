"""The loggers that TRL's report_to names get every figure; a missing one is told at the start.

Those tests of which a package is missing are skipped: `pip install tensorboard trackio wandb`.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from transformers import PrinterCallback

from conftest import environment, toy_recipe, train
from distil.errors import RecipeError
from distil.trainer import loggers
from distil.trainer.loggers import check_loggers
from trainertoys import lines, make_trainer

AT_THE_END = {
    f"train/{name}" for name in ("train_runtime", "train_samples_per_second",
                                 "train_steps_per_second", "train_loss", "total_flos")
}  # fmt: skip


def run(folder: Path, logger: str) -> set[str]:
    """A run of two steps; its `figures`."""
    trainer = make_trainer(folder, report_to=[logger])
    trainer.remove_callback(PrinterCallback)  # takes a name away before others see it
    trainer.train()
    return figures(folder)


def figures(folder: Path) -> set[str]:
    """The names in a run's metrics.jsonl, as a logger has them."""
    names = {n for line in lines(folder / "metrics.jsonl") for n in line}
    return {f"train/{name}" for name in names - {"step"}}


def without_timings(names: Iterable[str]) -> set[str]:
    """Without those of TRL's own profiling, which goes to trackio and W&B alone."""
    return {name for name in names if not name.startswith("profiling/Time taken: DistILTrainer.")}


# ---------------------------------------------------------------- before anything is loaded


def test_a_missing_logger_is_told_with_its_cure_before_the_model_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(loggers.INSTALLED, name, lambda: False)
    recipe = toy_recipe(
        tmp_path,
        model={"name": "./nowhere"},
        train={"report_to": ["wandb", "trackio"], "micro_batch": 4},
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

    names = run(tmp_path, "tensorboard")
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == names
    assert [e.step for e in events.Scalars("train/reward")] == [1, 2]


def test_trackio_gets_every_figure(tmp_path: Path) -> None:
    """In a process of its own: trackio reads its folder as it is imported, and TRL imports it."""
    pytest.importorskip("trackio")
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=300,
        env=environment() | {"TRACKIO_DIR": str(tmp_path / "trackio")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout[done.stdout.rindex("{") :])
    got = without_timings(told["metrics"])
    assert got == figures(tmp_path) - AT_THE_END | {"train/global_step"}
    assert (tmp_path / "trackio").is_dir()


def test_wandb_gets_every_figure_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb = pytest.importorskip("wandb")
    names = run(tmp_path, "wandb")
    try:
        got = without_timings(wandb.run.summary.keys())
    finally:
        wandb.finish()
    summed_up = {name.removeprefix("train/") for name in AT_THE_END}
    assert {n for n in got if n[0] != "_"} - summed_up == names - AT_THE_END | {"train/global_step"}
    assert list((tmp_path / "wandb").glob("offline-run-*"))


if __name__ == "__main__":
    import trackio
    from trackio.cli import main as trackio_main

    run(Path(sys.argv[1]), "trackio")
    (stored,) = trackio.Api().runs("huggingface")
    wanted = ["list", "metrics", "--project", "huggingface", "--run", stored.name, "--json"]
    sys.argv = ["trackio", *wanted]
    trackio_main()
