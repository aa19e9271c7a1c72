"""The trainer on TRL's seam: what it takes and refuses, the teachers, evaluation, saved models."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, IterableDataset, Value
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from conftest import conversations, make_model
from distil import DistILTrainer
from distil.errors import RecipeError, RunError
from distil.trainer.rowchecks import check_rows
from trainertoys import by_length, generation_batch, lines, make_trainer


def test_the_seam_has_the_signatures_it_was_built_on() -> None:
    expected = {
        "_generate_and_score_completions": ["self", "inputs"],
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_compute_loss": ["self", "model", "inputs"],
    }
    for name, arguments in expected.items():
        assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == arguments


# ---------------------------------------------------------------- teachers


@pytest.mark.parametrize("kind", ["live", "frozen", "ema"])
def test_teachers_run_on_full_parameters(tmp_path: Path, kind: str) -> None:
    trainer = make_trainer(tmp_path, teacher=kind, teacher_ema_rate=0.5)
    trainer.train()
    assert trainer.state.global_step == 2


def test_the_average_may_lie_in_the_computers_memory(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, teacher="ema", teacher_ema_rate=0.5, teacher_shadow_device="cpu"
    )
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("kind", ["live", "frozen", "lora_off", "ema"])
def test_teachers_run_on_lora(tmp_path: Path, kind: str) -> None:
    from peft import LoraConfig

    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = make_trainer(tmp_path, teacher=kind, teacher_ema_rate=0.5, peft_config=lora)
    base = {n: p.clone() for n, p in trainer.model.named_parameters() if "lora_" not in n}
    trainer.train()
    assert all(torch.equal(p, base[n]) for n, p in trainer.model.named_parameters() if n in base)
    moved = [p.abs().max() for n, p in trainer.model.named_parameters() if "lora_B" in n]
    assert max(moved) > 0


# ---------------------------------------------------------------- what it takes, refuses and leaves


def test_a_saved_model_is_a_hugging_face_model(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for (name, ours), theirs in zip(
        trainer.model.named_parameters(), loaded.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("main", [True, False])
def test_only_the_main_process_writes_what_was_sharded(
    tmp_path: Path, main: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5.17, which vLLM asks for, doesn't see to it itself."""
    trainer = make_trainer(tmp_path)
    written: list[Any] = []
    monkeypatch.setattr("distil.trainer.trainer.by_fsdp2", lambda model: True)
    monkeypatch.setattr("transformers.TrainingArguments.should_save", main)
    monkeypatch.setattr(trainer, "_save", lambda folder, state_dict: written.append(folder))
    trainer.save_model(str(tmp_path / "model"))
    assert written == [str(tmp_path / "model")] * main


def test_one_context_of_autocast_for_all_sampling_and_none_for_others_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or each token would convert all weights anew, and a reward model compute in 16 bits."""
    found: dict[str, list[bool]] = {"sampling": [], "reward": [], "feedback": []}

    def note(name: str) -> None:
        found[name].append(torch.is_autocast_enabled("cpu"))

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        note("reward")
        return [float(i % 2) for i in range(len(completions))]

    def feedback(completions: list[Any], **columns: Any) -> list[str]:
        note("feedback")
        return ["no"] * len(completions)

    trainer = make_trainer(tmp_path, bf16=True, reward_funcs=reward, feedback_funcs=feedback)
    generate = trainer.model.generate
    monkeypatch.setattr(
        trainer.model, "generate", lambda *a, **k: [note("sampling"), generate(*a, **k)][1]
    )
    generation_batch(trainer)
    assert found == {"sampling": [True], "reward": [False], "feedback": [False]}


def test_plain_text_prompts_work(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"prompt": f"{i} + 1 = ", "answer": str(i + 1)} for i in range(8)])

    def reward(completions: list[str], **columns: Any) -> list[float]:
        return [float(len(c) % 2) for c in completions]

    trainer = make_trainer(tmp_path, train_dataset=rows, reward_funcs=reward)
    trainer.train()
    record = lines(tmp_path / "rollouts.jsonl")[0]
    assert record["teacher_prompt"].endswith(record["prompt"])


def test_evaluation_of_trl_works_and_writes_no_rollouts(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, per_device_eval_batch_size=4)
    metrics = trainer.evaluate(Dataset.from_list(conversations(2)))
    assert metrics["eval_distil/cost"] > 0
    assert not (tmp_path / "rollouts.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 0.9}, "another policy"),
        ({"top_k": 5}, "another policy"),
        ({"objective": {"top_k": 0}}, "top_k"),
    ],
)
def test_settings_that_would_bias_the_gradient_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        make_trainer(tmp_path, **options)


def test_local_credit_may_use_a_cut_sampler(tmp_path: Path) -> None:
    make_trainer(tmp_path, top_p=0.9, objective={"future": "none"}).train()


def test_an_empty_dataset_and_a_plain_grpo_config_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="empty"):
        make_trainer(tmp_path, train_dataset=Dataset.from_list([]))
    with pytest.raises(TypeError, match="DistILConfig"):
        DistILTrainer(make_model(), by_length, GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))


SAID: list[Any] = [{"role": "user", "content": "1 + 1 = ?"}]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["a", None], "Row 1 of the training dataset .* its prompt is None"),
        (["a", "b", ""], "Row 2 .* is an empty text"),
        ([3, 4], r"Row 0 .* is a int \(3\)"),
        ([SAID, []], "Row 1 .* is an empty list"),
        (
            [SAID, SAID, [{"role": "user", "content": None}]],
            "Row 2 .* number 0, that has a content which is None",
        ),
        ([[{"role": "user", "content": 3}]], r"number 0, that has a content which is a int \(3\)"),
        ([[*SAID, {"role": "", "content": "a"}]], "number 1, that has the role ''"),
        ([[{"content": "a"}]], "number 0, that has the role None"),
        ([["a"]], "number 0, that is a str"),
        ([{"role": "user", "content": "a"}], "Row 0 .* is a dict"),
    ],
)
def test_rows_that_cannot_be_asked_are_refused_before_the_model_is_touched(
    tmp_path: Path, prompts: list[Any], message: str
) -> None:
    rows = Dataset.from_dict({"prompt": prompts})
    with pytest.raises(RunError, match=message):
        make_trainer(tmp_path, model=object(), train_dataset=rows)
    judged = {"own": Dataset.from_dict({"prompt": [SAID]}), "other": rows}
    with pytest.raises(
        RunError, match=message.replace("training dataset", "evaluation dataset 'other'")
    ):
        make_trainer(tmp_path, model=object(), eval_dataset=judged)


def test_a_dataset_without_a_prompt_column_is_refused_with_the_names_it_has(
    tmp_path: Path,
) -> None:
    rows = Dataset.from_dict({"prompts": ["a"], "answer": ["1"]})
    message = "no column 'prompt'.*Perhaps you meant 'prompts'. Known: prompts, answer"
    for given in (rows, rows.to_iterable_dataset()):
        with pytest.raises(RunError, match=message):
            make_trainer(tmp_path, model=object(), train_dataset=given)


def test_an_instruction_is_a_text_or_none(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"prompt": [SAID] * 2, "instruction": [4, 5]})
    with pytest.raises(RunError, match=r"Row 0 .* its instruction is a int \(4\)"):
        make_trainer(tmp_path, model=object(), train_dataset=rows)
    check_rows(Dataset.from_dict({"prompt": [SAID], "instruction": [None]}), {})


def test_a_streamed_dataset_is_judged_by_its_columns_and_not_read(tmp_path: Path) -> None:
    def unread() -> Iterator[Any]:
        pytest.fail("a row was read")
        yield

    kinds = Features({"prompt": Value("int64")})
    rows = IterableDataset.from_generator(unread, features=kinds)
    with pytest.raises(RunError, match="column 'prompt' of the training dataset holds int64"):
        make_trainer(tmp_path, model=object(), train_dataset=rows)
    check_rows(IterableDataset.from_generator(unread), {})  # says nothing of itself
    texts = Features({"prompt": Value("string")})
    check_rows(IterableDataset.from_generator(unread, features=texts), {})


def test_rows_that_a_function_makes_are_judged_by_the_first() -> None:
    rows = Dataset.from_dict({"number": [1, 2]})
    check_rows(rows.with_transform(lambda b: {"prompt": [f"{n} + 1 =" for n in b["number"]]}), {})
    with pytest.raises(RunError, match=r"Row 0 .* is an empty text"):
        check_rows(rows.with_transform(lambda b: {"prompt": [""] * len(b["number"])}), {})


def test_an_environments_rows_need_no_prompt_and_a_tools_call_no_content() -> None:
    check_rows(Dataset.from_dict({"shelf": ["a"]}), {"environment_factory": object})
    call: Any = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    check_rows(Dataset.from_list([{"prompt": [*SAID, call]}]), {})
