"""Reading recipes: a YAML file's values go through the parser of the command line's flags.

So a typo or a wrong type gets the same message from either. Ranges are `distil.recipe.checks`'.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import tyro
import yaml

from distil.config import Recipe, TaskConfig
from distil.errors import RecipeError
from distil.recipe.presets import merged, preset
from distil.recipe.shapechecks import check_keys

COMMAND = "distil train RECIPE"
"""Whose --help a complaint about a file's value points to: it shows the fields."""

MERGE = "tag:yaml.org,2002:merge"
"""What YAML calls the key `<<`."""


def load_recipe(path: str | Path, preset_over_it: str | None = None) -> Recipe:
    """A recipe file (or a run folder's) as a Recipe: fields and types checked, ranges not yet.

    A preset that the file names lies under the file's own fields, `preset_over_it` over them.
    """
    file = Path(path)
    file = file / "recipe.yaml" if file.is_dir() else file
    given = read_yaml(file, "recipe")
    over = {} if preset_over_it is None else preset(preset_over_it)
    try:
        check_keys(given, Recipe().as_dict(), "")
        given = merged(given, over)
        return recipe_from(given)
    except RecipeError as error:
        raise RecipeError(f"In {file}: {error}") from error


class _Twice(yaml.YAMLError):
    """A key is twice in one group."""


class _Loader(yaml.SafeLoader):
    """yaml's own, which would keep the last of two equal keys, and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A group, as it is written: what `<<` brings isn't in it yet, and may be overridden."""
        group = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in group.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise _Twice(
                        f"has {key.value!r} twice in one group, in line {lines[key.value]} and in "
                        f"line {line}, and only the last would be read. Take one of them out."
                    )
                lines[key.value] = line
        return group


def read_yaml(file: Path, what: str) -> dict[str, Any]:
    """A YAML file's mapping; an empty file is an empty one. `what` names it in a RecipeError."""
    try:
        given = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise RecipeError(f"The {what} {str(file)!r} can't be read: {error.strerror}.") from error
    except _Twice as error:
        raise RecipeError(f"The {what} {str(file)!r} {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # no UTF-8, a 32nd of May
        raise RecipeError(f"The {what} {str(file)!r} is no valid YAML: {error}") from error
    given = {} if given is None else given
    if not isinstance(given, dict):
        example = "groups of fields, such as task: ..." if what == "recipe" else "named fields"
        raise RecipeError(f"The {what} {str(file)!r} must be {example}")
    return given


def recipe_from(given: dict[str, Any]) -> Recipe:
    """Nested dicts as a Recipe, its fields and types checked as `load_recipe` does."""
    check_keys(given, Recipe().as_dict(), "")
    if given.get("preset"):
        given = merged(preset(given["preset"]), given)
    task = dict(given.get("task", {}))
    options = task.pop("options", {})  # free in form, so no flags know them
    flags = as_flags({**given, "task": task})
    return parse(Recipe, flags, prog=COMMAND, default=Recipe(task=TaskConfig(options=options)))


def parse(kind: type, argv: list[str], *, prog: str, default: Any = None) -> Any:
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


def as_flags(given: dict[str, Any], where: str = "") -> list[str]:
    """Nested YAML as flags: {train: {steps: 3}} -> ["--train.steps", "3"]."""
    flags: list[str] = []
    for key, value in given.items():
        path = f"{where}{key}"
        if isinstance(value, dict):
            flags += as_flags(value, f"{path}.")
        elif isinstance(value, bool):
            flags.append(f"--{path}" if value else f"--{where}no-{key}")
        elif isinstance(value, list):
            flags += [f"--{path}", *map(str, value)]
        else:
            flags.append(f"--{path}={value}")
    return flags
