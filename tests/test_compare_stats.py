"""A comparison's statistics by hand: intervals, paired differences, chosen rates; and curves."""

from pathlib import Path
from typing import Any

import pytest

from compared import write_results, write_suite
from distil.compare.curves import band, read_curve
from distil.compare.plan import Run, judged_runs
from distil.compare.runner import time_left
from distil.compare.stats import choose_rate, paired, t_coverage, t_interval, t_quantile
from distil.compare.suite import load_suite

# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("freedom", "textbook"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042),
     (120, 1.980)],
)  # fmt: skip
def test_students_quantile_is_the_textbooks(freedom: int, textbook: float) -> None:
    assert t_quantile(freedom) == pytest.approx(textbook, abs=5e-4)
    assert t_coverage(t_quantile(freedom, 0.5), freedom) == pytest.approx(0.5, abs=1e-8)


def test_the_interval_of_three_numbers_by_hand() -> None:
    # Mean 0.4, deviations -0.2, 0, 0.2, so s = sqrt(0.08 / 2) = 0.2 and s / sqrt(3) = 0.11547.
    interval = t_interval([0.2, 0.4, 0.6])
    assert interval.mean == pytest.approx(0.4)
    assert interval.low == pytest.approx(0.4 - 4.302653 * 0.1154701, abs=1e-6)
    assert interval.high == pytest.approx(0.4 + 4.302653 * 0.1154701, abs=1e-6)
    assert interval.text() == "0.400 [-0.097, 0.897]"
    assert interval.text(signed=True) == "+0.400 [-0.097, +0.897]"


def test_one_seed_has_no_interval_and_none_is_refused() -> None:
    assert t_interval([0.25]).text() == "0.250 (one seed)"
    with pytest.raises(ValueError, match="the interval of nothing"):
        t_interval([])
    with pytest.raises(ValueError, match="at least 1 degree"):
        t_coverage(1.0, 0)


def test_differences_are_taken_seed_by_seed() -> None:
    # Seeds 1 and 2 are in both: 0.5 - 0.1 and 0.9 - 0.3.
    difference = paired({2: 0.9, 1: 0.5, 7: 0.0}, {1: 0.1, 2: 0.3, 8: 1.0})
    assert difference is not None
    assert (difference.mean, difference.n) == (pytest.approx(0.5), 2)
    assert difference.high == pytest.approx(0.5 + 12.7062 * 0.1, abs=1e-4)
    assert paired({1: 0.5}, {2: 0.5}) is None


def test_the_best_mean_rate_is_chosen_and_edges_are_told() -> None:
    inner = choose_rate({1e-3: [0.1, 0.1], 1e-2: [0.0, 0.6], 1e-1: [0.2, 0.2]})
    assert (inner.rate, inner.how) == (1e-2, "tuned")
    assert inner.means == {1e-3: 0.1, 1e-2: 0.3, 1e-1: 0.2}
    assert choose_rate({2.0: [0.5], 1.0: [0.4]}).how == "tuned, at the grid's edge"
    assert choose_rate({2.0: [0.5], 1.0: [0.5], 3.0: [0.1]}).rate == 1.0  # a tie


def test_a_failed_tuning_run_rules_its_rate_out() -> None:
    choice = choose_rate({1.0: [0.1, 0.1], 2.0: [0.9, None], 3.0: [0.0, 0.0]})
    assert (choice.rate, choice.means[2.0]) == (1.0, None)
    assert choose_rate({1.0: [None], 2.0: [None]}).rate is None


def test_time_left_counts_what_is_waiting_and_what_is_under_way() -> None:
    assert time_left([], [5.0], 3, 2) is None
    # Median 10: three waiting, one with 4 to go, one overdue.
    assert time_left([8, 10, 99], [6, 12], 3, 2) == pytest.approx((30 + 4) / 2)
    assert time_left([10], [], 1, 8) == 10
    assert time_left([10], [], 0, 2) == 0


# ---------------------------------------------------------------- curves


def some_run(folder: Path, values: list[float], **log: Any) -> Run:
    run = judged_runs(load_suite(write_suite(folder)), {"distil": 0.1})[0]
    write_results(run, values, **log)
    return run


def test_a_curve_starts_at_no_rollouts_and_adds_up_step_times(tmp_path: Path) -> None:
    curve = read_curve(some_run(tmp_path, [0.2, 0.4, 0.6]))
    assert curve is not None
    assert curve.steps == [0, 1, 2]
    assert curve.rollouts == [0, 4, 8]  # 2 prompts x 2 rollouts a step
    assert curve.seconds == [0, 3, 9]
    assert curve.figures == {"avg@4": [0.2, 0.4, 0.6], "pass@4": pytest.approx([0.3, 0.5, 0.7])}
    assert curve.tokens == [10, 9, 8]
    assert curve.entropy == 0.5


def test_trls_entropy_stands_in_for_a_missing_one(tmp_path: Path) -> None:
    run = some_run(tmp_path, [0.2, 0.4, 0.6], **{"student/entropy": None, "entropy": 0.75})
    curve = read_curve(run)
    assert curve is not None
    assert curve.entropy == 0.75
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "entr')  # a kill cut this line
    again = read_curve(run)
    assert again == curve


def test_bands_are_interpolated_at_the_mean_of_the_times(tmp_path: Path) -> None:
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    fast.mkdir()
    slow.mkdir()
    curves = [read_curve(some_run(fast, [0.0, 0.3, 0.6], step_time=1.0)),
              read_curve(some_run(slow, [0.0, 0.3, 0.6], step_time=3.0))]  # fmt: skip
    curves = [c for c in curves if c is not None]
    by_rollouts = band(curves, "avg@4", against_seconds=False)
    assert [(x, i.mean) for x, i in by_rollouts] == [(0, 0), (4, 0.3), (8, 0.6)]
    # At 2 s the fast run has made both steps and the slow one two thirds of one: 0.6 and 0.2.
    by_seconds = band(curves, "avg@4", against_seconds=True)
    assert [x for x, _ in by_seconds] == [0, 2, 4]
    assert [i.mean for _, i in by_seconds] == pytest.approx([0, 0.4, (0.6 + 0.4) / 2])
