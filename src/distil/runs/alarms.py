"""Alarms: signs in a run's own figures that it goes wrong while its loss still falls.

Each looks at one logged figure. It sounds once, when the figure has been beyond its bound in
`patience` logs in a row, and again only after it was back within. What begins far from its bound
moves by a ratio or a rise against the run's first `patience` logs.

    student entropy low    answers become all alike: the student's entropy, nats a token
    length limit           most rollouts are cut off at max_completion_length
    answers grow, shrink   mean length against the first logs'
    teacher unsure         the teacher's entropy against the first logs': it follows a student that
                           forgets how to read feedback
    teacher right less     its own success rate (teacher.samples) against the first logs'

An alarm is printed and written to alarms.jsonl, and the first one keeps the last checkpoint from
before the trouble began in RUN/before-alarm (hard links: no room of its own until the run's
checkpoints are rotated out). `alarms.stop` ends the run after that step, saved. Left out: judging
on problems (`eval.keep_best`).
"""

import math
import os
import shutil
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from distil.config import AlarmConfig
from distil.distributed.processes import is_main
from distil.runs.checkpoints import checkpoint_step, complete_checkpoints
from distil.runs.folder import ALARMS_FILE, append_lines

BEFORE_ALARM = "before-alarm"


@dataclass
class Sign:
    """One figure's bound. `beyond(value, start)`: whether that is wrong; start: the first logs'."""

    name: str
    figure: str
    says: str
    beyond: Callable[[float, float], bool]
    in_a_row: int = 0
    began: int = 0
    """The update whose log was the first of those in a row."""
    first: list[float] = field(default_factory=list)

    def sounds(self, logs: Mapping[str, Any], patience: int, update: int) -> bool:
        """Takes one update's log; True when the alarm is to be given now."""
        value = logs.get(self.figure)
        if value is None:
            return False
        if len(self.first) < patience:
            self.first.append(value)
        if not self.beyond(value, statistics.fmean(self.first)):
            self.in_a_row = 0
            return False
        if self.in_a_row == 0:
            self.began = update
        self.in_a_row += 1
        return self.in_a_row == patience


def signs(config: AlarmConfig) -> list[Sign]:
    """The alarms that a recipe has on."""
    found = []

    def add(bound: float | None, name: str, figure: str, says: str, beyond: Any) -> None:
        if bound is not None:
            found.append(Sign(name, figure, says.format(bound), beyond))

    low, limit, grow = config.min_student_entropy, config.max_clipped, config.max_length_growth
    shrink, rise = config.max_length_loss, config.max_teacher_entropy_rise
    worse = config.max_teacher_success_loss
    add(
        low, "student entropy low", "student/entropy", "below {} nats a token",
        lambda value, start: value < low,
    )  # fmt: skip
    add(
        limit, "length limit", "completions/clipped_ratio",
        "more than {} of the rollouts cut off at rollout.max_completion_length",
        lambda value, start: value > limit,
    )  # fmt: skip
    add(
        grow, "answers grow", "completions/mean_length", "more than {} times the first steps'",
        lambda value, start: value > grow * start,
    )  # fmt: skip
    add(
        shrink, "answers shrink", "completions/mean_length", "less than 1/{} of the first steps'",
        lambda value, start: value * shrink < start,
    )  # fmt: skip
    add(
        rise, "teacher unsure", "teacher/entropy", "more than {} nats above the first steps'",
        lambda value, start: value > start + rise,
    )  # fmt: skip
    add(
        worse, "teacher right less", "teacher/success", "less than 1/{} of the first steps'",
        lambda value, start: value * worse < start,
    )  # fmt: skip
    return found


class Alarms(TrainerCallback):
    """Watches a run's logs. `updates`: logs in one of `train.steps`, the unit that it speaks in."""

    def __init__(self, config: AlarmConfig, folder: str | Path, updates: int = 1) -> None:
        self.stopped = False
        self.heard: list[str] = []
        """What has sounded since the run was begun or resumed: 'step 3: length limit'."""
        self._config, self._folder, self._updates = config, Path(folder), updates
        self._signs = signs(config)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed run knows what the logs before it said."""
        for logs in state.log_history:
            for sign in self._signs:
                sign.sounds(logs, self._config.patience, logs.get("step", 0))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Looks at every training log; the same on all processes, of which the main one acts."""
        patience, update = self._config.patience, state.global_step
        sounding = [s for s in self._signs if s.sounds(logs or {}, patience, update)]
        if not sounding:
            return
        self.heard += [f"step {update // self._updates}: {s.name}" for s in sounding]
        if is_main():
            for sign in sounding:
                self._tell(sign, logs[sign.figure], update)
            self._keep(min(s.began for s in sounding))
        if self._config.stop:
            self.stopped = control.should_save = control.should_training_stop = True

    def _tell(self, sign: Sign, value: float, update: int) -> None:
        start = statistics.fmean(sign.first)
        line = {
            "step": update,
            "alarm": sign.name,
            "figure": sign.figure,
            "value": value if math.isfinite(value) else None,
            "at_the_start": start if math.isfinite(start) else None,
        }
        append_lines(self._folder / ALARMS_FILE, line)
        tqdm.write(
            f"Alarm, step {update // self._updates}: {sign.name}. {sign.figure} is {value:.3g} "
            f"({start:.3g} at the start), {sign.says}, {self._config.patience} logs in a row."
        )

    def _keep(self, began: int) -> None:
        """The newest checkpoint from before that update, or the oldest that there is."""
        kept = self._folder / BEFORE_ALARM
        found = sorted(complete_checkpoints(self._folder), key=checkpoint_step)
        if kept.exists() or not found:
            return
        before = [c for c in found if checkpoint_step(c) < began]
        half = kept.with_name(f".{BEFORE_ALARM}.new")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree((before or found[:1])[-1], half, copy_function=_linked)
        half.replace(kept)
        tqdm.write(f"The checkpoint of update {checkpoint_step(kept)} is kept in {kept}.")


def _linked(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
