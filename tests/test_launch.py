"""`accelerate launch -m distil.cli train`: one run by two processes, stopped, resumed, refused."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForCausalLM

from conftest import make_model
from distil.cli import main
from distil.distributed import processes
from distil.distributed.shards import set_up_sharding
from distil.errors import TrainingError
from distil.trainer.callbacks import StopAfterStep
from sharded import SETTINGS, launch
from test_whole_path import recipe_file

__all__ = ["recipe_file"]  # a fixture

SHARDED = str(Path(__file__).parent / "sharded.py")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def check_run(folder: Path, *more: str) -> None:
    """It holds what one process's run holds, each thing once."""
    assert {p.name for p in folder.iterdir()} >= {
        "recipe.yaml", "environment.json", "before.json", "after.json", "teacher.json",
        "results.md", "results.json", "model", "checkpoint-3",
    }  # fmt: skip
    for name in ("before", "after", *more):
        attempts = json.loads((folder / f"{name}.json").read_text())["attempts"]
        problems = [a["problem"] for a in attempts]
        assert len(problems) == 3 * 4
        assert problems == sorted(problems, key=problems.index)  # each problem's stand together
        assert len(set(problems)) == 3
    rollouts = lines(folder / "rollouts.jsonl")
    assert [(r["step"], r["row"]) for r in rollouts] == [
        (s, r) for s in (1, 2, 3) for r in range(4)
    ]
    assert len({r["problem"] for r in rollouts if r["step"] == 1}) == 2
    assert [m["step"] for m in lines(folder / "metrics.jsonl") if "loss" in m] == [1, 2, 3]
    trained = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    start = make_model().state_dict()
    assert any(not torch.equal(w, start[n]) for n, w in trained.items())
    assert all(w.isfinite().all() for w in trained.values())


def test_two_processes_make_one_run_that_stops_and_goes_on(
    recipe_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    flags = ("train", str(recipe_file), "--train.output-dir", str(folder), "--eval.every", "2")
    stopped = launch("ddp", __file__, *flags)
    assert stopped.stdout.count("Run folder:") == 1
    assert stopped.stdout.count("Stopped after step 1 of 3") == 1, stopped.stderr[-3000:]
    assert stopped.stderr.count("Stopping after this step") == 0  # the main one wasn't told
    assert not (folder / "model").exists()
    resumed = launch("ddp", "-m", "distil.cli", "train", str(folder), "--resume")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert resumed.stdout.count("Everything lies in") == 1
    check_run(folder, "eval-000002")
    again = launch("ddp", "-m", "distil.cli", *flags)
    assert again.returncode != 0
    assert again.stderr.count("already holds a run") == 1
    assert again.stdout == ""


def test_a_sharded_run_is_one_run(recipe_file: Path, tmp_path: Path) -> None:
    done = launch(
        "fsdp2", SHARDED, "train", str(recipe_file), "--train.output-dir", str(tmp_path / "run"),
        "--eval.every", "2", "--teacher.samples", "1", "--task.validation-size", "3",
        "--eval.keep-best", "avg@4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Everything lies in") == 1
    assert "after - before" in done.stdout
    check_run(
        tmp_path / "run", "validation-000000", "validation-000002", "validation-000003", "best"
    )
    best = AutoModelForCausalLM.from_pretrained(tmp_path / "run/best").state_dict()
    assert best.keys() == make_model().state_dict().keys()
    assert (tmp_path / "run/checkpoint-3/pytorch_model_fsdp_0").is_dir()
    metrics = lines(tmp_path / "run/metrics.jsonl")
    assert all("teacher/success" in m for m in metrics if "loss" in m)


def test_settings_are_what_accelerate_reads() -> None:
    ddp, fsdp2 = (load_config_from_file(str(SETTINGS / f"{n}.yaml")) for n in ("ddp", "fsdp2"))
    assert ddp.distributed_type == "MULTI_GPU"
    assert fsdp2.distributed_type == "FSDP"
    for settings in (ddp, fsdp2):
        assert (settings.num_processes, settings.mixed_precision) == (4, "bf16")
    assert fsdp2.fsdp_config["fsdp_version"] == 2
    files = {p.stem: yaml.safe_load(p.read_text()) for p in SETTINGS.iterdir()}
    assert set(files) == {"ddp", "fsdp2", "zero2", "zero3"}  # the last two: test_ready.py
    assert fsdp2.fsdp_config == files["fsdp2"]["fsdp_config"]


def test_gradients_are_summed_in_float32_and_fsdp1_is_refused() -> None:
    mixed = MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16, torch.bfloat16)
    plugin = SimpleNamespace(fsdp_version=2, mixed_precision_policy=mixed)
    set_up_sharding(plugin)
    assert plugin.mixed_precision_policy == replace(mixed, reduce_dtype=torch.float32)
    with pytest.raises(TrainingError, match="fsdp_version: 2"):
        set_up_sharding(SimpleNamespace(fsdp_version=1, mixed_precision_policy=None))


def test_one_process_is_its_own_main_one_and_waits_for_nobody() -> None:
    with processes.together():
        assert processes.is_main()
        assert processes.from_main(lambda: 3) == processes.on_each(lambda: 3) == 3
        assert processes.spread([1, 2, 3], lambda mine: [i * 2 for i in mine]) == [2, 4, 6]
        assert processes.any_of_them(True)
        assert not processes.any_of_them(False)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("each", [0, 1, 3])
def test_shares_come_back_in_order(monkeypatch: pytest.MonkeyPatch, count: int, each: int) -> None:
    items = list("abc")

    def act(mine: Any) -> list[str]:
        return [f"{item}{i}" for item in mine for i in range(each)]

    def gather(mine: list[list[str]]) -> list[list[str]]:
        parts = [act(items[rank::count]) for rank in range(count)]
        assert mine == [parts[-1]]
        return parts

    monkeypatch.setattr(processes, "_joined", lambda: True)
    monkeypatch.setattr(processes, "processes", lambda: count)
    monkeypatch.setattr(processes, "rank", lambda: count - 1)
    monkeypatch.setattr(processes, "gather_object", gather)
    assert processes.spread(items, act) == act(items)


def interrupt() -> None:
    """From here on one process of two is told to stop a run after its first step."""
    begin = StopAfterStep.on_train_begin

    def interrupted(self: StopAfterStep, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)

    StopAfterStep.on_train_begin = interrupted


if __name__ == "__main__":
    interrupt()
    sys.exit(main())
