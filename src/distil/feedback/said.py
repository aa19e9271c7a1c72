"""What was said about a rollout, and by whom: the one rule by which sources find their words.

Left out: whether a rollout should be told (its success, say), which is each source's business.
"""

from distil.types import Rollout

# Values of `Feedback.source` that have a context source of their own. `report` and `expert` pass
# over them, so that a recipe's order tells a person's correction from the task's own answer.
NAMED = ("correction", "critique", "tools")


def first_text(rollout: Rollout, source: str | None = None) -> str | None:
    """The first text said by `source`; None: by anybody who isn't in NAMED. Empty texts are none.

    Raises ValueError for a source that isn't in NAMED: nothing would ever look there.
    """
    texts = (f.text for f in rollout.feedback if _is_by(f.source, source) and f.text)
    return next(texts, None)


def first_demonstration(rollout: Rollout, source: str | None = None) -> str | None:
    """As `first_text`, of demonstrations."""
    found = (
        f.demonstration for f in rollout.feedback if _is_by(f.source, source) and f.demonstration
    )
    return next(found, None)


def _is_by(name: str, wanted: str | None) -> bool:
    if wanted is None:
        return name not in NAMED
    if wanted not in NAMED:
        raise ValueError(f"{wanted!r} is no named source of feedback. Known: {', '.join(NAMED)}.")
    return name == wanted
