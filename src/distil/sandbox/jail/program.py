"""A program in its jail: its streams, its source as a module, its end as Python would end it."""

import atexit
import builtins
import gc
import io
import linecache
import os
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

NAME = "Solution.py"
SHOWN_FRAMES = 20

# What LiveCodeBench's own judge puts before a program.
_STARS = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
    "statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
PRELUDES = {
    "none": "",
    "lcb": "\n".join(
        [
            *(f"from {name} import *" for name in _STARS),
            f"import {', '.join(_STARS)}",
            "sys.setrecursionlimit(50000)",
        ]
    ),
}


def fresh_streams() -> None:
    """stdin, stdout and stderr on this run's pipes."""
    sys.stdin = io.TextIOWrapper(open(0, "rb"), encoding="utf-8")  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb"), encoding="utf-8")  # noqa: SIM115
    errors = open(2, "wb")  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(errors, "utf-8", "backslashreplace", line_buffering=True)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = [NAME]


def leave(code: int) -> NoReturn:
    """Ends as Python does (threads, exit functions, flush), but frees nothing first."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        _close_files()
        sys.stdout.flush()
    except ValueError:  # closed by the program, and flushed by that
        pass
    except BaseException:
        code = code or 120
    os._exit(code)


def _close_files() -> None:
    """Files that the program opened and left open are flushed, as at any Python's end."""
    for name in ("__main__", "solution"):
        if name in sys.modules:
            sys.modules[name].__dict__.clear()
    gc.collect()


def load(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Runs the program's source as the module `name`; its names. Raises whatever it raises."""
    module = types.ModuleType(name)
    module.__file__ = NAME
    sys.modules[name] = module
    names = module.__dict__
    names["__builtins__"] = builtins
    if prelude := PRELUDES[job["prelude"]]:
        exec(compile(prelude, "<prelude>", "exec"), names)
    exec(compiled(job["source"], NAME), names)
    return names


def compiled(source: str, name: str) -> types.CodeType:
    """Compiled, its lines known to tracebacks."""
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    return compile(source.removeprefix("\ufeff"), name, "exec", dont_inherit=True)


def script(job: dict[str, Any]) -> int:
    """Runs the job's source as `python Solution.py` would; the exit code."""
    try:
        load(job, "__main__")
    except SystemExit as stop:
        return _exit_code(stop)
    except BaseException as error:
        _print(error)
        return 1
    return 0


def flush() -> None:
    """What the program printed goes out, if its stdout is still there."""
    try:
        sys.stdout.flush()
    except (ValueError, OSError):  # the program closed it: nothing printed, and nothing to tell
        return


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def _print(error: BaseException) -> None:
    """The traceback, from the program's own first frame on."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename != NAME:
        own = own.tb_next
    traceback.print_exception(type(error), error, own, limit=-SHOWN_FRAMES)
