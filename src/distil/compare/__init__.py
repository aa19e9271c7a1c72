"""`distil compare`: rival objectives over seeds, on the same problems, budget and tuning grid.

    suite.py     reads and checks a suite          merge.py     lays changes over a recipe
    plan.py      the runs that it needs            figure.py    the figure
    runner.py    trains, resumable                 progress.py  a line a run, and the time left
    curves.py    reads a run's folder              stats.py     t-intervals, choice of a rate
    results.py   puts runs together                report.py    table, notes, settings, JSON
    overlap.py   judged problems that tuning had

First every rate of the grid on the tuning seeds (problems drawn anew), then each contender at its
best rate on the judged seeds. Left out: comparing on several machines, and choosing anything but a
rate.
"""

from dataclasses import replace
from pathlib import Path

from distil.compare.plan import check_unchanged, judged_runs, possible_runs, tuning_runs
from distil.compare.progress import Progress
from distil.compare.report import settings, write_report
from distil.compare.results import choices, rates_of
from distil.compare.runner import Launcher, Processes, only_one
from distil.compare.suite import Suite, load_suite
from distil.runs.folder import make_writable


def compare(
    file: str | Path,
    *,
    report_only: bool = False,
    retry_failed: bool = False,
    output_dir: str | None = None,
    launch: Launcher | None = None,
) -> int:
    """Runs what is missing of a suite and reports; the exit status: 0 done, 130 stopped by Ctrl-C.

    `output_dir` replaces the suite's. `launch` trains a run (a process of `distil train` unless
    given). Raises SuiteError if the suite is wrong or has changed, RunError if a run's setup is.
    """
    suite = load_suite(file)
    if output_dir is not None:
        suite = replace(suite, output_dir=Path(output_dir))
    check_unchanged(possible_runs(suite))
    if report_only:
        if suite.output_dir.exists():
            make_writable(suite.output_dir, "--output-dir")
        print(write_report(suite))
        return 0
    with only_one(suite.output_dir):
        print(settings(suite, {}))
        if retry_failed:
            for run in possible_runs(suite):
                run.forget_failure()
        try:
            _run_what_is_missing(suite, launch or Processes(1 if suite.jobs > 1 else None))
        except KeyboardInterrupt:
            where = "" if output_dir is None else f" --output-dir {output_dir}"
            print(f"\nStopped; nothing is lost. Go on with:\n  distil compare {file}{where}")
            return 130
        print(write_report(suite))
    print(
        f"Everything lies in {suite.output_dir}: table.md, figure.png, results.json, settings.yaml"
    )
    return 0


def _run_what_is_missing(suite: Suite, launch: Launcher) -> None:
    """Tuning runs, then judged runs at the rates that they chose."""
    tuning = tuning_runs(suite)
    judged = len(suite.contenders) * len(suite.seeds)
    progress = Progress(suite, len(tuning) + judged)
    progress.run(tuning, launch, then=judged)
    chosen = choices(suite)
    for name, choice in chosen.items():
        if choice is not None and choice.means:
            rate = "none" if choice.rate is None else f"{choice.rate:g}"
            print(f"{name}: learning rate {rate} ({choice.how}).")
    progress.run(judged_runs(suite, rates_of(chosen)), launch, then=0)
