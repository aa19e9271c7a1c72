"""Named objectives: what each brings, what can't go together, and that every option trains."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_model
from distil.config import (
    FeedbackConfig,
    ObjectiveConfig,
    Recipe,
    RolloutConfig,
)
from distil.errors import RecipeError
from distil.objectives import COSTS
from distil.recipe.algorithms import ALGORITHMS, algorithm, resolved
from distil.recipe.checks import check_recipe
from distil.trainer.assembly import cost_function
from distil.trainer.training_args import DistILConfig, as_objective
from trainertoys import generation_batch, gradient, make_trainer

# ---------------------------------------------------------------- names


def test_an_unknown_name_lists_the_known_and_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError) as raised:
        algorithm("revrese_kl")
    message = str(raised.value)
    assert "There is no objective 'revrese_kl'." in message
    assert "Perhaps you meant 'reverse_kl'." in message
    assert all(name in message for name in ALGORITHMS)
    assert "file.py:function" in message


def test_every_cost_that_a_name_brings_exists() -> None:
    assert {a.cost for a in ALGORITHMS.values()} == {*COSTS, None}
    for name, brings in ALGORITHMS.items():
        expected = COSTS[brings.cost] if brings.cost else None
        assert cost_function(ObjectiveConfig(name=name)) is expected


BROUGHT = {  # future, support (None: there is none to look at), advantage_weight
    "distil": ("sum", "teacher", 0),
    "forward_kl": ("none", "teacher", 0),
    "reverse_kl": ("none", "student", 0),
    "jensen_shannon": ("none", "student", 0),
    "distil+grpo": ("sum", "teacher", 1),
    "grpo": ("none", None, 0),
    "sft": ("none", None, 0),
    "as_released_math": ("none", "teacher", 0),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_null_fields_stand_for_what_the_name_brings(name: str) -> None:
    given = ObjectiveConfig(name=name)
    found = check_recipe(Recipe(objective=given)).objective
    future, support, advantage_weight = BROUGHT[name]
    assert (found.future, found.advantage_weight) == (future, advantage_weight)
    assert support in (None, found.support)
    # Nothing else is touched.
    as_given = {"future": None, "support": None, "advantage_weight": None}
    assert replace(found, **as_given) == given


def test_explicit_fields_win_over_the_names() -> None:
    given = ObjectiveConfig(
        name="distil+grpo", future="none", support="joined", advantage_weight=0.0, top_k=7
    )
    assert check_recipe(Recipe(objective=given)).objective == given
    assert resolved(given) == given
    half = resolved(ObjectiveConfig(name="reverse_kl", future="mean"))
    assert (half.future, half.support, half.advantage_weight) == ("mean", "student", 0.0)


def test_resolving_twice_is_resolving_once() -> None:
    for name in ALGORITHMS:
        once = resolved(ObjectiveConfig(name=name))
        assert resolved(once) == once
        assert None not in (once.future, once.support, once.advantage_weight)


def test_an_objective_may_be_a_name_a_dict_or_a_config() -> None:
    expected = resolved(ObjectiveConfig(name="reverse_kl"))
    for given in ("reverse_kl", {"name": "reverse_kl"}, ObjectiveConfig(name="reverse_kl")):
        assert as_objective(given) == expected
    with pytest.raises(RecipeError, match=r"no field 'suport'.*Perhaps you meant 'support'"):
        as_objective({"suport": "student"})
    with pytest.raises(RecipeError, match="objective is a int"):
        as_objective(3)


# ---------------------------------------------------------------- what can't go together


def recipe(
    objective: dict[str, Any] | None = None,
    rollout: dict[str, Any] | None = None,
    order: tuple[Any, ...] = ("sibling", "report", "expert"),
) -> Recipe:
    return Recipe(
        objective=ObjectiveConfig(**(objective or {})),
        rollout=RolloutConfig(**(rollout or {})),
        feedback=FeedbackConfig(order=order),
    )


TEACHERS_TOP = {"support": "teacher", "tail": False}
# Each impossible recipe: (fact, reason, way out) that its message must state, and a nearby possible
# recipe, which is the way out taken.
IMPOSSIBLE = [
    pytest.param(
        recipe({"name": "reverse_kl"} | TEACHERS_TOP),
        ("reverse_kl over the teacher's top_k", "cost nothing", "objective.tail: true"),
        recipe({"name": "reverse_kl", "support": "teacher", "tail": True}),
        id="reverse_kl, teacher's support, no tail",
    ),
    pytest.param(
        recipe({"name": "jensen_shannon"} | TEACHERS_TOP),
        ("jensen_shannon over the teacher's top_k", "cost nothing", "objective.support: student"),
        recipe({"name": "jensen_shannon", "support": "joined", "tail": False}),
        id="jensen_shannon, teacher's support, no tail",
    ),
    pytest.param(
        recipe({"name": "grpo", "future": "sum"}),
        ("objective.future is sum", "grpo has no cost", "Leave it out"),
        recipe({"name": "grpo", "future": "none"}),
        id="grpo and future",
    ),
    pytest.param(
        recipe({"name": "sft", "future": "mean"}),
        ("objective.future is mean", "sft has no cost", "another objective.name"),
        recipe({"name": "sft"}),
        id="sft and future",
    ),
    pytest.param(
        recipe({"name": "sft", "replay_batches": 2}),
        ("objective.replay_batches", "would do nothing under sft", "Leave them out"),
        recipe({"name": "distil", "replay_batches": 2}),
        id="sft and replay",
    ),
    pytest.param(
        recipe({"name": "grpo", "advantage_weight": 0.5}),
        ("objective.advantage_weight", "would do nothing under grpo", "another objective.name"),
        recipe({"name": "distil", "advantage_weight": 0.5}),
        id="grpo and advantage beside it",
    ),
    pytest.param(
        recipe({"name": "distil"}, {"top_p": 0.9}),
        ("top_p", "another policy", "objective.future: none"),
        recipe({"name": "distil", "future": "none"}, {"top_p": 0.9}),
        id="cut sampler and future",
    ),
    pytest.param(
        recipe({"name": "reverse_kl", "future": "mean"}, {"top_k": 20}),
        ("top_k", "another policy", "objective.future: none"),
        recipe({"name": "reverse_kl"}, {"top_k": 20}),
        id="cut sampler and a rival's future",
    ),
    pytest.param(
        recipe({"name": "grpo"}, {"num_generations": 1}, ("expert",)),
        ("num_generations is 1", "nothing to compare", "2 or more"),
        recipe({"name": "grpo"}, {"num_generations": 2}, ("expert",)),
        id="one rollout and grpo",
    ),
    pytest.param(
        recipe({"name": "distil+grpo"}, {"num_generations": 1}, ("expert",)),
        ("num_generations is 1", "nothing to compare", "2 or more"),
        recipe({"name": "distil+grpo", "advantage_weight": 0.0}, {"num_generations": 1}),
        id="one rollout and an advantage",
    ),
    pytest.param(
        recipe({"prompt_weight": "pass_rate"}, {"num_generations": 1}, ("expert",)),
        ("prompt_weight is pass_rate", "every weight is 0", "2 or more"),
        recipe({"prompt_weight": "pass_rate"}, {"num_generations": 4}, ("expert",)),
        id="one rollout and pass_rate",
    ),
    pytest.param(
        recipe({}, {"num_generations": 1}, ("sibling",)),
        ("sibling alone", "num_generations", "another source"),
        recipe({}, {"num_generations": 1}, ("sibling", "expert")),
        id="one rollout and siblings only",
    ),
    pytest.param(
        recipe({"name": "sft"}, order=("report",)),
        ("sft needs demonstrations", "only reports", "Add sibling or expert"),
        recipe({"name": "sft"}, order=("report", "expert")),
        id="sft and reports only",
    ),
]


@pytest.mark.parametrize(("impossible", "said", "possible"), IMPOSSIBLE)
def test_impossible_recipes_are_refused_with_a_reason_and_a_way_out(
    impossible: Recipe, said: tuple[str, ...], possible: Recipe
) -> None:
    with pytest.raises(RecipeError) as raised:
        check_recipe(impossible)
    message = str(raised.value)
    assert message.count("\n  - ") == 1  # this one fault, and no other
    for words in said:
        assert words in message
    check_recipe(possible)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as raised:
        check_recipe(
            recipe({"name": "grpo", "future": "sum", "replay_batches": 1}, {"num_generations": 1})
        )
    assert str(raised.value).count("\n  - ") == 3


@pytest.mark.parametrize(
    "options",
    [
        {"objective": {"name": "reverse_kl"} | TEACHERS_TOP},
        {"objective": {"name": "grpo", "future": "sum"}},
        {"objective": {"name": "sft", "replay_batches": 1}},
        {"objective": "distil", "top_p": 0.9},
        {"objective": "distil", "min_p": 0.1},
        {"objective": "distil", "repetition_penalty": 1.1},
        {"objective": "distil", "generation_kwargs": {"typical_p": 0.9}},
        {"objective": "distil", "generation_kwargs": {"min_new_tokens": 4}},
        {"objective": "forward_kl", "generation_kwargs": {"temperature": 0.5}},
        {"objective": "distil", "num_generations": 1, "per_device_train_batch_size": 1},
        {"objective": "grpo", "num_generations": 1},
        {"objective": {"prompt_weight": "pass_rate"}, "num_generations": 1},
        {"objective": {"replay_batches": -1}},
        {"objective": "no_such"},
    ],
    ids=str,
)
def test_the_trainers_arguments_are_refused_alike(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        DistILConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **options)


@pytest.mark.parametrize(("rows", "accumulated"), [(1, 3), (3, 1), (3, 5), (2, 1), (8, 2), (1, 7)])
def test_one_generation_a_prompt_goes_with_any_number_of_rollouts(
    tmp_path: Path, rows: int, accumulated: int
) -> None:
    args = DistILConfig(
        str(tmp_path), use_cpu=True, bf16=False, report_to="none", num_generations=1,
        per_device_train_batch_size=rows, gradient_accumulation_steps=accumulated,
    )  # fmt: skip
    assert args.num_generations == 1


def test_what_changes_no_policy_may_be_said(tmp_path: Path) -> None:
    same = {"typical_p": 1.0, "min_p": None, "top_k": 0, "temperature": 0.7, "use_cache": True}
    args = DistILConfig(
        str(tmp_path), use_cpu=True, bf16=False, report_to="none", temperature=0.7,
        generation_kwargs=same,
    )  # fmt: skip
    assert args.generation_kwargs == same
    DistILConfig(
        str(tmp_path), use_cpu=True, bf16=False, report_to="none", objective="forward_kl",
        generation_kwargs={"min_p": 0.1},
    )  # fmt: skip


# ---------------------------------------------------------------- one's own divergence

OWN = """
def mine(student_logps, teacher_logps):
    return (student_logps.exp() * (student_logps - teacher_logps)).sum(-1)

not_a_function = 3
"""


def test_ones_own_divergence_has_the_gradient_of_the_built_in_that_it_copies(
    tmp_path: Path,
) -> None:
    file = tmp_path / "my_own.py"
    file.write_text(OWN, encoding="utf-8")
    shared = {"support": "joined", "future": "mean"}
    found = []
    for name in (f"{file}:mine", "reverse_kl"):
        trainer = make_trainer(tmp_path / "run", objective={"name": name} | shared)
        batch = generation_batch(trainer)
        found.append(gradient(trainer, [batch]).clone())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)
    assert found[0].abs().max() > 1e-3


def test_ones_own_divergence_takes_distils_place(tmp_path: Path) -> None:
    file = tmp_path / "my_own.py"
    file.write_text(OWN, encoding="utf-8")
    own = resolved(ObjectiveConfig(name=f"{file}:mine"))
    assert own == replace(resolved(ObjectiveConfig()), name=f"{file}:mine")
    clipped = cost_function(replace(own, policy_space_clip=1.0))
    p, q = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.25, 0.75]]]).log()
    assert clipped is not None
    torch.testing.assert_close(clipped(p, q), COSTS["reverse_kl"](p, q))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("missing.py:mine", r"no file '.*missing\.py'.*folder that the command runs in"),
        ("my_own.py:other", r"my_own\.py defines no function 'other'.*one cost a token"),
        ("my_own.py:not_a_function", r"defines no function 'not_a_function'"),
        ("my_own.py:", r"defines no function ''"),
    ],
)
def test_a_missing_file_or_function_is_named(tmp_path: Path, named: str, message: str) -> None:
    (tmp_path / "my_own.py").write_text(OWN, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        make_trainer(tmp_path / "run", objective={"name": f"{tmp_path}/{named}"})


# ---------------------------------------------------------------- every option trains

STALE = {"steps_per_generation": 4, "per_device_train_batch_size": 2}
EVERY = [
    *({"name": name} for name in ALGORITHMS),
    {"name": "OWN", "support": "joined", "tail": False},
    {"name": "reverse_kl", "support": "teacher", "policy_space_clip": 2.0},
    {"future": "mean", "baseline": False, "reduction": "sequences", "prompt_weight": "pass_rate"},
    {"discount": 0.9, "future_weight": 0.5, "max_teacher_entropy": 4.08},  # the toy's mean: 4.07
    {"support": "student", "replay_batches": 1, "first_error_margin": 0.02},
    {"ratio": "none", "stale": True},
    {"ratio": "token_clipped", "stale": True},
    {"ratio": "token_symmetric", "name": "distil+grpo", "scale_rewards": "batch", "stale": True},
    {"ratio": "prefix", "stale": True},
]


@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_every_option_trains(tmp_path: Path, objective: dict[str, Any]) -> None:
    objective = dict(objective)
    options: dict[str, Any] = dict(STALE) if objective.pop("stale", False) else {}
    if objective.get("name") == "OWN":
        (tmp_path / "my_own.py").write_text(OWN, encoding="utf-8")
        objective["name"] = f"{tmp_path}/my_own.py:mine"
    if objective.get("name") == "as_released_math":
        # A near-certain model: some costs must lie below that code's clamp of 0.05 nat.
        options |= {"model": make_model(4), "temperature": 0.02}
    trainer = make_trainer(
        tmp_path, objective=objective, feedback_order=["sibling", "expert"], weight_decay=0.0,
        max_completion_length=4,
        **options,
    )  # fmt: skip
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.train()
    logged = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logged) == 2
    for log in logged:
        assert math.isfinite(log["loss"])
        assert math.isfinite(log["grad_norm"])
    changed = [
        (a - b).abs().max().item() for a, b in zip(before, trainer.model.parameters(), strict=True)
    ]
    assert max(changed) > 1e-3
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
