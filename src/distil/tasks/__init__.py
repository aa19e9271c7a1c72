"""What is asked and how an answer is judged: reasoning-gym's datasets, and the organisms' worlds.

task = load_task(TaskConfig(name="chain_sum", options={"min_terms": 2, "max_terms": 2}))
task.train, task.heldout         # Problems; no held-out question is in the training set
task.check(problem, completion)  # -> Feedback(reward, text, demonstration)
"""

from typing import Protocol

from distil.config import TaskConfig
from distil.types import Feedback, Problem


class Task(Protocol):
    """Problems, and a judge for them."""

    instruction: str
    train: list[Problem]
    heldout: list[Problem]

    def check(self, problem: Problem, completion: str) -> Feedback:
        """Judges one completion. A completion that can't be graded has reward None."""

    def read(self, completion: str) -> str | None:
        """The part of the completion that counts as its answer, None if there is none."""


def load_task(config: TaskConfig) -> Task:
    """The task that a recipe names. Raises TaskError for an unknown name or option."""
    if config.name.startswith("organism_"):
        from distil.tasks.organisms import organism_task

        return organism_task(config)
    from distil.tasks.reasoning import ReasoningTask  # reasoning-gym takes a second to import

    return ReasoningTask(config)
