"""What happens between steps: teacher updates, complete checkpoints, metrics, Ctrl-C, progress."""

import json
import signal
import statistics
import time
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from distil.runs import mark_complete
from distil.teacher import Teacher

METRICS_FILE = "metrics.jsonl"


class CheckpointCallback(TrainerCallback):
    """Moves the teacher once an optimiser step; completes each checkpoint with its state."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """w <- (1 - rate) w + rate student."""
        self._teacher.after_step(kwargs["model"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The teacher's weights, then the marker, last."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            self._teacher.save(folder)
            mark_complete(folder, state.global_step)


class MetricsFile(TrainerCallback):
    """Appends each log to metrics.jsonl, with its step."""

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / METRICS_FILE

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """One line: {"step": ..., metric: value, ...}."""
        if state.is_world_process_zero and logs:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class StopAfterStep(TrainerCallback):
    """Ctrl-C: finish this step, save, stop. A second Ctrl-C stops at once, unsaved."""

    def __init__(self) -> None:
        self.stopped = False
        self._before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes over the interrupt signal (only possible in the main thread)."""
        self._before = signal.signal(signal.SIGINT, self._interrupt)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks TRL's loop to save and to end, if Ctrl-C was pressed."""
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
        tqdm.write("Stopping after this step; its checkpoint is saved. Ctrl-C again: stop at once.")


class Progress(TrainerCallback):
    """A bar over the steps whose time left counts the evaluation that is still to come.

    Left = steps to go x the median of the last ten steps + `final_seconds`. The first step is
    slower than the others; a mean over all steps would stay wrong for long.
    """

    def __init__(self, final_seconds: float) -> None:
        self._final_seconds = final_seconds
        self._durations: list[float] = []
        self._last = 0.0
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the bar where a resumed run is."""
        self._last = time.perf_counter()
        layout = "{desc} {n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}"
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="training", bar_format=layout
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advances, and estimates anew."""
        now = time.perf_counter()
        self._durations = [*self._durations, now - self._last][-10:]
        self._last = now
        to_go = state.max_steps - state.global_step
        left = to_go * statistics.median(self._durations) + self._final_seconds
        self._bar.update(1)
        self._bar.set_postfix_str(f"{clock(left)} left" + self._latest(state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Closes the bar."""
        self._bar.close()

    @staticmethod
    def _latest(state: Any) -> str:
        """The last logged reward and cost."""
        for log in reversed(state.log_history):
            if "reward" in log and log["reward"] is not None:
                cost = log.get("distil/cost")
                return f", reward {log['reward']:.2f}" + (f", cost {cost:.2f}" if cost else "")
        return ""


def clock(seconds: float) -> str:
    """95 -> '1:35', 4000 -> '1:06:40'."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
