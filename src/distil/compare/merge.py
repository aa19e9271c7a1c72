"""Lays a contender's changes over the base recipe.

Field by field, with three exceptions, so that nothing is inherited that belongs to another choice:
  - task.options are replaced whole, and another task drops them (as with flags);
  - another objective.name than the base's has what that name brings (future, support,
    advantage_weight), not the base's, unless the changes say so;
  - a preset in the changes lies over the base, beneath the changes' own fields.
"""

from collections.abc import Mapping
from typing import Any

from distil.config import Recipe
from distil.errors import RecipeError, SuiteError
from distil.recipe.presets import merged, preset
from distil.recipe.shapechecks import check_keys

SET_BY_SUITE = {"train.seed": "seeds", "train.output_dir": "output_dir"}
BROUGHT_BY_NAME = ("future", "support", "advantage_weight")  # null in a recipe: as the name has it


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, as the module says. Raises RecipeError for an unknown preset."""
    named = changes.get("preset")
    return _laid_over(base, merged(preset(named), dict(changes)) if named else changes)


def check_changes(where: str, changes: Any) -> None:
    """Raises SuiteError unless fields are known, and none is one that the suite itself sets."""
    if not isinstance(changes, dict):
        raise SuiteError(f"{where} is {changes!r}, and must be groups of fields, as in a recipe.")
    try:
        check_keys(changes, Recipe().as_dict(), "")
    except RecipeError as error:
        raise SuiteError(f"In {where}: {error}") from error
    for path, owner in SET_BY_SUITE.items():
        group, field = path.split(".")
        if field in changes.get(group, {}):
            raise SuiteError(f"{where} sets {path}, which the suite's {owner!r} decides.")


def _laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in changes.items():
        grouped = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "options"
        both[key] = _laid_over(base[key], value) if grouped else value
    renamed = "name" in base and both["name"] != base["name"]
    if renamed and "options" in base:
        both["options"] = changes.get("options", {})
    if renamed and "future" in base:
        both |= {field: changes.get(field) for field in BROUGHT_BY_NAME}
    return both
