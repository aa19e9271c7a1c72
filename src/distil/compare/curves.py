"""What a run says: how good the student was after how many rollouts and seconds.

Only small things are read: the means in before.json, eval-*.json and after.json, and metrics.jsonl.
Seconds are the sum of TRL's `step_time`: sampling, grading, teacher, student's forward and
backward. The optimiser's own update, saving, judging and loading are not in it.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distil.compare.plan import Run
from distil.compare.stats import Interval, t_interval
from distil.runs.folder import read_metrics, updates_per_step

ENTROPIES = ("student/entropy", "entropy")
"""The sampler's entropy at the student's states: DistIL's metric, else TRL's."""


@dataclass(frozen=True)
class Curve:
    """Evaluations of one run in order; all lists are equally long.

    figures: "avg@8" and so on -> means over problems. entropy: the last logged one, nats.
    """

    steps: list[int]
    rollouts: list[int]
    seconds: list[float]
    tokens: list[float]
    figures: dict[str, list[float]]
    entropy: float | None

    def last(self, figure: str) -> float:
        """A figure's value at the last evaluation."""
        return self.figures[figure][-1]


def read_curve(run: Run) -> Curve | None:
    """A run's curve as far as it got; None if it was never judged.

    From the run's own file if it has ended, so that its folder may be gone; else from the folder.
    """
    outcome = run.outcome()
    if outcome is not None and outcome.curve is not None:
        return Curve(**outcome.curve)
    files = [run.folder / "before.json", *run.folder.glob("eval-*.json"), run.folder / "after.json"]
    points = [json.loads(f.read_text(encoding="utf-8")) for f in files if f.is_file()]
    points.sort(key=lambda p: p["step"])
    if not points:
        return None
    log = read_metrics(run.folder)
    seconds = seconds_by_step(log)
    updates = updates_per_step(run.recipe)
    return Curve(
        steps=[p["step"] for p in points],
        rollouts=[p["rollouts"] for p in points],
        seconds=[_seconds_at(seconds, p["step"] * updates) for p in points],
        tokens=[p["tokens"] for p in points],
        figures={f: [p["figures"][f] for p in points] for f in points[0]["figures"]},
        entropy=_last_entropy(log),
    )


def final(run: Run, figure: str) -> float | None:
    """A finished run's figure after training; None for a failed or an unfinished run."""
    outcome, curve = run.outcome(), read_curve(run)
    if outcome is None or outcome.status == "failed" or curve is None:
        return None
    return curve.last(figure)


def band(
    curves: Sequence[Curve], figure: str, *, against_seconds: bool
) -> list[tuple[float, Interval]]:
    """(x, mean over seeds with its interval) at each evaluation of the longest curve.

    Against rollouts, x is the same for every seed, and one that failed keeps its last value.
    Against seconds, x is the mean over the seeds that got there, and each seed's value is
    interpolated at it.
    """
    longest = max(curves, key=lambda c: len(c.steps))
    points = []
    for place, rollouts in enumerate(longest.rollouts):
        if not against_seconds:
            values = [c.figures[figure][min(place, len(c.steps) - 1)] for c in curves]
            points.append((float(rollouts), t_interval(values)))
            continue
        x = statistics.fmean(c.seconds[place] for c in curves if place < len(c.steps))
        values = [_interpolated(x, c.seconds, c.figures[figure]) for c in curves]
        points.append((x, t_interval(values)))
    return points


def _interpolated(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The value at x on straight lines between the points; the last one beyond the end."""
    for i in range(1, len(xs)):
        if x <= xs[i]:
            share = (x - xs[i - 1]) / (xs[i] - xs[i - 1]) if xs[i] > xs[i - 1] else 1.0
            return ys[i - 1] + share * (ys[i] - ys[i - 1])
    return ys[-1]


def seconds_by_step(metrics: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    """Update -> training seconds up to it, as TRL's step_time counts them."""
    total, found = 0.0, {}
    for step, record in metrics.items():
        total += record.get("step_time") or 0.0
        found[step] = total
    return found


def _seconds_at(reached: Mapping[int, float], updates: int) -> float:
    """Training seconds up to an update, by `seconds_by_step`; 0 before the first one."""
    return max((total for step, total in reached.items() if step <= updates), default=0.0)


def _last_entropy(log: dict[int, dict[str, Any]]) -> float | None:
    for step in sorted(log, reverse=True):
        for name in ENTROPIES:
            if isinstance(log[step].get(name), float):
                return float(log[step][name])
    return None
