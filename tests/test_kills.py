"""Two hundred SIGKILLs, at random moments of every part of a step, change nothing in the end.

Two runs on the toy model, each killed a hundred times and taken up again each time. Every process
is forked from one that has loaded the libraries. In each, a timer is set off as a part of a step
begins (the parts in turn, in the first or the second step after the checkpoint), and kills within
the next milliseconds: in the part, or shortly after it.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from conftest import environment, make_model
from distil.runs.folder import cut_logs
from test_resume import log_lines
from trainertoys import make_trainer

KILLS = 100
CHAINS = (1, 2)
STEPS = 90  # a kill in the second step leaves one step done: half of the kills, 50 steps or so
OPTIONS: dict[str, Any] = {
    "max_steps": STEPS,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 2,
    "teacher": "ema",
    "teacher_ema_rate": 0.3,
    "sibling_choice": "random",
    "log_rollouts": 1,
    "max_completion_length": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
}
PARTS = ("sampling", "grading", "teacher", "loss", "optimiser", "average", "saving", "marking")
LATEST = 0.012
"""Seconds within which the timer kills."""


def hooked(owner: Any, name: str, at_start: Callable[[], None]) -> None:
    """Calls `at_start` whenever owner.name begins."""
    original = getattr(owner, name)

    def begin(*args: Any, **kwargs: Any) -> Any:
        at_start()
        return original(*args, **kwargs)

    setattr(owner, name, begin)


class Timer:
    """Kills this process a random while after the `turn`-th beginning of a part."""

    def __init__(self, trainer: Any, part: str, turn: int, delay: float) -> None:
        self._part, self._turn, self._delay = part, turn, delay
        callbacks = {type(c).__name__: c for c in trainer.callback_handler.callbacks}
        places = {
            "sampling": (trainer, "_generate_and_score_completions"),
            "grading": (trainer, "_calculate_rewards"),
            "teacher": (trainer.builder.__class__, "add_teacher"),
            "loss": (trainer, "_distillation_loss"),
            "optimiser": (callbacks["BadSteps"], "on_pre_optimizer_step"),
            "average": (trainer.teacher, "after_step"),
            "saving": (trainer, "_save_checkpoint"),
            "marking": (callbacks["CheckpointCallback"], "on_save"),
        }
        hooked(*places[part], self._begin)

    def _begin(self) -> None:
        self._turn -= 1
        if self._turn == 0:
            threading.Timer(self._delay, os.kill, (os.getpid(), signal.SIGKILL)).start()


def chain(folder: Path, seed: int, kills: int) -> None:
    """Forks processes that are killed, one after the other, and one that runs to the end."""
    draw = random.Random(seed)
    killed = 0
    while killed < kills:
        part = PARTS[killed % len(PARTS)]
        turn = draw.choice((1, 2)) * (2 if part == "loss" else 1)  # two micro-batches a step
        status = forked(folder, (part, turn, draw.uniform(0, LATEST)))
        if status != signal.SIGKILL:
            sys.exit(f"after {killed} kills, killing in {part} came to {status}")
        killed += 1
    sys.exit(0 if forked(folder, None) == 0 else "the last process failed")


def forked(folder: Path, plan: tuple[str, int, float] | None) -> int:
    """The status of a process that begins the run, or takes it up."""
    if process := os.fork():
        return os.waitpid(process, 0)[1]
    try:
        trainer = make_trainer(folder, model=make_model(), **OPTIONS)
        if plan is not None:
            Timer(trainer, *plan)
        taken_up = any(folder.glob("checkpoint-*/distil_complete.json"))
        if not taken_up:
            cut_logs(folder, 0)  # as `distil train --resume` does
        trainer.train(resume_from_checkpoint=taken_up)
        trainer.save_model(str(folder / "model"))
        if plan is not None:
            time.sleep(1)  # the timer's last chance
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def start(folder: Path, seed: int, kills: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), str(seed), str(kills)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment() | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_two_hundred_kills_change_nothing(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    undisturbed = start(whole, 0, kills=0)
    started = {seed: start(tmp_path / str(seed), seed, KILLS) for seed in CHAINS}
    _, said = undisturbed.communicate()
    assert undisturbed.returncode == 0, said[-3000:]
    for seed, process in started.items():
        _, said = process.communicate()
        assert process.returncode == 0, said[-3000:]
        folder = tmp_path / str(seed)
        assert log_lines(folder) == log_lines(whole)
        for part in ("model", f"checkpoint-{STEPS}"):
            ours = load_file(folder / part / "model.safetensors")
            theirs = load_file(whole / part / "model.safetensors")
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs), part
        shadow = f"checkpoint-{STEPS}/teacher.safetensors"
        ours, theirs = load_file(folder / shadow), load_file(whole / shadow)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        state = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
        assert state["global_step"] == STEPS


if __name__ == "__main__":
    torch.set_num_threads(1)
    chain(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
