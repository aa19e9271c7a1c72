"""Sampling for `distil eval`: load the task, open the sampler, grade, keep every batch."""

from dataclasses import replace
from pathlib import Path

from distil.commands.evalflags import EvalFlags
from distil.errors import ModelError, TaskError
from distil.evaluate.evalfile import (
    Evaluation,
    Partial,
    check_same_problems,
    digests,
    settings_of,
    store,
    versions,
)
from distil.evaluate.judging import sample_and_grade
from distil.evaluate.samplers import open_sampler
from distil.tasks import load_task, student_prompt


def sampled(flags: EvalFlags, against: Evaluation | None) -> Evaluation:
    """The model's attempts at the held-out problems, in `flags.out` if that is given.

    Refuses before anything is loaded what couldn't be compared with `against` in the end.
    """
    if flags.task.eval_size == 0:
        raise TaskError("task.eval_size is 0, so there is nothing to judge on. Set it above 0.")
    task = load_task(flags.task)
    settings = settings_of(
        flags.model, flags.sampler.about(), flags.thinking, flags.task,
        flags.eval, flags.max_completion_length,
    )  # fmt: skip
    new = Evaluation(flags.model, [], settings, versions(), digests(task.heldout))
    if against is not None:
        check_same_problems(new, against)
    partial = Partial(Path(flags.out), settings, new.problems) if flags.out is not None else None
    if partial is not None and partial.done:
        print(f"Going on after the {len(partial.done)} attempts in {partial.path}.")
    sampler = open_sampler(
        flags.sampler, flags.model, flags.eval, flags.max_completion_length, flags.thinking
    )
    try:
        attempts = sample_and_grade(
            sampler, task, task.heldout, lambda problem: student_prompt(task, problem),
            samples=flags.eval.samples, batch_size=flags.eval.batch_size, title="judging",
            done=partial.done if partial else (), keep=partial.keep if partial else None,
        )  # fmt: skip
    except ModelError as error:
        kept = (
            f"What was sampled is in {partial.path}: the same command goes on from there."
            if partial
            else "Nothing was kept, as --out isn't given."
        )
        raise ModelError(f"{error}\n{kept}") from error
    new = replace(new, attempts=attempts)
    if partial is not None and flags.out is not None:
        store(Path(flags.out), new, flags.eval.k)
        partial.remove()
    return new
