"""`distil eval`: a model's figures on a task's held-out problems, or a stored evaluation's anew.

A stored one needs no model, no torch and no task. Left out: sampling (`distil.commands.sample`).
"""

from dataclasses import replace
from pathlib import Path

from distil.commands.evalflags import EvalFlags
from distil.config import TaskConfig
from distil.errors import RecipeError, TaskError
from distil.evaluate.evalfile import (
    Evaluation,
    check_same_problems,
    different,
    digests,
    plain_task,
    read,
    store,
    versions,
)
from distil.figures.estimates import by_problem, samples_of
from distil.figures.figurenames import default_ks
from distil.figures.layout import as_text
from distil.figures.tables import result_rows
from distil.recipe.recipefile import recipe_from


def evaluate_model(flags: EvalFlags) -> int:
    """Samples or reads, prints the table or the comparison, writes what was asked for."""
    if flags.out is not None:
        _check_out(Path(flags.out))
    against = None if flags.against is None else read(Path(flags.against))
    if against is not None:
        _check_ks(against, flags.eval.k)
    if flags.stored:
        own = read(Path(flags.model))
        _check_ks(own, flags.eval.k)
        own = _regraded(own, flags) if flags.regrade else own
    else:
        from distil.commands.sample import sampled

        own = sampled(flags, against)
    if against is None:
        _show(own, flags.eval.k)
    else:
        _compare(own, against, flags.eval.k)
    return 0


def _check_ks(evaluation: Evaluation, ks: tuple[int, ...]) -> None:
    n = samples_of(evaluation.attempts)
    if wrong := [k for k in ks if not 1 <= k <= n]:
        raise RecipeError(
            f"--k names {wrong[0]}, and must lie between 1 and the {n} samples of each problem in "
            f"{evaluation.name}."
        )


def _check_out(file: Path) -> None:
    if not file.resolve().parent.is_dir():
        raise TaskError(f"--out {file}: that folder doesn't exist. Make it first.")
    if file.exists():
        raise TaskError(
            f"--out {file} is there already. `distil eval {file}` prints an evaluation that it "
            "holds; give another name, or remove it."
        )


def _regraded(own: Evaluation, flags: EvalFlags) -> Evaluation:
    """The file's task, unless flags or a recipe name one."""
    from distil.evaluate.regrade import regraded
    from distil.tasks import load_task

    task = flags.task
    if task == TaskConfig() and own.settings:
        try:
            task = recipe_from({"task": own.settings["task"]}).task
        except RecipeError as error:
            raise RecipeError(f"In {own.name}: {error}") from error
    loaded = load_task(task)
    attempts = regraded(own.attempts, loaded, own.problems)
    changed = sum(a.reward != b.reward for a, b in zip(own.attempts, attempts, strict=True))
    print(f"Judged anew: {changed} of {len(attempts)} verdicts changed.")
    settings = {**own.settings, "task": plain_task(task)} if own.settings else {}
    new = replace(own, attempts=attempts, settings=settings, versions=versions())
    if not new.problems:
        asked = by_problem(attempts)
        pool = [*loaded.train, *loaded.validation, *loaded.heldout]
        new = replace(new, problems=digests([p for p in pool if p.id in asked]))
    if flags.out is not None:
        store(Path(flags.out), new, flags.eval.k)
    return new


def _show(own: Evaluation, ks: tuple[int, ...]) -> None:
    print(as_text(result_rows({own.name: own.attempts}, ks)))
    said, n = own.settings, samples_of(own.attempts)
    how = ""
    if said:
        how = (
            f" of {said['task']['name']}, temperature {said['temperature']}, top-p "
            f"{said['top_p']}, top-k {said['top_k'] or 'off'}, at most "
            f"{said['max_completion_length']} tokens"
        )
    print(
        f"{len(by_problem(own.attempts))} problems x {n} samples{how}; 95% intervals over problems."
    )


def _compare(own: Evaluation, against: Evaluation, ks: tuple[int, ...]) -> None:
    check_same_problems(own, against)
    ordered = by_problem(against.attempts)
    paired = [a for problem in by_problem(own.attempts) for a in ordered[problem]]
    counts = samples_of(own.attempts), samples_of(against.attempts)
    if not ks and counts[0] != counts[1]:  # avg@n of two n has two names; pass@1 is the same mean
        ks = (1, *default_ks(min(counts)))
    for letter, side in (("A", own), ("B", against)):
        model = side.settings.get("model", side.name)
        print(f"{letter}: {side.name}" + (f" ({model})" if model != side.name else ""))
    print(as_text(result_rows({"A": own.attempts, "B": paired}, ks, pair=("B", "A"))))
    print("95% intervals over problems; A - B is paired, problem by problem.")
    unknown = [e.name for e in (own, against) if not e.settings]
    if unknown:
        print(f"Warning: {' and '.join(unknown)} says nothing of its settings.")
    elif found := different({**own.settings, "model": None}, {**against.settings, "model": None}):
        print("Warning: these settings differ (A, B):")
        print("\n".join(f"  {line}" for line in found))
    if own.versions and against.versions and (found := different(own.versions, against.versions)):
        print("Versions that differ (A, B):\n" + "\n".join(f"  {line}" for line in found))
