"""A successful sibling: another rollout of the same prompt that got it right.

Never the sample itself, so a lone success has no sibling. Thinking is taken out of the text.
"""

import random
from collections.abc import Sequence
from typing import Literal, TypeAlias

from distil.feedback.extract import without_thinking
from distil.types import Rollout, TeacherContext

SiblingChoice: TypeAlias = Literal["shortest", "random", "first"]


def sibling(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """A success of `group` other than `group[index]`, as a demonstration; None if there is none.

    shortest: fewest characters, the first of equals; random: uniform; first: in sampling order.
    """
    texts = [
        text
        for place, other in enumerate(group)
        if place != index and other.succeeded and (text := without_thinking(other.completion))
    ]
    if not texts:
        return None
    if choice == "shortest":
        chosen = min(texts, key=len)
    else:
        chosen = rng.choice(texts) if choice == "random" else texts[0]
    return TeacherContext("sibling", demonstration=chosen)
