"""A run's evaluations: before, after, in the midst of it, of the teacher, of the best state.

Each is kept in the run's folder, so that resuming doesn't repeat it. Beside the attempts a file
says step, rollouts spent by then, mean tokens and the means of the figures, which is all that
`distil compare` reads. Of several processes each samples its share of the problems, from a random
stream of its own, and the main one writes.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distil.config import Recipe
from distil.distributed.processes import from_main, is_main, rank, spread
from distil.errors import RunError
from distil.evaluate.evalfile import digests, figure_means
from distil.evaluate.judging import evaluate
from distil.figures.estimates import Attempt
from distil.models import load_model
from distil.runs.best import Best, BestState
from distil.runs.folder import rollouts_after, write_json
from distil.tasks import Task, answer_prompt, student_prompt
from distil.trainer.trainer import DistILTrainer
from distil.types import Problem, Prompt


class RunJudge:
    """Evaluates the models of one run."""

    def __init__(self, recipe: Recipe, task: Task, tokenizer: Any, folder: Path) -> None:
        self._recipe, self._task, self._tokenizer, self._folder = recipe, task, tokenizer, folder
        figure = recipe.eval.keep_best
        self._best = from_main(lambda: BestState(folder, figure, from_main)) if figure else None
        self._a_problem = 0.0
        """Seconds of the student's last evaluation, by problem."""

    def students(self, model: Any, name: str, step: int) -> list[Attempt]:
        """The student on the held-out problems, after `step` of `train.steps`."""
        return self._judged(name, model, self._task.heldout, step)

    def during(self, trainer: DistILTrainer, model: Any, step: int) -> None:
        """The student in the midst of training. Random streams and the model stay as they were.

        On the validation problems, where the recipe has some, and then the best state is kept if
        it asks for that; else on the held-out ones. Prints the figures.
        """
        student = trainer.accelerator.unwrap_model(model)
        chosen = bool(self._task.validation)
        problems = self._task.validation if chosen else self._task.heldout
        file, named = ("validation", "validation") if chosen else ("eval", "held-out")
        attempts = self._judged(f"{file}-{step:06d}", student, problems, step)
        figures = figure_means(attempts, self._recipe.eval.k)["figures"]
        told = ", ".join(f"{figure} {value:.3f}" for figure, value in figures.items())
        print(f"After step {step}, on {len(problems)} {named} problems: {told}", flush=True)
        if self._best is not None:
            value = figures[self._recipe.eval.keep_best]
            self._best.consider(step, value, lambda folder: trainer.save_model(str(folder)))

    def seconds_to_come(self, during: int) -> float:
        """Seconds of the evaluations at the end, and of so many before it, by the last one's."""
        held_out, validation = len(self._task.heldout), len(self._task.validation)
        problems = during * (validation or held_out) + held_out
        if self._recipe.eval.keep_best:  # the last state on them, and the best one held out
            problems += validation + held_out
        return self._a_problem * problems

    def best(self, last: Any) -> list[Attempt]:
        """The best state on the held-out problems; `last` is the trained student."""
        best = self.kept()
        assert self._best is not None
        assert best is not None
        model = last
        if best.step != self._recipe.train.steps:
            model, _ = load_model(str(self._best.folder), str(last.dtype).removeprefix("torch."))
            model.to(last.device)
        return self.students(model, "best", best.step)

    def kept(self) -> Best | None:
        """Which state was best so far; None where none is kept."""
        return None if self._best is None else from_main(self._best.record)

    def teacher(self, model: Any) -> list[Attempt]:
        """The same model shown the expert's answer: is there anything to learn from it?"""
        samples = self._recipe.eval.teacher_samples
        return self._stored("teacher", model, self._task.heldout, self._teacher_prompt, samples, 0)

    def _judged(
        self, name: str, model: Any, problems: Sequence[Problem], step: int
    ) -> list[Attempt]:
        samples = self._recipe.eval.samples
        return self._stored(name, model, problems, self._student_prompt, samples, step)

    def _stored(
        self,
        name: str,
        model: Any,
        problems: Sequence[Problem],
        make_prompt: Callable[[Problem], Prompt],
        samples: int,
        step: int,
    ) -> list[Attempt]:
        file, asked = self._folder / f"{name}.json", digests(problems)
        if (stored := from_main(lambda: _read(file))) is not None:
            if stored.get("problems", asked) != asked:
                raise RunError(
                    f"{file} judged other questions than this run's. Move it away, and the model "
                    "is judged again."
                )
            if name != "teacher":
                self._a_problem = stored["seconds"] / max(len(problems), 1)
            return [Attempt(**a) for a in stored["attempts"]]
        recipe = self._recipe
        started = time.perf_counter()
        settings = replace(recipe.eval, seed=recipe.eval.seed + rank())
        attempts = spread(problems, lambda mine: evaluate(
            model, self._tokenizer, self._task, mine, make_prompt, settings,
            samples=samples, max_completion_length=recipe.rollout.max_completion_length,
            title=f"judging ({name})", thinking=recipe.model.thinking,
        ))  # fmt: skip
        seconds = time.perf_counter() - started
        if name != "teacher":
            self._a_problem = seconds / max(len(problems), 1)
        about: dict[str, Any] = {
            "seconds": seconds,
            "step": step,
            "rollouts": rollouts_after(recipe, step),
            "problems": asked,
        }
        record = {**about, **figure_means(attempts, recipe.eval.k)}
        if is_main():
            write_json(file, {**record, "attempts": [asdict(a) for a in attempts]})
        return attempts

    def _student_prompt(self, problem: Problem) -> Prompt:
        return student_prompt(self._task, problem)

    def _teacher_prompt(self, problem: Problem) -> Prompt:
        return answer_prompt(self._task, problem, self._recipe.feedback.demonstration_header)


def _read(file: Path) -> Any:
    """A JSON file's content, None if there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
