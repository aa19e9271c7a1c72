"""Asks a critic about a generation batch: about whom, within the budget, and what came of it.

Every process sees all rollouts and makes the same choice, then asks about its own. Left out: the
critics themselves, `distil.feedback.judge` and `distil.trainer.selfcritic`.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distil.config import CritiqueConfig
from distil.feedback import choose_contexts
from distil.feedback.critique import attempt_steps, read_critique
from distil.feedback.said import first_demonstration, first_text
from distil.prompts.messages import critique_messages, cut_middle
from distil.types import Feedback, Message, Prompt, Rollout

_log = logging.getLogger(__name__)

ATTEMPT_CHARACTERS = 12_000
SAID_CHARACTERS = 4000

Write = Callable[[Sequence[list[Message]]], list[str | None]]
"""One answer for each conversation; None where it failed. The policy's is a collective call."""


@dataclass(frozen=True)
class Critiques:
    """What this process asked for: counts, characters of the usable ones, seconds."""

    asked: int
    answered: int
    usable: int
    characters: int
    seconds: float

    def metrics(self, rollouts: int) -> dict[str, tuple[float, float]]:
        """name -> (amount, count), to be added up and divided over a logging interval.

        asked is a share of rollouts; usable, unusable (an answer that can't be read) and failed (no
        answer) are shares of those asked.
        """
        return {
            "critique/asked": (self.asked, rollouts),
            "critique/usable": (self.usable, self.asked),
            "critique/unusable": (self.answered - self.usable, self.asked),
            "critique/failed": (self.asked - self.answered, self.asked),
            "critique/mean_characters": (self.characters, self.usable),
            "critique/seconds": (self.seconds, 1),
        }


@dataclass(frozen=True)
class Critic:
    """A way of writing critiques, its settings, and how to break special tokens in a text."""

    settings: CritiqueConfig
    write: Write
    escape: Callable[[str], str]

    def run(
        self, rollouts: Sequence[Rollout], prompts: Sequence[Prompt], first: int,
        gather: Callable[[list[Any]], list[Any]], order: Sequence[str], **choosing: Any,
    ) -> tuple[list[Rollout], Critiques]:  # fmt: skip
        """All rollouts, those with a critique having it, and the counts of this process.

        prompts: this process's, whose first rollout is rollouts[first]. choosing: what
        `choose_contexts` is called with.
        """
        started = time.perf_counter()
        wanted = attempts_in_need(rollouts, order, self.settings.per_step, **choosing)
        mine = [i for i in wanted if first <= i < first + len(prompts)]
        steps = {i: attempt_steps(_shown(rollouts[i])) for i in mine} if self.settings.steps else {}
        asked = [self._asked(rollouts[i], prompts[i - first], steps.get(i)) for i in mine]
        answers = dict(zip(mine, self.write(asked), strict=True))
        read = {i: read_critique(a, steps.get(i)) for i, a in answers.items() if a is not None}
        useless = [answers[i] for i, said in read.items() if said is None]
        if useless:
            _log.info("%d critiques can't be used, such as %r", len(useless), useless[0])
        usable = [(i, said) for i, said in read.items() if said is not None]
        counts = Critiques(
            len(mine), len(read), len(usable), sum(len(said.text or "") for _, said in usable),
            time.perf_counter() - started,
        )  # fmt: skip
        return with_feedback(rollouts, gather(usable)), counts

    def _asked(
        self, rollout: Rollout, prompt: Prompt, steps: Sequence[str] | None
    ) -> list[Message]:
        """The conversation about one rollout, its special tokens broken."""
        answer = None
        if self.settings.show_answer:
            answer = first_demonstration(rollout) or first_demonstration(rollout, "correction")
        messages = critique_messages(
            prompt, _shown(rollout), steps=steps,
            report=_bounded(first_text(rollout)), answer=_bounded(answer),
        )  # fmt: skip
        return [{**m, "content": self.escape(m["content"])} for m in messages]


def attempts_in_need(
    rollouts: Sequence[Rollout], order: Sequence[str], limit: int, **choosing: Any
) -> list[int]:
    """Places of at most `limit` rollouts whose teacher would be shown a critique if there was one.

    One of each group first, then a second of each, and so on; sorted. Empty attempts are left out.
    """
    supposed = [(i, Feedback(text="?", source="critique")) for i in range(len(rollouts))]
    contexts = choose_contexts(with_feedback(rollouts, supposed), order, **choosing)
    turns: dict[int, int] = {}
    ranked: list[tuple[int, int]] = []
    for place, (rollout, context) in enumerate(zip(rollouts, contexts, strict=True)):
        if context is None or "critique" not in context.kinds or not rollout.completion.strip():
            continue
        turn = turns.get(rollout.group, 0)
        turns[rollout.group] = turn + 1
        ranked.append((turn, place))
    return sorted(place for _, place in sorted(ranked)[:limit])


def with_feedback(
    rollouts: Sequence[Rollout], said: Iterable[tuple[int, Feedback]]
) -> list[Rollout]:
    """The rollouts, each (place, feedback) added to the one at that place."""
    grown = list(rollouts)
    for place, feedback in said:
        grown[place] = replace(grown[place], feedback=(*grown[place].feedback, feedback))
    return grown


def _shown(rollout: Rollout) -> str:
    return cut_middle(rollout.completion, ATTEMPT_CHARACTERS)


def _bounded(text: str | None) -> str | None:
    return None if text is None else cut_middle(text, SAID_CHARACTERS)
