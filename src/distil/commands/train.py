"""`distil train`: load, judge, train, judge again, and say where everything lies.

Read `_train` from top to bottom: it's a whole run. Left out: reading recipes and flags
(`distil.cli`), and what a recipe makes of model, data and trainer (`distil.commands.setup`).
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from distil.commands.judging import RunJudge
from distil.commands.setup import load_student, make_trainer, run_corrections
from distil.config import Recipe
from distil.distributed.processes import (
    check_one_gpu,
    from_main,
    is_main,
    on_each,
    processes,
    sharding,
    together,
)
from distil.distributed.zero3 import count
from distil.figures.estimates import Attempt
from distil.figures.layout import as_markdown, as_text, clock
from distil.figures.tables import result_rows
from distil.live import LiveView
from distil.live.timeleft import TimeLeft
from distil.profiling.profiler import ProfileCallback
from distil.recipe.checks import check_processes
from distil.runs.alarms import Alarms
from distil.runs.checkpoints import has_checkpoint
from distil.runs.folder import (
    PROBLEMS,
    begin_run,
    check_new_run,
    cut_logs,
    reopen_run,
    updates_per_step,
    write_json,
    write_text,
)
from distil.tasks import Task, load_task, problems_digest
from distil.trainer.callbacks import AfterEvery, AtStart, StopAfterStep
from distil.trainer.loggers import check_loggers
from distil.trainer.trainer import DistILTrainer


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
    on_each(lambda: check_one_gpu(torch.cuda.device_count()))
    on_each(lambda: check_processes(recipe, processes()))
    on_each(lambda: check_loggers(recipe.train.report_to, "train.report_to"))
    task = on_each(lambda: load_task(recipe.task))
    on_each(lambda: run_corrections(recipe))
    facts = task.facts()
    if both := facts.get("heldout_also_trained_on"):
        print(f"Note: {both} of the held-out questions are among those trained on.")
    said, problems = recipe.as_dict(), problems_digest(task)
    from_main(lambda: reopen_run(folder, said, problems) if resume else check_new_run(folder))
    model, tokenizer = load_student(recipe)
    if not resume:  # a folder becomes a run only when all that it needs was found
        facts = {**facts, PROBLEMS: problems}
        from_main(lambda: begin_run(folder, said, recipe.train.seed, facts))
    _introduce(recipe, folder, task, model)
    judge = RunJudge(recipe, task, tokenizer, folder)
    evaluations: dict[str, list[Attempt]] = {}

    def judge_start(model: Any) -> None:
        evaluations["before"] = judge.students(model, "before", 0)
        if recipe.eval.teacher_samples:
            evaluations["teacher"] = judge.teacher(model)
        if task.heldout:
            print(as_text(result_rows(evaluations, recipe.eval.k)))

    def judge_shards(model: Any) -> None:
        judge_start(model)
        if recipe.eval.keep_best:
            judge.during(trainer, model, 0)

    if not sharding():
        judge_start(model)
    trainer = on_each(lambda: make_trainer(recipe, model, tokenizer, task))
    if recipe.eval.keep_best and not sharding():
        judge.during(trainer, trainer.accelerator.unwrap_model(trainer.model), 0)
    watch = _watch(recipe, task, trainer, judge, at_start=judge_shards, profile=profile)
    if resume and not from_main(lambda: has_checkpoint(folder)):
        from_main(lambda: cut_logs(folder, 0))  # killed before the first one: from the start
        resume = False
    with watch.view:
        trainer.train(resume_from_checkpoint=resume)
    if watch.profiler is not None:
        print(watch.profiler.report())
    if watch.stopped and trainer.state.global_step < trainer.state.max_steps:
        _say_how_to_go_on(folder, trainer)
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
    _say_where_it_lies(folder, judge, time.perf_counter() - began)
    return 0


@dataclass(frozen=True)
class _Watch:
    """What looks on while a run trains, and may end it."""

    view: LiveView
    alarms: Alarms
    stop: StopAfterStep
    profiler: ProfileCallback | None

    @property
    def stopped(self) -> bool:
        """Whether Ctrl-C or an alarm asked for the end."""
        return self.stop.stopped or self.alarms.stopped


def _watch(
    recipe: Recipe, task: Task, trainer: DistILTrainer, judge: RunJudge, *,
    at_start: Callable[[Any], None], profile: bool,
) -> _Watch:  # fmt: skip
    """Adds a run's callbacks to its trainer, in the order in which they have to act.

    at_start: judges a model that is sharded only once training begins.
    """
    folder, updates = Path(recipe.train.output_dir), updates_per_step(recipe)
    every = recipe.eval.every * updates if task.heldout or task.validation else 0
    alarms, stop = Alarms(recipe.alarms, folder, updates), StopAfterStep(updates)
    log = trainer.rollout_log
    view = LiveView(
        str(folder), TimeLeft(updates, every, judge.seconds_to_come), updates,
        rollout=lambda: log.newest if log else None, alarms=alarms.heard,
    )  # fmt: skip

    def judge_between(model: Any, done: int) -> None:
        with view.paused():
            judge.during(trainer, model, done // updates)

    trainer.add_callback(AfterEvery(every, judge_between))
    if sharding():  # no process has all of the model, nor room for it, before it is sharded
        trainer.add_callback(AtStart(at_start))
    trainer.add_callback(alarms)
    trainer.add_callback(view)  # after judging: its time isn't a step's
    trainer.add_callback(stop)
    profiler = ProfileCallback(folder, updates) if profile and is_main() else None
    if profiler is not None:
        trainer.add_callback(profiler)  # the last one: others' work before a step is done by then
    trainer.remove_callback(PrinterCallback)  # prints every metric
    return _Watch(view, alarms, stop, profiler)


def _introduce(recipe: Recipe, folder: Path, task: Task, model: Any) -> None:
    """Prints what is about to be trained, on what, and where it will lie."""
    print(f"Run folder: {folder}")
    print(
        f"Model: {recipe.model.name}, {count(model.parameters()) / 1e6:.0f}M "
        f"parameters, {model.dtype}. Task: {recipe.task.name}, {len(task.train)} problems to train "
        f"on, {len(task.heldout)} held out."
    )


def _say_how_to_go_on(folder: Path, trainer: DistILTrainer) -> None:
    """Prints where a run that was stopped is, and the command that takes it up again."""
    command = sys.argv[0] if Path(sys.argv[0]).name == "distil" else "distil"
    if processes() > 1:
        command = "accelerate launch ... -m distil.cli"
    print(
        f"Stopped after step {trainer.state.global_step} of {trainer.state.max_steps}. "
        f"Go on with:\n  {command} train {folder} --resume"
    )


def _say_where_it_lies(folder: Path, judge: RunJudge, seconds: float) -> None:
    """Prints what is in a finished run's folder."""
    print(f"Everything lies in {folder} (took {clock(seconds)}):")
    print("  model/          the trained model (AutoModelForCausalLM.from_pretrained loads it)")
    if best := judge.kept():
        said = f"most {best.figure} on the validation problems: {best.value:.3f}"
        print(f"  best/           the model after step {best.step} ({said})")
    print("  rollouts.jsonl  every rollout: reward, feedback, teacher prompt, cost and credit")
    print("  metrics.jsonl   every step        results.md  the table above")
    print(f"As one page, with every token's credit: distil report {folder}")


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
