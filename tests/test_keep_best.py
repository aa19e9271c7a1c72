"""The best state on the validation problems: chosen, kept through kills, judged in the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from conftest import toy_recipe, train
from distil.cli import main
from distil.runs.best import Best, BestState

FIGURE = "avg@16"


def saver(text: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        folder.mkdir()
        (folder / "weights").write_text(text)

    return save


def kept(run: Path) -> tuple[Best | None, str]:
    """As a process that comes later finds it."""
    state = BestState(run, FIGURE)
    assert not list(run.glob(".best*"))
    return state.record(), (state.folder / "weights").read_text()


def test_the_first_of_equals_stays_and_a_better_one_replaces_it(tmp_path: Path) -> None:
    state = BestState(tmp_path, FIGURE)
    assert state.record() is None
    for step, value, better in ((0, 0.25, True), (1, 0.25, False), (2, 0.5, True), (3, 0.4, False)):
        assert state.consider(step, value, saver(f"step {step}")) is better
    assert kept(tmp_path) == (Best(2, FIGURE, 0.5), "step 2")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(5))
def test_a_kill_at_any_moment_leaves_the_old_best_or_the_new_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    BestState(tmp_path, FIGURE).consider(0, 0.25, saver("old"))
    state = BestState(tmp_path, FIGURE)
    calls = 0
    move = Path.replace

    def replace(self: Path, target: Any) -> Path:
        nonlocal calls
        calls += 1
        if calls == moment:  # of the record, the old folder, the new one; 4: none of them
            raise Killed
        return move(self, target)

    def save(folder: Path) -> None:
        saver("new")(folder)
        if moment == 0:
            raise Killed

    def clear(self: BestState) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(BestState, "_clear", clear)
        with pytest.raises(Killed):
            state.consider(1, 0.5, save)
    old, new = (Best(0, FIGURE, 0.25), "old"), (Best(1, FIGURE, 0.5), "new")
    assert kept(tmp_path) == (new if moment >= 3 else old)
    BestState(tmp_path, FIGURE).consider(1, 0.5, saver("new"))  # made up for
    assert kept(tmp_path) == new


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return toy_recipe(
        tmp_path,
        task={"validation_size": 6},
        train={
            "steps": 4, "micro_batch": 2, "save_every": 1, "keep_checkpoints": 9,
            "learning_rate": 3e-2,
        },
        eval={"samples": 16, "teacher_samples": 0, "every": 1, "keep_best": FIGURE},
    )  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return all(torch.equal(w, theirs[name]) for name, w in ours.items())


def figure(file: Path) -> float:
    return float(json.loads(file.read_text())["figures"][FIGURE])


def test_the_best_state_on_the_validation_problems_is_kept_and_judged_held_out(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole, plain, stopped = tmp_path / "whole", tmp_path / "plain", tmp_path / "stopped"
    step, values, measured = 2, [0.1, 0.3, 0.9, 0.2, 0.9], {}
    consider = BestState.consider

    def scripted(self: BestState, at: int, value: float, save: Any) -> bool:
        measured[at] = value  # and another one in its place: the toy model's depend on the machine
        return consider(self, at, values[at], save)

    monkeypatch.setattr(BestState, "consider", scripted)
    assert train(recipe_file, whole) == 0
    printed = capsys.readouterr().out
    assert measured == {at: figure(whole / f"validation-{at:06d}.json") for at in range(5)}
    assert json.loads((whole / "best/best.json").read_text()) == {
        "step": step, "figure": FIGURE, "value": values[step],
    }  # fmt: skip
    assert same(whole / "best", whole / f"checkpoint-{step}")
    assert not same(whole / "best", whole / "model")
    assert f"the model after step {step} (most {FIGURE} on the validation" in printed

    # Held out is judged at both ends only, and never by the choice.
    assert list(whole.glob("eval-*.json")) == []
    asked = {
        name: {a["problem"] for a in json.loads((whole / f"{name}.json").read_text())["attempts"]}
        for name in ("before", "after", "best", "validation-000002")
    }
    assert asked["before"] == asked["after"] == asked["best"]
    assert not asked["before"] & asked["validation-000002"]
    assert [len(a) for a in asked.values()] == [3, 3, 3, 6]
    header = (whole / "results.md").read_text().splitlines()[0]
    assert header == "|  | before | after | best | after - before |"

    # Choosing changed nothing.
    assert train(recipe_file, plain, "--eval.every", "0", "--eval.keep-best", "") == 0
    assert same(whole / "model", plain / "model")
    assert not (plain / "best").exists()

    # Killed while the best state was being saved, and resumed.
    def killed(self: BestState, at: int, value: float, save: Any) -> bool:
        def half(folder: Path) -> None:
            save(folder)
            raise KeyboardInterrupt

        return scripted(self, at, value, half if at == step else save)

    with monkeypatch.context() as patch:
        patch.setattr(BestState, "consider", killed)
        assert train(recipe_file, stopped) == 130
    assert json.loads((stopped / "best/best.json").read_text())["step"] < step
    assert main(["train", str(stopped), "--resume"]) == 0
    for name in ("best/best.json", "results.md"):
        assert (stopped / name).read_text() == (whole / name).read_text(), name
    assert same(stopped / "best", whole / "best")
    assert same(stopped / "model", whole / "model")


def test_the_start_is_kept_where_training_only_harms(recipe_file: Path, tmp_path: Path) -> None:
    file = recipe_file.with_name("other.yaml")
    recipe = yaml.safe_load(recipe_file.read_text())
    recipe["train"]["learning_rate"] = 1e-12  # so that all states draw the same
    file.write_text(yaml.safe_dump(recipe))
    assert train(file, tmp_path / "run", "--train.steps", "2") == 0
    assert json.loads((tmp_path / "run/best/best.json").read_text())["step"] == 0
    assert same(tmp_path / "run/best", tmp_path / "toy")
    best, before = (
        json.loads((tmp_path / f"run/{n}.json").read_text()) for n in ("best", "before")
    )
    assert best["attempts"] == before["attempts"]


def test_validation_without_a_choice_judges_those_problems(
    recipe_file: Path, tmp_path: Path
) -> None:
    assert train(recipe_file, tmp_path / "run", "--train.steps", "3", "--eval.keep-best", "") == 0
    names = sorted(p.name for p in (tmp_path / "run").glob("*-00000?.json"))
    assert names == ["validation-000001.json", "validation-000002.json"]


def test_a_best_adapter_is_judged_on_its_base(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consider = BestState.consider

    def scripted(self: BestState, at: int, value: float, save: Any) -> bool:
        return consider(self, at, [0.1, 0.5, 0.2][at], save)

    monkeypatch.setattr(BestState, "consider", scripted)
    flags = ("--model.lora.rank", "2", "--model.lora.dropout", "0.5", "--train.steps", "2")
    assert train(recipe_file, tmp_path / "run", *flags) == 0
    assert (tmp_path / "run/best/adapter_config.json").is_file()
    best, one = weights(tmp_path / "run/best"), weights(tmp_path / "run/checkpoint-1")
    assert all(torch.equal(w, one[name]) for name, w in best.items())
    assert len(json.loads((tmp_path / "run/best.json").read_text())["attempts"]) == 3 * 16
