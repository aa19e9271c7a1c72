"""What a recipe makes of a run before its first step: model, dataset, trainer and their arguments.

Left out: the run itself (`distil.commands.train`), and what a recipe may say (`distil.recipe`).
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from distil.config import Recipe
from distil.distributed.processes import from_main, on_each, processes, sharding, zero3_asked
from distil.distributed.zero3 import loading_parts
from distil.feedback import corrections
from distil.feedback.correctionfile import CORRECTIONS_FILE
from distil.feedback.judge import check_judge
from distil.models import frozen_dtype, load_model, resolve_model, to_accelerator
from distil.prompts.encoder import check_thinking, template_options
from distil.recipe.checks import check_processes
from distil.runs.folder import updates_per_step
from distil.tasks import Task, student_prompt
from distil.tasks.grader import Grader
from distil.teacher.served.greeting import check_served, check_tokenizer
from distil.trainer.collect import FeedbackFunc
from distil.trainer.toolset import check_model_calls_tools, load_tools
from distil.trainer.trainer import DistILTrainer
from distil.trainer.training_args import DistILConfig
from distil.types import Problem


def load_student(recipe: Recipe) -> tuple[Any, Any]:
    """The model and its tokenizer, once all that the recipe needs beside them was found.

    On the accelerator, but for weights that are to be sharded. Raises a DistILError that says what
    is missing: a tool, a judge, a served teacher, the model. A collective call.
    """

    def check_and_load() -> tuple[Any, Any]:
        load_tools(recipe.rollout.tools)
        if recipe.feedback.critique.by == "judge":
            check_judge(recipe.feedback.critique)
        if recipe.teacher.kind == "served":
            longest = recipe.teacher.max_prompt_length + recipe.rollout.max_completion_length
            check_served(recipe.teacher.served, k=recipe.objective.top_k, longest=longest)
        with loading_parts() if zero3_asked() else nullcontext():
            model, tokenizer = load_model(
                recipe.model.name, kept_in(recipe), allow_pickle=recipe.model.allow_pickle
            )
        if recipe.teacher.kind == "served":  # before the start is judged
            check_tokenizer(recipe.teacher.served, tokenizer)
        check_thinking(tokenizer, recipe.model.thinking, recipe.model.name)
        if recipe.rollout.tools:
            check_model_calls_tools(tokenizer, recipe.model.name)
        if not sharding():
            to_accelerator(model)  # it is judged before it is trained
        return model, tokenizer

    if processes() > 1:  # what is converted or trained once, the others find in the cache
        from_main(lambda: resolve_model(recipe.model.name))
    return on_each(check_and_load)


def kept_in(recipe: Recipe) -> str:
    """The dtype that the student is loaded in: `model.dtype`, or what auto stands for."""
    if recipe.model.dtype != "auto":
        return recipe.model.dtype
    return frozen_dtype() if recipe.model.lora.rank or sharding() else "float32"


def make_trainer(recipe: Recipe, model: Any, tokenizer: Any, task: Task) -> DistILTrainer:
    """The trainer that a recipe describes."""
    grader = Grader(task)
    return DistILTrainer(
        model,
        reward_funcs=grader.reward,
        tools=load_tools(recipe.rollout.tools) or None,
        feedback_funcs=[grader.feedback, *run_corrections(recipe)],
        args=training_args(recipe),
        train_dataset=rows(task, task.train),
        processing_class=tokenizer,
        peft_config=_lora(recipe),
    )


def run_corrections(recipe: Recipe) -> list[FeedbackFunc]:
    """The feedback function that reads a run's corrections; none if the recipe doesn't ask for it.

    Raises FeedbackError where they can't be read.
    """
    if "correction" not in recipe.feedback.order:
        return []
    if recipe.feedback.corrections:
        return [corrections(recipe.feedback.corrections)]
    file = Path(recipe.train.output_dir) / CORRECTIONS_FILE
    return [corrections(file, must_exist=False)]


def rows(task: Task, problems: Sequence[Problem]) -> Dataset:
    """Problems as a TRL dataset: prompt, instruction (closes the teacher's prompt), problem_id."""
    return Dataset.from_list(
        [
            {
                "prompt": student_prompt(task, p),
                "instruction": task.instruction,
                "problem_id": p.id,
            }
            for p in problems
        ]
    )


def training_args(recipe: Recipe) -> DistILConfig:
    """A recipe as DistIL's (and so TRL's and transformers') training arguments."""
    train, rollout, objective = recipe.train, recipe.rollout, recipe.objective
    check_processes(recipe, processes())
    per_step = rollout.prompts_per_step * rollout.num_generations
    micro_batches = per_step // (train.micro_batch * processes())
    updates = updates_per_step(recipe)
    accelerated = torch.accelerator.is_available()
    with warnings.catch_warnings():
        # TRL's default for the old name of activation_checkpointing; ours is set below.
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        return DistILConfig(
            output_dir=train.output_dir,
            max_steps=train.steps * updates,
            learning_rate=train.learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=train.warmup_steps,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            per_device_train_batch_size=train.micro_batch,
            gradient_accumulation_steps=micro_batches // train.updates_per_batch,
            steps_per_generation=micro_batches,
            num_iterations=train.num_iterations,
            gradient_checkpointing=train.gradient_checkpointing,
            padding_free=train.padding_free,
            bf16=accelerated,
            use_cpu=not accelerated,
            seed=train.seed,
            save_strategy="steps",
            save_steps=train.save_every * updates,
            save_total_limit=train.keep_checkpoints + 1,  # one may be half written when killed
            logging_steps=1,
            logging_first_step=True,
            report_to=list(train.report_to) or "none",
            disable_tqdm=True,
            num_generations=rollout.num_generations,
            max_completion_length=rollout.max_completion_length,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            share_prompts=rollout.share_prompts,
            use_vllm=rollout.use_vllm,
            vllm_mode=rollout.vllm_mode,
            vllm_server_base_url=rollout.vllm_server_base_url or None,
            vllm_gpu_memory_utilization=rollout.vllm_gpu_memory_utilization,
            vllm_tensor_parallel_size=rollout.vllm_tensor_parallel_size,
            max_tool_calling_iterations=rollout.max_tool_calling_iterations,
            objective=asdict(objective),
            teacher=recipe.teacher.kind,
            teacher_served=asdict(recipe.teacher.served),
            teacher_ema_rate=recipe.teacher.ema_rate,
            teacher_shadow_device=recipe.teacher.shadow_device,
            teacher_samples=recipe.teacher.samples,
            teacher_gate=recipe.teacher.gate,
            max_teacher_prompt_length=recipe.teacher.max_prompt_length,
            feedback_order=list(recipe.feedback.order),
            feedback_combine=recipe.feedback.combine,
            max_feedback_tokens=recipe.feedback.max_tokens,
            demonstration_header=recipe.feedback.demonstration_header,
            sibling_choice=recipe.feedback.sibling,
            critique=asdict(recipe.feedback.critique),
            log_rollouts=train.log_rollouts,
            rollouts_mb=train.rollouts_mb,
            chat_template_kwargs=template_options(recipe.model.thinking),
        )


def _lora(recipe: Recipe) -> Any:
    """peft's settings, None for rank 0."""
    lora = recipe.model.lora
    if lora.rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
