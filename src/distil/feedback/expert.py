"""The expert's solution: a reference answer, a worked solution, a correction."""

import random
from collections.abc import Sequence

from distil.feedback.sibling import SiblingChoice
from distil.types import Rollout, TeacherContext


def expert(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """`group[index].feedback.demonstration`, whether the rollout succeeded or not; or None."""
    rollout = group[index]
    if rollout.feedback is None or not rollout.feedback.demonstration:
        return None
    return TeacherContext("expert", demonstration=rollout.feedback.demonstration)
