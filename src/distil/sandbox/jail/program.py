"""What a locked child does: runs a program as a script, serves its functions, or tests them.

Descriptors: 0, 1, 2 as ever; 3 the job (read to its end, then closed); for functions and tests 4
gives messages and 5 takes them, one JSON line each (`wire`).

A program may do what it likes with all of this: it's its own process. Whatever it says is only its
answer; what was expected of it isn't here. Left out: verdicts (`distil.sandbox.judge`).
"""

import atexit
import builtins
import dis
import io
import json
import linecache
import os
import random
import sys
import threading
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from distil.sandbox.jail.wire import Opaque, WireError, decode, encode, from_line, show, to_line

JOB, REQUESTS, ANSWERS = 3, 4, 5
NAME = "Solution.py"
TESTS = "tests.py"
FRAMES = 3
SHOWN_FRAMES = 20
MESSAGE = 2000
"""Characters of an exception's message that cross; feedback shows fewer."""

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


def run(mode: str) -> NoReturn:
    """Reads the job and does it; leaves the process. `mode`: script, functions or tests."""
    with open(JOB, "rb") as pipe:
        job = json.loads(pipe.read())
    _fresh_streams()
    if job["seed"] is not None:
        random.seed(job["seed"])
    if mode == "script":
        _leave(_script(job))
    if mode == "functions":
        _serve_functions(job)
    else:
        _test_functions(job)
    _leave(0)


def _fresh_streams() -> None:
    """stdin, stdout and stderr on this run's pipes."""
    sys.stdin = io.TextIOWrapper(open(0, "rb"), encoding="utf-8")  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb"), encoding="utf-8")  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(
        open(2, "wb"),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,  # noqa: SIM115
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = [NAME]


def _leave(code: int) -> NoReturn:
    """Ends as Python does (threads, exit functions, flush), but frees nothing first."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except ValueError:  # closed by the program, and flushed by that
        pass
    except BaseException:
        code = code or 120
    os._exit(code)


def _load(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Runs the program's source as the module `name`; its names. Raises whatever it raises."""
    module = types.ModuleType(name)
    module.__file__ = NAME
    sys.modules[name] = module
    names = module.__dict__
    names["__builtins__"] = builtins
    if prelude := PRELUDES[job["prelude"]]:
        exec(compile(prelude, "<prelude>", "exec"), names)
    exec(_compiled(job["source"], NAME), names)
    return names


def _compiled(source: str, name: str) -> types.CodeType:
    """Compiled, its lines known to tracebacks."""
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    return compile(source, name, "exec", dont_inherit=True)


def _script(job: dict[str, Any]) -> int:
    """The exit code."""
    try:
        _load(job, "__main__")
    except SystemExit as stop:
        return _exit_code(stop)
    except BaseException as error:
        _print(error)
        return 1
    return 0


def _flush() -> None:
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


def _described(error: BaseException, name: str = NAME) -> dict[str, Any]:
    """type, message and the last frames in file `name` of an exception, as a message."""
    own = (
        (line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == name
    )
    found = [
        [line, function[:100], linecache.getline(name, line).strip()[:300]]
        for line, function in deque(own, maxlen=FRAMES)
    ]
    if isinstance(error, SyntaxError) and error.filename == name:
        found = [[error.lineno or 0, "<module>", (error.text or "").strip()[:300]]]
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be printed)"
    if isinstance(error, SyntaxError):
        message = error.msg or message
    return {"type": type(error).__name__[:100], "message": message[:MESSAGE], "frames": found}


# ---------------------------------------------------------------- the program's functions


def _lines() -> Iterator[Any]:
    """Messages from the broker, until it closes the pipe."""
    with open(REQUESTS, "rb") as pipe:
        for line in pipe:
            yield from_line(line)


def _say(message: Any) -> None:
    line = memoryview(to_line(message))
    while line:
        line = line[os.write(ANSWERS, line) :]


def _serve_functions(job: dict[str, Any]) -> None:
    """Loads the program, says so, then answers calls one at a time."""
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    try:
        names = _load(job, "solution")
    except BaseException as error:
        _say({"load": _described(error)})
        return
    _say({"load": None})
    for request in _lines():
        try:
            value = _call(names, request, lambda kind, ref: kept[ref])
            answer = {"id": request["id"], "value": encode(value, keep)}
        except WireError as error:
            answer = {"id": request["id"], "unsendable": str(error)}
        except BaseException as error:
            answer = {"id": request["id"], "error": _described(error)}
        _flush()
        _say(answer)


def _call(
    names: dict[str, Any], request: dict[str, Any], given_back: Callable[[str, int], Any]
) -> Any:
    function = _find(names, request["function"])
    args = [decode(a, given_back) for a in request["args"]]
    kwargs = {k: decode(v, given_back) for k, v in request["kwargs"].items()}
    return function(*args, **kwargs)


def _find(names: dict[str, Any], name: str) -> Any:
    """A function, a Class.method of a new object, or a method of a new Solution."""
    owner, dot, method = name.partition(".")
    if dot:
        return getattr(names[owner](), method)
    if name in names:
        return names[name]
    if "Solution" in names and hasattr(names["Solution"], name):
        return getattr(names["Solution"](), name)
    raise NameError(f"name {name!r} is not defined")


# ---------------------------------------------------------------- tests of them


class RemoteError(Exception):
    """An exception of a kind that Python itself doesn't have, raised in the program."""


class _Gone(BaseException):
    """The program's process ended, or broke the protocol. No test may catch it."""


class _Remote:
    """The program, reached over the pipe, one call at a time."""

    def __init__(self) -> None:
        self.last = ""
        self._count = 0
        self._lines = _lines()

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the function returned; raises what it raised, if that's one of Python's own."""
        self._count += 1
        said = ", ".join(
            [*(show(a, 200) for a in args), *(f"{k}={show(v, 200)}" for k, v in kwargs.items())]
        )
        _say(
            {
                "id": self._count, "function": name, "args": [encode(a) for a in args],
                "kwargs": {k: encode(v) for k, v in kwargs.items()},
            }
        )  # fmt: skip
        answer = next(self._lines, None)
        if answer is None:
            raise _Gone
        if "error" in answer:
            self.last = f"{name}({said}) raised {answer['error']['type']}"
            raise _raisable(answer["error"])
        value = decode(answer["value"])
        self.last = f"{name}({said}) returned {show(value, 500)}"
        return value


def _raisable(error: dict[str, Any]) -> BaseException:
    """One of Python's own exceptions, but none that would end the tests as if they had passed."""
    kind = getattr(builtins, error["type"], None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not AssertionError:
        try:
            raised: BaseException = kind(error["message"])
        except TypeError:  # UnicodeDecodeError and the like want more than a message
            raised = RemoteError(f"{error['type']}: {error['message']}")
    else:
        raised = RemoteError(f"{error['type']}: {error['message']}")
    raised.distil_remote = error  # type: ignore[attr-defined]
    return raised


class _Function:
    """A name of the program, for the tests to call."""

    def __init__(self, remote: _Remote, name: str) -> None:
        self._remote, self.__name__ = remote, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._remote.call(self.__name__, args, kwargs)


def _test_functions(job: dict[str, Any]) -> None:
    """Runs the tests; says done, or what failed. They never share a process with the program."""
    remote = _Remote()
    try:
        code = _compiled(job["source"], TESTS)
        own: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        for name in _unknown_names(code):
            own[name] = _Function(remote, name)
        exec(code, own)
        if job["entry_point"] is not None:
            own["check"](_Function(remote, job["entry_point"]))
    except _Gone:
        return
    except AssertionError as error:
        _say({"failed": _described(error, TESTS), "last": remote.last})
    except BaseException as error:
        theirs = getattr(error, "distil_remote", None)
        _say(
            {
                "raised": theirs or _described(error, TESTS),
                "by_program": theirs is not None,
                "last": remote.last,
            }
        )
    else:
        _say({"done": True})


def _unknown_names(code: types.CodeType) -> set[str]:
    """Names that the tests read as global and neither define nor import, and Python has not."""
    read: set[str] = set()
    stored: set[str] = set()

    def look(part: types.CodeType) -> None:
        for step in dis.get_instructions(part):
            if step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
                read.add(step.argval)
            elif step.opname in ("STORE_NAME", "STORE_GLOBAL"):
                stored.add(step.argval)
        for inner in part.co_consts:
            if isinstance(inner, types.CodeType):
                look(inner)

    look(code)
    return {n for n in read - stored if not hasattr(builtins, n) and not n.startswith("__")}


__all__ = ["Opaque", "run"]
