"""Where a teacher's context comes from: one file a source, each a plain function.

A source looks at one rollout and its group and returns a TeacherContext, or None if it has nothing
for that rollout. `choose_contexts` asks the sources in the recipe's order; the first answer wins.
To add one: write the function in a file here and name it in SOURCES (and in
`distil.config.SourceName`).

Several feedback functions may speak about one rollout. Who is listened to is decided by
`Feedback.source` alone: the sources named in NAMED take the first text or demonstration of that
very name; `report` takes the first text, and `expert` the first demonstration, of anybody else.
"""

import random
from collections.abc import Callable, Sequence

from distil.errors import RecipeError, perhaps
from distil.feedback.correction import correction
from distil.feedback.expert import expert
from distil.feedback.report import report
from distil.feedback.said import NAMED
from distil.feedback.sibling import SiblingChoice, sibling
from distil.feedback.tools import tools
from distil.types import Rollout, TeacherContext

Source = Callable[[int, Sequence[Rollout], SiblingChoice, random.Random], TeacherContext | None]

SOURCES: dict[str, Source] = {
    "sibling": sibling,
    "report": report,
    "expert": expert,
    "correction": correction,
    "tools": tools,
}

__all__ = [
    "NAMED",
    "SOURCES",
    "Source",
    "choose_contexts",
    "correction",
    "expert",
    "report",
    "sibling",
    "tools",
]


def choose_contexts(
    rollouts: Sequence[Rollout],
    order: Sequence[str],
    *,
    sibling_choice: SiblingChoice = "shortest",
    seed: str = "0",
) -> list[TeacherContext | None]:
    """Each rollout's context, in order; None where no source has anything (the row is masked).

    `rollouts` are whole groups (equal `Rollout.group`), in any order. `seed` names the random
    stream ("SEED/STEP", say): the same seed gives the same choice, on any number of processes.
    Raises RecipeError for a name that is not in SOURCES.
    """
    for name in order:
        if name not in SOURCES:
            raise RecipeError(f"Unknown feedback source {name!r}.{perhaps(name, SOURCES)}")
    groups: dict[int, list[int]] = {}
    for index, rollout in enumerate(rollouts):
        groups.setdefault(rollout.group, []).append(index)
    contexts: list[TeacherContext | None] = [None] * len(rollouts)
    for group, members in groups.items():
        rng = random.Random(f"{seed}/{group}")
        group_rollouts = [rollouts[i] for i in members]
        for place, index in enumerate(members):
            asked = (SOURCES[name](place, group_rollouts, sibling_choice, rng) for name in order)
            contexts[index] = next((c for c in asked if c is not None), None)
    return contexts
