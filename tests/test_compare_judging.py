"""Judging in the midst of training: what is stored, and that it changes nothing else."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from conftest import toy_recipe, train
from distil.commands import judging as command
from distil.commands.judging import RunJudge
from distil.config import EvalConfig, Recipe, RolloutConfig, TrainConfig
from distil.evaluate.evalfile import digests
from distil.recipe.checks import check_recipe
from distil.runs.folder import rollouts_after, updates_per_step
from distil.trainer.callbacks import AfterEvery
from distil.trainer.trainer import DistILTrainer
from distil.types import Problem


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return toy_recipe(
        tmp_path,
        teacher={"kind": "ema"},
        train={"steps": 4, "micro_batch": 2, "save_every": 3, "learning_rate": 1e-2},
        eval={"samples": 4, "teacher_samples": 0},
    )


def stored(file: Path) -> dict[str, Any]:
    """An evaluation without its duration."""
    return {k: v for k, v in json.loads(file.read_text()).items() if k != "seconds"}


def same_weights(one: Path, other: Path) -> bool:
    a, b = (AutoModelForCausalLM.from_pretrained(p / "model").state_dict() for p in (one, other))
    return all(torch.equal(w, b[name]) for name, w in a.items())


def test_judging_during_training_changes_no_bit_of_it(recipe_file: Path, tmp_path: Path) -> None:
    plain, judged = tmp_path / "plain", tmp_path / "judged"
    assert train(recipe_file, plain) == 0
    assert train(recipe_file, judged, "--eval.every", "2") == 0
    assert same_weights(plain, judged)
    assert stored(plain / "after.json") == stored(judged / "after.json")
    assert list(plain.glob("eval-*.json")) == []
    # Not after the last step: that's after.json.
    assert [p.name for p in judged.glob("eval-*.json")] == ["eval-000002.json"]
    middle = stored(judged / "eval-000002.json")
    assert (middle["step"], middle["rollouts"], len(middle["attempts"])) == (2, 8, 3 * 4)
    rewards = [a["reward"] == 1 for a in middle["attempts"]]
    assert middle["figures"]["avg@4"] == sum(rewards) / 12
    assert middle["tokens"] == pytest.approx(sum(a["tokens"] for a in middle["attempts"]) / 12)
    ends = [stored(judged / f"{name}.json") for name in ("before", "after")]
    assert [(e["step"], e["rollouts"]) for e in ends] == [(0, 0), (4, 16)]


def test_a_kill_while_judging_loses_and_changes_nothing(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ("--eval.every", "1")
    assert train(recipe_file, whole, *flags) == 0
    act = AfterEvery.on_step_begin

    def stop(self: AfterEvery, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt
        act(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(AfterEvery, "on_step_begin", stop)
        assert train(recipe_file, killed, *flags) == 130
    first = (killed / "eval-000001.json").read_text()  # beyond the last checkpoint: there is none
    assert train(recipe_file, killed, *flags, "--resume") == 0
    assert (killed / "eval-000001.json").read_text() == first
    assert same_weights(whole, killed)
    for name in ("eval-000001", "eval-000002", "eval-000003", "after"):
        assert stored(whole / f"{name}.json") == stored(killed / f"{name}.json")


def test_step_time_covers_sampling_and_not_judging(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, judge = DistILTrainer._generate_and_score_completions, command.evaluate
    clock, passed = time.perf_counter, [0.0]

    def slow_sample(*arguments: Any, **keywords: Any) -> Any:
        passed[0] += 1_000
        return sample(*arguments, **keywords)

    def slow_judge(*arguments: Any, **keywords: Any) -> Any:
        passed[0] += 100_000
        return judge(*arguments, **keywords)

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + passed[0])
    monkeypatch.setattr(DistILTrainer, "_generate_and_score_completions", slow_sample)
    monkeypatch.setattr(command, "evaluate", slow_judge)
    assert train(recipe_file, tmp_path / "run", "--eval.every", "1", "--train.steps", "2") == 0
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    times = [r["step_time"] for r in map(json.loads, lines) if "step_time" in r]
    assert len(times) == 2
    assert all(1_000 <= t < 2_000 for t in times)


def test_rollouts_are_counted_in_fresh_batches_however_many_updates_they_get() -> None:
    rollout = RolloutConfig(prompts_per_step=3, num_generations=4)
    train = TrainConfig(updates_per_batch=2, num_iterations=3, micro_batch=2)
    recipe = check_recipe(Recipe(rollout=rollout, train=train))
    assert rollouts_after(recipe, 5) == 5 * 12
    assert updates_per_step(recipe) == 6


@pytest.mark.parametrize(("validation", "keep_best", "problems"), [
    (0, "", 2 * 3 + 3), (5, "", 2 * 5 + 3), (5, "avg@8", 2 * 5 + 3 + 5 + 3),
])  # fmt: skip
def test_evaluations_to_come_take_what_the_last_one_took_by_problem(
    tmp_path: Path, validation: int, keep_best: str, problems: int
) -> None:
    """Two in the midst, one at the end on 3 problems; with keep_best also the last and best."""
    problems_of = {name: [Problem(f"{name}-{n}", "?") for n in range(many)]
                   for name, many in (("heldout", 3), ("validation", validation))}  # fmt: skip
    stored = {"seconds": 6.0, "attempts": [], "problems": digests(problems_of["heldout"])}
    (tmp_path / "before.json").write_text(json.dumps(stored))
    recipe = Recipe(eval=EvalConfig(keep_best=keep_best))
    task: Any = SimpleNamespace(**problems_of)
    judge = RunJudge(recipe, task, None, tmp_path)
    assert judge.seconds_to_come(2) == 0.0
    judge.students(None, "before", 0)
    assert judge.seconds_to_come(2) == 2.0 * problems
