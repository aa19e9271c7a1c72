"""reasoning-gym's own scores: what a worker runs, and its entries as JSON.

Its entries hold tuples and keys that aren't text, which JSON would change and some verifiers miss:
`as_json` marks them, `from_json` makes them anew.
No limits here: `distil.feedback.reasoning` calls it through `distil.feedback.deadline`.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from numbers import Integral
from typing import Any

import reasoning_gym


def score(answer: str, name: str, options: str, entry: Any) -> float:
    """What the dataset `name` with `options` (JSON) gives an answer to an entry (`as_json`)."""
    return float(_dataset(name, options).score_answer(answer, from_json(entry)))


@lru_cache(maxsize=8)
def _dataset(name: str, options: str) -> Any:
    return reasoning_gym.create_dataset(name, seed=0, size=1, **json.loads(options))


def as_json(value: Any) -> Any:
    """A value of dicts, lists, tuples, sets and plain values as JSON that `from_json` reads back.

    Raises TypeError for anything else.
    """
    if isinstance(value, Mapping):
        return {"dict": [[as_json(k), as_json(v)] for k, v in value.items()]}
    if isinstance(value, list):
        return [as_json(v) for v in value]
    if isinstance(value, tuple | set | frozenset):
        return {type(value).__name__: [as_json(v) for v in value]}
    if value is None or isinstance(value, bool | int | float | str):  # numpy's float and str too
        return value
    if isinstance(value, Integral):  # numpy's
        return int(value)
    raise TypeError(
        f"A {type(value).__name__} can't be handed to a verifier's process: {value!r}. Only dicts, "
        "lists, tuples, sets, numbers, texts, true, false and None can."
    )


def from_json(value: Any) -> Any:
    """The value that `as_json` was given."""
    if isinstance(value, list):
        return [from_json(v) for v in value]
    if not isinstance(value, dict):
        return value
    [(kind, parts)] = value.items()
    if kind == "dict":
        return {from_json(k): from_json(v) for k, v in parts}
    made = {"tuple": tuple, "set": set, "frozenset": frozenset}[kind]
    return made(from_json(v) for v in parts)
