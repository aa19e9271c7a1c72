"""A suite file: which contenders, seeds and learning rates are compared, checked before all runs.

    recipe: ../demo.yaml            base recipe, relative to the suite file
    output_dir: runs/compare        relative to the working directory
    reference: distil               paired differences are taken to this contender
    learning_rates: [3.0e-4, 1.0e-3]    the grid, the same for everybody; none: the recipe's rate
    tuning_seeds: [100]             train.seed and task.seed of tuning runs: problems drawn anew
    seeds: [0, 1, 2]                train.seed of judged runs; the problems are the recipe's
    jobs: 2                         runs at a time, each of one thread if there are several, and on
                                    one GPU, the least used, if there are any
    keep_models: false              else checkpoints and model/ of finished runs are removed
    common: {eval: {every: 10}}     changes of the recipe for every contender; in model.name, {seed}
                                    stands for the run's seed: organism-sums@{seed} pre-trains one
                                    for every seed, so that intervals cover the luck of that too
    contenders:                     name -> its own changes, nested like a recipe
      distil: {}
      grpo: {objective: {name: grpo}}

A contender that sets train.learning_rate itself (not by a preset) is not tuned ("fixed").
Contenders may not differ in the problems, in how they are judged, or in how many rollouts they may
spend. How changes are laid over the base recipe: `distil.compare.merge`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distil.compare.merge import check_changes, merge
from distil.config import Recipe
from distil.errors import RecipeError, SuiteError, perhaps
from distil.recipe.checks import check_recipe
from distil.recipe.recipefile import load_recipe, read_yaml, recipe_from
from distil.runs.folder import differences, rollouts_after

FIELDS = (
    "recipe", "output_dir", "reference", "learning_rates", "tuning_seeds", "seeds", "jobs",
    "keep_models", "common", "contenders",
)  # fmt: skip
NEEDED = ("recipe", "reference", "seeds", "contenders")
SAME_FOR_ALL = ("task", "eval", "rollout.max_completion_length")  # but for eval.every
SEED = "{seed}"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Suite:
    """A checked suite.

    base: the recipe with the common changes; recipes: each contender's. Neither is resolved yet.
    """

    file: Path
    output_dir: Path
    reference: str
    learning_rates: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    jobs: int
    keep_models: bool
    base: dict[str, Any]
    contenders: dict[str, dict[str, Any]]
    recipes: dict[str, Recipe]

    def fixes_rate(self, contender: str) -> bool:
        """Whether a contender sets its learning rate itself."""
        return "learning_rate" in self.contenders[contender].get("train", {})

    def grid(self, contender: str) -> tuple[float, ...]:
        """The learning rates that a contender may have, ascending."""
        if self.fixes_rate(contender) or not self.learning_rates:
            return (self.recipes[contender].train.learning_rate,)
        return self.learning_rates

    def recipe(
        self,
        contender: str,
        rate: float | None = None,
        seed: int | None = None,
        *,
        tuning: bool = False,
        folder: str = "",
    ) -> Recipe:
        """A contender's recipe, resolved; a tuning run draws its problems anew.

        Raises SuiteError if it can't run.
        """
        made = self.recipes[contender]
        train = replace(
            made.train,
            learning_rate=made.train.learning_rate if rate is None else rate,
            seed=made.train.seed if seed is None else seed,
            output_dir=folder or made.train.output_dir,
        )
        task, model = made.task, made.model
        if seed is not None:
            task = replace(task, seed=seed) if tuning else task
            model = replace(model, name=model.name.replace(SEED, str(seed)))
        try:
            return check_recipe(replace(made, train=train, task=task, model=model))
        except RecipeError as error:
            raise SuiteError(f"Contender {contender!r} of {self.file}: {error}") from error


def load_suite(path: str | Path) -> Suite:
    """Reads and checks a suite and every recipe that it makes; raises SuiteError. Loads no task."""
    file = Path(path)
    try:
        given = read_yaml(file, "suite")
    except RecipeError as error:
        raise SuiteError(str(error)) from error
    for key in given:
        if key not in FIELDS:
            raise SuiteError(f"{file} has the unknown field {key!r}.{perhaps(str(key), FIELDS)}")
    for key in NEEDED:
        if given.get(key) is None:
            raise SuiteError(f"{file} lacks the field {key!r}. It needs {', '.join(NEEDED)}.")
    base = _base(file, _text(given, "recipe", ""), given.get("common") or {})
    contenders = _contenders(given["contenders"])
    suite = Suite(
        file=file,
        output_dir=Path(_text(given, "output_dir", f"runs/{file.stem}")),
        reference=_text(given, "reference", ""),
        learning_rates=_rates(given.get("learning_rates", [])),
        tuning_seeds=_seeds(given, "tuning_seeds"),
        seeds=_seeds(given, "seeds"),
        jobs=_whole(given.get("jobs", 1), "jobs", 1),
        keep_models=_flag(given, "keep_models"),
        base=base,
        contenders=contenders,
        recipes={name: _parsed(name, base, changes) for name, changes in contenders.items()},
    )
    _check_suite(suite)
    _check_recipes(suite)
    return suite


def _base(file: Path, recipe: str, common: Any) -> dict[str, Any]:
    """The base recipe with the common changes."""
    check_changes("common", common)
    try:
        return merge(load_recipe(file.parent / recipe).as_dict(), common)
    except RecipeError as error:
        raise SuiteError(f"The base recipe of {file}: {error}") from error


def _contenders(given: Any) -> dict[str, dict[str, Any]]:
    """name -> changes, their fields known."""
    if not isinstance(given, dict) or not given:
        raise SuiteError("contenders must be names, each with its changes: grpo: {objective: ...}")
    for name, changes in given.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise SuiteError(
                f"A contender is called {name!r}. Its name becomes a folder's: take letters, "
                "digits and _ . + - only (in quotes if YAML reads it as something else)."
            )
        check_changes(f"contender {name!r}", {} if changes is None else changes)
    return {name: changes or {} for name, changes in given.items()}


def _parsed(name: str, base: dict[str, Any], changes: dict[str, Any]) -> Recipe:
    """A contender's recipe, its types checked."""
    try:
        return recipe_from(merge(base, changes))
    except RecipeError as error:
        raise SuiteError(f"In contender {name!r}: {error}") from error


def _check_suite(suite: Suite) -> None:
    """What must fit together within the suite itself."""
    if suite.reference not in suite.contenders:
        known = perhaps(suite.reference, suite.contenders)
        raise SuiteError(f"The reference {suite.reference!r} is no contender.{known}")
    if not suite.seeds:
        raise SuiteError("seeds is empty, so there is nothing to run. Name at least one.")
    if shared := set(suite.seeds) & set(suite.tuning_seeds):
        raise SuiteError(
            f"seeds and tuning_seeds share {sorted(shared)}: a rate would be chosen on runs that "
            "it is judged by. Take other tuning seeds."
        )
    if len(suite.learning_rates) > 1 and not suite.tuning_seeds:
        raise SuiteError(
            f"learning_rates has {len(suite.learning_rates)} values and tuning_seeds none, so "
            "nothing could choose between them. Name a tuning seed, or leave one rate."
        )
    if suite.base["task"]["seed"] in suite.tuning_seeds:
        raise SuiteError(
            f"task.seed is {suite.base['task']['seed']}, which is a tuning seed too, so rates "
            "would be chosen on the judged problems. Take other tuning seeds."
        )


def _check_recipes(suite: Suite) -> None:
    """Each contender's recipe can run, at each rate, on the reference's terms."""
    reference = suite.recipe(suite.reference)
    for name in suite.contenders:
        for rate in suite.grid(name):
            recipe = suite.recipe(name, rate)
        unfair = [
            f"  {path}: {suite.reference} has {old!r}, {name} has {new!r}"
            for path, (old, new) in differences(reference.as_dict(), recipe.as_dict())
            if path.startswith(SAME_FOR_ALL) and path != "eval.every"
        ]
        spent = [rollouts_after(r, r.train.steps) for r in (reference, recipe)]
        if spent[0] != spent[1]:
            unfair.append(f"  rollouts: {suite.reference} spends {spent[0]}, {name} {spent[1]}")
        if unfair:
            raise SuiteError(
                f"Contender {name!r} would not be compared on the same problems, judgement and "
                "budget; move such changes to common:\n" + "\n".join(unfair)
            )
    if reference.task.eval_size == 0:
        raise SuiteError("task.eval_size is 0, so there is nothing to compare on. Set it above 0.")


def _text(given: Mapping[str, Any], key: str, default: str) -> str:
    value = given.get(key, default)
    if not isinstance(value, str) or not value:
        raise SuiteError(f"{key} is {value!r}, and must be text.")
    return value


def _flag(given: Mapping[str, Any], key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise SuiteError(f"{key} is {value!r}, and must be true or false.")
    return value


def _whole(value: Any, key: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SuiteError(f"{key} has {value!r}, and must hold whole numbers from {least} on.")
    return value


def _seeds(given: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Distinct whole numbers, in the file's order."""
    values = given.get(key, [])
    if not isinstance(values, list):
        raise SuiteError(f"{key} is {values!r}, and must be a list such as [0, 1, 2].")
    seeds = tuple(_whole(v, key, 0) for v in values)
    if len(set(seeds)) < len(seeds):
        raise SuiteError(f"{key} names a seed twice: {list(seeds)}.")
    return seeds


def _rates(values: Any) -> tuple[float, ...]:
    """Distinct numbers above 0, ascending; YAML reads 1e-3 (no point) as text, which is fine."""
    try:
        rates = sorted(float(v) for v in values) if isinstance(values, list) else [math.nan]
    except (TypeError, ValueError):
        rates = [math.nan]
    if not all(0 < r < math.inf for r in rates) or len(set(rates)) < len(rates):
        raise SuiteError(f"learning_rates is {values!r}: list distinct numbers above 0.")
    return tuple(rates)
