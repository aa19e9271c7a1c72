"""FSDP2 over two processes gives the steps that one process gives, with every teacher."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from distil.distributed.processes import together
from distil.distributed.shards import reshard
from distil.vocab.output_layer import _whole
from sharded import launch, shard_on_cpu
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

CASES: dict[str, dict[str, Any]] = {
    "live": {"teacher": "live", "tied": False},
    "frozen": {"teacher": "frozen"},
    "ema": {"teacher": "ema", "tied": False},
    "ema, tied, much else": {"teacher": "ema", "objective": MUCH_ELSE},
    "lora, frozen": {"teacher": "frozen", "lora": True},
    "lora, ema": {"teacher": "ema", "lora": True},
    "grpo": {"objective": {"name": "grpo"}},
}  # fmt: skip


def trainer_of(folder: Path, processes: int, case: str) -> Any:
    return a_trainer(
        folder, CASES[case], generations=6 // processes * processes // 2,
        accumulated=6 // processes,
    )  # fmt: skip


def train(folder: Path, processes: int) -> None:
    """Every case's run; the second half of one once more; the sizes of what is held."""
    for case in CASES:
        trainer = trainer_of(folder / case, processes, case)
        if processes > 1:
            watch_gradients(trainer)
        trainer.train()
        trainer.save_model(str(folder / case / "model"))
        keep(trainer, folder / case / "result.pt")
        if processes > 1 and case.startswith(("ema", "frozen")):
            check_shadow(trainer)
    for case in RESUMED:
        resumed = trainer_of(folder / case, processes, case)
        resumed.train(resume_from_checkpoint=str(folder / case / "checkpoint-2"))
        keep(resumed, folder / case / "resumed.pt")
        done = trainer_of(folder / case, processes, case)  # with no step left
        done.train(resume_from_checkpoint=str(folder / case / f"checkpoint-{STEPS}"))
        assert done.state.global_step == STEPS
        keep(done, folder / case / "done.pt")


def resume_on(folder: Path, processes: int) -> None:
    """The last step of each resumed case, from the checkpoint that another number of them wrote."""
    for case in RESUMED:
        resumed = trainer_of(folder / case, processes, case)
        resumed.train(resume_from_checkpoint=str(folder / case / "checkpoint-2"))
        weights = resumed.accelerator.get_state_dict(resumed.model)
        if resumed.accelerator.is_main_process:
            torch.save((weights, resumed.state.global_step), folder / case / "elsewhere.pt")


def watch_gradients(trainer: Any) -> None:
    """After each micro-batch they lie in shards, and aren't kept whole until the last one."""
    step = trainer.training_step

    def watched(model: Any, *arguments: Any) -> torch.Tensor:
        loss: torch.Tensor = step(model, *arguments)
        trained = [p for p in model.parameters() if p.requires_grad]
        assert sum(p.grad is not None for p in trained) > len(trained) / 2
        return loss

    trainer.training_step = watched


def check_gradient_of_gathered() -> None:
    """An output matrix that FSDP2 hasn't gathered itself: the mean of the processes' gradients."""
    mesh = init_device_mesh("cpu", (2,))
    weight = torch.nn.Parameter(distribute_tensor(torch.randn(5, 3), mesh, [Shard(0)]))
    (_whole(weight) * (1 + torch.distributed.get_rank())).sum().backward()
    assert torch.equal(weight.grad.full_tensor(), torch.full((5, 3), 1.5))


def check_shadow(trainer: Any) -> None:
    """Half of it lies here; the student is bit for bit itself after an exception, too."""
    teacher, model = trainer.teacher, trainer.model
    whole = sum(p.numel() for p in model.parameters())
    assert sum(v.to_local().numel() for v in teacher._shadow.values()) < 0.6 * whole
    before = [p.to_local().clone() for p in sharded(model)]
    shadow = {name: v.clone() for name, v in teacher._shadow.items()}
    failing_pass(trainer)
    assert all(torch.equal(a, p.to_local()) for a, p in zip(before, sharded(model), strict=True))
    assert all(torch.equal(v.to_local(), shadow[n].to_local()) for n, v in teacher._shadow.items())


def sharded(model: Any) -> list[Any]:
    reshard(model)
    with torch.no_grad():
        return [p.detach() for p in model.parameters()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders of the same runs: by one process, by two with shards."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    train(one, 1)
    run = launch("fsdp2", __file__, str(two))
    assert run.returncode == 0, run.stderr[-5000:]
    return one, two


@pytest.mark.parametrize("case", CASES)
def test_shards_change_nothing(runs: Folders, case: str) -> None:
    check_same_run(runs, case, CASES[case])


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_goes_on_as_if_nothing_had_been(runs: Folders, case: str) -> None:
    for folder in runs:
        check_resumed(folder / case)


def test_a_sharded_checkpoint_is_read_by_another_number_of_processes(
    runs: Folders, tmp_path: Path
) -> None:
    """Two wrote it; three go on, and come to where one process comes."""
    for case in RESUMED:
        shutil.copytree(runs[1] / case / "checkpoint-2", tmp_path / case / "checkpoint-2")
    run = launch("fsdp2", __file__, str(tmp_path), "3", processes=3)
    assert run.returncode == 0, run.stderr[-5000:]
    for case in RESUMED:
        weights, steps = torch.load(tmp_path / case / "elsewhere.pt")
        assert steps == STEPS
        check_same(torch.load(runs[0] / case / "result.pt")[0], weights)


@pytest.mark.parametrize("case", ["ema", "lora, ema"])
def test_a_saved_teacher_is_whole_however_it_was_sharded(runs: Folders, case: str) -> None:
    check_same_teacher(runs, case)


@pytest.mark.parametrize("case", ["live", "ema, tied, much else"])
def test_the_model_at_the_end_is_whole_and_loads(runs: Folders, case: str) -> None:
    check_same_model(runs, case)


if __name__ == "__main__":
    shard_on_cpu()
    with together():  # gloo's threads may outlive the interpreter otherwise
        if len(sys.argv) > 2:
            resume_on(Path(sys.argv[1]), int(sys.argv[2]))
        else:
            train(Path(sys.argv[1]), 2)
            check_gradient_of_gathered()
