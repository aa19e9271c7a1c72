"""Assertion tests (MBPP, HumanEval) of a program that runs in another jail.

No code of the program's is in this process: its functions are stand-ins that ask over the pipe, and
plain data comes back. So `==`, `len` and AssertionError here are Python's own.
"""

import builtins
import dis
import types
from typing import Any

from distil.sandbox.jail.program import compiled
from distil.sandbox.jail.talk import described, lines, say
from distil.sandbox.jail.wire import decode, encode, show

TESTS = "tests.py"


class RemoteError(Exception):
    """An exception of a kind that Python itself doesn't have, raised in the program."""


class _Gone(BaseException):
    """The program's process ended, or broke the protocol. No test may catch it."""


class _Remote:
    """The program, reached over the pipe, one call at a time."""

    def __init__(self) -> None:
        self.last = ""
        self._count = 0
        self._lines = lines()

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the function returned; raises what it raised, if that's one of Python's own."""
        self._count += 1
        said = ", ".join(
            [*(show(a, 200) for a in args), *(f"{k}={show(v, 200)}" for k, v in kwargs.items())]
        )
        say(
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


# What these say to Python itself ("the test failed", "there are no more items") isn't the program's
# to say: all(f(x) == 1 for ...) would end early, and pass.
_MEANING_MORE = (AssertionError, StopIteration, StopAsyncIteration)


def _raisable(error: dict[str, Any]) -> BaseException:
    """One of Python's own exceptions, but none that would end the tests as if they had passed."""
    kind = getattr(builtins, error["type"], None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in _MEANING_MORE:
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


def test_functions(job: dict[str, Any]) -> None:
    """Runs the tests; says done, or what failed. They never share a process with the program."""
    remote = _Remote()
    try:
        code = compiled(job["source"], TESTS)
        own: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        for name in _unknown_names(code):
            own[name] = _Function(remote, name)
        exec(code, own)
        if job["entry_point"] is not None:
            own["check"](_Function(remote, job["entry_point"]))
    except _Gone:
        return
    except AssertionError as error:
        say({"failed": described(error, TESTS), "last": remote.last})
    except BaseException as error:
        theirs = getattr(error, "distil_remote", None)
        say(
            {
                "raised": theirs or described(error, TESTS),
                "by_program": theirs is not None,
                "last": remote.last,
            }
        )
    else:
        say({"done": True})


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
