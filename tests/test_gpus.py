"""Which GPU a process trains on: one each, told before anything is loaded."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from commandline import RECIPES
from distil.cli import main
from distil.compare import runner
from distil.compare.runner import Processes
from distil.distributed import gpus
from distil.distributed.gpus import SharedGpus, named
from distil.distributed.processes import check_one_gpu
from distil.errors import TrainingError
from trainertoys import make_trainer


def machine(monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None = None) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


@pytest.mark.parametrize(
    ("count", "visible", "names"),
    [
        (0, None, []),
        (0, "", []),
        (2, None, ["0", "1"]),
        (2, "5,3", ["5", "3"]),
        (1, "GPU-8932f937,9", ["GPU-8932f937"]),  # CUDA stops at the first that isn't there
    ],
)
def test_names_are_those_that_the_variable_takes(
    monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None, names: list[str]
) -> None:
    machine(monkeypatch, count, visible)
    assert named(count) == names


def test_they_are_counted_by_torch_in_a_process_of_its_own() -> None:
    assert gpus.count() == torch.cuda.device_count()


def test_processes_that_cannot_share_a_step_are_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr("distil.commands.train.load_student", loaded.append)
    monkeypatch.setattr("distil.commands.dry_run.load_task", loaded.append)
    monkeypatch.setattr("distil.commands.train.processes", lambda: 3)
    rollouts = ["--rollout.prompts-per-step", "2", "--rollout.num-generations", "4"]
    command = ["train", str(RECIPES[0]), "--train.output-dir", str(tmp_path / "run"), *rollouts]
    command += ["--train.micro-batch", "1"]
    told = []
    for more in ([], ["--dry-run", "--gpus", "3"]):
        assert main([*command, *more]) == 2
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert "The 8 rollouts of a step (rollout.prompts_per_step x num_generations) don't" in told[0]
    assert "over 3: train.micro_batch x 3 processes" in told[0]
    assert loaded == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [["--gpus", "-1"], ["--gpu-gib", "0"], ["--gpu-gib", "nan"]])
def test_a_dry_run_for_no_machine_is_refused(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(RECIPES[0]), "--dry-run", *flags]) == 2
    assert "--gpus must be 0 (the CPU) or more, --gpu-gib above 0." in capsys.readouterr().err


def test_one_process_with_several_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, 4, "2,3,6,7")
    status = main(["train", str(RECIPES[0]), "--train.output-dir", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert status == 2
    assert "accelerate launch --multi_gpu --num_processes 4 -m distil.cli train RECIPE" in said
    assert "CUDA_VISIBLE_DEVICES=2 distil train RECIPE" in said
    assert not (tmp_path / "run").exists()


def test_one_of_several_processes_sees_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_one_gpu(4)
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_one_gpu(1)
    with pytest.raises(TrainingError, match="4 GPUs are visible to one process"):
        check_one_gpu(4)


def test_a_trainer_is_refused_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_trainer(tmp_path)  # on a CPU none is used, however many there are
    monkeypatch.setattr("transformers.TrainingArguments.n_gpu", 2)
    with pytest.raises(TrainingError, match="2 GPUs are visible to one process"):
        make_trainer(tmp_path)


def test_trainings_are_spread_over_them() -> None:
    shared = SharedGpus(lambda: ["5", "3"])
    with shared.lent() as first, shared.lent() as second:
        assert (first, second) == (
            {"CUDA_VISIBLE_DEVICES": "5"},
            {"CUDA_VISIBLE_DEVICES": "3"},
        )
        with shared.lent() as third:  # more trainings than GPUs share them
            assert third == first
    with shared.lent() as again:
        assert again == first
    with SharedGpus(list).lent() as nothing:
        assert nothing == {}


def test_a_compared_run_gets_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, 2, "6,7")
    seen: list[str] = []
    start = subprocess.Popen

    def popen(command: list[str], *, env: dict[str, str], **kwargs: Any) -> Any:
        seen.append(env["CUDA_VISIBLE_DEVICES"])
        return start([sys.executable, "-c", ""])

    run: Any = SimpleNamespace(
        name="one", folder=tmp_path, log=tmp_path / "log", recipe_file=tmp_path / "recipe.yaml",
        begun=False,
    )  # fmt: skip
    monkeypatch.setattr(gpus, "count", lambda: 2)
    processes = Processes(None)
    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    assert processes(run, False) == 0
    assert processes(run, False) == 0
    assert seen == ["6", "6"]  # the first is free again
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6,7"
