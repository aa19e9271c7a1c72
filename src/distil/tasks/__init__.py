"""What is asked and how an answer is judged: reasoning-gym, the organisms' worlds, your own table.

reasoning    any reasoning-gym dataset
table        your own file of problems; rows reads and checks it, kinds says how each is judged
organisms    three small worlds
grader       a task as TRL's reward function and distil's feedback function

task = load_task(TaskConfig(name="chain_sum", options={"min_terms": 2, "max_terms": 2}))
task.train, task.validation, task.heldout  # Problems; no two share a question (an eval_file's may)
task.check(problem, completion)  # -> Feedback(reward, text, demonstration)
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from distil.config import TABLE_ENDING, TaskConfig
from distil.prompts.messages import student_messages, teacher_prompt
from distil.types import Feedback, Problem, Prompt, TeacherContext

DRAWS_PER_PROBLEM = 30
"""Draws before giving up on finding another distinct question: a small space repeats itself."""


class Task(Protocol):
    """Problems, and a judge for them."""

    system: str
    instruction: str
    train: list[Problem]
    validation: list[Problem]
    heldout: list[Problem]

    def check(self, problem: Problem, completion: str) -> Feedback:
        """Judges one completion. A completion that can't be graded has reward None."""

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """`check` of each pair, in order: side by side where judging is slow, else `one_by_one`."""

    def facts(self) -> dict[str, Any]:
        """What a run's folder should say about how answers were judged on this machine."""

    def read(self, completion: str) -> str | None:
        """The part of the completion that counts as its answer, None if there is none."""


def one_by_one(
    check: Callable[[Problem, str], Feedback],
    problems: Sequence[Problem],
    completions: Sequence[str],
) -> list[Feedback]:
    """`check_all` of a task whose `check` is quick."""
    return [check(p, c) for p, c in zip(problems, completions, strict=True)]


def problems_digest(task: Task) -> str:
    """Of every problem in its part and place: a run that is taken up must find the same."""
    every = [[asdict(p) for p in part] for part in (task.train, task.validation, task.heldout)]
    return hashlib.sha256(json.dumps(every, sort_keys=True).encode()).hexdigest()[:16]


def problems_wanted(config: TaskConfig) -> int:
    """How many distinct problems a recipe asks for."""
    return config.eval_size + config.validation_size + config.train_size


def parts(
    problems: Sequence[Problem], config: TaskConfig
) -> tuple[list[Problem], list[Problem], list[Problem]]:
    """Shuffled problems as (held out, validation, to train on): the first ones, the next, the rest.

    So neither a larger training set nor a validation set changes which ones are held out.
    """
    chosen, rest = list(problems[: config.eval_size]), problems[config.eval_size :]
    return chosen, list(rest[: config.validation_size]), list(rest[config.validation_size :])


def student_prompt(task: Task, problem: Problem) -> Prompt:
    """What the student is asked: the problem, in the task's own frame."""
    return student_messages(problem.question, task.instruction, task.system)


def answer_prompt(
    task: Task, problem: Problem, header: str, *, stand_in: str | None = None
) -> Prompt:
    """What a teacher is asked that is shown the expert's answer, below `header`.

    Where no answer is known: `stand_in` in its place, or, for None, what the student is asked.
    """
    student = student_prompt(task, problem)
    shown = task.check(problem, "").demonstration
    shown = stand_in if shown is None else shown
    if shown is None:
        return student
    context = TeacherContext("expert", demonstration=shown)
    return teacher_prompt(student, context, task.instruction, header)


def load_task(config: TaskConfig) -> Task:
    """The task that a recipe names. Raises TaskError for an unknown name or option."""
    if config.name.endswith(TABLE_ENDING):
        from distil.tasks.table import TableTask

        return TableTask(config)
    if config.name.startswith("organism_"):
        from distil.tasks.organisms import organism_task

        return organism_task(config)
    from distil.tasks.reasoning import ReasoningTask  # reasoning-gym takes a second to import

    return ReasoningTask(config)
