"""`distil compare`: statistics by hand, resuming, failures, the report; then once for real."""

import fcntl
import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from compared import Pretend, write_results, write_suite
from conftest import make_model, make_tokenizer
from distil.cli import main
from distil.compare import compare
from distil.compare.curves import band, read_curve
from distil.compare.figure import draw
from distil.compare.plan import Outcome, Run, judged_runs, possible_runs
from distil.compare.report import compact, write_report
from distil.compare.results import as_json, choices, gather
from distil.compare.runner import Processes, only_one, time_left
from distil.compare.stats import choose_rate, paired, t_coverage, t_interval, t_quantile
from distil.compare.suite import load_suite
from distil.errors import RunError, SuiteError


@pytest.fixture(autouse=True)
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a second; the figure's own test draws."""
    monkeypatch.setattr("distil.compare.report.draw", lambda results, file: None)


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


# ---------------------------------------------------------------- running


def better_at_a_tenth(run: Run) -> list[float]:
    """distil is best at 0.1, grpo at 0.01; the seed moves both a little."""
    best = {"distil": 0.1, "grpo": 0.01}[run.contender]
    top = (0.6 if run.contender == "distil" else 0.5) + 0.01 * (run.seed % 100)
    return [0.2, 0.4, top if run.rate == best else 0.3]


def test_each_contender_is_judged_at_the_rate_that_suits_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Pretend(better_at_a_tenth)
    assert compare(write_suite(tmp_path), launch=launch) == 0
    assert len(launch.trained) == 4 + 4
    assert launch.trained[4:] == [
        "distil-lr0.1-seed0", "grpo-lr0.01-seed0", "distil-lr0.1-seed1", "grpo-lr0.01-seed1",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "[8/8] grpo-lr0.01-seed1: avg@4 0.510, 0:00." in printed
    assert "distil: learning rate 0.1 (tuned, at the grid's edge)." in printed
    assert "recipe_of_the_reference:" in printed
    assert "micro_batch: 2" in printed
    again = Pretend(better_at_a_tenth)
    assert compare(write_suite(tmp_path), launch=again) == 0
    assert again.trained == []


def test_ctrl_c_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch = Pretend(better_at_a_tenth)
    launch.stop_at = "distil-lr0.1-seed0"
    file = write_suite(tmp_path)
    assert compare(file, launch=launch) == 130
    assert f"Go on with:\n  distil compare {file}" in capsys.readouterr().out
    rest = Pretend(better_at_a_tenth)
    assert compare(file, launch=rest) == 0
    assert rest.resumed == ["distil-lr0.1-seed0"]
    assert set(rest.trained) | set(launch.trained) == {r.name for r in judged(file)} | {
        r.name for r in possible_runs(load_suite(file)) if r.tuning
    }
    whole = Pretend(better_at_a_tenth)
    (tmp_path / "whole").mkdir()
    assert compare(write_suite(tmp_path / "whole"), launch=whole) == 0
    assert (tmp_path / "out/table.md").read_text() == (tmp_path / "whole/out/table.md").read_text()


def judged(file: Path) -> list[Run]:
    suite = load_suite(file)
    return judged_runs(suite, {"distil": 0.1, "grpo": 0.01})


def test_a_crash_of_the_scheduler_leaves_ended_runs_ended(tmp_path: Path) -> None:
    def crash(run: Run) -> list[float]:
        if run.contender == "grpo" and not run.tuning:
            raise RuntimeError("power cut")
        return better_at_a_tenth(run)

    with pytest.raises(RuntimeError, match="power cut"):
        compare(write_suite(tmp_path), launch=Pretend(crash))
    rest = Pretend(better_at_a_tenth)
    assert compare(write_suite(tmp_path), launch=rest) == 0
    assert "distil-lr0.1-seed0" not in rest.trained
    assert "grpo-lr0.01-seed0" in rest.trained


def test_weights_of_ended_runs_are_removed_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    for keep in (False, True):
        folder = tmp_path / str(keep)
        folder.mkdir()
        assert compare(write_suite(folder, keep_models=keep), launch=Pretend()) == 0
        assert len(list(folder.glob("out/runs/*/model"))) == (6 + 2 if keep else 0)
        assert len(list(folder.glob("out/runs/*/checkpoint-*"))) == (6 + 2 if keep else 0)
        assert len(list(folder.glob("out/runs/*/after.json"))) == 8


def test_several_runs_at_a_time_end_as_one_after_another(tmp_path: Path) -> None:
    tables = []
    for jobs in (1, 3):
        folder = tmp_path / str(jobs)
        folder.mkdir()
        assert compare(write_suite(folder, jobs=jobs), launch=Pretend(better_at_a_tenth)) == 0
        tables.append((folder / "out/table.md").read_text().split("\n\n")[0])
    assert tables[0] == tables[1]


def test_two_comparisons_in_one_folder_are_refused(tmp_path: Path) -> None:
    refused = pytest.raises(SuiteError, match="Another distil compare works in")
    with only_one(tmp_path), refused, only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_a_process_that_outlived_its_start_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = judged(write_suite(tmp_path))[0]
    run.log.parent.mkdir(parents=True)
    launch = Processes(1)
    statuses: list[int] = []
    with run.log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as a process holds it by its output
        thread = threading.Thread(target=lambda: statuses.append(launch(run, False)))
        thread.start()
        time.sleep(0.2)
        assert statuses == []
        assert f"{run.name} still runs since an earlier start" in capsys.readouterr().out
        launch.interrupt()
        thread.join(5)
    assert statuses == [130]


# ---------------------------------------------------------------- failures


def diverges(run: Run) -> list[float]:
    """grpo's first judged seed diverges, and so does its larger rate."""
    if run.contender == "grpo" and (run.seed == 0 or run.rate == 0.1):
        raise ArithmeticError
    return better_at_a_tenth(run)


def test_a_failed_run_is_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_suite(tmp_path)
    launch = Pretend(diverges)
    assert compare(file, launch=launch) == 0
    printed = capsys.readouterr().out
    assert "grpo-lr0.1-seed100: FAILED (exit status 1): distil: TrainingError: the loss" in printed
    table = (tmp_path / "out/table.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| grpo"))
    # Seed 0 stopped at its evaluation with 0.3, seed 1 reached 0.51.
    assert "| 0.01 (tuned, at the grid's edge) | 0.405 [" in row
    assert "]* |" in row
    assert "| 1 of 2, 1 failed |" in row
    assert "- Failed: grpo-lr0.01-seed0: distil: TrainingError: the loss is nan" in table
    assert "- Failed: grpo-lr0.1-seed100 (tuning): distil: TrainingError" in table
    assert "*: with failed seeds" in table
    outcome = json.loads((tmp_path / "out/runs/grpo-lr0.01-seed0.json").read_text())
    assert outcome["last_lines"] == [
        "working", "step 1", "step 2", "distil: TrainingError: the loss is nan"
    ]  # fmt: skip


def test_a_failed_run_is_retried_only_when_that_is_asked_for(tmp_path: Path) -> None:
    file = write_suite(tmp_path)
    assert compare(file, launch=Pretend(diverges)) == 0
    again, asked = Pretend(better_at_a_tenth), Pretend(better_at_a_tenth)
    assert compare(file, launch=again) == 0
    assert again.trained == []
    assert compare(file, launch=asked, retry_failed=True) == 0
    assert sorted(asked.trained) == ["grpo-lr0.01-seed0", "grpo-lr0.1-seed100"]
    assert asked.resumed == []  # a run that failed by itself starts anew
    assert "Failed" not in (tmp_path / "out/table.md").read_text()


def test_a_killed_run_is_retried_from_its_checkpoint(tmp_path: Path) -> None:
    file, killed = write_suite(tmp_path), Pretend(diverges)
    killed.exit = -signal.SIGKILL
    assert compare(file, launch=killed) == 0
    asked = Pretend(better_at_a_tenth)
    assert compare(file, launch=asked, retry_failed=True) == 0
    assert sorted(asked.resumed) == ["grpo-lr0.01-seed0", "grpo-lr0.1-seed100"]


def test_a_contender_whose_every_rate_fails_is_not_judged(tmp_path: Path) -> None:
    def fails(run: Run) -> list[float]:
        if run.contender == "grpo":
            raise ArithmeticError
        return better_at_a_tenth(run)

    launch = Pretend(fails)
    assert compare(write_suite(tmp_path), launch=launch) == 0
    assert [name for name in launch.trained if "grpo" in name and "100" not in name] == []
    assert "| grpo | every rate failed |" in (tmp_path / "out/table.md").read_text()


def test_a_broken_setup_stops_the_suite_and_is_no_result(tmp_path: Path) -> None:
    class Broken(Pretend):
        def __call__(self, run: Run, resume: bool) -> int:
            run.log.write_text("distil: ModelError: There is no model\n")
            return 2

    with pytest.raises(RunError, match="failed before its model was judged once") as stopped:
        compare(write_suite(tmp_path), launch=Broken())
    assert "ModelError: There is no model" in str(stopped.value)
    assert list((tmp_path / "out/runs").glob("*.json")) == []


# ---------------------------------------------------------------- report


def test_a_report_is_made_of_whatever_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_suite(tmp_path)
    with pytest.raises(RunError, match=r"No judged run of .* has ended yet"):
        compare(file, report_only=True)
    stopped = Pretend(better_at_a_tenth)
    stopped.stop_at = "distil-lr0.1-seed1"
    assert compare(file, launch=stopped) == 130
    assert compare(file, report_only=True) == 0
    printed = capsys.readouterr().out
    assert "0.600 (one seed)" in printed
    assert "-0.100 (one seed)" in printed
    assert "Not finished yet (2): distil-lr0.1-seed1, grpo-lr0.01-seed1." in printed
    assert "1 of 2" in printed


def test_the_report_says_what_the_runs_say(tmp_path: Path) -> None:
    assert compare(write_suite(tmp_path), launch=Pretend(better_at_a_tenth)) == 0
    out = tmp_path / "out"
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (out / "table.md").read_text().splitlines()
        if line.startswith("|")
    ]
    header, before, distil, grpo = lines[0], lines[2], lines[3], lines[4]
    assert header == [
        "contender", "learning rate", "avg@4", "pass@4", "avg@4 - distil", "pass@4 - distil",
        "tokens", "entropy", "train s", "seeds",
    ]  # fmt: skip
    assert before[:4] == ["(before)", "", "0.200", "0.300"]
    # 0.60 and 0.61: mean 0.605, s / sqrt(2) = 0.005, x 12.706.
    assert distil[2] == "0.605 [0.541, 0.669]"
    assert distil[4:] == ["", "", "8.0", "0.50", "9", "2 of 2"]
    assert grpo[4] == "-0.100 [-0.100, -0.100]"
    text = (out / "table.txt").read_text()
    assert "95% t-intervals over training seeds on the same problems" in text
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    assert settings["contenders"]["grpo"]["learning_rate"] == 0.01
    assert settings["contenders"]["grpo"]["tuning"] == {0.01: 0.5, 0.1: 0.3}
    assert settings["contenders"]["grpo"]["differs"]["objective.name"] == "grpo"
    stored = json.loads((out / "results.json").read_text())
    assert stored["contenders"][1]["avg@4 - distil"][0] == -0.1
    run = next(r for r in stored["runs"] if (r["contender"], r["seed"]) == ("distil", 1))
    assert run["curve"]["figures"]["avg@4"] == [0.2, 0.4, 0.61]
    assert run["curve"]["rollouts"] == [0, 4, 8]


def test_a_comparison_goes_on_from_its_results_alone(tmp_path: Path) -> None:
    """On another machine there is results.json only: what it has is not run again."""
    file, out = write_suite(tmp_path), tmp_path / "out"
    assert compare(file, launch=Pretend(better_at_a_tenth)) == 0
    reported = (out / "results.json").read_text()
    for folder in ("runs", "recipes"):
        shutil.rmtree(out / folder)
    again = Pretend(better_at_a_tenth)
    assert compare(file, launch=again) == 0
    assert again.trained == []
    assert (out / "results.json").read_text() == reported
    # Another seed is run, and a run whose recipe changed since is run anew.
    other = {"distil": {}, "grpo": {"objective": {"name": "reverse_kl"}}}
    write_suite(tmp_path, seeds=[0, 1, 2], contenders=other)
    assert compare(file, launch=again) == 0
    assert {name for name in again.trained if name.startswith("distil")} == {"distil-lr0.1-seed2"}
    assert len([name for name in again.trained if name.startswith("grpo")]) == 5


def test_another_folder_runs_everything_again(tmp_path: Path) -> None:
    file = write_suite(tmp_path)
    assert compare(file, launch=Pretend(better_at_a_tenth)) == 0
    again = Pretend(better_at_a_tenth)
    assert compare(file, launch=again, output_dir=str(tmp_path / "again")) == 0
    assert len(again.trained) == 8
    assert (tmp_path / "again" / "table.md").read_text() == (tmp_path / "out/table.md").read_text()


def test_the_figure_is_drawn_of_finished_and_failed_runs(tmp_path: Path) -> None:
    file = write_suite(tmp_path)
    assert compare(file, launch=Pretend(diverges)) == 0
    draw(gather(load_suite(file)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_sixty_runs_fit_into_a_small_file(tmp_path: Path) -> None:
    base = {"rollout": {"prompts_per_step": 2, "num_generations": 2},
            "train": {"steps": 10, "micro_batch": 2}}  # fmt: skip
    file = write_suite(
        tmp_path, base=base, learning_rates=[0.1], seeds=list(range(15)),
        contenders={name: {} for name in ("distil", "a", "b", "c")},
    )  # fmt: skip
    suite = load_suite(file)
    assert all(c is not None and c.how == "given" for c in choices(suite).values())
    runs = judged_runs(suite, {name: 0.1 for name in suite.contenders})
    assert len(runs) == 60
    for run in runs:
        write_results(run, [0.1 + i / 31 for i in range(11)])
        run.end(Outcome("finished", 0, 1.0, False))
    text = compact(as_json(gather(suite)))
    assert len(text) < 200_000 / 2  # hand-made runs have two figures, real ones up to six
    assert json.loads(text)["runs"][0]["curve"]["figures"]["avg@4"][3] == 0.1968


# ---------------------------------------------------------------- for real


@pytest.fixture
def real_suite(tmp_path: Path) -> Path:
    make_model().save_pretrained(tmp_path / "toy")
    make_tokenizer().save_pretrained(tmp_path / "toy")
    base = {
        "task": {
            "name": "chain_sum",
            "options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
            "train_size": 8,
            "eval_size": 2,
        },
        "model": {"name": str(tmp_path / "toy")},
        "rollout": {"prompts_per_step": 2, "num_generations": 2, "max_completion_length": 4},
        "train": {"steps": 2, "micro_batch": 2, "learning_rate": 1e-2},
        "eval": {"samples": 2, "teacher_samples": 0},
    }
    return write_suite(
        tmp_path, base=base, learning_rates=[0.01], tuning_seeds=None, seeds=[0], jobs=2,
        common={"eval": {"every": 1}},
    )  # fmt: skip


def test_two_contenders_train_in_processes_of_their_own(
    real_suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(real_suite)]) == 0
    printed = capsys.readouterr().out
    assert "| " not in printed
    assert "Everything lies in" in printed
    stored = json.loads((real_suite.parent / "out/results.json").read_text())
    assert [r["status"] for r in stored["runs"]] == ["finished"] * 2
    assert all(r["curve"]["rollouts"] == [0, 4, 8] for r in stored["runs"])
    curves = [r["curve"] for r in stored["runs"]]
    assert all(0 < c["seconds"][1] <= c["seconds"][2] for c in curves)
    assert all(c["entropy"] > 0 for c in curves)


def test_runs_that_began_with_different_models_are_said_to_be_no_comparison(
    tmp_path: Path,
) -> None:
    file = write_suite(tmp_path, seeds=[0, 1], learning_rates=[], tuning_seeds=[])
    begins = {("distil", 0): 0.25, ("grpo", 0): 0.25, ("distil", 1): 0.5, ("grpo", 1): 0.5}

    def told() -> str:
        for run in judged_runs(load_suite(file), {"distil": 1e-6, "grpo": 1e-6}):
            shutil.rmtree(run.folder, ignore_errors=True)
            write_results(run, [begins[run.contender, run.seed], 0.5, 0.75])
            run.end(Outcome("finished", 0, 1.0, False))
        return write_report(load_suite(file))

    alike = told()
    assert "NOT COMPARABLE" not in alike
    before = next(line for line in alike.splitlines() if line.startswith("(before)"))
    assert "0.375 [" in before  # the mean over seeds, with its interval
    begins["grpo", 1] = 0.375
    unlike = told()
    assert "NOT COMPARABLE: the runs of seed 1 began with different models" in unlike
    assert "(before)" not in unlike


def test_a_seed_in_a_models_name_is_each_runs_own(tmp_path: Path) -> None:
    common = {"model": {"name": "organism-sums@{seed}"}, "eval": {"every": 1, "samples": 4}}
    suite = load_suite(write_suite(tmp_path, common=common))
    names = {(r.seed, r.recipe.model.name) for r in possible_runs(suite)}
    assert names == {(seed, f"organism-sums@{seed}") for seed in (0, 1, 100)}


def test_tuning_runs_are_kept_in_results_before_any_judged_one(tmp_path: Path) -> None:
    file = write_suite(tmp_path)
    suite = load_suite(file)
    run = possible_runs(suite)[0]
    assert run.tuning
    write_results(run, [0.0, 0.5, 0.75])
    run.end(Outcome("finished", 0, 1.0, False))
    with pytest.raises(RunError, match="No judged run"):
        write_report(suite)
    shutil.rmtree(suite.output_dir / "runs")
    again = possible_runs(load_suite(file))[0].outcome()
    assert again is not None
    assert again.status == "finished"
