"""What is wrong with a recipe's task: how a table is judged, and in which sandbox.

Left out: sizes (`distil.recipe.rangechecks`), and what is in a table (`distil.tasks.rows`).
"""

from distil.config import TABLE_ENDING, SandboxConfig, TaskConfig


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
    if wants.cpu_s <= 0 or wants.mem_mb < 16 or wants.workers < 0:
        found.append(
            f"task.sandbox allows {wants.cpu_s} s, {wants.mem_mb} MiB and {wants.workers} workers: "
            "cpu_s must be above 0, mem_mb at least 16, workers at least 0."
        )
    if wants.level == "unsafe" and not wants.allow_unsafe:
        found.append(
            "task.sandbox.level is unsafe: programs could read your files and use your network. If "
            "you mean that, set task.sandbox.allow_unsafe: true."
        )
    return found
