"""The expert's solution: a reference answer or a worked solution.

Left out: a person's corrections and other named sources (`distil.feedback.said`).
"""

import random
from collections.abc import Sequence

from distil.feedback.said import first_demonstration
from distil.feedback.sibling import SiblingChoice
from distil.types import Rollout, TeacherContext


def expert(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """The first unnamed demonstration, whether the rollout succeeded or not; None without one."""
    solution = first_demonstration(group[index])
    return None if solution is None else TeacherContext("expert", demonstration=solution)
