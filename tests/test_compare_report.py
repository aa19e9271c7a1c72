"""What `distil compare` reports of whatever has ended: table, settings, figure, results.json."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from compared import Pretend, better_at_a_tenth, diverges, no_figure, write_results, write_suite
from distil.compare import compare
from distil.compare.figure import draw
from distil.compare.overlap import Overlap, overlap_of
from distil.compare.plan import Outcome, judged_runs, possible_runs
from distil.compare.report import compact, write_report
from distil.compare.results import as_json, choices, gather
from distil.compare.suite import load_suite
from distil.errors import RunError
from distil.tasks import load_task

__all__ = ["no_figure"]  # a fixture


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
    begins["distil", 1], begins["grpo", 1] = 53 / 512, 0.1035  # the latter as results.json has it
    assert "NOT COMPARABLE" not in told()
    begins["distil", 1], begins["grpo", 1] = 0.5, 0.375
    unlike = told()
    assert "NOT COMPARABLE: the runs of seed 1 began with different models" in unlike
    assert "(before)" not in unlike


def test_the_figure_is_drawn_of_finished_and_failed_runs(tmp_path: Path) -> None:
    file = write_suite(tmp_path)
    assert compare(file, launch=Pretend(diverges)) == 0
    draw(gather(load_suite(file)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------- results.json


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


def test_judged_problems_that_tuning_had_are_counted_by_question(tmp_path: Path) -> None:
    """A file of seven problems: whatever the seed, tuning has every one of them."""
    table = tmp_path / "problems.jsonl"
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(7)]
    table.write_text("\n".join(map(json.dumps, rows)))
    task = {"name": str(table), "check": "exact", "train_size": 4, "eval_size": 3}
    suite = load_suite(write_suite(tmp_path, common={"task": task}))
    assert len(suite.tuning_seeds) == 1
    reference = suite.recipe(suite.reference).task
    judged = {p.question for p in load_task(reference).heldout}
    tuning = load_task(replace(reference, seed=suite.tuning_seeds[0]))
    found = overlap_of(suite)
    assert found is not None
    assert found.judged == 3
    assert found.judged_by == len(judged & {p.question for p in tuning.heldout})
    assert found.trained_on == len(judged & {p.question for p in tuning.train})
    assert found.trained_on + found.judged_by == 3
    assert f"of the 3 judged problems {found.trained_on} are in their training" in found.text()
    table.unlink()
    assert overlap_of(suite) is None


def test_a_world_that_repeats_nothing_is_said_to() -> None:
    assert Overlap(40, 0, 0).text() == "and none of the judged problems was among theirs"
