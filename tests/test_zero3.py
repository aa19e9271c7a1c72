"""DeepSpeed's ZeRO-3 over two processes gives the steps that DDP gives, with every teacher.

DeepSpeed isn't installed with the development tools (docs/scale.md): without it nothing here runs.
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import DeepSpeedPlugin
from safetensors.torch import load_file

from conftest import make_model, make_tokenizer, toy_recipe
from distil.cli import main
from distil.distributed.processes import together
from distil.distributed.zero3 import in_parts, loading_parts, part
from distil.models import load_model
from distil.runs.checkpoints import fault_of
from sharded import launch
from shardedcases import (
    MUCH_ELSE,
    RESUMED,
    STEPS,
    Folders,
    a_trainer,
    check_resumed,
    check_same,
    check_same_model,
    check_same_run,
    check_same_teacher,
    failing_pass,
    keep,
)
from test_launch import check_run, interrupt

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed isn't installed")

CASES: dict[str, dict[str, Any]] = {
    "live": {"teacher": "live", "tied": False},
    "ema": {"teacher": "ema", "objective": MUCH_ELSE},
    "frozen": {"teacher": "frozen", "tied": False},
    "lora_off": {"teacher": "lora_off", "lora": True},
    "lora, ema": {"teacher": "ema", "lora": True},
    "sampled": {"teacher": "ema", "rollout_func": None, "teacher_samples": 1},
    "replay": {
        "teacher": "live", "objective": {"replay_batches": 1}, "gradient_checkpointing": True,
    },
}  # fmt: skip


def trainer_of(folder: Path, case: str) -> Any:
    return a_trainer(folder, CASES[case], generations=3, accumulated=3)


def train(folder: Path, *, by_zero3: bool) -> None:
    """Every case's run, and the end of some once more, from a checkpoint."""
    for case in CASES:
        trainer = trainer_of(folder / case, case)
        trainer.train()
        trainer.save_model(str(folder / case / "model"))
        keep(trainer, folder / case / "result.pt")
        if by_zero3:
            assert trainer.model.get_input_embeddings().weight.numel() == 0  # nobody's
            if case in ("ema", "lora, ema"):
                check_shadow(trainer)
    for case in RESUMED:
        resumed = trainer_of(folder / case, case)
        resumed.train(resume_from_checkpoint=str(folder / case / "checkpoint-2"))
        keep(resumed, folder / case / "resumed.pt")
        done = trainer_of(folder / case, case)  # with no step left
        done.train(resume_from_checkpoint=str(folder / case / f"checkpoint-{STEPS}"))
        assert done.state.global_step == STEPS
        keep(done, folder / case / "done.pt")


def check_shadow(trainer: Any) -> None:
    """Half of it lies here; the student is bit for bit itself after an exception, too."""
    teacher = trainer.teacher
    shadow = {name: v.to_local().clone() for name, v in teacher._shadow.items()}
    assert sum(v.numel() for v in shadow.values()) < 0.6 * sum(
        v.numel() for v in teacher._shadow.values()
    )
    before = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    failing_pass(trainer)
    after = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    assert before is None or all(torch.equal(after[n], w) for n, w in before.items())
    assert all(torch.equal(v.to_local(), shadow[n]) for n, v in teacher._shadow.items())


def check_loading(folder: Path) -> None:
    """A model is loaded in parts, of which a tensor's are its rows; a number has none."""
    with loading_parts():
        model, _ = load_model(str(folder))
    assert in_parts(model.parameters())
    assert all(p.numel() == 0 for p in model.parameters())
    rows = torch.arange(15.0).view(5, 3)
    rank = torch.distributed.get_rank()
    assert torch.equal(part(rows).to_local(), rows[3:] if rank else rows[:3])
    assert torch.equal(part(rows).full_tensor(), rows)
    assert part(torch.tensor(2.0)).to_local() == 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders of the same runs: with copies of the weights, and with parts."""
    folders = tmp_path_factory.mktemp("ddp"), tmp_path_factory.mktemp("zero3")
    make_model().save_pretrained(folders[1] / "toy")
    make_tokenizer().save_pretrained(folders[1] / "toy")
    for settings, folder in zip(("ddp", "zero3"), folders, strict=True):
        run = launch(settings, __file__, settings, str(folder))
        assert run.returncode == 0, run.stderr[-5000:]
    return folders


@pytest.mark.parametrize("case", CASES)
def test_parts_change_nothing(runs: Folders, case: str) -> None:
    check_same_run(runs, case, CASES[case])


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_goes_on_as_if_nothing_had_been(runs: Folders, case: str) -> None:
    folder = runs[1] / case
    assert fault_of(folder / "checkpoint-2") is None
    check_resumed(folder)


@pytest.mark.parametrize("case", ["ema", "lora, ema"])
def test_a_saved_teacher_is_whole(runs: Folders, case: str) -> None:
    check_same_teacher(runs, case)


@pytest.mark.parametrize("case", ["live", "ema"])
def test_the_model_at_the_end_is_whole_and_loads(runs: Folders, case: str) -> None:
    check_same_model(runs, case)


def test_the_adapter_at_the_end_is_whole(runs: Folders) -> None:
    ddp, zero3 = (
        load_file(folder / "lora_off" / "model" / "adapter_model.safetensors") for folder in runs
    )
    check_same(ddp, zero3)


def test_a_run_of_a_recipe_stops_and_goes_on(tmp_path: Path) -> None:
    """Loaded in parts, judged at the start, between, and at the end."""
    recipe = toy_recipe(
        tmp_path,
        task={"validation_size": 3},
        teacher={"kind": "ema", "samples": 1},
        train={"steps": 3, "micro_batch": 2, "save_every": 2, "learning_rate": 1e-2},
        eval={"samples": 4, "every": 2, "keep_best": "avg@4"},
    )
    folder = tmp_path / "run"
    stopped = launch("zero3", __file__, "stop", str(recipe), str(folder))
    assert stopped.stdout.count("Stopped after step 1 of 3") == 1, stopped.stderr[-3000:]
    resumed = launch("zero3", __file__, "resume", str(folder))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert resumed.stdout.count("Everything lies in") == 1
    check_run(folder, "validation-000000", "validation-000002", "validation-000003", "best")
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all("teacher/success" in m for m in metrics if "loss" in m)


def shard_small_ones() -> None:
    """From here on ZeRO-3 shards a toy's matrices too: by default, what is small stays whole."""
    read = DeepSpeedPlugin.__post_init__

    def read_and_lower(self: Any) -> None:
        read(self)
        self.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 20

    DeepSpeedPlugin.__post_init__ = read_and_lower


def without_compiling() -> None:
    """From here on DeepSpeed does without a C++ library, whose first use takes minutes."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    what, *where = sys.argv[1:]
    if what == "ddp":
        with together():  # gloo's threads may outlive the interpreter otherwise
            train(Path(where[0]), by_zero3=False)
        sys.exit()
    shard_small_ones()
    without_compiling()
    if what == "zero3":
        with together():
            train(Path(where[0]), by_zero3=True)
            check_loading(Path(where[0]) / "toy")
    elif what == "resume":
        sys.exit(main(["train", where[0], "--resume"]))
    else:
        interrupt()
        sys.exit(main(["train", where[0], "--train.output-dir", where[1]]))
