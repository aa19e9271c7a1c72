"""What a suite's runs amount to: the rate of each contender, its curves, means and differences."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from distil.compare.curves import Curve, final, read_curve
from distil.compare.plan import Run, judged_runs, tuning_runs
from distil.compare.stats import Choice, Interval, choose_rate, paired, t_interval
from distil.compare.suite import Suite


@dataclass(frozen=True)
class Contender:
    """One contender's judged runs. choice: None while tuning runs are missing.

    curves: seed -> curve, of failed seeds as far as they got; failed, missing: seeds.
    """

    name: str
    choice: Choice | None
    curves: Mapping[int, Curve]
    failed: tuple[int, ...]
    missing: tuple[int, ...]

    def finals(self, figure: str) -> dict[int, float]:
        """Seed -> the figure at the last evaluation."""
        return {seed: curve.last(figure) for seed, curve in self.curves.items()}

    def interval(self, figure: str) -> Interval | None:
        """The figure's mean over seeds; None without a curve."""
        return t_interval(list(self.finals(figure).values())) if self.curves else None


@dataclass(frozen=True)
class Results:
    """All contenders, in the suite's order, and the figures that are shown: avg@n, then pass@n."""

    suite: Suite
    figures: tuple[str, ...]
    contenders: dict[str, Contender]
    tuning: tuple[Run, ...]
    judged: tuple[Run, ...]

    def difference(self, name: str, figure: str) -> Interval | None:
        """A contender minus the reference, paired by seed; None where no seed has both."""
        reference = self.contenders[self.suite.reference]
        return paired(self.contenders[name].finals(figure), reference.finals(figure))

    def missing(self) -> list[str]:
        """Names of runs that haven't ended; a contender without a rate hasn't any judged ones."""
        return [run.name for run in (*self.tuning, *self.judged) if run.outcome() is None]


def shown_figures(suite: Suite) -> tuple[str, ...]:
    """avg@n, and pass@n where there are several samples: the largest k."""
    samples = suite.recipes[suite.reference].eval.samples
    return (f"avg@{samples}", f"pass@{samples}") if samples > 1 else (f"avg@{samples}",)


def choices(suite: Suite) -> dict[str, Choice | None]:
    """Each contender's rate, by avg@n on the tuning seeds; None while tuning runs are missing."""
    figure = shown_figures(suite)[0]
    runs = tuning_runs(suite)
    chosen: dict[str, Choice | None] = {}
    for name in suite.contenders:
        own = [run for run in runs if run.contender == name]
        if not own:
            how = "fixed" if suite.fixes_rate(name) else "given"
            chosen[name] = Choice(suite.grid(name)[0], how, {})
        elif any(run.outcome() is None for run in own):
            chosen[name] = None
        else:
            rates = suite.grid(name)
            chosen[name] = choose_rate(
                {rate: [final(run, figure) for run in own if run.rate == rate] for rate in rates}
            )
    return chosen


def rates_of(chosen: Mapping[str, Choice | None]) -> dict[str, float]:
    """The rates there are."""
    return {n: c.rate for n, c in chosen.items() if c is not None and c.rate is not None}


def gather(suite: Suite) -> Results:
    """Reads everything that is there."""
    chosen = choices(suite)
    judged = judged_runs(suite, rates_of(chosen))
    contenders = {}
    for name in suite.contenders:
        ended = {r.seed: (r, r.outcome()) for r in judged if r.contender == name}
        curves = {s: read_curve(run) for s, (run, outcome) in ended.items() if outcome}
        contenders[name] = Contender(
            name=name,
            choice=chosen[name],
            curves={s: c for s, c in curves.items() if c is not None},
            failed=tuple(s for s, (_, o) in ended.items() if o and o.status == "failed"),
            missing=tuple(s for s in suite.seeds if s not in ended or ended[s][1] is None),
        )
    return Results(
        suite, shown_figures(suite), contenders, tuple(tuning_runs(suite)), tuple(judged)
    )


def as_json(results: Results) -> dict[str, Any]:
    """results.json: aggregates and every run's curve, to four digits, without attempts."""
    suite = results.suite
    return _rounded(
        {
            "reference": suite.reference,
            "figures": results.figures,
            "learning_rates": suite.learning_rates,
            "tuning_seeds": suite.tuning_seeds,
            "seeds": suite.seeds,
            "jobs": suite.jobs,
            "missing": results.missing(),
            "contenders": [_contender_json(results, c) for c in results.contenders.values()],
            "runs": [_run_json(run) for run in (*results.tuning, *results.judged)],
        }
    )


def _contender_json(results: Results, contender: Contender) -> dict[str, Any]:
    choice = contender.choice
    return {
        "name": contender.name,
        "learning_rate": choice.rate if choice else None,
        "how": choice.how if choice else "tuning unfinished",
        "tuning": [[rate, mean] for rate, mean in choice.means.items()] if choice else [],
        "failed": contender.failed,
        "missing": contender.missing,
        **{f: _interval_json(contender.interval(f)) for f in results.figures},
        **{
            f"{f} - {results.suite.reference}": _interval_json(
                results.difference(contender.name, f)
            )
            for f in results.figures
            if contender.name != results.suite.reference
        },
    }


def _interval_json(interval: Interval | None) -> list[float | None] | None:
    """[mean, low, high]."""
    return None if interval is None else [interval.mean, interval.low, interval.high]


def _run_json(run: Run) -> dict[str, Any]:
    """A run and its curve, enough for `Run.outcome` where its own files are gone."""
    about = {
        "name": run.name, "contender": run.contender, "learning_rate": run.rate,
        "seed": run.seed, "tuning": run.tuning,
    }  # fmt: skip
    outcome = run.outcome()
    if outcome is None:
        return {**about, "status": "missing"}
    curve = read_curve(run)
    why = {"error": outcome.last_lines[-1][:300]} if outcome.last_lines else {}
    return {
        **about,
        "recipe": run.recipe_digest,
        "status": outcome.status,
        "exit": outcome.exit,
        "took": round(outcome.seconds, 1),
        **why,
        "curve": None if curve is None else asdict(curve),
    }


def _rounded(value: Any) -> Any:
    """Floats to four digits after the point; those below 0.1 to four significant ones."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 0.1 else round(value, 4)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
