"""Suites: what they say, what is refused before anything runs, and which recipes they make."""

from pathlib import Path
from typing import Any

import pytest

from compared import RECIPE, SUITE, Pretend, no_figure, write_suite
from distil.cli import main
from distil.compare import compare
from distil.compare.merge import merge
from distil.compare.plan import judged_runs, possible_runs, tuning_runs
from distil.compare.suite import load_suite
from distil.config import Recipe
from distil.errors import RecipeError, SuiteError
from distil.recipe.presets import PRESETS

__all__ = ["no_figure"]  # a fixture


def test_every_rate_is_tuned_on_other_problems_and_judged_on_the_recipes(tmp_path: Path) -> None:
    suite = load_suite(write_suite(tmp_path))
    tuning = tuning_runs(suite)
    assert [run.name for run in tuning] == [
        "distil-lr0.01-seed100", "grpo-lr0.01-seed100", "distil-lr0.1-seed100",
        "grpo-lr0.1-seed100",
    ]  # fmt: skip
    assert {(r.recipe.train.seed, r.recipe.task.seed) for r in tuning} == {(100, 100)}
    judged = judged_runs(suite, {"distil": 0.1, "grpo": 0.01})
    assert [run.name for run in judged] == [
        "distil-lr0.1-seed0", "grpo-lr0.01-seed0", "distil-lr0.1-seed1", "grpo-lr0.01-seed1",
    ]  # fmt: skip
    assert [(r.recipe.train.seed, r.recipe.task.seed) for r in judged] == [(0, 0)] * 2 + [
        (1, 0)
    ] * 2
    assert judged[1].recipe.objective.name == "grpo"
    assert judged[1].recipe.eval.every == 1
    assert judged[1].recipe.train.learning_rate == 0.01
    assert judged[1].recipe.train.output_dir == str(tmp_path / "out/runs/grpo-lr0.01-seed0")
    assert len(possible_runs(suite)) == 4 + 2 * 2 * 2


def test_a_contender_that_fixes_its_rate_is_not_tuned(tmp_path: Path) -> None:
    contenders = {"distil": {}, "slow": {"train": {"learning_rate": 1e-6}}}
    suite = load_suite(write_suite(tmp_path, contenders=contenders))
    assert {run.contender for run in tuning_runs(suite)} == {"distil"}
    assert suite.grid("slow") == (1e-6,)


@pytest.mark.parametrize("rates", [[], [0.01]])
def test_one_rate_or_none_is_not_tuned(tmp_path: Path, rates: list[float]) -> None:
    suite = load_suite(write_suite(tmp_path, learning_rates=rates))
    assert tuning_runs(suite) == []
    assert suite.grid("grpo") == (rates[0] if rates else Recipe().train.learning_rate,)


def test_rates_are_sorted_and_may_lack_a_point(tmp_path: Path) -> None:
    file = write_suite(tmp_path)
    file.write_text(file.read_text().replace("- 0.1", "- 1e-3"))  # YAML 1.1 reads 1e-3 as text
    assert load_suite(file).learning_rates == (0.001, 0.01)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": [1]}, "unknown field 'seed'. Perhaps you meant 'seeds'."),
        ({"recipe": None}, "lacks the field 'recipe'. It needs recipe, reference, seeds,"),
        ({"contenders": None}, "lacks the field 'contenders'"),
        ({"recipe": "nowhere.yaml"}, "can't be read: No such file"),
        ({"reference": "distill"}, "'distill' is no contender. Perhaps you meant 'distil'."),
        ({"reference": "x"}, "'x' is no contender. Known: distil, grpo."),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": 3}, "seeds is 3, and must be a list such as [0, 1, 2]."),
        ({"seeds": [0, -1]}, "seeds has -1, and must hold whole numbers from 0 on."),
        ({"seeds": [0, 0]}, "seeds names a seed twice: [0, 0]."),
        ({"seeds": [0, 100]}, "share [100]"),
        ({"tuning_seeds": []}, "learning_rates has 2 values and tuning_seeds none"),
        ({"tuning_seeds": [0], "seeds": [1]}, "task.seed is 0, which is a tuning seed too"),
        ({"learning_rates": [0.1, 0]}, "learning_rates is [0.1, 0]: list distinct numbers above"),
        ({"learning_rates": ["fast"]}, "learning_rates is ['fast']"),
        ({"learning_rates": [0.1, 0.1]}, "list distinct numbers above 0."),
        ({"learning_rates": 0.1}, "learning_rates is 0.1"),
        ({"jobs": 0}, "jobs has 0, and must hold whole numbers from 1 on."),
        ({"keep_models": "no"}, "keep_models is 'no', and must be true or false."),
        ({"output_dir": ""}, "output_dir is '', and must be text."),
        ({"contenders": []}, "contenders must be names, each with its changes"),
        ({"contenders": {"a/b": {}}}, "A contender is called 'a/b'. Its name becomes a folder's"),
        ({"contenders": {"distil": 3}}, "contender 'distil' is 3, and must be groups of fields"),
        ({"contenders": {"distil": {"trian": {}}}}, "Perhaps you meant 'train'."),
        ({"contenders": {"distil": {"objective": {"name": "grop"}}}}, "Perhaps you meant 'grpo'."),
        ({"contenders": {"distil": {"preset": "spdo-science"}}}, "Perhaps you meant 'sdpo-science"),
        (
            {"contenders": {"distil": {"train": {"steps": "many"}}}},
            "--train.steps: invalid literal",
        ),
        ({"common": {"train": {"seed": 3}}}, "common sets train.seed, which the suite's 'seeds'"),
        ({"common": {"train": {"output_dir": "x"}}}, "which the suite's 'output_dir' decides."),
        ({"common": {"eval": {"evry": 1}}}, "In common: Unknown field 'eval.evry'."),
        ({"common": {"eval": {"every": -1}}}, "eval.every is -1, and must be at least 0."),
        ({"common": {"task": {"eval_size": 0}}}, "nothing to compare on"),
    ],
)
def test_a_wrong_suite_is_refused_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    file = write_suite(tmp_path, **changes)
    with pytest.raises(SuiteError) as refused:
        load_suite(file)
    assert expected in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": {"train_size": 50}}, "task.train_size: distil has 200, other has 50"),
        ({"eval": {"samples": 2}}, "eval.samples: distil has 4, other has 2"),
        ({"rollout": {"max_completion_length": 9}}, "rollout.max_completion_length: distil has"),
        ({"train": {"steps": 3}}, "rollouts: distil spends 8, other 12"),
    ],
)
def test_unequal_terms_are_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    file = write_suite(tmp_path, contenders={"distil": {}, "other": changes})
    with pytest.raises(SuiteError, match="would not be compared on the same problems") as refused:
        load_suite(file)
    assert expected in str(refused.value)


def test_one_budget_may_be_spent_in_other_steps(tmp_path: Path) -> None:
    other = {"train": {"steps": 1}, "rollout": {"prompts_per_step": 4}, "eval": {"every": 2}}
    suite = load_suite(write_suite(tmp_path, contenders={"distil": {}, "other": other}))
    assert suite.recipe("other").train.steps == 1


def test_a_contender_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    file = write_suite(tmp_path)
    lines = file.read_text(encoding="utf-8").splitlines()
    again = lines.index("contenders:") + 1
    lines.insert(again, lines[again])
    file.write_text("\n".join(lines), encoding="utf-8")
    wanted = f"twice in one group, in line {again + 1} and in line {again + 2}, and only the last"
    with pytest.raises(SuiteError, match=wanted):
        load_suite(file)


def test_the_command_says_what_is_wrong_with_a_suite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path / "missing.yaml")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("distil: SuiteError: The suite ")
    assert "can't be read: No such file or directory." in said
    assert main(["compare", str(tmp_path), "--report-onyl"]) == 2
    assert "--report-only" in capsys.readouterr().err
    assert issubclass(SuiteError, RecipeError)


# ---------------------------------------------------------------- changes over a recipe

BASE = Recipe().as_dict()


def test_changes_go_field_by_field_and_leave_the_base() -> None:
    made = merge(BASE, {"train": {"steps": 3}, "model": {"lora": {"rank": 4}}})
    assert made["train"] == {**BASE["train"], "steps": 3}
    assert made["model"] == {**BASE["model"], "lora": {**BASE["model"]["lora"], "rank": 4}}
    assert made["objective"] == BASE["objective"]
    assert Recipe().as_dict() == BASE


def test_options_belong_to_their_task() -> None:
    base = merge(BASE, {"task": {"options": {"a": 1, "b": 2}}})
    assert merge(base, {"task": {"options": {"a": 3}}})["task"]["options"] == {"a": 3}
    assert merge(base, {"task": {"name": "another"}})["task"]["options"] == {}
    assert merge(base, {"task": {"name": "chain_sum"}})["task"]["options"] == {"a": 1, "b": 2}


def test_another_objective_brings_its_own_credit_and_support() -> None:
    base = merge(BASE, {"objective": {"future": "mean", "support": "teacher", "top_k": 7}})
    rival = merge(base, {"objective": {"name": "reverse_kl"}})["objective"]
    assert (rival["future"], rival["support"], rival["top_k"]) == (None, None, 7)
    said = merge(base, {"objective": {"name": "reverse_kl", "future": "sum"}})["objective"]
    assert (said["future"], said["support"]) == ("sum", None)
    assert merge(base, {"objective": {"name": "distil"}}) == base


def test_a_preset_lies_between_base_and_changes() -> None:
    base = merge(BASE, {"train": {"steps": 7, "learning_rate": 0.5}})
    made = merge(base, {"preset": "sdpo-science", "train": {"learning_rate": 0.25}})
    assert made["preset"] == "sdpo-science"
    assert made["objective"]["name"] == PRESETS["sdpo-science"]["objective"]["name"]
    assert made["train"]["learning_rate"] == 0.25
    assert made["train"]["steps"] == 7


# ---------------------------------------------------------------- a suite that changes


def test_a_changed_recipe_is_refused_with_what_differs(tmp_path: Path) -> None:
    assert compare(write_suite(tmp_path), launch=Pretend()) == 0
    other = {**RECIPE, "train": {**RECIPE["train"], "weight_decay": 0.5}}
    with pytest.raises(SuiteError) as refused:
        compare(write_suite(tmp_path, base=other), launch=Pretend())
    assert "train.weight_decay: was 0.01, is 0.5" in str(refused.value)
    assert "was begun with another recipe" in str(refused.value)


def test_contenders_and_seeds_may_be_added_and_only_they_run(tmp_path: Path) -> None:
    assert compare(write_suite(tmp_path), launch=Pretend()) == 0
    contenders = {**SUITE["contenders"], "sft": {"objective": {"name": "sft"}}}
    more = Pretend()
    file = write_suite(tmp_path, contenders=contenders, seeds=[0, 1, 2])
    assert compare(file, launch=more) == 0
    assert sorted(more.trained) == [
        "distil-lr0.01-seed2", "grpo-lr0.01-seed2", "sft-lr0.01-seed0", "sft-lr0.01-seed1",
        "sft-lr0.01-seed100", "sft-lr0.01-seed2", "sft-lr0.1-seed100",
    ]  # fmt: skip


SHIPPED = sorted((Path(__file__).parent.parent / "suites").rglob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_every_suite_that_we_ship_can_run(file: Path) -> None:
    assert possible_runs(load_suite(file))
