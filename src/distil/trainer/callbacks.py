"""What happens between steps: teacher, complete checkpoints, metrics, judging, Ctrl-C.

CheckpointCallback, MetricsFile and PromptOrder belong to every DistILTrainer, PartsBegin to those
under ZeRO-3; the others `distil train` adds. Left out: bad steps (`distil.runs.badsteps`) and
alarms (`distil.runs.alarms`), which are callbacks too.
"""

import math
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate.data_loader import BatchSamplerShard
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from distil.distributed import zero3
from distil.distributed.processes import any_of_them, is_main
from distil.profiling.account import JUDGING
from distil.profiling.parts import part
from distil.runs.badsteps import BadSteps
from distil.runs.checkpoints import keep_order, mark_complete
from distil.runs.folder import METRICS_FILE, append_lines
from distil.teacher.teachers import Teacher
from distil.trainer.aggregation import ReplayBuffer
from distil.vocab.hidden import check_output_layer


class CheckpointCallback(TrainerCallback):
    """Moves the teacher once an optimiser step; completes each checkpoint with its state.

    `replay`: earlier batches to keep in the checkpoint too, each process its own. A step that
    `bad_steps` skipped doesn't move the teacher.
    """

    def __init__(
        self, teacher: Teacher, replay: ReplayBuffer | None, bad_steps: BadSteps, accelerator: Any
    ) -> None:
        self._teacher, self._replay, self._accelerator = teacher, replay, accelerator
        self._bad_steps = bad_steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The model is sharded by now, if it is to be."""
        self._teacher.begin(kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """w <- (1 - rate) w + rate student."""
        if not self._bad_steps.skipped:
            with part("EMA"):
                self._teacher.after_step(kwargs["model"])
        if control.should_save and state.is_world_process_zero:
            keep_order(args.output_dir)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The teacher's weights, then, when every process has written its part, the marker."""
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if self._replay is not None:
            self._replay.save(folder, self._accelerator.process_index)
        self._teacher.save(folder)
        self._accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            mark_complete(folder, state.global_step)


class PartsBegin(TrainerCallback):
    """Before anybody asks for ZeRO-3's weights: says who gathers them; checks the output layer.

    `trainer`: its `model_wrapped` is DeepSpeed's engine only once training begins.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The model runs in parts by now."""
        zero3.remember(kwargs["model"], self._trainer.model_wrapped)
        if self._trainer.objective.name != "grpo":
            check_output_layer(kwargs["model"])


class MetricsFile(TrainerCallback):
    """Appends each log to metrics.jsonl, with its step."""

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / METRICS_FILE

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """One line: {"step": ..., metric: value, ...}; null for what is no finite number."""
        if state.is_world_process_zero and logs:
            finite = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in logs.items()
            }
            append_lines(self._path, {"step": state.global_step, **finite})


class PromptOrder(TrainerCallback):
    """Gives a resumed run the order of prompts that it would have had.

    TRL's sampler draws a new order each epoch from a generator that checkpoints don't hold: resumed
    in a later epoch, it would begin with the first epoch's order again. Here it is drawn once for
    each epoch that is over. A streamed dataset has no such sampler, and no such order.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """`state` is the checkpoint's by now."""
        loader = kwargs["train_dataloader"]
        batches = loader.batch_sampler
        if state.global_step == 0 or batches is None:
            return
        whole = batches.batch_sampler if isinstance(batches, BatchSamplerShard) else batches
        updates_an_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
        for _ in range(state.global_step // updates_an_epoch):
            next(iter(whole.sampler))


class AtStart(TrainerCallback):
    """Calls `act(model)` once the model lies where it is trained, before the first step."""

    def __init__(self, act: Callable[[Any], None]) -> None:
        self._act = act

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A sharded model is sharded by now, and a checkpoint's weights are in it."""
        self._act(kwargs["model"])


class AfterEvery(TrainerCallback):
    """Calls `act(model, updates)` after every `updates`-th optimiser update but the last one.

    It acts as the next update begins: the checkpoint is written by then, Ctrl-C doesn't wait for
    it, and a resumed run makes up for what was stopped. So `act` must know by itself what is done
    already. TRL's `step_time` (seconds in training_step: sampling, grading, teacher, student's
    forward and backward; not the optimiser's own update, nor saving) does not cover it.
    """

    def __init__(self, updates: int, act: Callable[[Any, int], None]) -> None:
        self._updates, self._act = updates, act

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """`state.global_step` counts the updates that are done."""
        if self._updates and state.global_step and state.global_step % self._updates == 0:
            with part(JUDGING):
                self._act(kwargs["model"], state.global_step)


class StopAfterStep(TrainerCallback):
    """Ctrl-C: finish this step, save, stop. A second Ctrl-C stops at once, unsaved.

    A step may be several `updates`: stopping between them would lose the batch of rollouts that the
    rest of them needs, and the resumed run would be another one.
    """

    def __init__(self, updates: int = 1) -> None:
        self.stopped = False
        self._updates = updates
        self._before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes over the interrupt signal (only possible in the main thread)."""
        self._before = signal.signal(signal.SIGINT, self._interrupt)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks TRL's loop to save and to end, if Ctrl-C was pressed."""
        if state.global_step % self._updates:
            return
        self.stopped = any_of_them(self.stopped)  # or one would wait for the others for ever
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Gives the signal back."""
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            signal.signal(signal.SIGINT, self._before)
            raise KeyboardInterrupt
        self.stopped = True
        if is_main():
            tqdm.write(
                "Stopping after this step; its checkpoint is saved. Ctrl-C again: stop at once."
            )
