"""A task as TRL's reward function and distil's feedback function, each attempt judged once.

Equal attempts at one problem are one. A batch is judged as one (`Task.check_all`).

grader = Grader(task)
DistILTrainer(reward_funcs=grader.reward, feedback_funcs=grader.feedback, ...)
"""

from collections.abc import Sequence
from typing import Any

from distil.tasks import Task
from distil.types import Completion, Feedback, Prompt, completion_text


class Grader:
    """Judges by the dataset's `problem_id` column; remembers the last batch's verdicts."""

    __name__ = "task"

    def __init__(self, task: Task) -> None:
        self._task = task
        self._problems = {p.id: p for p in [*task.heldout, *task.train]}
        self._verdicts: dict[tuple[str, str], Feedback] = {}

    def reward(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        problem_id: Sequence[str],
        **columns: Any,
    ) -> list[float | None]:
        """TRL's reward function: one number a completion, None where it couldn't be graded."""
        self._verdicts.clear()
        return [f.reward for f in self.feedback(prompts, completions, problem_id, **columns)]

    def feedback(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        problem_id: Sequence[str],
        **columns: Any,
    ) -> list[Feedback]:
        """distil's feedback function: the whole verdict, not only its number."""
        texts = [completion_text(completion) for completion in completions]
        keys = list(zip(problem_id, texts, strict=True))
        new = [key for key in dict.fromkeys(keys) if key not in self._verdicts]
        if new:
            problems = [self._problems[name] for name, _ in new]
            verdicts = self._task.check_all(problems, [text for _, text in new])
            self._verdicts |= zip(new, verdicts, strict=True)
        return [self._verdicts[key] for key in keys]
