"""The whole path on the toy model: `distil train` from a recipe to a table, stopped and resumed."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from conftest import make_model, toy_recipe, train
from distil.cli import main
from distil.trainer.callbacks import StopAfterStep


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return toy_recipe(
        tmp_path,
        teacher={"kind": "ema"},
        train={"steps": 3, "micro_batch": 2, "save_every": 2, "learning_rate": 1e-2},
        eval={"samples": 4},
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()


def test_a_recipe_becomes_a_trained_model_and_a_table(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(recipe_file, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    for word in ("before", "after", "teacher", "after - before", "avg@4", "pass@2", "pass@4"):
        assert word in printed
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert files >= {
        "recipe.yaml", "environment.json", "metrics.jsonl", "rollouts.jsonl", "before.json",
        "after.json", "teacher.json", "results.md", "results.json", "model", "checkpoint-3",
    }  # fmt: skip
    assert "avg@4" in (tmp_path / "run/results.md").read_text()
    attempts = json.loads((tmp_path / "run/before.json").read_text())["attempts"]
    assert len(attempts) == 3 * 4
    started = make_model().state_dict()
    assert any(not torch.equal(w, started[n]) for n, w in weights(tmp_path / "run").items())
    assert main(["eval", str(tmp_path / "run/model"), "--recipe", str(recipe_file)]) == 0
    assert "avg@4" in capsys.readouterr().out


def test_ctrl_c_leaves_a_run_that_resume_continues(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert train(recipe_file, tmp_path / "whole") == 0
    begin = StopAfterStep.on_train_begin

    def interrupted(self: StopAfterStep, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(StopAfterStep, "on_train_begin", interrupted)
        assert train(recipe_file, tmp_path / "stopped") == 130
    assert "Stopped after step 1 of 3" in capsys.readouterr().out
    assert not (tmp_path / "stopped/model").exists()
    assert main(["train", str(tmp_path / "stopped"), "--resume"]) == 0
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(w, stopped[n]) for n, w in whole.items())


def test_a_run_killed_before_its_first_checkpoint_starts_again_in_its_folder(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(recipe_file, tmp_path / "whole") == 0

    def killed(self: StopAfterStep, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StopAfterStep, "on_step_end", killed)
        assert train(recipe_file, tmp_path / "killed") == 130
    assert main(["train", str(tmp_path / "killed"), "--resume"]) == 0
    whole, killed_run = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(w, killed_run[n]) for n, w in whole.items())
    lines = (tmp_path / "killed/rollouts.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [1] * 4 + [2] * 4 + [3] * 4


def test_a_run_that_has_all_its_steps_is_trained_no_further(
    recipe_file: Path, tmp_path: Path, capsys: Any
) -> None:
    """Killed after its last checkpoint, or resumed though it was finished."""
    run = tmp_path / "run"
    assert train(recipe_file, run) == 0
    kept = ("model/model.safetensors", "after.json", "results.md", "rollouts.jsonl")
    before = {name: (run / name).read_bytes() for name in kept}
    attempts = json.loads(before["after.json"])["attempts"]
    capsys.readouterr()
    assert main(["train", str(run), "--resume"]) == 0
    assert "after - before" in capsys.readouterr().out
    assert {name: (run / name).read_bytes() for name in kept} == before
    shutil.rmtree(run / "model")
    for name in ("after.json", "results.md", "results.json"):
        (run / name).unlink()
    assert main(["train", str(run), "--resume"]) == 0
    assert json.loads((run / "after.json").read_bytes())["attempts"] == attempts
    for name in set(kept) - {"after.json"}:
        assert (run / name).read_bytes() == before[name]
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert max(steps) == 3
    assert {f.name for f in run.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}


def test_problems_that_changed_meanwhile_are_not_gone_on_with(
    recipe_file: Path, tmp_path: Path, capsys: Any
) -> None:
    table, run = tmp_path / "problems.jsonl", tmp_path / "run"

    def write(question: str) -> None:
        rows = [{"question": question.format(n), "answer": str(n)} for n in range(9)]
        table.write_text("\n".join(map(json.dumps, rows)))

    flags = ["--task.name", str(table), "--task.check", "exact", "--task.train-size", "4"]
    write("{} + 0?")
    assert train(recipe_file, run, *flags) == 0
    write("0 + {}?")
    assert main(["train", str(run), "--resume"]) == 2
    assert "are others than those that the run" in capsys.readouterr().err
    write("{} + 0?")
    assert main(["train", str(run), "--resume"]) == 0


def test_an_evaluation_of_other_questions_is_not_taken_for_its_own(
    recipe_file: Path, tmp_path: Path, capsys: Any
) -> None:
    run = tmp_path / "run"
    assert train(recipe_file, run) == 0
    stored = json.loads((run / "before.json").read_text())
    stored["problems"] = {name: "0" * 12 for name in stored["problems"]}
    (run / "before.json").write_text(json.dumps(stored))
    assert main(["train", str(run), "--resume"]) == 2
    assert "before.json judged other questions" in capsys.readouterr().err


def test_another_recipe_is_not_resumed(recipe_file: Path, tmp_path: Path, capsys: Any) -> None:
    assert train(recipe_file, tmp_path / "run") == 0
    assert train(recipe_file, tmp_path / "run", "--train.steps", "9", "--resume") == 2
    assert "train.steps: was 3, is 9" in capsys.readouterr().err
    assert train(recipe_file, tmp_path / "run") == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_missing_model_leaves_no_run_behind(
    recipe_file: Path, tmp_path: Path, capsys: Any
) -> None:
    assert train(recipe_file, tmp_path / "run", "--model.name", "./nowhere") == 2
    assert "There is no model './nowhere'" in capsys.readouterr().err
    assert train(recipe_file, tmp_path / "run") == 0


def test_an_unwritable_folder_is_found_before_the_model_is_loaded(
    recipe_file: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    assert train(recipe_file, folder, "--model.name", "./nowhere") == 2
    assert "can't be written" in capsys.readouterr().err
