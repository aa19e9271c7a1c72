"""Every error that distil raises on purpose, as one tree.

    DistILError
    ├── RecipeError            a recipe or flag is wrong (unknown field, wrong type, bad value)
    │   └── SuiteError         a comparison's suite is wrong, or not the one that was begun
    ├── ModelError             a model can't be found, read, or isn't the one that was asked for
    ├── TaskError              a task's name, options or problems are wrong
    ├── DataError              a published set can't be found or read, or a row of it is wrong
    ├── FeedbackError          a feedback function broke its contract, or a judge or a served
    │                          teacher can't be asked
    ├── SandboxUnavailable     no way to lock untrusted programs in holds on this machine
    ├── IntegrationError       another engine isn't there, or isn't set up for DistIL's losses
    ├── RunError               a run folder can't be made, read or resumed
    └── TrainingError          training can't go on (non-finite loss, lost alignment)

A message states the fact, the reason and the fix. A failed *rollout* is no error: it is data,
masked and counted. A bug is not caught anywhere.
"""

import difflib
from collections.abc import Iterable


class DistILError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


class RecipeError(DistILError):
    """A recipe or a flag is wrong: unknown field, wrong type, or an impossible value."""


class SuiteError(RecipeError):
    """A comparison's suite is wrong, unfair, or no longer the one its runs were begun with."""


class ModelError(DistILError):
    """A model can't be found or read, or is not the one that was asked for."""


class TaskError(DistILError):
    """A task's name, options or problems are wrong."""


class DataError(DistILError):
    """A published set can't be found or read, or a row of it can't be a problem."""


class FeedbackError(DistILError):
    """A reward or feedback function broke its contract (raised, or wrong length or type), or the
    judge or served teacher that a run needs can't be asked."""


class SandboxUnavailable(DistILError):
    """No level of the sandbox passes its self-test here, or the one asked for doesn't."""


class IntegrationError(DistILError):
    """Another engine (verl) isn't installed, or is set up so that a loss wouldn't be DistIL's."""


class RunError(DistILError):
    """A run folder can't be made, read or resumed."""


class TrainingError(DistILError):
    """Training can't go on: a non-finite loss, or teacher and student tokens that don't match."""


def known_names(name: str, known: Iterable[str]) -> str:
    """As `perhaps`, and all known names in their order in any case, once."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    meant = f" Perhaps you meant {near[0]!r}." if near else ""
    return f"{meant} Known: {', '.join(known)}"


def perhaps(name: str, known: Iterable[str]) -> str:
    """' Perhaps you meant X.' for the nearest known name, or the known names where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f" Perhaps you meant {near[0]!r}."
    return f" Known: {', '.join(names)}." if len(names) <= 30 else ""
