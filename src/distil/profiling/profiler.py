"""`distil train --profile`: time and peak memory of a training step by part, as table and JSON.

A step is a batch of fresh rollouts and the updates on it, from its first `on_step_begin` to the
next one's (its checkpoint lies within, evaluations don't). The first one warms up: it is shown
apart. Of several processes each has its own numbers; the main one's are shown, and what it waits
for the others is in the part where it waits.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from distil.figures.layout import as_text
from distil.profiling import parts
from distil.profiling.account import JUDGING, MIB, OTHER, PARTS, Step, summary, whole
from distil.profiling.parts import Clock
from distil.runs.folder import PROFILE_FILE, write_json


class ProfileCallback(TrainerCallback):
    """Times the parts of each step; writes profile.json at the end.

    Add it last, so that others' work is done when a step begins. updates: optimiser updates of a
    step. now: the clock (`distil.profiling.parts.Clock`).
    """

    def __init__(
        self,
        folder: str | Path,
        updates: int = 1,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._file, self._updates, self._now = Path(folder) / PROFILE_FILE, updates, now
        self._clock: Clock | None = None
        self._begun = False
        self.steps: list[Step] = []
        """What each finished step spent."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self._clock = Clock(parts.peak_meter(args.device), self._now)
        parts.start(self._clock)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step before, if there was one, ends here."""
        if state.global_step % self._updates == 0:
            self._end_step()
            self._begun = True

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The trainer called it "optimiser" from its last backward pass on."""
        parts.turn(OTHER)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What follows, but for logging, is writing a checkpoint, if one is due."""
        if control.should_save:
            parts.turn("checkpoint")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """It is written."""
        parts.turn(OTHER)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the last step; writes every step."""
        self._end_step()
        parts.stop()
        device = str(args.device)
        memory = "allocated by torch" if args.device.type == "cuda" else "resident"
        write_json(
            self._file,
            {
                "device": device,
                "memory": f"bytes {memory}",
                "parts": PARTS,
                "steps": [{n: asdict(s) for n, s in step.items()} for step in self.steps],
            },
        )

    def report(self) -> str:
        """The table, and what its columns are."""
        if not self.steps:
            return "No step was run, so there is no profile."
        first, later = self.steps[0], self.steps[1:]
        about = (
            f"Means of the {len(later)} steps after the first."
            if later
            else "Of the first step, which warms up; there was no other."
        )
        return (
            f"{as_text(table(first, later or self.steps))}\n"
            f"{about} Peak: while that part ran. Each step: {self._file}"
        )

    def _end_step(self) -> None:
        assert self._clock is not None
        spent = self._clock.take()
        if self._begun:
            spent.pop(JUDGING, None)
            self.steps.append(spent)


def table(first: Step, steps: Sequence[Step]) -> list[list[str]]:
    """Seconds of the first step and of the others, tokens a second, peak memory, by part."""
    everything = whole(steps)
    warm_up = {row.name: row.mean for row in [*summary([first]), whole([first])]}
    rows = [["part", "first s", "mean s", "share", "median s", "tokens", "tokens/s", "peak MiB"]]
    for row in [*summary(steps), everything]:
        rows.append(
            [
                row.name,
                f"{warm_up.get(row.name, 0.0):.3f}",
                f"{row.mean:.3f}",
                f"{row.mean / everything.mean:.1%}",
                f"{row.median:.3f}",
                f"{row.tokens:,.0f}" if row.tokens else "-",
                "-" if row.rate is None else f"{row.rate:,.0f}",
                "-" if row.peak is None else f"{row.peak / MIB:,.0f}",
            ]
        )
    return rows
