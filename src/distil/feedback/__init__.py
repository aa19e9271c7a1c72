"""Where a teacher's context comes from, and the checks that say what is wrong with an answer.

Sources, a plain function each: sibling, report, expert, correction (correctionfile), tools, and
critique (asked for by critics; judge: of an endpoint). said: who said what about a rollout.

Checks, a completion as Feedback each: mathematics (equivalence), choice, strings, reasoning (gym),
execution. answers: the words of their reports; extract: which part of a completion is its answer.
deadline: calls that may hang, in processes of their own (worker; literals: what may be evaluated).

A source looks at one rollout and its group and returns a TeacherContext, or None if it has nothing
for that rollout. `choose_contexts` asks the sources in the recipe's order, and takes the first that
answers, or combines all that do. To add one: write the function in a file here and name it in
SOURCES (and in `distil.config.SourceName`).

Several feedback functions may speak about one rollout. Who is listened to is decided by
`Feedback.source` alone: the sources named in NAMED take the first text or demonstration of that
very name; `report` takes the first text, and `expert` the first demonstration, of anybody else.
"""

import random
from collections.abc import Callable, Sequence

from distil.config import Combine
from distil.errors import RecipeError, perhaps
from distil.feedback.correction import correction, corrections
from distil.feedback.critique import critique
from distil.feedback.expert import expert
from distil.feedback.report import report
from distil.feedback.said import NAMED
from distil.feedback.sibling import SiblingChoice, sibling
from distil.feedback.tools import tools
from distil.prompts.messages import REPORT_SEPARATOR
from distil.types import Rollout, TeacherContext

Source = Callable[[int, Sequence[Rollout], SiblingChoice, random.Random], TeacherContext | None]

SOURCES: dict[str, Source] = {
    "sibling": sibling,
    "report": report,
    "expert": expert,
    "correction": correction,
    "tools": tools,
    "critique": critique,
}

__all__ = [
    "NAMED",
    "SOURCES",
    "Source",
    "choose_contexts",
    "combined",
    "correction",
    "corrections",
    "critique",
    "expert",
    "report",
    "sibling",
    "tools",
]


def choose_contexts(
    rollouts: Sequence[Rollout],
    order: Sequence[str],
    *,
    combine: Combine = "first",
    sibling_choice: SiblingChoice = "shortest",
    seed: str = "0",
) -> list[TeacherContext | None]:
    """Each rollout's context, in order; None where no source has anything (the row is masked).

    combine: "first" takes the first source that has something, "all" `combined` all that have.

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
            found = (c for c in asked if c is not None)
            contexts[index] = combined(list(found)) if combine == "all" else next(found, None)
    return contexts


def combined(contexts: Sequence[TeacherContext]) -> TeacherContext | None:
    """One context of several, best first; None for none.

    It holds the first demonstration there is and all reports, a blank line apart; its kind names
    the sources that are in it, in their order: "sibling+report".
    """
    demonstration: str | None = None
    reports: list[str] = []
    used: list[str] = []
    for context in contexts:
        teaches = demonstration is None and context.demonstration is not None
        demonstration = context.demonstration if teaches else demonstration
        reports += [] if context.report is None else [context.report]
        used += [context.kind] if teaches or context.report is not None else []
    if not used:
        return None
    report_text = REPORT_SEPARATOR.join(reports) if reports else None
    return TeacherContext("+".join(used), demonstration, report_text)
