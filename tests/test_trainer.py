"""The trainer on TRL's seam: alignment, padding, micro-batches, masks, teachers, errors, files."""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from conftest import conversations, make_model, make_tokenizer
from distil import DistILConfig, DistILTrainer, Feedback
from distil.errors import FeedbackError, RecipeError, RunError, TrainingError
from distil.objectives import forward_cross_entropy, future_credit, leave_one_out


def by_length(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that some rollouts of a group get and others don't."""
    return [float(len(c[0]["content"]) % 2) for c in completions]


def solution(prompts: list[Any], answer: list[str], **columns: Any) -> list[Feedback]:
    return [Feedback(demonstration=f"the answer is {a}") for a in answer]


def make_trainer(folder: Path, *, model: Any = None, **options: Any) -> DistILTrainer:
    """A trainer of 2 prompts x 4 rollouts a step on the toy model; options override anything."""
    trainer_options = {
        "reward_funcs": options.pop("reward_funcs", by_length),
        "feedback_funcs": options.pop("feedback_funcs", solution),
        "peft_config": options.pop("peft_config", None),
        "rollout_func": options.pop("rollout_func", None),
        "tools": options.pop("tools", None),
        "environment_factory": options.pop("environment_factory", None),
        "processing_class": options.pop("processing_class", None) or make_tokenizer(),
        "train_dataset": options.pop("train_dataset", Dataset.from_list(conversations(8))),
        "eval_dataset": options.pop("eval_dataset", None),
    }
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": 3,
    }
    objective = {"top_k": 5} | options.pop("objective", {})
    return DistILTrainer(
        make_model() if model is None else model,
        args=DistILConfig(**(settings | options), objective=objective),
        **trainer_options,
    )


def change_objective(trainer: DistILTrainer, **changes: Any) -> None:
    """Another objective for the loss of batches that are made already."""
    trainer.objective = replace(trainer.objective, **changes)
    if trainer.builder is not None:
        trainer.builder = replace(trainer.builder, objective=trainer.objective)


def generation_batch(trainer: DistILTrainer) -> dict[str, Any]:
    """One generation batch with teacher scores, as TRL would split it into micro-batches."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    rows = [r for r in conversations(2) for _ in range(4)]
    torch.manual_seed(11)
    return trainer._generate_and_score_completions(rows)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def gradient(trainer: DistILTrainer, batches: list[dict[str, Any]]) -> Tensor:
    """The parameters' gradient after the loss of each micro-batch."""
    trainer.model.zero_grad()
    for batch in batches:
        trainer._compute_loss(trainer.model, batch).backward()
    parts = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
    return torch.cat(parts)


def rows_of(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    return {k: v[rows] if v.dim() > 0 else v for k, v in batch.items()}


def plain_gradient(
    trainer: DistILTrainer,
    batch: dict[str, Any],
    teacher_prompts: list[str],
    spoken: Tensor | None = None,
) -> Tensor:
    """The same gradient the long way: full logits, row by row, no padding, no chunks.

    spoken: 0 at tokens that a tool wrote.
    """
    model, encode = trainer.model, trainer.processing_class
    costs, logps = [], []
    for row, text in enumerate(teacher_prompts):
        length = int(batch["completion_mask"][row].sum())
        completion = batch["completion_ids"][row, :length]
        student_prompt = batch["prompt_ids"][row][batch["prompt_mask"][row] > 0]
        teacher_prompt = torch.tensor(encode(text)["input_ids"])

        def scores(prompt: Tensor, completion: Tensor = completion) -> Tensor:
            logits = model(input_ids=torch.cat([prompt, completion])[None]).logits[0]
            return (logits[len(prompt) - 1 : -1] / trainer.temperature).log_softmax(-1)

        with torch.no_grad():
            teacher = scores(teacher_prompt)
        student = scores(student_prompt)
        top = teacher.topk(trainer.objective.top_k)
        tail = [
            torch.log1p(-x.exp().sum(-1, keepdim=True))
            for x in (top.values, student.gather(-1, top.indices))
        ]
        q = torch.cat([top.values, tail[0]], -1)
        p = torch.cat([student.gather(-1, top.indices), tail[1]], -1)
        costs.append(-(q.exp() * p).sum(-1))
        logps.append(student.gather(-1, completion[:, None])[:, 0])
    cost = torch.nn.utils.rnn.pad_sequence(costs, batch_first=True)
    logp = torch.nn.utils.rnn.pad_sequence(logps, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(c)) for c in costs], batch_first=True)
    mask = mask if spoken is None else mask * spoken
    credit = future_credit(cost, mask)
    credit = credit - leave_one_out(credit, mask, 4)
    loss = ((cost + logp * credit) * mask).sum() / mask.sum()
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def teacher_texts(trainer: DistILTrainer) -> list[str]:
    """The teacher prompts that the trainer says it used, rendered."""
    records = trainer.rollout_log._records
    render = trainer.processing_class.apply_chat_template
    return [
        render(r["teacher_prompt"], tokenize=False, add_generation_prompt=True) for r in records
    ]


def test_the_seam_has_the_signatures_it_was_built_on() -> None:
    expected = {
        "_generate_and_score_completions": ["self", "inputs"],
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_compute_loss": ["self", "model", "inputs"],
    }
    for name, arguments in expected.items():
        assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == arguments


@pytest.mark.parametrize(("tied", "temperature"), [(True, 1.0), (False, 1.0), (True, 0.7)])
def test_gradient_equals_the_plain_computation(
    tmp_path: Path, tied: bool, temperature: float
) -> None:
    model = make_model(tied=tied)
    trainer = make_trainer(
        tmp_path, model=model, feedback_order=["expert"], temperature=temperature,
        objective={"credit_end": True},
    )  # fmt: skip
    batch = generation_batch(trainer)
    texts = teacher_texts(trainer)
    assert len({int(n) for n in batch["completion_mask"].sum(1)}) > 1  # lengths differ
    halves = [rows_of(batch, [0, 2, 4, 6]), rows_of(batch, [1, 3, 5, 7])]
    ours = gradient(trainer, halves).clone()
    torch.testing.assert_close(ours, plain_gradient(trainer, batch, texts), rtol=1e-4, atol=1e-6)
    assert ours.abs().max() > 1e-3


def test_one_batch_or_many_micro_batches_in_any_order_give_one_gradient(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8)
    batch = generation_batch(trainer)
    whole = gradient(trainer, [batch]).clone()
    for splits in ([[3], [1], [0], [7], [2], [6], [5], [4]], [[5, 0, 3], [1, 7], [2, 4, 6]]):
        parts = gradient(trainer, [rows_of(batch, rows) for rows in splits])
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_padding_on_either_side_changes_nothing(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = generation_batch(trainer)
    padded = dict(batch)
    pad = torch.nn.functional.pad
    padded["prompt_ids"] = pad(batch["prompt_ids"], (5, 0), value=2)
    padded["prompt_mask"] = pad(batch["prompt_mask"], (5, 0))
    padded["completion_ids"] = pad(batch["completion_ids"], (0, 4), value=2)
    also = ("scored", "teacher_entropy", "baseline", "weight", "score_weight")
    for name in ("completion_mask", "active", *also):
        padded[name] = pad(batch[name], (0, 4))
    padded["teacher_sampled_logps"] = pad(batch["teacher_sampled_logps"], (0, 4))
    for name in ("support_ids", "teacher_logps"):
        padded[name] = pad(batch[name], (0, 0, 0, 4))
    torch.testing.assert_close(
        gradient(trainer, [padded]), gradient(trainer, [batch]).clone(), rtol=1e-5, atol=1e-6
    )


def test_teacher_batch_size_changes_no_score(tmp_path: Path) -> None:
    one = generation_batch(
        make_trainer(tmp_path / "a", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    )
    two = generation_batch(
        make_trainer(tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=8)
    )
    assert torch.equal(one["completion_ids"], two["completion_ids"])
    torch.testing.assert_close(one["teacher_logps"], two["teacher_logps"], rtol=0, atol=1e-5)
    torch.testing.assert_close(one["baseline"], two["baseline"], rtol=0, atol=1e-5)


def test_a_baseline_within_the_pass_is_the_one_computed_before(tmp_path: Path) -> None:
    """One micro-batch sees whole groups, several don't: the gradient is the same."""
    one = make_trainer(tmp_path / "a", per_device_train_batch_size=8, gradient_accumulation_steps=1)
    two = make_trainer(tmp_path / "b", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    whole, parts = generation_batch(one), generation_batch(two)
    assert "baseline" not in whole
    assert "group" not in parts
    torch.testing.assert_close(whole["completion_ids"], parts["completion_ids"])
    halves = [rows_of(parts, [0, 1, 4, 5]), rows_of(parts, [2, 3, 6, 7])]
    expected = gradient(two, halves).clone()
    assert expected.abs().max() > 1e-3
    shuffled = rows_of(whole, [5, 2, 7, 0, 3, 6, 1, 4])
    torch.testing.assert_close(gradient(one, [shuffled]), expected, rtol=1e-5, atol=1e-6)


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


def test_the_files_of_rollouts_stay_within_their_bound(tmp_path: Path) -> None:
    """The newest steps are there, each once; the oldest are gone."""
    one = make_trainer(tmp_path / "one", max_steps=1)
    one.train()
    step = (tmp_path / "one" / "rollouts.jsonl").stat().st_size
    most = 6.5 * step
    trainer = make_trainer(tmp_path / "b", max_steps=12, rollouts_mb=most / 1e6)
    trainer.train()
    files = [tmp_path / "b" / name for name in ("rollouts-old.jsonl", "rollouts.jsonl")]
    assert sum(file.stat().st_size for file in files) <= most + 2 * step
    steps = [record["step"] for file in files for record in lines(file)]
    assert steps == sorted(steps)
    assert steps.count(12) == 8
    assert min(steps) > 3
    assert set(steps) == set(range(min(steps), 13))


def test_rows_without_a_context_enter_neither_sums_nor_means(tmp_path: Path) -> None:
    def only_first_prompt(prompts: list[Any], answer: list[str], **columns: Any) -> list[Any]:
        return [Feedback(demonstration="one") if a == "1" else None for a in answer]

    trainer = make_trainer(tmp_path, feedback_funcs=only_first_prompt, feedback_order=["expert"])
    batch = generation_batch(trainer)
    assert batch["active"][4:].sum() == 0
    assert batch["active_count"] == batch["completion_mask"][:4].sum()
    alone = gradient(trainer, [rows_of(batch, [0, 1, 2, 3])]).clone()
    torch.testing.assert_close(gradient(trainer, [batch]), alone, rtol=1e-5, atol=1e-7)


def test_a_batch_without_any_context_gives_a_zero_loss_that_trains(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, feedback_funcs=[], feedback_order=["report"])
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["loss"] for log in logs] == [0.0, 0.0]
    assert logs[0]["feedback/none"] == 1.0
    assert all(torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


def test_tool_tokens_are_masked_but_read(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, feedback_order=["expert"])
    batch = generation_batch(trainer)
    row = int(batch["completion_mask"].sum(1).argmax())
    assert batch["completion_mask"][row].sum() >= 3
    masked = dict(batch)
    masked["scored"] = batch["scored"].clone()
    masked["scored"][row, 1] = 0
    with torch.no_grad():
        scores = trainer.builder.score_student(trainer.model, masked)
        whole = trainer.builder.score_student(trainer.model, batch)
    assert scores.cost[row, 1] == 0
    torch.testing.assert_close(scores.cost[row, 2:], whole.cost[row, 2:])


def test_sampler_mismatch_ratios_of_trl_are_used(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = generation_batch(trainer)
    plain = gradient(trainer, [batch]).clone()
    batch["importance_sampling_ratio"] = torch.full(batch["completion_ids"].shape, 0.5)
    torch.testing.assert_close(gradient(trainer, [batch]), 0.5 * plain)


def test_local_credit_moves_the_student_to_the_teacher(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"name": "forward_kl"}, feedback_order=["expert"])
    batch = generation_batch(trainer)
    optimiser = torch.optim.Adam(trainer.model.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_metrics_and_rollouts_are_written(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, log_rollouts=3)
    trainer.train()
    metrics = lines(tmp_path / "metrics.jsonl")
    first = metrics[0]
    for name in (
        "distil/cost", "distil/future_credit", "distil/future_credit_max", "distil/future_share",
        "distil/agreement", "feedback/sibling", "feedback/report", "feedback/expert",
        "feedback/none", "feedback/cut", "feedback/ungraded", "teacher/entropy", "student/entropy",
        "speed/sampling_tokens_per_second", "speed/teacher_tokens_per_second",
        "speed/teacher_padding", "speed/teacher_shared",
        "speed/student_tokens_per_second", "completions/mean_length", "completions/clipped_ratio",
        "grad_norm", "reward",
    ):  # fmt: skip
        assert isinstance(first[name], float | int), name
    assert 0 <= first["distil/agreement"] <= 1
    assert 0 <= first["speed/teacher_padding"] <= 0.05
    shares = [first[f"feedback/{kind}"] for kind in ("sibling", "report", "expert", "none")]
    assert sum(shares) == pytest.approx(1)
    rollouts = lines(tmp_path / "rollouts.jsonl")
    assert [r["step"] for r in rollouts] == [1] * 8 + [2] * 8
    detailed = [r for r in rollouts if "tokens" in r]
    assert len(detailed) == 6
    tokens = detailed[0]["tokens"]
    assert len({len(values) for values in tokens.values()}) == 1
    text = "".join(t for t in tokens["text"] if t not in ("<|end|>", "<unk>", "<|start|>"))
    assert text == detailed[0]["completion"]
    assert tokens["mask"] == [1] * len(tokens["mask"])


def test_the_teacher_is_asked_once_a_batch_whatever_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = {"support": "joined", "first_error_margin": 1.0, "max_teacher_entropy": 3.0}
    trainer = make_trainer(tmp_path, log_rollouts=8, objective=objective, teacher="frozen")
    entered, scoring = [], trainer.teacher.scoring
    monkeypatch.setattr(trainer.teacher, "scoring", lambda m: entered.append(1) or scoring(m))
    trainer.train()
    assert len(entered) == trainer.state.global_step == 2


def test_logged_cost_is_the_mean_over_all_active_tokens(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1, log_rollouts=8)
    trainer.train()
    metrics = lines(tmp_path / "metrics.jsonl")[0]
    records = [r["tokens"] for r in lines(tmp_path / "rollouts.jsonl")]
    costs = [c for r in records for c in r["cost"]]
    assert metrics["distil/cost"] == pytest.approx(sum(costs) / len(costs), abs=1e-4)


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


def test_a_saved_model_is_a_hugging_face_model(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for (name, ours), theirs in zip(
        trainer.model.named_parameters(), loaded.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def broken(completions: list[Any], **columns: Any) -> list[float]:
    raise KeyError("gold")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_funcs": broken}, "step 1 failed with KeyError"),
        ({"reward_funcs": lambda completions, **c: [1.0]}, "one reward per completion|1 rewards"),
        ({"reward_funcs": lambda completions, **c: 1.0}, "TypeError"),
        ({"feedback_funcs": broken}, "'broken' raised KeyError"),
        ({"feedback_funcs": lambda **c: ["a"]}, "1 answers for 8"),
        ({"feedback_funcs": lambda completions, **c: [3] * len(completions)}, "returned a int"),
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


def test_ungraded_rollouts_are_no_successes_and_are_counted(tmp_path: Path) -> None:
    def sometimes(completions: list[Any], **columns: Any) -> list[float | None]:
        return [None if i % 4 == 0 else 1.0 for i in range(len(completions))]

    trainer = make_trainer(tmp_path, reward_funcs=sometimes)
    trainer.train()
    log = next(x for x in trainer.state.log_history if "feedback/ungraded" in x)
    assert log["feedback/ungraded"] == 0.25


def test_another_chat_template_for_the_teacher_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = generation_batch(trainer)
    with pytest.raises(TrainingError, match="chat template"):
        trainer.encoder.check_same_template(batch, [{"role": "user", "content": "other"}])


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


def test_the_header_above_a_demonstration_can_be_changed_or_left_out(tmp_path: Path) -> None:
    for header, expected in (
        ("Look:", "short.\n\nLook:\nthe answer"),
        ("", "short.\n\nthe answer"),
    ):
        trainer = make_trainer(tmp_path, feedback_order=["expert"], demonstration_header=header)
        generation_batch(trainer)
        shown = trainer.rollout_log._records[0]["teacher_prompt"][0]["content"]
        assert expected in shown


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


def test_cost_matches_the_public_objective_on_the_logged_tokens(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective={"top_k": 10_000, "tail": False})
    batch = generation_batch(trainer)
    with torch.no_grad():
        scores = trainer.builder.score_student(trainer.model, batch)
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        logits = trainer.model(
            input_ids=ids, attention_mask=attention, position_ids=positions
        ).logits
    length = batch["completion_ids"].shape[1]
    full = logits[:, -length - 1 : -1].log_softmax(-1).gather(-1, batch["support_ids"])
    expected = forward_cross_entropy(full, batch["teacher_logps"]) * batch["active"]
    torch.testing.assert_close(scores.cost, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("onepass", "support"), [(True, "teacher"), (False, "student")])
def test_a_logged_token_shows_both_sides_likeliest_choices(
    tmp_path: Path, onepass: bool, support: str
) -> None:
    objective = {"support": support} | ({} if onepass else {"name": "as_released_math"})
    trainer = make_trainer(
        tmp_path, model=make_model(), feedback_order=["expert"], log_rollouts=8,
        temperature=0.8, objective=objective, teacher="live",
    )  # fmt: skip
    batch = generation_batch(trainer)
    trainer._compute_loss(trainer.model, rows_of(batch, [5, 1, 2, 7]))
    records = trainer.rollout_log._records
    assert [i for i, r in enumerate(records) if "tokens" in r] == [1, 2, 5, 7]
    decode, row = trainer.processing_class.decode, 5
    length = int(batch["completion_mask"][row].sum())
    completion = batch["completion_ids"][row, :length]

    def logps(prompt: Tensor) -> Tensor:
        logits = trainer.model(input_ids=torch.cat([prompt, completion])[None]).logits[0]
        return (logits[len(prompt) - 1 : -1] / 0.8).log_softmax(-1)

    student = logps(batch["prompt_ids"][row][batch["prompt_mask"][row] > 0])
    text = teacher_texts(trainer)[row]
    teacher = logps(torch.tensor(trainer.processing_class(text)["input_ids"]))
    assert records[row]["tokens"]["teacher_logp"] == pytest.approx(
        teacher.gather(-1, completion[:, None])[:, 0].tolist(), abs=2e-5
    )
    if support == "student":  # it says no more about the teacher than what is compared
        outside = torch.ones_like(teacher).scatter(-1, student.topk(5).indices, 0) > 0
        teacher = teacher.masked_fill(outside, -torch.inf)
    tokens = records[row]["tokens"]
    for side, expected in (("student_top", student), ("teacher_top", teacher)):
        for said, there in zip(tokens[side], expected, strict=True):
            top = there.topk(5)
            assert [text for text, _ in said] == [decode([i]) for i in top.indices]
            assert [p for _, p in said] == pytest.approx(top.values.exp().tolist(), abs=2e-5)
