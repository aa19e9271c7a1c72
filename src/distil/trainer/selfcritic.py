"""The student as its own critic: today's weights, sampled in one batch, under a stream of its own.

`make_critic` puts it, or a judge, where a recipe's `critique.by` says.

It draws from a random stream made of the run's seed and the step, so that asking for critiques
changes no rollout, and a resumed run writes the same ones. Left out: samplers other than
transformers'.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator

from distil.config import CritiqueConfig
from distil.feedback.critics import Critic, Write
from distil.feedback.judge import ask_judge
from distil.trainer.probe import sample, sampled_from, stream_of_its_own
from distil.types import Message


@dataclass(frozen=True)
class SelfCritic:
    """`encode`: a conversation's ids with the header of an answer; `decode`: an answer's words."""

    accelerator: Accelerator
    encode: Callable[[list[Message]], list[int]]
    decode: Callable[[list[int]], str]
    max_new_tokens: int
    temperature: float
    max_prompt_length: int
    pad_token_id: int

    def write(
        self, model: Any, conversations: Sequence[list[Message]], seed: str
    ) -> list[str | None]:
        """One critique of each conversation; None where its prompt is too long.

        A collective call. With sharded weights every process must generate or none, so one that has
        nothing to ask writes a throw-away where others have something.
        """
        prompts = [self.encode(c) for c in conversations]
        fitting = [i for i, p in enumerate(prompts) if len(p) <= self.max_prompt_length]
        asked = torch.tensor([len(fitting)], device=self.accelerator.device)
        if not self.accelerator.gather(asked).sum():
            return [None] * len(prompts)
        written = self._sample(model, [prompts[i] for i in fitting] or [[self.pad_token_id]], seed)
        answers: list[str | None] = [None] * len(prompts)
        for place, ids in zip(fitting, written, strict=False):  # a throw-away has no place
            answers[place] = self.decode(ids)
        return answers

    def _sample(self, model: Any, prompts: list[list[int]], seed: str) -> list[list[int]]:
        stream = random.Random(f"critique/{seed}/{self.accelerator.process_index}")
        own = stream_of_its_own(self.accelerator.device, stream.getrandbits(63))
        with own, sampled_from(self.accelerator, model):
            return sample(
                self.accelerator.unwrap_model(model), prompts, max_new_tokens=self.max_new_tokens,
                temperature=self.temperature, pad_token_id=self.pad_token_id,
            )  # fmt: skip


def make_critic(
    settings: CritiqueConfig, student: Write, escape: Callable[[str], str]
) -> Critic | None:
    """Who writes critiques: nobody (None), the student, or a judge."""
    if settings.by == "none":
        return None
    write = student if settings.by == "policy" else partial(ask_judge, settings=settings)
    return Critic(settings, write, escape)
