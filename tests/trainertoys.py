"""For the tests of training: a trainer of the toy model, its batches and their gradient.

`plain_gradient` is the same gradient the long way, which the trainer's must equal.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from conftest import conversations, make_model, make_tokenizer
from distil import DistILConfig, DistILTrainer, Feedback
from distil.objectives import future_credit, leave_one_out


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


# A batch of rollouts lasts four updates: all but the first see old ones.
STALE = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
}
