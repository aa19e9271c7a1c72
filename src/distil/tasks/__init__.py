"""What is asked and how an answer is judged: reasoning-gym, the organisms' worlds, your own table.

task = load_task(TaskConfig(name="chain_sum", options={"min_terms": 2, "max_terms": 2}))
task.train, task.heldout         # Problems; no held-out question is in the training set
task.check(problem, completion)  # -> Feedback(reward, text, demonstration)
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from distil.config import TABLE_ENDING, TaskConfig
from distil.types import Feedback, Problem


class Task(Protocol):
    """Problems, and a judge for them."""

    instruction: str
    train: list[Problem]
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
