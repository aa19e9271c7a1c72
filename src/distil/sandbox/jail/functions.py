"""A program's functions, served to whoever asks over the pipe: one call, one answer.

Objects that aren't plain data stay here; a number stands for each, and brings it back.
"""

from collections.abc import Callable
from typing import Any

from distil.sandbox.jail.program import NAME, flush, load
from distil.sandbox.jail.talk import described, lines, say
from distil.sandbox.jail.wire import WireError, decode, encode


def serve_functions(job: dict[str, Any]) -> None:
    """Loads the program, says so, then answers calls one at a time."""
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    try:
        names = load(job, "solution")
    except BaseException as error:
        say({"load": described(error, NAME)})
        return
    say({"load": None})
    for request in lines():
        try:
            value = _call(names, request, lambda kind, ref: kept[ref])
            answer = {"id": request["id"], "value": encode(value, keep)}
        except WireError as error:
            answer = {"id": request["id"], "unsendable": str(error)}
        except BaseException as error:
            answer = {"id": request["id"], "error": described(error, NAME)}
        flush()
        say(answer)


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
