"""Where an evaluation's completions come from: transformers or vLLM in process, or an endpoint.

A sampler is asked batch by batch, in the order of the attempts. Left out: grading
(`distil.evaluate.judging`). Nothing here imports torch until a sampler is opened.
"""

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from distil.config import EvalConfig, Thinking
from distil.types import Message, Prompt


@dataclass(frozen=True)
class Sample:
    """One completion. tokens: with the one that ended it; truncated: none did."""

    text: str
    tokens: int
    truncated: bool


class Sampler(Protocol):
    """Draws completions."""

    def session(self, first: int) -> AbstractContextManager[None]:
        """Around all calls of `sample` of an evaluation that begins with attempt `first`."""

    def sample(self, prompts: Sequence[Prompt], first: int) -> list[Sample]:
        """One completion of each prompt, which are those of the attempts from `first` on."""


@dataclass(frozen=True)
class SamplerConfig:
    """Who samples; nothing given: transformers, here."""

    endpoint: str = ""
    """An OpenAI-compatible server's address, as in http://localhost:8000/v1."""
    endpoint_model: str = ""
    """The model's name there, if it isn't MODEL."""
    api_key_env: str = ""
    """The environment variable that holds the endpoint's key; empty: it needs none."""
    concurrency: int = 16
    """Requests under way at once; no more than eval.batch_size are."""
    timeout: float = 1800.0
    """Seconds until a request is given up, and made again."""
    vllm: bool = False
    """Sample with vLLM in this process (the extra `distil[vllm]`)."""
    tensor_parallel_size: int = 1
    """GPUs that vLLM spreads the model over."""

    def about(self) -> dict[str, Any]:
        """What a stored evaluation says of it."""
        if self.endpoint:
            said = {"endpoint": self.endpoint, "endpoint_model": self.endpoint_model}
            return {"kind": "endpoint", **said}
        return {"kind": "vllm" if self.vllm else "transformers"}


def open_sampler(
    wanted: SamplerConfig, model: str, settings: EvalConfig, length: int, thinking: Thinking
) -> Sampler:
    """The sampler that is wanted, ready: the model loaded, or its endpoint asked once.

    Raises RecipeError for a missing package or key, ModelError for a model that can't be asked.
    """
    if wanted.endpoint:
        from distil.evaluate.samplers.remote import RemoteSampler

        return RemoteSampler(wanted, wanted.endpoint_model or model, settings, length, thinking)
    if wanted.vllm:
        from distil.evaluate.samplers.vllm import VllmSampler

        return VllmSampler(model, settings, length, thinking, wanted.tensor_parallel_size)
    from distil.evaluate.samplers.local import LocalSampler, loaded

    return LocalSampler(*loaded(model, thinking), settings, length, thinking)


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt for samplers that know conversations only: plain text is the user's."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def seed_of(seed: int, attempt: int) -> int:
    """A seed for one attempt, from the pair, so that neighbours have nothing in common."""
    return random.Random(f"evaluate/{seed}/{attempt}").getrandbits(31)
