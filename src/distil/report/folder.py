"""What lies in a run's folder, read for looking at it, while it may still be written to.

A folder is a run's if it has metrics or rollouts: those of `DistILTrainer` used as a library have
no recipe and no evaluations, and are shown without. Left out: rollouts (`distil.report.scan`).
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distil.errors import RunError
from distil.evaluate.evalfile import read_record
from distil.figures.estimates import Attempt
from distil.runs.folder import (
    ALARMS_FILE,
    BAD_STEPS_FILE,
    METRICS_FILE,
    PROFILE_FILE,
    RECIPE_FILE,
    ROLLOUTS_FILE,
    read_lines,
    read_metrics,
    rollout_files,
)

STANDING = ("before", "after", "best", "teacher")
"""Evaluations that a run has at most one of, as a table shows them."""


@dataclass(frozen=True)
class Judged:
    """One evaluation, after `step` of train.steps."""

    name: str
    step: int
    attempts: list[Attempt]


@dataclass(frozen=True)
class RunFolder:
    """What a run says of itself. recipe, environment, profile: empty where it has none.

    metrics: update -> figures. updates: optimiser updates in one of train.steps.
    """

    path: Path
    name: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[int, dict[str, Any]]
    evaluations: list[Judged]
    alarms: list[dict[str, Any]]
    bad_steps: list[dict[str, Any]]
    profile: dict[str, Any]
    updates: int
    status: str

    @property
    def rollout_files(self) -> list[Path]:
        """The older first."""
        return rollout_files(self.path)

    def standing(self) -> dict[str, list[Attempt]]:
        """The attempts of the evaluations that a table of results has, by name."""
        found = {j.name: j.attempts for j in self.evaluations}
        return {name: found[name] for name in STANDING if name in found}

    def ks(self) -> tuple[int, ...]:
        """The k of its pass@k and maj@k, as the recipe has them; none: the default ones."""
        return tuple(self.recipe.get("eval", {}).get("k", ()))


def read_run(path: Path) -> RunFolder:
    """Reads a run's folder. Raises RunError if it isn't one, or if a file of it is damaged."""
    known = (path / name for name in (METRICS_FILE, ROLLOUTS_FILE, RECIPE_FILE))
    if not any(file.is_file() for file in known):
        raise RunError(
            f"{path} holds no run: there is no {RECIPE_FILE}, {METRICS_FILE} or {ROLLOUTS_FILE} in "
            "it. Name the folder that `distil train` printed (its train.output_dir)."
        )
    recipe = _yaml(path / RECIPE_FILE)
    train = recipe.get("train", {})
    updates = train.get("updates_per_batch", 1) * train.get("num_iterations", 1)
    metrics = read_metrics(path)
    return RunFolder(
        path=path,
        name=path.resolve().name,
        recipe=recipe,
        environment=_json(path / "environment.json"),
        metrics=metrics,
        evaluations=_evaluations(path),
        alarms=list(read_lines(path / ALARMS_FILE)),
        bad_steps=list(read_lines(path / BAD_STEPS_FILE)),
        profile=_json(path / PROFILE_FILE),
        updates=updates,
        status=_status(path, metrics, train.get("steps", 0), updates),
    )


def _status(path: Path, metrics: dict[int, Any], steps: int, updates: int) -> str:
    """How far it got, as a person reads it. A run that is going on can't be told from a killed one,
    but by when it last wrote.
    """
    done = max(metrics, default=0) // updates
    if not steps:
        return f"{done} steps"
    if (path / "after.json").is_file() or (done >= steps and (path / "model").is_dir()):
        return f"finished: {steps} steps"
    if not metrics:
        return f"0 of {steps} steps"
    written = time.localtime((path / METRICS_FILE).stat().st_mtime)
    return f"{done} of {steps} steps, last written {time.strftime('%Y-%m-%d %H:%M', written)}"


def _evaluations(path: Path) -> list[Judged]:
    """In the order of their steps; those without an attempt are left out."""
    files = [path / f"{name}.json" for name in STANDING]
    files += [*path.glob("eval-*.json"), *path.glob("validation-*.json")]
    found = []
    for file in files:
        if file.is_file():
            record, attempts = read_record(file)
            if attempts:
                found.append(Judged(file.stem, record.get("step", 0), attempts))
    return sorted(found, key=lambda j: (j.step, j.name))


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file} is damaged ({error}). Remove it to go on without it.") from error
    return found


def _yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RunError(f"{file} is damaged ({error}). Remove it to go on without it.") from error
    return found if isinstance(found, dict) else {}
