"""The verifier's report on the attempt itself: an error, a trace, what was read as the answer.

Given only where the attempt failed or couldn't be graded: a success has nothing to be told.
"""

import random
from collections.abc import Sequence

from distil.feedback.sibling import SiblingChoice
from distil.types import Rollout, TeacherContext


def report(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """`group[index].feedback.text` of a rollout that didn't succeed; None if there is no text."""
    rollout = group[index]
    if rollout.succeeded or rollout.feedback is None or not rollout.feedback.text:
        return None
    return TeacherContext("report", report=rollout.feedback.text)
