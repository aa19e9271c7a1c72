"""`distil correct`: shows a run's failed attempts, takes a person's corrections, stores them.

They go into the run's corrections.jsonl (or the file that its recipe names), which a run with
`correction` in its feedback.order reads before every step. Nothing here imports torch. Left out:
reading rollouts (`attempts`) and talking to the person (`dialogue`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distil.commands.attempts import FailedAttempt, failed_attempts, selected
from distil.commands.dialogue import HOW, ask_yes, prepare_terminal, show, type_text
from distil.config import Recipe, TaskConfig
from distil.errors import DistILError, RunError
from distil.feedback.correctionfile import CORRECTIONS_FILE, append, parse, problem_key
from distil.figures.layout import harmless
from distil.recipe.recipefile import load_recipe
from distil.runs.folder import RECIPE_FILE
from distil.tasks import Task, load_task
from distil.types import Feedback, Problem, succeeds


def correct(folder: str, *, problem: str, every: bool, limit: int, grade: bool, by: str) -> int:
    """Goes through the attempts that `selected` chooses; the exit status, 130 after Ctrl-C.

    Raises RunError for a folder without rollouts, or a run whose corrections come from a function.
    """
    run = Path(folder)
    attempts = failed_attempts(run)
    recipe = load_recipe(run) if (run / RECIPE_FILE).is_file() else None
    file = _file_of(run, recipe)
    corrected = {row.problem for row in parse(file.read_bytes() if file.exists() else b"").rows}
    chosen = selected(attempts, corrected, problem=problem, every=every, limit=limit)
    if not chosen:
        print(f"Nothing to correct: no failed attempt in {run} is at a problem without correction.")
        return 0
    if recipe is not None and "correction" not in recipe.feedback.order:
        print("This run won't use them: its feedback.order doesn't name correction.")
    prepare_terminal()
    examiner = _Examiner(recipe.task if recipe is not None and grade else None)
    count, status = 0, 0
    try:
        for place, attempt in enumerate(chosen, start=1):
            _show(attempt, f"--- {place} of {len(chosen)}", corrected)
            text = _correction_of(attempt, examiner)
            if text is None:
                break
            if text:
                append(file, _row(attempt, text, by))
                corrected.add(attempt.problem)
                count += 1
                print(f"Stored in {file}; a run that is going on uses it from its next step.")
    except KeyboardInterrupt:
        print()
        status = 130
    print(f"{count} correction{'' if count == 1 else 's'} stored.")
    return status


def _file_of(run: Path, recipe: Recipe | None) -> Path:
    """Where the run looks for its corrections."""
    named = recipe.feedback.corrections if recipe is not None else ""
    if ".py:" in named:
        raise RunError(
            f"The run in {run} takes its corrections from the function {named}, so that nothing "
            "typed here would be used."
        )
    if named and not Path(named).is_file():
        raise RunError(
            f"The run in {run} takes its corrections from {named!r}, and there is no such file "
            "here. Call distil correct in the folder in which the run was started."
        )
    return Path(named) if named else run / CORRECTIONS_FILE


def _show(attempt: FailedAttempt, place: str, corrected: set[str]) -> None:
    print(f"{place}: problem {harmless(attempt.problem)}, step {attempt.step}")
    if attempt.problem in corrected:
        print("(corrected before; a new correction counts instead)")
    if isinstance(attempt.prompt, str):
        show("Question:", attempt.prompt)
    else:
        for message in attempt.prompt:
            show(f"Question ({harmless(message['role'])}):", str(message.get("content")))
    reward = "not graded" if attempt.reward is None else f"reward {attempt.reward:g}"
    show(f"Attempt ({reward}):", attempt.completion)
    for source, text in attempt.said:
        show(f"Said about it ({harmless(source) or 'feedback function'}):", text)


def _correction_of(attempt: FailedAttempt, examiner: "_Examiner") -> str | None:
    """The person's correction; "" to skip the attempt, None to stop."""
    while True:
        print(f"Your correction. {HOW}")
        typed = type_text(attempt.completion)
        if typed.kind != "text":
            return "" if typed.kind == "skip" else None
        if not typed.text.strip():
            print("That is empty. Type a correction, or :s to skip.")
        elif typed.text.strip() == attempt.completion.strip():
            print("That is the attempt itself. Type what it should have been, or :s to skip.")
        elif examiner.accepts(attempt.problem, typed.text):
            return typed.text


def _row(attempt: FailedAttempt, text: str, by: str) -> dict[str, Any]:
    by_prompt = attempt.problem == problem_key(attempt.prompt)
    return {
        **({"prompt": attempt.prompt} if by_prompt else {"problem_id": attempt.problem}),
        "correction": text,
        "attempt": attempt.completion,
        **({"by": by} if by else {}),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@dataclass
class _Examiner:
    """Grades corrections with the run's own task, loaded for the first of them; None: doesn't."""

    config: TaskConfig | None
    _task: Task | None = None
    _problems: dict[str, Problem] | None = None

    def accepts(self, problem: str, text: str) -> bool:
        """Whether the correction is right, or can't be judged, or is kept though it's wrong."""
        if self.config is None:
            return True
        try:
            verdict = self._verdict(self.config, problem, text)
        except DistILError as error:
            print(f"It couldn't be graded ({type(error).__name__}: {harmless(str(error))})")
            return True
        if verdict is None:
            return True
        if verdict.reward is None:
            print("The task can't grade it.")
            return True
        if succeeds(verdict.reward):
            print(f"The task finds it right (reward {verdict.reward:g}).")
            return True
        show(f"The task finds it wrong (reward {verdict.reward:g}):", verdict.text or "no reason")
        return ask_yes("Keep it all the same?")

    def _verdict(self, config: TaskConfig, problem: str, text: str) -> Feedback | None:
        """The task's Feedback; None for a problem that isn't one of its own."""
        if self._task is None or self._problems is None:
            self._task = load_task(config)
            self._problems = {p.id: p for p in [*self._task.heldout, *self._task.train]}
        known = self._problems.get(problem)
        return None if known is None else self._task.check(known, text)
