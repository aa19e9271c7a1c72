"""Critiques: an attempt in steps, a critic's answer read strictly, and what the teacher is shown.

A critic is the student itself or a judge; which attempts it is asked about, and how, is
`distil.feedback.critics`' business. Its words change no reward: only what the teacher of a failed
attempt reads.
"""

import random
import re
from collections.abc import Sequence

from distil.feedback.extract import without_thinking
from distil.feedback.said import first_text
from distil.feedback.sibling import SiblingChoice
from distil.prompts.messages import FIRST_WRONG_STEP, cut_middle
from distil.types import Feedback, Rollout, TeacherContext

MAX_STEPS = 60
CRITIQUE_CHARACTERS = 4000
QUOTED_CHARACTERS = 200

_STEP = re.compile(r"STEP:[ \t]*(\d{1,4})(?!\d)[ \t]*[.:,;-]?", re.IGNORECASE)


def critique(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """The critique of a rollout that didn't succeed; None if there is none."""
    text = None if group[index].succeeded else first_text(group[index], "critique")
    return None if text is None else TeacherContext("critique", report=text)


def attempt_steps(attempt: str) -> list[str]:
    """The attempt's lines that aren't blank; of a single line, its sentences.

    A sentence ends with . ! or ? before white space. What comes after MAX_STEPS - 1 steps is one
    last step.
    """
    steps = [line.strip() for line in attempt.splitlines() if line.strip()]
    if len(steps) == 1:
        steps = re.split(r"(?<=[.!?])\s+", steps[0])
    if len(steps) > MAX_STEPS:
        steps = [*steps[: MAX_STEPS - 1], " ".join(steps[MAX_STEPS - 1 :])]
    return steps


def read_critique(answer: str, steps: Sequence[str] | None = None) -> Feedback | None:
    """A critic's answer as Feedback of the source "critique"; None if it can't be used.

    Thinking is taken out. With `steps` it must begin with "STEP: n", n one of 1..len(steps), and
    name no other step in that form; the text then quotes the step.
    """
    text = cut_middle(without_thinking(answer), CRITIQUE_CHARACTERS)
    if steps is None:
        return Feedback(text=text, source="critique") if text else None
    named = _STEP.match(text)
    if named is None or len(_STEP.findall(text)) > 1 or not 1 <= int(named[1]) <= len(steps):
        return None
    number = int(named[1])
    step = cut_middle(steps[number - 1], QUOTED_CHARACTERS)
    told = FIRST_WRONG_STEP.format(number=number, step=step)
    return Feedback(text=f"{told} {text[named.end() :].strip()}".strip(), source="critique")
