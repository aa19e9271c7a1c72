"""A recipe's fields as a file has them, before they are parsed: unknown ones, and wrong shapes.

Left out: types and values, which the command line's parser and `distil.recipe.checks` see to.
"""

from dataclasses import fields
from typing import Any

from distil.config import AlarmConfig
from distil.errors import RecipeError, perhaps

OFF_BY_NULL = {f"alarms.{f.name}" for f in fields(AlarmConfig) if "None" in str(f.type)}
"""Bounds that have a default, and that null takes away."""


def check_keys(given: dict[str, Any], known: dict[str, Any], where: str) -> None:
    """Raises RecipeError at the first key of `given` that `known` lacks, with the nearest one.

    Also where a value hasn't its default's shape: group, list, true or false, or one value.
    """
    for key, value in given.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise RecipeError(f"Unknown field {path!r}.{perhaps(str(key), known)}")
        if wanted := _wrong_shape(path, value, known[key]):
            raise RecipeError(f"Field {path!r} is {value!r}, and must be {wanted}.")
        if isinstance(known[key], dict) and path != "task.options":
            check_keys(value, known[key], path)


def _wrong_shape(path: str, value: Any, default: Any) -> str | None:
    """What `value` had to be, if it can't stand in `default`'s place."""
    if path == "task.options":
        fine = isinstance(value, dict) and all(isinstance(k, str) for k in value)
        fine = fine and all(isinstance(v, int | float | str) for v in value.values())
        return None if fine else "names with one number, text, true or false each"
    if value is None and (default is None or path in OFF_BY_NULL):
        return None
    if isinstance(default, dict):
        fields = ", ".join(sorted(default))
        return None if isinstance(value, dict) else f"a group of fields: {fields}"
    if path == "eval.k":
        numbers = value if isinstance(value, list) else [value]
        return None if all(type(v) is int for v in numbers) else "a list of whole numbers"
    if isinstance(default, list):
        fine = isinstance(value, str | list) and all(isinstance(v, str) for v in value)
        return None if fine else "a list of names"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if value is None or isinstance(value, bool | dict | list):
        return "one value, in quotes if it is text"
    return None
