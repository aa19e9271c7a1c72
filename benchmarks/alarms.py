"""Where the alarm `answers shrink` should lie, by every run that `results/` holds.

    python benchmarks/alarms.py

A run's mean length and avg@k are known where it was judged: at the start, at its end, and on the
organisms thrice between. A bound is as good as the runs beyond it are bad: each line counts the
runs that end beyond it (the start's mean length over the last one's), by whether they end better
than they began, and those that were beyond it at some judgement and came back. Left out: the
alarm's patience of a few logs in a row, for which no run's every step is kept.
"""

from collections.abc import Iterator
from pathlib import Path

from distil.compare.curves import read_curve
from distil.compare.results import gather
from distil.compare.suite import load_suite

SUITES = Path(__file__).parent.parent / "suites"
BOUNDS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
BETTER = 0.05
"""A run ends better than it began where avg@k has grown by more than this."""


def runs() -> Iterator[tuple[list[float], bool]]:
    """(shrinkage at each judgement, whether it ended better) of every finished run."""
    for file in sorted(SUITES.rglob("*.yaml")):
        results = gather(load_suite(file))
        for run in (*results.tuning, *results.judged):
            outcome, curve = run.outcome(), read_curve(run)
            if outcome is None or outcome.status != "finished" or curve is None:
                continue
            score, tokens = curve.figures[results.figures[0]], curve.tokens
            yield [tokens[0] / max(t, 1e-9) for t in tokens[1:]], score[-1] > score[0] + BETTER


def main() -> None:
    """Prints the table."""
    found = list(runs())
    print(f"{len(found)} runs, {sum(better for _, better in found)} end better than they began\n")
    print(
        "| bound | end beyond it | of them no better | went beyond, came back, no better | better |"
    )
    print("|--:|--:|--:|--:|--:|")
    for bound in BOUNDS:
        ended = [better for shrunk, better in found if shrunk[-1] > bound]
        back = [better for shrunk, better in found if max(shrunk) > bound >= shrunk[-1]]
        print(
            f"| {bound} | {len(ended)} | {ended.count(False)} | "
            f"{back.count(False)} | {back.count(True)} |"
        )


if __name__ == "__main__":
    main()
