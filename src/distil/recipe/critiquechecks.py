"""What is wrong with the settings of a critic, whether a recipe's or a DistILConfig's.

Only what can be told from the settings: whether a judge answers is `distil.feedback.judge`'s.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args, get_type_hints
from urllib.parse import urlsplit

from distil.config import CritiqueConfig
from distil.errors import known_names
from distil.recipe.algorithms import algorithm

JUDGES_OWN = ("model", "base_url", "api_key_env", "concurrency", "timeout", "deadline")


def critique_faults(
    critique: CritiqueConfig, order: Sequence[str], objective: str, *, names: tuple[str, str]
) -> list[str]:
    """Every fault as a sentence with its fix; [] if there is none.

    order: of the sources of feedback. names: what the reader calls `critique` and `order`.
    """
    name, order_name = names
    known = get_args(get_type_hints(CritiqueConfig)["by"])
    if critique.by not in known:
        return [
            f"{name}.by is {critique.by!r}, which there isn't.{known_names(critique.by, known)}"
        ]
    unread = _unread(critique)
    if unread and critique.by == "none":
        return [f"{name} sets {unread}, and {name}.by is none. Set it to policy or judge."]
    if critique.by == "none":
        return []
    found = [*_ranges(critique, name), *(_judge(critique, name) if critique.by == "judge" else [])]
    if unread:
        found.append(f"{name} sets {unread}, which only a judge has; {name}.by is {critique.by}.")
    if "critique" not in order:
        found.append(
            f"{name}.by is {critique.by}, and {order_name} doesn't name critique, so that nobody "
            "would be shown one. Add it where it ranks."
        )
    if algorithm(objective).cost is None:
        found.append(
            f"{name}.by is {critique.by}, and {objective} has no teacher to show critiques to. Set "
            "it to none, or use another objective."
        )
    return found


def _unread(critique: CritiqueConfig) -> str:
    """The fields that were set and that nothing would read."""
    ignored = {"none": [f.name for f in fields(critique) if f.name != "by"], "policy": JUDGES_OWN}
    standard = CritiqueConfig()
    names = ignored.get(critique.by, ())
    return ", ".join(n for n in names if vars(critique)[n] != vars(standard)[n])


def _ranges(critique: CritiqueConfig, name: str) -> list[str]:
    values = vars(critique)
    found = [
        f"{name}.{key} is {values[key]}, and must be at least 1."
        for key in ("per_step", "max_tokens", "concurrency")
        if values[key] < 1
    ]
    found += [
        f"{name}.{key} is {values[key]}, and must be above 0 seconds."
        for key in ("timeout", "deadline")
        if not values[key] > 0
    ]
    # A judge may be asked for its likeliest words; the policy is sampled.
    if not (critique.temperature > 0 or (critique.by == "judge" and critique.temperature == 0)):
        found.append(f"{name}.temperature is {critique.temperature}, and must be above 0.")
    return found


def _judge(critique: CritiqueConfig, name: str) -> list[str]:
    found = []
    if not critique.model:
        found.append(f"{name}.by is judge, and {name}.model is empty. Name the endpoint's model.")
    return found + address_faults(f"{name}.base_url", critique.base_url)


def address_faults(name: str, address: str, key_name: str = "") -> list[str]:
    """What is wrong with an endpoint's address, called `name`: a sentence, or none.

    key_name: what names the key's environment variable; else api_key_env beside `name`.
    """
    try:
        url = urlsplit(address)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is none, brackets that don't close
        return [_no_address(name, address)]
    if not usable:
        return [_no_address(name, address)]
    if url.username or url.password or url.query:
        return [
            f"{name} holds a name, a password or a query, and is written into files (a run's "
            "recipe, an evaluation). Put the key into an environment variable: "
            f"{key_name or name.removesuffix('base_url') + 'api_key_env'}."
        ]
    return []


def _no_address(name: str, address: str) -> str:
    shown = re.sub(r"\?.*", "?...", re.sub("//[^/]*@", "//...@", address))
    return (
        f"{name} is {shown!r}, and must be the endpoint's address, as in "
        "http://localhost:8000/v1. There is no default: prompts are sent there."
    )
