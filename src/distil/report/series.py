"""The numbers of a report's charts: rewards, evaluations, pass@k, feedback, time, each by step.

Intervals are 95%: of rewards over a step's prompts (Student's t; the rollouts of one prompt aren't
independent), of evaluations over problems (bootstrap, `distil.figures.estimates`), of several seeds
over the seeds (Student's t). Steps are optimiser updates, as in metrics.jsonl. Left out: drawing.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from distil.compare.stats import t_interval
from distil.figures.estimates import (
    Attempt,
    Estimate,
    by_problem,
    mean_interval,
    pass_at_k,
    samples_of,
    summarise,
)
from distil.profiling.account import MIB, steps_of, summary
from distil.report.folder import RunFolder
from distil.report.scan import Entry
from distil.types import succeeds

POINTS = 500
"""A curve has at most so many; a longer run's neighbouring steps are drawn as one."""

NO_CONTEXT = "none"

Columns = dict[str, list[Any]]


def bins(steps: Iterable[int]) -> dict[int, int]:
    """Step -> the step that it's drawn at: the last of its bin, at most POINTS bins in all."""
    ordered = sorted(set(steps))
    width = math.ceil(len(ordered) / POINTS) or 1
    return {step: ordered[min((i // width + 1) * width, len(ordered)) - 1]
            for i, step in enumerate(ordered)}  # fmt: skip


def metric_columns(metrics: Mapping[int, Mapping[str, Any]]) -> Columns:
    """The steps, and a list for every numeric metric: a bin's mean, None where it has none."""
    drawn = bins(metrics)
    grouped: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for step, record in metrics.items():
        grouped[drawn[step]].append(record)
    names = dict.fromkeys(
        name for record in metrics.values() for name, v in record.items() if _is_number(v)
    )
    columns: Columns = {"step": list(grouped)}
    for name in names:
        if name != "step":
            columns[name] = [_mean(r.get(name) for r in some) for some in grouped.values()]
    return columns


def reward_curve(entries: Sequence[Entry]) -> Columns:
    """Mean reward over the rollouts of each step, its interval over prompts, rollouts up to there.

    Ungraded rollouts are left out. low and high are None where a bin has a single prompt.
    """
    drawn = bins(e.step for e in entries)
    prompts: dict[int, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    rollouts: Counter[int] = Counter()
    for e in entries:
        rollouts[drawn[e.step]] += 1
        if e.reward is not None:
            prompts[drawn[e.step]][(e.step, e.group)].append(e.reward)
    columns: Columns = {n: [] for n in ("step", "mean", "low", "high", "rollouts")}
    total = 0
    for step in sorted(rollouts):
        total += rollouts[step]
        if prompts[step]:
            found = t_interval([fmean(some) for some in prompts[step].values()])
            values = (step, found.mean, found.low, found.high, total)
            for name, value in zip(columns, values, strict=True):
                columns[name].append(_rounded(value))
    return columns


def feedback_shares(entries: Sequence[Entry]) -> Columns:
    """The steps, and for each kind of context its share of the rollouts; "none" without any."""
    drawn = bins(e.step for e in entries)
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for e in entries:
        counts[drawn[e.step]][e.context or NO_CONTEXT] += 1
    totals = Counter(e.context or NO_CONTEXT for e in entries)
    kinds = [kind for kind, _ in totals.most_common() if kind != NO_CONTEXT]
    columns: Columns = {"step": sorted(counts)}
    for kind in [*kinds, *([NO_CONTEXT] if totals[NO_CONTEXT] else [])]:
        columns[kind] = [
            round(counts[step][kind] / counts[step].total(), 4) for step in columns["step"]
        ]
    return columns


def evaluation_curve(run: RunFolder) -> list[dict[str, Any]]:
    """Each evaluation's figures with their intervals, in the order of steps."""
    found = []
    for judged in run.evaluations:
        figures = summarise(judged.attempts, run.ks())
        found.append(
            {
                "name": judged.name,
                "step": judged.step * run.updates,
                "figures": {name: _three(mean_interval(v)) for name, v in figures.items()},
            }
        )
    return found


def pass_curve(attempts: Sequence[Attempt]) -> Columns:
    """pass@k for every k from 1 to n, unbiased, with its interval over problems."""
    groups = list(by_problem(attempts).values())
    counts = [(len(g), sum(succeeds(a.reward) for a in g)) for g in groups]
    columns: Columns = {name: [] for name in ("k", "mean", "low", "high")}
    for k in range(1, samples_of(attempts) + 1):
        mean, low, high = _three(mean_interval([pass_at_k(n, c, k) for n, c in counts]))
        for name, value in zip(columns, (k, mean, low, high), strict=True):
            columns[name].append(value)
    return columns


def time_by_part(profile: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mean seconds a step, tokens a second and peak MiB of each part, steps after the first.

    As `distil train --profile` prints them; empty without a profile.
    """
    steps = steps_of(profile)
    return [
        {
            "part": row.name,
            "seconds": round(row.mean, 4),
            "rate": None if row.rate is None else round(row.rate, 1),
            "peak": None if row.peak is None else round(row.peak / MIB),
        }
        for row in (summary(steps[1:] or steps, profile["parts"]) if steps else [])
    ]


def seed_bands(runs: Sequence[RunFolder], curves: Sequence[Columns]) -> list[dict[str, Any]]:
    """For runs that differ by their seed alone: mean reward over the seeds and its interval.

    Steps that all of them have. Runs of a kind of their own are in none.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        if run.recipe:
            alike[_without_seed(run.recipe)].append(place)
    found = []
    for places in alike.values():
        if len(places) < 2:
            continue
        means = [dict(zip(curves[i]["step"], curves[i]["mean"], strict=True)) for i in places]
        shared = sorted(set.intersection(*(set(m) for m in means)))
        band = [t_interval([m[step] for m in means]) for step in shared]
        found.append(
            {
                "runs": places,
                "step": shared,
                "mean": [_rounded(b.mean) for b in band],
                "low": [_rounded(b.low) for b in band],
                "high": [_rounded(b.high) for b in band],
            }
        )
    return found


def _without_seed(recipe: Mapping[str, Any]) -> str:
    train = {k: v for k, v in recipe.get("train", {}).items() if k not in ("seed", "output_dir")}
    return repr({**recipe, "train": train})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [v for v in values if _is_number(v)]
    return _rounded(fmean(numbers)) if numbers else None


def _rounded(value: float | None) -> float | None:
    """To six digits that count."""
    return None if value is None else float(f"{value:.6g}")


def _three(found: Estimate) -> tuple[float, float, float]:
    return round(found.value, 4), round(found.low, 4), round(found.high, 4)
