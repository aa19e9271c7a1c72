"""A function of the user's own, named as path/to/file.py:function in a recipe or an argument.

Left out: what it must take and return, which whoever calls it knows.
"""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distil.errors import DistILError, RecipeError


def own_function(
    name: str, said: str, must: str, error: type[DistILError] = RecipeError
) -> Callable[..., Any]:
    """The function that path/to/file.py:function names; runs the file.

    said: where the name comes from, as a sentence's beginning ("rollout.tools names"). must: a
    sentence that says what the function must be. Raises `error` where there is no such file, or
    the file has no such function.
    """
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise error(
            f"{said} {name!r}, but there is no file {path!r}. It is written "
            "path/to/file.py:function, the path taken from the folder that the command runs in."
        )
    found = runpy.run_path(path).get(function)
    if not callable(found):
        raise error(f"{said} {name!r}, but {path} defines no function {function!r}. {must}")
    return found
