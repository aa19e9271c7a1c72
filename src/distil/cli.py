"""The command line: reads arguments and recipes, then imports what does the work.

    distil train RECIPE [--group.field value ...] [--resume]
    distil eval MODEL [--recipe RECIPE] [--task.field value ...] [--eval.field value ...]
    distil doctor

A recipe is a YAML file (or a run's folder). Its values and the flags go through one parser, so a
typo or a wrong type gets the same message from either, before anything is loaded. No logic here.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from distil.config import (
    EvalConfig,
    Recipe,
    RolloutConfig,
    TaskConfig,
    check_keys,
    check_recipe,
)
from distil.errors import DistILError, RecipeError, perhaps

USAGE = """usage: distil COMMAND ...

  train RECIPE    train a model; RECIPE is a YAML file, or a run's folder (see --resume)
  eval MODEL      judge a model on a task's held-out problems
  doctor          what this machine can do

distil COMMAND --help shows a command's flags.
"""


@dataclass(frozen=True)
class TrainFlags:
    """Train a model with DistIL. Flags override the recipe."""

    recipe_file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """A YAML file, or the folder of a run to go on with."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    resume: bool = False
    """Go on from the run's last complete checkpoint."""


@dataclass(frozen=True)
class EvalFlags:
    """Judge a model on a task's held-out problems. Flags override the recipe."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The embedded model's name, a local folder, a .gguf file, or a hub id."""
    recipe: str | None = None
    """Take task, eval and completion length from this recipe."""
    task: TaskConfig = field(default_factory=TaskConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    max_completion_length: int = 256
    """Tokens; the recipe's rollout.max_completion_length if --recipe is given."""
    out: str | None = None
    """Write every attempt to this JSON file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status (2: wrong arguments, or a deliberate error)."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    try:
        if argv[0] not in COMMANDS:
            raise RecipeError(f"There is no command {argv[0]!r}.{perhaps(argv[0], COMMANDS)}")
        return COMMANDS[argv[0]](argv[1:])
    except DistILError as error:
        print(f"distil: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ndistil: interrupted. A run goes on with --resume.", file=sys.stderr)
        return 130


def load_recipe(path: str | Path) -> Recipe:
    """A recipe file (or a run folder's) as a Recipe: fields and types checked, ranges not yet."""
    file = Path(path)
    file = file / "recipe.yaml" if file.is_dir() else file
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"The recipe {str(file)!r} can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {str(file)!r} is no valid YAML: {error}") from error
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise RecipeError(f"The recipe {str(file)!r} must be groups of fields, such as task: ...")
    try:
        check_keys(given, Recipe().as_dict(), "")
        options = given.get("task", {}).pop("options", {})  # free in form, so no flags know them
        default = Recipe(task=TaskConfig(options=options))
        return _parse(Recipe, _as_flags(given), prog=str(file), default=default)
    except RecipeError as error:
        raise RecipeError(f"In {file}: {error}") from error


def _train(argv: list[str]) -> int:
    if argv and argv[0].startswith("-") and not {"-h", "--help"} & set(argv):
        raise RecipeError(f"The recipe comes before the flags: distil train RECIPE {argv[0]} ...")
    base = load_recipe(argv[0]) if argv and not argv[0].startswith("-") else Recipe()
    default = TrainFlags(tyro.MISSING, recipe=replace(base, task=_without_options(base.task)))
    flags = _parse(TrainFlags, argv, prog="distil train", default=default)
    task = _with_options(flags.recipe.task, base.task)
    recipe = check_recipe(replace(flags.recipe, task=task))
    # A run's folder may have been moved since; --train.output-dir, if given, stands.
    redirected = recipe.train.output_dir != base.train.output_dir
    if flags.resume and Path(flags.recipe_file).is_dir() and not redirected:
        recipe = replace(recipe, train=replace(recipe.train, output_dir=flags.recipe_file))
    _quiet_libraries()
    from distil.commands.train import train

    return train(recipe, resume=flags.resume)


def _eval(argv: list[str]) -> int:
    base, default = TaskConfig(), EvalFlags(tyro.MISSING)
    if (file := _value_of("--recipe", argv)) is not None:
        recipe = load_recipe(file)
        length = recipe.rollout.max_completion_length
        base, task = recipe.task, _without_options(recipe.task)
        default = EvalFlags(tyro.MISSING, file, task, recipe.eval, length)
    flags = _parse(EvalFlags, argv, prog="distil eval", default=default)
    task = _with_options(flags.task, base)
    rollout = RolloutConfig(prompts_per_step=1, max_completion_length=flags.max_completion_length)
    check_recipe(Recipe(task=task, eval=flags.eval, rollout=rollout))
    _quiet_libraries()
    from distil.commands.eval import evaluate_model

    return evaluate_model(flags.model, task, flags.eval, flags.max_completion_length, flags.out)


def _doctor(argv: list[str]) -> int:
    if argv in (["-h"], ["--help"]):
        print("usage: distil doctor\n\nPrints what this machine can do; takes no flags.")
        return 0
    if argv:
        raise RecipeError(f"distil doctor takes no arguments, got {' '.join(argv)}.")
    _quiet_libraries()
    from distil.commands.doctor import doctor

    return doctor()


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "doctor": _doctor,
}


def _parse(kind: type, argv: list[str], *, prog: str, default: Any = None) -> Any:
    """tyro's parse; its complaint becomes a RecipeError (--help prints and exits as ever)."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, args=argv, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise RecipeError(_plain(complaint.getvalue())) from None


def _plain(box: str) -> str:
    """tyro's boxed complaint as plain lines."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()]
    return "\n".join(line for line in lines if line)


def _as_flags(given: dict[str, Any], where: str = "") -> list[str]:
    """Nested YAML as flags: {train: {steps: 3}} -> ["--train.steps", "3"]."""
    flags: list[str] = []
    for key, value in given.items():
        path = f"{where}{key}"
        if isinstance(value, dict):
            flags += _as_flags(value, f"{path}.")
        elif isinstance(value, bool):
            flags.append(f"--{path}" if value else f"--{where}no-{key}")
        elif isinstance(value, list):
            flags += [f"--{path}", *map(str, value)]
        else:
            flags.append(f"--{path}={value}")
    return flags


def _without_options(task: TaskConfig) -> TaskConfig:
    """Without its dataset's options, which tyro would take for the only ones there are."""
    return replace(task, options={})


def _with_options(task: TaskConfig, base: TaskConfig) -> TaskConfig:
    """Options given as flags; else the recipe's, as long as they belong to the same dataset."""
    if task.options or task.name != base.name:
        return task
    return replace(task, options=base.options)


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
    """The value after a flag, as in `--recipe X` or `--recipe=X`."""
    for place, word in enumerate(argv):
        if word == flag and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1]
    return None


def _quiet_libraries() -> None:
    """Progress bars of weight loading and advice of libraries would drown our own lines."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")


if __name__ == "__main__":
    sys.exit(main())
