"""`distil train --dry-run`: what a run would do, and whether it would fit, before it costs a cent.

Reads the task, the tokenizer and the model's config; loads no weights, makes no folder. Token
counts come from the problems themselves, memory from `distil.profiling.memory`.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from distil.config import Recipe
from distil.errors import ModelError
from distil.figures.layout import as_text
from distil.models import NO_CODE, choices_of, resolve_model
from distil.profiling.memory import GIB, ModelShape, in_words, memory_parts, peak
from distil.prompts.encoder import Encoder, check_thinking, template_options
from distil.runs.folder import updates_per_step
from distil.tasks import Task, answer_prompt, load_task, student_prompt
from distil.types import Prompt

STAND_IN = "(a successful sibling's answer; the expert's isn't known)"

MEASURED = 256
"""Problems whose prompts are encoded: enough for a median, quick for a large set."""


def dry_run(recipe: Recipe, gpus: int, gpu_gib: float) -> int:
    """Prints rows, tokens, steps, one prompt of each side, and memory. gpus: 0 is the CPU."""
    task = load_task(recipe.task)
    tokenizer, model = _skeleton(recipe.model.name)
    check_thinking(tokenizer, recipe.model.thinking, recipe.model.name)
    encoder = Encoder(tokenizer, None, template_options(recipe.model.thinking), None)
    problems = [*task.train, *task.heldout][:MEASURED]
    student = [student_prompt(task, p) for p in problems]
    header = recipe.feedback.demonstration_header
    teacher = [answer_prompt(task, p, header, stand_in=STAND_IN) for p in problems]
    lengths = [[len(encoder.encode(p)) for p in side] for side in (student, teacher)]
    print(as_text(_facts(recipe, task, model, lengths)))
    print("\nThe first problem, as the student is asked:\n")
    print(rendered(encoder, student[0]))
    print("\nAnd as the teacher is, shown the expert's answer as a sibling's would be:\n")
    print(rendered(encoder, teacher[0]))
    longest = min(max(lengths[1]), recipe.teacher.max_prompt_length)
    shape = ModelShape.of(model, recipe.model.lora)
    parts = memory_parts(recipe, shape, gpus, max(longest, *lengths[0]), gpu_gib)
    where = f"one of {gpus} GPUs" if gpus > 1 else "the GPU" if gpus else "the CPU"
    print(
        f"\nMemory of {where}, in GiB, at the longest rollouts "
        "(an estimate: `distil.profiling.memory`):"
    )
    rows = [["", "GiB", "when", "what"]]
    rows += [[p.name, f"{p.bytes / GIB:.2f}", p.when, p.why] for p in parts]
    rows.append(["peak", f"{peak(parts) / GIB:.2f}", "", "training and sampling take turns"])
    print(as_text(rows))
    if gpus and peak(parts) > gpu_gib * GIB:
        print(f"This doesn't fit in {gpu_gib:g} GiB. Lower train.micro_batch, set "
              "train.gradient_checkpointing, use LoRA (model.lora.rank) or more GPUs.")  # fmt: skip
    return 0


def rendered(encoder: Encoder, prompt: Prompt) -> str:
    """The very text that the model reads, special tokens included."""
    return str(encoder.tokenizer.decode(encoder.encode(prompt)))


def _facts(
    recipe: Recipe, task: Task, model: Any, lengths: Sequence[Sequence[int]]
) -> list[list[str]]:
    """Rows, tokens, steps, in words."""
    train, rollout = recipe.train, recipe.rollout
    rollouts = rollout.prompts_per_step * rollout.num_generations
    epochs = train.steps * rollout.prompts_per_step / len(task.train)
    most = rollouts * rollout.max_completion_length
    student, teacher = (f"{statistics.median(n):.0f} (median), {max(n)} (longest)" for n in lengths)
    updates = updates_per_step(recipe)
    held = f"{len(task.validation)} to validate on, {len(task.heldout)} held out"
    return [
        ["", "what would happen"],
        ["task", f"{recipe.task.name}: {len(task.train)} problems to train on, {held}"],
        ["model", f"{recipe.model.name}: {type(model).__name__}, {_size(model)} parameters"],
        ["method", f"{recipe.objective.name}, teacher {recipe.teacher.kind}, preset "
                   f"{recipe.preset or 'none'}"],
        ["student's prompt", f"{student} tokens"],
        ["teacher's prompt", f"{teacher} tokens, limit {recipe.teacher.max_prompt_length:,}"],
        ["a step", f"{rollout.prompts_per_step} prompts x {rollout.num_generations} rollouts = "
                   f"{rollouts}, at most {most:,} tokens; {updates} updates"],
        ["the run", f"{train.steps} steps = {train.steps * updates} updates, {epochs:.1f} epochs, "
                    f"{train.steps * rollouts:,} rollouts, at most {train.steps * most:,} tokens"],
        ["judging", f"{len(task.heldout) * recipe.eval.samples:,} samples before and after"],
    ]  # fmt: skip


def _size(model: Any) -> str:
    return in_words(sum(p.numel() for p in model.parameters()))


def _skeleton(name: str) -> tuple[Any, Any]:
    """The tokenizer, and the model without memory for weights. Raises ModelError."""
    source = resolve_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **NO_CODE)
        config = AutoConfig.from_pretrained(source, **NO_CODE)
        with torch.device("meta"):
            return tokenizer, AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name!r} could not be read: {error}\n{choices_of(name)}") from error
