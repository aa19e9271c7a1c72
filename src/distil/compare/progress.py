"""A line for every run that ends, with an honest estimate of the time left."""

import time

from distil.compare.curves import read_curve
from distil.compare.plan import Outcome, Run
from distil.compare.results import shown_figures
from distil.compare.runner import Launcher, run_all, time_left
from distil.compare.suite import Suite
from distil.figures.layout import clock


class Progress:
    """Counts runs, and prints a line for each that ends."""

    def __init__(self, suite: Suite, total: int) -> None:
        self._suite, self._total = suite, total
        self._ended = 0
        self._past: list[float] = []

    def run(self, runs: list[Run], launch: Launcher, *, then: int) -> None:
        """Runs those of `runs` that haven't ended; `then` more come after them."""
        outcomes = [run.outcome() for run in runs]
        todo = [run for run, outcome in zip(runs, outcomes, strict=True) if outcome is None]
        self._ended += len(runs) - len(todo)
        self._past += [o.seconds for o in outcomes if o is not None and _tells_duration(o)]
        to_come = len(todo) + then

        def done(run: Run, outcome: Outcome, started: dict[str, float]) -> None:
            nonlocal to_come
            to_come -= 1
            self._tell(run, outcome, list(started.values()), to_come)

        run_all(
            todo, launch=launch, jobs=self._suite.jobs, keep_models=self._suite.keep_models,
            done=done,
        )  # fmt: skip

    def _tell(self, run: Run, outcome: Outcome, started: list[float], to_come: int) -> None:
        """'[3/16] grpo-lr0.001-seed0: avg@8 0.312, 9:06. About 1:10:00 left.'"""
        self._ended += 1
        if _tells_duration(outcome):
            self._past.append(outcome.seconds)
        figure, curve = shown_figures(self._suite)[0], read_curve(run)
        how = f"{figure} {curve.last(figure):.3f}" if curve else ""
        if outcome.status == "failed":
            how = f"FAILED (exit status {outcome.exit}): {' '.join(outcome.last_lines[-1:])[:200]}"
        running = [time.monotonic() - s for s in started]
        waiting = max(0, to_come - len(running))
        left = time_left(self._past, running, waiting, self._suite.jobs)
        about = f" About {clock(left)} left." if left else ""
        print(
            f"[{self._ended}/{self._total}] {run.name}: {how}, {clock(outcome.seconds)}.{about}",
            flush=True,
        )


def _tells_duration(outcome: Outcome) -> bool:
    """Whether a run's seconds are those of a whole run."""
    return outcome.status == "finished" and not outcome.resumed
