"""The verifier's report on the attempt itself: an error, a trace, what was read as the answer.

Given only where the attempt failed or couldn't be graded: a success has nothing to be told.
"""

import random
from collections.abc import Sequence

from distil.feedback.said import first_text
from distil.feedback.sibling import SiblingChoice
from distil.types import Rollout, TeacherContext


def report(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """The first unnamed text on a rollout that didn't succeed; None if there is no text."""
    text = None if group[index].succeeded else first_text(group[index])
    return None if text is None else TeacherContext("report", report=text)
