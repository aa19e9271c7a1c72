"""What is wrong with a recipe's task: how a table is judged, and in which sandbox.

Left out: sizes (`distil.recipe.rangechecks`), and what is in a table (`distil.tasks.rows`).
"""

from collections.abc import Callable, Mapping
from math import inf

from distil.config import TABLE_ENDING, SandboxConfig, TaskConfig

LEAST = {"mem_mb": 16, "out_kb": 1, "err_kb": 0, "threads": 1, "workers": 0}
"""Of the sandbox's whole numbers; its seconds and factors must be above 0."""


def task_faults(task: TaskConfig) -> list[str]:
    """Every fault as a sentence with its fix; [] if there is none."""
    return [*_table(task), *_sandbox(task)]


def _table(task: TaskConfig) -> list[str]:
    """Whether the task is a table, and says so alike in its name, its check and its eval_file."""
    if task.eval_file and not (
        task.name.endswith(TABLE_ENDING) and task.eval_file.endswith(TABLE_ENDING)
    ):
        return [
            f"task.eval_file is {task.eval_file!r} and task.name {task.name!r}: a file to judge on "
            f"goes with a file to train on, both *{TABLE_ENDING}. Leave it out."
        ]
    if not task.name.endswith(TABLE_ENDING):
        if task.check is None:
            return []
        return [
            f"task.check is {task.check}, but {task.name!r} is no file of problems "
            f"(*{TABLE_ENDING}) and brings its own judge. Leave task.check out, or null."
        ]
    if task.check is None:
        return [
            f"task.check isn't set, and it says how the answers of {task.name!r} are judged. "
            "Set it to math, choice, exact, tolerant or programs."
        ]
    return []


def _sandbox(task: TaskConfig) -> list[str]:
    """Settings of the sandbox that nothing reads, or that allow nothing."""
    wants, found = task.sandbox, []
    if task.check != "programs" and wants != SandboxConfig():
        found.append(
            "task.sandbox is set, but no program is run. Leave it out, or set task.check: programs."
        )
    given = {"cpu_s": wants.cpu_s, "mem_mb": wants.mem_mb, "workers": wants.workers}
    names = ("task.sandbox.level", "task.sandbox.allow_unsafe: true")
    return [
        *found,
        *limit_faults(given, lambda name: f"task.sandbox.{name}"),
        *level_faults(wants.level, names, allow_unsafe=wants.allow_unsafe),
    ]


def limit_faults(limits: Mapping[str, float], called: Callable[[str], str]) -> list[str]:
    """Limits of the sandbox that allow nothing, NaN among them.

    `called` is what the reader calls a limit: a recipe's field, or a flag.
    """
    found: list[str] = []
    for name, value in limits.items():
        least = LEAST.get(name)
        if least is None and not 0 < value < inf:
            found.append(f"{called(name)} is {value}, and must be a number above 0.")
        elif least is not None and value < least:
            found.append(f"{called(name)} is {value}, and must be at least {least}.")
    return found


def level_faults(level: str, names: tuple[str, str], *, allow_unsafe: bool) -> list[str]:
    """Whether unsafe was asked for only once; `names` are the level's, and of what allows it."""
    if level != "unsafe" or allow_unsafe:
        return []
    return [
        f"{names[0]} is unsafe: programs could read your files and use your network. If you mean "
        f"that, set {names[1]}."
    ]
