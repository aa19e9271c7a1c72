"""A run killed at any moment goes on bit for bit, and its logs hold each step once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from conftest import conversations, environment, make_model
from trainertoys import lines, make_trainer

STEPS = 7  # an epoch has 4: some resume in the second one, whose order of prompts is another
OPTIONS: dict[str, Any] = {
    "max_steps": STEPS,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 2,
    "teacher": "ema",
    "teacher_ema_rate": 0.3,
    "sibling_choice": "random",
    "log_rollouts": 2,
}

# Four updates a batch of rollouts, two passes over it, earlier batches kept: checkpoints come
# between batches, and a kill within one goes back to the last of them.
STALE: dict[str, Any] = {
    "max_steps": 12,
    "save_steps": 4,
    "steps_per_generation": 4,
    "num_iterations": 2,
    "objective": {"ratio": "prefix", "replay_batches": 2, "prompt_weight": "pass_rate"},
}


class Kill(TrainerCallback):
    """SIGKILL to this very process: at the end of a step, or in the middle of saving."""

    def __init__(self, moment: str, step: int) -> None:
        self._moment, self._step = moment, step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._moment == "step" and state.global_step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._moment == "save" and state.global_step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Every logged line but for what is a duration."""
    lines = []
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            timed = [k for k in record if "speed" in k or "time" in k or "per_second" in k]
            lines.append({k: v for k, v in record.items() if k not in timed})
    return [line for line in lines if "train_loss" not in line]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that are killed: other numbers of threads add up in other orders."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole_runs(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Any]:
    """Stale or not -> the trainer of a run that nobody killed."""
    runs = {}
    for stale, more in ((False, {}), (True, STALE)):
        runs[stale] = make_trainer(tmp_path_factory.mktemp("whole"), **(OPTIONS | more))
        runs[stale].train()
    return runs


@pytest.mark.parametrize(
    ("moment", "step", "more"),
    [
        ("step", 3, {}),
        ("save", 4, {}),
        ("step", 5, {}),
        ("step", 7, {}),
        ("step", 6, STALE),
        ("step", 11, STALE),
    ],
)
def test_a_killed_run_resumes_bit_for_bit(
    tmp_path: Path, whole_runs: dict[bool, Any], moment: str, step: int, more: dict[str, Any]
) -> None:
    options, whole = OPTIONS | more, whole_runs[bool(more)]
    killed = subprocess.run(
        [
            sys.executable,
            __file__,
            str(tmp_path / "killed"),
            moment,
            str(step),
            *["stale"] * bool(more),
        ],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = make_trainer(tmp_path / "killed", model=make_model(), **options)
    resumed.train(resume_from_checkpoint=True)
    for (name, ours), theirs in zip(
        whole.model.named_parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    for name, shadow in whole.teacher._shadow.items():
        assert torch.equal(shadow, resumed.teacher._shadow[name]), name
    assert log_lines(tmp_path / "killed") == log_lines(Path(whole.args.output_dir))


def test_a_trainer_that_has_all_its_steps_takes_none(
    whole_runs: dict[bool, Any], tmp_path: Path
) -> None:
    """In the midst of an epoch, where transformers would take one more."""
    whole = whole_runs[False]
    folder = shutil.copytree(whole.args.output_dir, tmp_path / "copy")
    again = make_trainer(folder, model=make_model(), **OPTIONS)
    before = log_lines(folder)
    told = again.train(resume_from_checkpoint=True)
    assert told.global_step == again.state.global_step == STEPS
    for ours, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, shadow in whole.teacher._shadow.items():
        assert torch.equal(shadow, again.teacher._shadow[name])
    assert log_lines(folder) == before
    assert not (folder / f"checkpoint-{STEPS + 1}").exists()


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer = make_trainer(Path(sys.argv[1]), **(OPTIONS | (STALE if len(sys.argv) > 4 else {})))
    # First in line, so that a kill "while saving" comes before the checkpoint's marker.
    trainer.callback_handler.callbacks.insert(0, Kill(sys.argv[2], int(sys.argv[3])))
    trainer.train()


def test_a_training_from_the_start_mixes_its_logs_with_no_earlier_ones(tmp_path: Path) -> None:
    def logged(folder: Path) -> list[int]:
        return [line["step"] for line in lines(folder / "metrics.jsonl")]

    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1}
    first = make_trainer(tmp_path, **options)
    first.train()
    (tmp_path / "bad-steps").mkdir()
    (tmp_path / "ungraded.jsonl").touch()
    logs = {name: (tmp_path / name).read_bytes() for name in ("metrics.jsonl", "rollouts.jsonl")}
    judged = make_trainer(tmp_path, eval_dataset=Dataset.from_list(conversations(4)))
    judged.evaluate()  # before it trains: a line of step 0, of this training's
    with pytest.warns(
        UserWarning, match="earlier training; they were moved to .*earlier-1"
    ) as told:
        judged.train()
    assert len([w for w in told if "earlier training" in str(w.message)]) == 1
    aside = tmp_path / "earlier-1"
    assert {name: (aside / name).read_bytes() for name in logs} == logs
    assert {file.name for file in aside.iterdir()} == {*logs, "bad-steps", "ungraded.jsonl"}
    assert logged(tmp_path) == [0, 1, 2, 2]
    assert len(lines(tmp_path / "rollouts.jsonl")) == 2 * 8

    with pytest.warns(UserWarning, match="earlier-2"):
        make_trainer(tmp_path).train()
    assert logged(tmp_path / "earlier-2") == [0, 1, 2, 2]
    assert logged(tmp_path) == [1, 2, 2]

    make_trainer(tmp_path, max_steps=3).train(resume_from_checkpoint=True)  # moves nothing
    assert logged(tmp_path) == [1, 2, 2, 3, 3]
    assert not (tmp_path / "earlier-3").exists()
