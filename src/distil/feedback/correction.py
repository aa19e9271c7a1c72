"""A person's (or a program's) correction: what the answer should have been.

Left out: where corrections are kept and how they are read.
"""

import random
from collections.abc import Sequence

from distil.feedback.said import first_demonstration
from distil.feedback.sibling import SiblingChoice
from distil.types import Rollout, TeacherContext


def correction(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """The demonstration whose `Feedback.source` is "correction", for success and failure alike."""
    words = first_demonstration(group[index], "correction")
    return None if words is None else TeacherContext("correction", demonstration=words)
