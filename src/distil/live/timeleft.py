"""An honest estimate of the time that a run still takes.

    left = steps to go x (median of the last ten steps + mean time between two of them)
           + the evaluations that are still to come

A step is a batch of fresh rollouts, which may be several optimiser updates, of which only the first
samples. The first step is slower than the others: a mean over all would stay wrong for long.
Between steps lie logging and checkpoints.
"""

import statistics
import time
from collections.abc import Callable


class TimeLeft:
    """Told when an update begins and ends.

    updates: of one step. judge_every: updates between two evaluations in the midst of training (0:
    none). judging: seconds of all that are to come, given how many of those are.
    """

    def __init__(
        self,
        updates: int = 1,
        judge_every: int = 0,
        judging: Callable[[int], float] = lambda during: 0.0,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._updates, self._every, self._judging, self._now = updates, judge_every, judging, now
        self._begun = self._step = self._between = 0.0
        self._ended: float | None = None
        self._gaps = 0
        self._steps: list[float] = []

    def begin(self, judged: float = 0.0) -> None:
        """An update begins. judged: seconds since the last one that were an evaluation's."""
        self._begun = self._now()
        if self._ended is not None:
            self._between += self._begun - self._ended - judged
            self._gaps += 1

    def end(self, done: int) -> None:
        """An update has ended, the `done`-th."""
        self._ended = self._now()
        self._step += self._ended - self._begun
        if done % self._updates == 0:
            self._steps = [*self._steps, self._step][-10:]
            self._step = 0.0

    def left(self, done: int, total: int) -> float | None:
        """Seconds until `total` updates and every evaluation are done; None: no step has ended."""
        if not self._steps:
            return None
        between = self._updates * self._between / max(self._gaps, 1)
        a_step = statistics.median(self._steps) + between
        during = 0
        if self._every and done < total:  # the one after this update is to come too
            during = (total - 1) // self._every - (done - 1) // self._every
        return (total - done) / self._updates * a_step + self._judging(during)
