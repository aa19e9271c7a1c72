"""Stored completions judged anew, by today's grader."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from distil.errors import TaskError
from distil.evaluate.evalfile import digests
from distil.figures.estimates import Attempt
from distil.tasks import Task


def regraded(attempts: Sequence[Attempt], task: Task, asked: Mapping[str, str]) -> list[Attempt]:
    """The same completions with the task's verdicts. asked: the digests that were stored.

    Raises TaskError where the task hasn't the very problems that were asked.
    """
    problems = {p.id: p for p in [*task.train, *task.validation, *task.heldout]}
    today = digests(list(problems.values()))
    for name in dict.fromkeys(a.problem for a in attempts):
        if name not in problems:
            raise TaskError(
                f"The task has no problem {name!r}, which attempts were made at. Regrade with the "
                "task (its name, sizes and seed) that they were sampled with."
            )
        if asked.get(name, today[name]) != today[name]:
            raise TaskError(
                f"The task's problem {name!r} has another question than the one that was asked. "
                "Regrade with the task that the attempts were sampled with."
            )
    verdicts = task.check_all(
        [problems[a.problem] for a in attempts], [a.completion for a in attempts]
    )
    return [
        replace(a, answer=task.read(a.completion), reward=v.reward)
        for a, v in zip(attempts, verdicts, strict=True)
    ]
