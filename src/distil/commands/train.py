"""`distil train`: load, judge, train, judge again, and say where everything lies.

Read it from top to bottom: it's a whole run. Left out: reading recipes and flags (`distil.cli`).
"""

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback

from distil.commands.judging import RunJudge
from distil.config import Recipe
from distil.distributed.processes import from_main, is_main, on_each, processes, sharding, together
from distil.errors import RecipeError
from distil.feedback import corrections
from distil.feedback.correctionfile import CORRECTIONS_FILE
from distil.feedback.judge import check_judge
from distil.figures.estimates import Attempt
from distil.figures.layout import as_markdown, as_text, clock
from distil.figures.tables import result_rows
from distil.live import LiveView
from distil.live.timeleft import TimeLeft
from distil.models import load_model, resolve_model, to_accelerator
from distil.profiling.profiler import ProfileCallback
from distil.prompts.encoder import check_thinking, template_options
from distil.runs.alarms import Alarms
from distil.runs.checkpoints import has_checkpoint
from distil.runs.folder import (
    begin_run,
    check_new_run,
    cut_logs,
    reopen_run,
    updates_per_step,
    write_json,
    write_text,
)
from distil.tasks import Task, load_task, student_prompt
from distil.tasks.grader import Grader
from distil.teacher.served.greeting import check_served, check_tokenizer
from distil.trainer.callbacks import AfterEvery, AtStart, StopAfterStep
from distil.trainer.collect import FeedbackFunc
from distil.trainer.loggers import check_loggers
from distil.trainer.toolset import check_model_calls_tools, load_tools
from distil.trainer.trainer import DistILTrainer
from distil.trainer.training_args import DistILConfig
from distil.types import Problem


def train(recipe: Recipe, *, resume: bool, profile: bool = False) -> int:
    """Runs a recipe; returns the exit status: 0 finished, 130 stopped by Ctrl-C.

    profile: time and peak memory of a step by part are printed after training.

    Started by `accelerate launch`, it is one of several processes that train together.
    """
    with together():
        return _train(recipe, resume=resume, profile=profile)


def _train(recipe: Recipe, *, resume: bool, profile: bool) -> int:
    began = time.perf_counter()
    folder = Path(recipe.train.output_dir)
    # Cheap checks first: nothing is loaded for a wrong option.
    on_each(lambda: check_loggers(recipe.train.report_to, "train.report_to"))
    task = on_each(lambda: load_task(recipe.task))
    on_each(lambda: run_corrections(recipe))
    facts = task.facts()
    if both := facts.get("heldout_also_trained_on"):
        print(f"Note: {both} of the held-out questions are among those trained on.")
    from_main(lambda: reopen_run(folder, recipe.as_dict()) if resume else check_new_run(folder))
    model, tokenizer = _load(recipe)
    if not resume:  # a folder becomes a run only when all that it needs was found
        from_main(lambda: begin_run(folder, recipe.as_dict(), recipe.train.seed, facts))
    print(f"Run folder: {folder}")
    print(
        f"Model: {recipe.model.name}, {sum(p.numel() for p in model.parameters()) / 1e6:.0f}M "
        f"parameters, {model.dtype}. Task: {recipe.task.name}, {len(task.train)} problems to train "
        f"on, {len(task.heldout)} held out."
    )
    judge = RunJudge(recipe, task, tokenizer, folder)
    evaluations: dict[str, list[Attempt]] = {}

    def judge_start(model: Any) -> None:
        evaluations["before"] = judge.students(model, "before", 0)
        if recipe.eval.teacher_samples:
            evaluations["teacher"] = judge.teacher(model)
        if task.heldout:
            print(as_text(result_rows(evaluations, recipe.eval.k)))

    if not sharding():
        judge_start(model)
    updates = updates_per_step(recipe)
    stop = StopAfterStep(updates)
    trainer = on_each(lambda: make_trainer(recipe, model, tokenizer, task))
    if recipe.eval.keep_best and not sharding():
        judge.during(trainer, trainer.accelerator.unwrap_model(trainer.model), 0)
    every = recipe.eval.every * updates if task.heldout or task.validation else 0
    alarms = Alarms(recipe.alarms, folder, updates)
    log = trainer.rollout_log
    view = LiveView(
        str(folder), TimeLeft(updates, every, judge.seconds_to_come), updates,
        rollout=lambda: log.newest if log else None, alarms=alarms.heard,
    )  # fmt: skip

    def judge_between(model: Any, done: int) -> None:
        with view.paused():
            judge.during(trainer, model, done // updates)

    trainer.add_callback(AfterEvery(every, judge_between))

    def judge_shards(model: Any) -> None:
        judge_start(model)
        if recipe.eval.keep_best:
            judge.during(trainer, model, 0)

    if sharding():  # no process has all of the model, nor room for it, before it is sharded
        trainer.add_callback(AtStart(judge_shards))
    trainer.add_callback(alarms)
    trainer.add_callback(view)  # after judging: its time isn't a step's
    trainer.add_callback(stop)
    profiler = ProfileCallback(folder, updates) if profile and is_main() else None
    if profiler is not None:
        trainer.add_callback(profiler)  # the last one: others' work before a step is done by then
    trainer.remove_callback(PrinterCallback)  # prints every metric
    if resume and not from_main(lambda: has_checkpoint(folder)):
        from_main(lambda: cut_logs(folder, 0))  # killed before the first one: from the start
        resume = False
    with view:
        trainer.train(resume_from_checkpoint=resume)
    if profiler is not None:
        print(profiler.report())
    if (stop.stopped or alarms.stopped) and trainer.state.global_step < trainer.state.max_steps:
        command = sys.argv[0] if Path(sys.argv[0]).name == "distil" else "distil"
        if processes() > 1:
            command = "accelerate launch ... -m distil.cli"
        print(
            f"Stopped after step {trainer.state.global_step} of {trainer.state.max_steps}. "
            f"Go on with:\n  {command} train {folder} --resume"
        )
        return 130
    trainer.save_model(str(folder / "model"))
    if is_main():
        tokenizer.save_pretrained(folder / "model")

    student = trainer.accelerator.unwrap_model(trainer.model)
    evaluations["after"] = judge.students(student, "after", recipe.train.steps)
    if recipe.eval.keep_best:
        judge.during(trainer, student, recipe.train.steps)
        evaluations["best"] = judge.best(student)
    if task.heldout:
        _report(folder, evaluations, recipe.eval.k)
    print(f"Everything lies in {folder} (took {clock(time.perf_counter() - began)}):")
    print("  model/          the trained model (AutoModelForCausalLM.from_pretrained loads it)")
    if best := judge.kept():
        said = f"most {best.figure} on the validation problems: {best.value:.3f}"
        print(f"  best/           the model after step {best.step} ({said})")
    print("  rollouts.jsonl  every rollout: reward, feedback, teacher prompt, cost and credit")
    print("  metrics.jsonl   every step        results.md  the table above")
    print(f"As one page, with every token's credit: distil report {folder}")
    return 0


def _load(recipe: Recipe) -> tuple[Any, Any]:
    """The model and its tokenizer, once all that the recipe needs beside them was found."""

    def check_and_load() -> tuple[Any, Any]:
        load_tools(recipe.rollout.tools)
        if recipe.feedback.critique.by == "judge":
            check_judge(recipe.feedback.critique)
        if recipe.teacher.kind == "served":
            longest = recipe.teacher.max_prompt_length + recipe.rollout.max_completion_length
            check_served(recipe.teacher.served, k=recipe.objective.top_k, longest=longest)
        model, tokenizer = load_model(
            recipe.model.name, recipe.model.dtype, allow_pickle=recipe.model.allow_pickle
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
    per_step = rollout.prompts_per_step * rollout.num_generations
    per_pass = train.micro_batch * processes()
    if per_step % (per_pass * train.updates_per_batch):
        raise RecipeError(
            f"The {per_step} rollouts of a step (rollout.prompts_per_step x num_generations) don't "
            f"divide into {train.updates_per_batch} updates (train.updates_per_batch) of passes "
            f"over {per_pass}: train.micro_batch x {processes()} processes. Lower micro_batch."
        )
    micro_batches = per_step // per_pass
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


def _report(folder: Path, evaluations: dict[str, list[Attempt]], ks: Sequence[int]) -> None:
    """Prints the table and writes it."""
    order = ("before", "after", "best", "teacher")
    table = result_rows({n: evaluations[n] for n in order if n in evaluations}, ks)
    print(as_text(table))
    print("95% intervals over problems in brackets; teacher: the start model shown the answer.")
    if not is_main():
        return
    write_text(folder / "results.md", as_markdown(table) + "\n")
    write_json(folder / "results.json", {"table": table})
