"""Which runs a suite needs, where each lies, and what became of it.

    OUTPUT/recipes/ID.yaml     the merged recipe         OUTPUT/runs/ID/       the run's folder
    OUTPUT/runs/ID.log         what the run printed      OUTPUT/runs/ID.json   how it ended

ID is contender-lrRATE-seedSEED. A run has ended once ID.json is there, written last and whole; or
if OUTPUT/results.json (the report's, small enough to be kept in a repository) has it, made with the
same recipe: so a comparison goes on on another machine, which has that one file only.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from distil.compare.suite import Suite
from distil.config import Recipe
from distil.errors import SuiteError
from distil.recipe.recipefile import load_recipe
from distil.runs.folder import RECIPE_FILE, differences, write_json, write_text

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `seconds`: of its last process; `resumed`: whether there were earlier ones.

    `last_lines`: the end of its log, if it failed. `curve`: `curves.Curve` as a dict, None if the
    model was never judged.
    """

    status: Literal["finished", "failed"]
    exit: int
    seconds: float
    resumed: bool
    last_lines: tuple[str, ...] = ()
    curve: dict[str, Any] | None = None


@dataclass(frozen=True)
class Run:
    """One training run of a suite."""

    contender: str
    rate: float
    seed: int
    tuning: bool
    recipe: Recipe
    root: Path

    @property
    def name(self) -> str:
        """contender-lrRATE-seedSEED."""
        return _name(self.contender, self.rate, self.seed)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.root / "runs" / self.name

    @property
    def log(self) -> Path:
        """What its processes printed, one after another."""
        return self.root / "runs" / f"{self.name}.log"

    @property
    def recipe_file(self) -> Path:
        """The merged recipe that it was begun with."""
        return self.root / "recipes" / f"{self.name}.yaml"

    @property
    def begun(self) -> bool:
        """Whether its folder holds a run that can be taken up again."""
        return (self.folder / RECIPE_FILE).is_file()

    @property
    def recipe_digest(self) -> str:
        """Of all that its recipe says beyond the defaults, so that new fields change nothing."""
        said = differences(Recipe().as_dict(), self.recipe.as_dict())
        told = {path: new for path, (_, new) in said if path != "train.output_dir"}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def outcome(self) -> Outcome | None:
        """How it ended; None: it has not."""
        try:
            stored = json.loads(self._outcome_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return self._reported()
        return Outcome(**{**stored, "last_lines": tuple(stored["last_lines"])})

    def end(self, outcome: Outcome) -> None:
        """Records how it ended."""
        write_json(self._outcome_file, asdict(outcome))

    def forget_failure(self) -> None:
        """Makes a failed run one to be run: anew, or from its checkpoint if it was killed."""
        outcome = self.outcome()
        if outcome is None or outcome.status != "failed":
            return
        if outcome.exit > 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._outcome_file.unlink(missing_ok=True)
        report = self.root / RESULTS_FILE
        if report.is_file():
            stored = json.loads(report.read_text(encoding="utf-8"))
            stored["runs"] = [run for run in stored["runs"] if run["name"] != self.name]
            write_json(report, stored)

    def remove_weights(self) -> None:
        """Removes checkpoints and the trained model."""
        for heavy in [*self.folder.glob("checkpoint-*"), self.folder / "model"]:
            shutil.rmtree(heavy, ignore_errors=True)

    def write_recipe(self) -> None:
        """Stores the merged recipe, for the run and for `check_unchanged`."""
        self.recipe_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.recipe_file, yaml.safe_dump(self.recipe.as_dict(), sort_keys=False))

    def _reported(self) -> Outcome | None:
        """How it ended by results.json, if that knows it and its recipe was this one."""
        file = self.root / RESULTS_FILE
        if not file.is_file() or self.begun:
            return None
        stored = _reported_runs(file, file.stat().st_mtime_ns).get(self.name, {})
        if stored.get("recipe") != self.recipe_digest:
            return None
        lines = (stored["error"],) if "error" in stored else ()
        curve = stored.get("curve")
        return Outcome(stored["status"], stored["exit"], stored["took"], False, lines, curve)

    @property
    def _outcome_file(self) -> Path:
        return self.root / "runs" / f"{self.name}.json"


def tuning_runs(suite: Suite) -> list[Run]:
    """Every rate of every tuned contender on every tuning seed; contenders take turns."""
    return [
        _run(suite, name, rate, seed, tuning=True)
        for seed in suite.tuning_seeds
        for place in range(len(suite.learning_rates))
        for name in suite.contenders
        if len(suite.grid(name)) > 1
        for rate in [suite.grid(name)[place]]
    ]


def judged_runs(suite: Suite, rates: Mapping[str, float]) -> list[Run]:
    """Every contender in `rates` on every seed, at its rate; contenders take turns."""
    return [
        _run(suite, name, rates[name], seed, tuning=False)
        for seed in suite.seeds
        for name in suite.contenders
        if name in rates
    ]


def possible_runs(suite: Suite) -> list[Run]:
    """The tuning runs, and the judged ones whichever rates will be chosen."""
    runs = tuning_runs(suite)
    for place in range(max(1, len(suite.learning_rates))):
        rates = {n: suite.grid(n)[min(place, len(suite.grid(n)) - 1)] for n in suite.contenders}
        runs += judged_runs(suite, rates)
    return list({run.name: run for run in runs}.values())


def check_unchanged(runs: Iterable[Run]) -> None:
    """Raises SuiteError if a run was begun with another recipe than the suite makes today."""
    for run in runs:
        if not run.recipe_file.exists() or not (run.begun or run.outcome()):
            continue
        changed = _changed(yaml.safe_load(run.recipe_file.read_text(encoding="utf-8")), run.recipe)
        if changed:  # fields may have been added to recipes since: parsed, they have defaults
            changed = _changed(load_recipe(run.recipe_file).as_dict(), run.recipe)
        if changed:
            raise SuiteError(
                f"The run {run.name} was begun with another recipe than the suite makes now:\n"
                + "\n".join(changed)
                + f"\nUndo that, give another output_dir, or remove {run.folder} and its .json."
            )


@lru_cache(maxsize=4)
def _reported_runs(file: Path, _written: int) -> dict[str, dict[str, Any]]:
    """Run name -> its entry in results.json; read again when the file was written since."""
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    return {run["name"]: run for run in runs if "recipe" in run}


def _changed(stored: dict[str, Any], recipe: Recipe) -> list[str]:
    """A line for each field that differs; where the run lies is none."""
    return [
        f"  {path}: was {old!r}, is {new!r}"
        for path, (old, new) in differences(stored, recipe.as_dict())
        if path != "train.output_dir"
    ]


def _run(suite: Suite, name: str, rate: float, seed: int, *, tuning: bool) -> Run:
    folder = suite.output_dir / "runs" / _name(name, rate, seed)
    recipe = suite.recipe(name, rate, seed, tuning=tuning, folder=str(folder))
    return Run(name, rate, seed, tuning, recipe, suite.output_dir)


def _name(contender: str, rate: float, seed: int) -> str:
    return f"{contender}-lr{rate!r}-seed{seed}"
