"""`distil compare` runs a suite: which rates, stopping and going on, failures; once for real."""

import fcntl
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from compared import (
    Pretend,
    better_at_a_tenth,
    diverges,
    no_figure,
    write_results,
    write_suite,
)
from conftest import make_model, make_tokenizer
from distil.cli import main
from distil.compare import compare
from distil.compare.plan import Run, judged_runs, possible_runs
from distil.compare.runner import Processes, only_one
from distil.compare.suite import load_suite
from distil.errors import RunError, SuiteError

__all__ = ["no_figure"]  # a fixture

# ---------------------------------------------------------------- running


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


def test_a_folder_that_cannot_be_written_is_told_as_training_tells_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    command = ["compare", str(write_suite(tmp_path)), "--output-dir"]
    for given in ([str(file)], [str(file / "below")], [str(file), "--report-only"]):
        assert main([*command, *given]) == 2
        said = capsys.readouterr().err
        assert f"distil: RunError: The folder {given[0]} can't be written (" in said
        assert "Give another one with --output-dir." in said
    assert main([*command, str(file / "below"), "--report-only"]) == 2
    assert "there is nothing to report" in capsys.readouterr().err


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


def test_what_an_earlier_start_began_meanwhile_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that its process is gone its folder holds a run, which began after the look."""
    run = judged(write_suite(tmp_path))[0]
    run.log.parent.mkdir(parents=True)
    launch = Processes(1)
    commands: list[Any] = []
    monkeypatch.setattr(launch, "_begin", lambda command, *_: commands.append(command))
    with run.log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=launch, args=(run, run.begun))
        thread.start()
        time.sleep(0.1)
        write_results(run, [0.1, 0.2, 0.3])
    thread.join(5)
    assert commands[0][-1] == "--resume"
    launch(judged(write_suite(tmp_path))[1], False)
    assert "--resume" not in commands[1]


def test_a_seed_in_a_models_name_is_each_runs_own(tmp_path: Path) -> None:
    common = {"model": {"name": "organism-sums@{seed}"}, "eval": {"every": 1, "samples": 4}}
    suite = load_suite(write_suite(tmp_path, common=common))
    names = {(r.seed, r.recipe.model.name) for r in possible_runs(suite)}
    assert names == {(seed, f"organism-sums@{seed}") for seed in (0, 1, 100)}


# ---------------------------------------------------------------- failures


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
