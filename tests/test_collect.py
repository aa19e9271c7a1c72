"""From graded rollouts to what the teacher is shown, in the trainer: rewards, feedback, contexts.

The choice by itself is tested in `test_feedback.py`, the prompts' text in `test_prompts.py`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distil import Feedback
from distil.errors import FeedbackError, RecipeError, TrainingError
from distil.trainer.rewards import RewardWatch
from distil.trainer.rolloutlog import grading_failed
from trainertoys import generation_batch, lines, make_trainer

# ---------------------------------------------------------------- rewards


def test_nothing_graded_at_all_ends_the_run_and_one_in_eight_is_enough(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, reward_funcs=lambda completions, **_: [None] * len(completions)
    )
    with pytest.raises(FeedbackError, match="Not one of this step's 8"):
        trainer.train()

    def one(completions: list[Any], **columns: Any) -> list[float | None]:
        return [1.0, *[None] * (len(completions) - 1)]

    trainer = make_trainer(tmp_path / "b", reward_funcs=one, max_steps=1)
    trainer.train()
    (log,) = [log for log in trainer.state.log_history if "loss" in log]
    assert log["feedback/ungraded"] == 7 / 8


def broken(completions: list[Any], **columns: Any) -> list[float]:
    raise KeyError("gold")


def third_says(**fields: Any) -> Callable[..., list[Any]]:
    def odd(completions: list[Any], **columns: Any) -> list[Any]:
        return [Feedback(**fields) if i == 2 else None for i in range(len(completions))]

    return odd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_funcs": broken}, "step 1 failed with KeyError"),
        ({"reward_funcs": lambda completions, **c: [1.0]}, "one reward per completion|1 rewards"),
        ({"reward_funcs": lambda completions, **c: 1.0}, "TypeError"),
        ({"feedback_funcs": broken}, "'broken' raised KeyError"),
        ({"feedback_funcs": lambda **c: ["a"]}, "1 answers for 8"),
        ({"feedback_funcs": lambda completions, **c: [3] * len(completions)}, "returned a int"),
        ({"feedback_funcs": third_says(text=3)}, r"'odd' .* text is a int \(3\), for completion 2"),
        ({"feedback_funcs": third_says(demonstration=["a"])}, "demonstration is a list"),
        ({"feedback_funcs": third_says(source=None)}, "source is a NoneType"),
        ({"feedback_funcs": third_says(reward="1")}, "reward is a str"),
        ({"feedback_funcs": third_says(progress="all")}, "progress is a str"),
    ],
)
def test_broken_reward_and_feedback_functions_are_named(
    tmp_path: Path, options: dict[str, Callable[..., Any]], message: str
) -> None:
    with pytest.raises(FeedbackError, match=message):
        make_trainer(tmp_path, **options).train()


def test_rollouts_of_a_broken_reward_function_are_kept(tmp_path: Path) -> None:
    with pytest.raises(FeedbackError, match=r"ungraded\.jsonl"):
        make_trainer(tmp_path, reward_funcs=broken).train()
    kept = lines(tmp_path / "ungraded.jsonl")
    assert len(kept) == 8
    assert kept[0]["completion"][0]["role"] == "assistant"


def test_each_process_keeps_the_rollouts_that_it_could_not_grade(tmp_path: Path) -> None:
    for process, name in enumerate(("ungraded.jsonl", "ungraded-process-1.jsonl")):
        said = grading_failed(ValueError(), tmp_path, 3, ["q"], [f"answer {process}"], process)
        assert name in str(said)
        assert lines(tmp_path / name) == [{"prompt": "q", "completion": f"answer {process}"}]
    assert len(list(tmp_path.iterdir())) == 2


def test_ungraded_rollouts_are_no_successes_and_are_counted(tmp_path: Path) -> None:
    def sometimes(completions: list[Any], **columns: Any) -> list[float | None]:
        return [None if i % 4 == 0 else 1.0 for i in range(len(completions))]

    trainer = make_trainer(tmp_path, reward_funcs=sometimes)
    trainer.train()
    log = next(x for x in trainer.state.log_history if "feedback/ungraded" in x)
    assert log["feedback/ungraded"] == 0.25


# ---------------------------------------------------------------- what the teacher is shown


@pytest.mark.parametrize("objective", ["distil", "grpo"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e39, torch.tensor(math.inf)])
def test_a_reward_that_is_no_finite_number_is_ungraded_as_none_is(
    tmp_path: Path, objective: str, value: Any
) -> None:
    def first_is(value: Any) -> Callable[..., list[Any]]:
        def odd(completions: list[Any], **columns: Any) -> list[Any]:
            return [value, *(float(i % 2) for i in range(1, len(completions)))]

        return odd

    options = {"max_steps": 2, "objective": {"name": objective}}
    trainer = make_trainer(tmp_path / "odd", reward_funcs=first_is(value), **options)
    with pytest.warns(UserWarning, match="'odd' returned -?(inf|nan) for 1") as said:
        trainer.train()
    ours = [w for w in said if "reward function" in str(w.message)]
    assert len(ours) == 1  # though each step had one
    twin = make_trainer(tmp_path / "none", reward_funcs=first_is(None), **options)
    twin.train()
    text = (tmp_path / "odd/rollouts.jsonl").read_text(encoding="utf-8")
    assert text == (tmp_path / "none/rollouts.jsonl").read_text(encoding="utf-8")
    log = next(x for x in trainer.state.log_history if "loss" in x)
    assert log["feedback/ungraded"] == 1 / 8
    weights, others = trainer.model.state_dict(), twin.model.state_dict()
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


def test_an_async_reward_that_is_infinite_is_ungraded_where_another_function_says_nothing(
    tmp_path: Path,
) -> None:
    class Judge:
        async def __call__(self, completions: list[Any], **columns: Any) -> list[float]:
            return [math.inf if i == 2 else 1.0 for i in range(len(completions))]

    def silent(completions: list[Any], **columns: Any) -> list[None]:
        return [None] * len(completions)

    trainer = make_trainer(tmp_path, reward_funcs=[silent, Judge()], max_steps=1)
    with pytest.warns(UserWarning, match="'Judge' returned inf for 1"):
        trainer.train()
    rewards = [line["reward"] for line in lines(tmp_path / "rollouts.jsonl")]
    assert rewards == [1.0, 1.0, None, *[1.0] * 5]


@pytest.mark.filterwarnings("ignore:The reward function 'hopeless' returned nan for 8")
def test_where_no_reward_is_a_finite_number_the_error_says_what_was_returned(
    tmp_path: Path,
) -> None:
    def hopeless(completions: list[Any], **columns: Any) -> list[float]:
        return [math.nan] * len(completions)

    with pytest.raises(FeedbackError, match="the reward function 'hopeless' returned nan, which"):
        make_trainer(tmp_path, reward_funcs=hopeless).train()


def test_a_reward_models_infinite_logit_is_named_and_ungraded() -> None:
    watch = RewardWatch(["model"])
    assert watch.watched([model := torch.nn.Linear(1, 1)]) == [model]
    with pytest.warns(UserWarning, match="'model' returned inf and nan for 2"):
        found = watch.finite(torch.tensor([[1.0], [math.inf], [math.nan]]))
    assert found[0] == 1
    assert found[1:].isnan().all()


def test_half_of_a_character_in_feedback_is_written_out(tmp_path: Path) -> None:
    """No tokenizer takes it, and no file in UTF-8."""

    def says(completions: list[Any], **columns: Any) -> list[Any]:
        told = Feedback(text="wrong \ud83d", demonstration="it is \udc80")
        return [told, "no \ud83d", *[None] * (len(completions) - 2)]

    def nothing(completions: list[Any], **columns: Any) -> list[float]:
        return [0.0] * len(completions)

    trainer = make_trainer(tmp_path, feedback_funcs=says, reward_funcs=nothing)
    generation_batch(trainer)
    first, second = (r["feedback"][0] for r in trainer.rollout_log._records[:2])
    assert (first["text"], first["demonstration"]) == ("wrong \\ud83d", "it is \\udc80")
    assert second["text"] == "no \\ud83d"
    trainer.rollout_log.close_step()


def test_siblings_come_before_the_expert_and_from_the_same_group(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, feedback_order=["sibling", "expert"])
    generation_batch(trainer)
    records = trainer.rollout_log._records
    for record in records:
        others = [
            r["completion"]
            for r in records
            if r["group"] == record["group"] and r["row"] != record["row"] and r["reward"] == 1
        ]
        kind = "sibling" if any(o.strip() for o in others) else "expert"
        assert record["context"] == kind
        if kind == "sibling":
            shown = record["teacher_prompt"][0]["content"]
            assert min((o.strip() for o in others if o.strip()), key=len) in shown


def test_long_feedback_is_cut_and_counted(tmp_path: Path) -> None:
    def long(completions: list[Any], **columns: Any) -> list[Feedback]:
        return [Feedback(demonstration="word " * 100) for _ in completions]

    trainer = make_trainer(
        tmp_path, feedback_funcs=long, feedback_order=["expert"], max_teacher_prompt_length=150
    )
    trainer.train()
    log = next(x for x in trainer.state.log_history if "feedback/cut" in x)
    assert log["feedback/cut"] == 1.0
    records = lines(tmp_path / "rollouts.jsonl")
    for record in records:
        content = record["teacher_prompt"][0]["content"]
        assert content.startswith(record["prompt"][0]["content"])
        assert content.endswith("short.")


def test_solution_and_report_are_shown_together_within_a_budget(tmp_path: Path) -> None:
    def both(completions: list[Any], answer: list[str], **columns: Any) -> list[Feedback]:
        return [Feedback(text="wrong " * 20, demonstration=f"it is {a}") for a in answer]

    trainer = make_trainer(
        tmp_path, feedback_funcs=[both, lambda completions, **c: ["second"] * len(completions)],
        feedback_order=["report", "expert"], feedback_combine="all", max_feedback_tokens=40,
        reward_funcs=lambda completions, **c: [float(i % 2) for i in range(len(completions))],
        max_steps=1,
    )  # fmt: skip
    trainer.train()
    metrics = lines(tmp_path / "metrics.jsonl")[0]
    names = ("feedback/report", "feedback/expert", "feedback/none", "feedback/cut")
    assert [metrics[n] for n in names] == [0.5, 1.0, 0.0, 0.5]
    for record in lines(tmp_path / "rollouts.jsonl"):
        assert [f["source"] for f in record["feedback"]] == ["", "<lambda>"]
        shown = record["teacher_prompt"][0]["content"]
        solution = record["feedback"][0]["demonstration"]
        assert f"A correct solution:\n{solution}" in shown
        if record["reward"] == 1:
            assert record["context"] == "expert"
            continue
        assert record["context"] == "report+expert"
        report = "Feedback on an earlier, unsuccessful attempt:\n"
        kept = 40 - len(solution) - len("\n[...]\n")
        head, tail = (kept + 1) // 2, kept // 2
        text = "wrong " * 20
        assert f"{report}{text[:head]}\n[...]\n{text[-tail:]}" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback_order": ["sibling", "exprt"]}, "'exprt'.*Perhaps you meant 'expert'"),
        ({"feedback_order": "exprt"}, "'exprt'.*Perhaps you meant 'expert'"),
        ({"feedback_order": []}, "feedback_order is empty"),
        ({"teacher_shadow_device": "gpu"}, "'gpu'.*Known: same, cpu|'gpu'.*Perhaps you meant"),
        ({"feedback_combine": "al"}, "'al'.*Perhaps you meant 'all'"),
        ({"sibling_choice": "longest"}, "'longest'.*Known: shortest, random, first"),
        ({"max_feedback_tokens": 3}, "max_feedback_tokens is 3"),
    ],
)
def test_unknown_ways_of_feedback_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        make_trainer(tmp_path, **options)


def test_one_source_may_stand_by_itself(tmp_path: Path) -> None:
    assert make_trainer(tmp_path, feedback_order="expert").args.feedback_order == ["expert"]


def test_the_header_above_a_demonstration_can_be_changed_or_left_out(tmp_path: Path) -> None:
    for header, expected in (
        ("Look:", "short.\n\nLook:\nthe answer"),
        ("", "short.\n\nthe answer"),
    ):
        trainer = make_trainer(tmp_path, feedback_order=["expert"], demonstration_header=header)
        generation_batch(trainer)
        shown = trainer.rollout_log._records[0]["teacher_prompt"][0]["content"]
        assert expected in shown


def test_another_chat_template_for_the_teacher_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = generation_batch(trainer)
    with pytest.raises(TrainingError, match="chat template"):
        trainer.encoder.check_same_template(batch, [{"role": "user", "content": "other"}])
