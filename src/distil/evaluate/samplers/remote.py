"""Completions by an OpenAI-compatible server, asked in parallel and again where it stumbles.

The server's own chat template and end tokens hold. Sent are model, messages, temperature, top_p,
max_tokens, a seed for each request, and, beyond the API's own fields, top_k and
chat_template_kwargs where they are set. A request that fails for good ends the evaluation.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from distil.config import EvalConfig, Thinking
from distil.endpoint import (
    Failure,
    model_names,
    open_client,
    request,
    run_to_end,
    tried,
    why_not_found,
)
from distil.errors import ModelError
from distil.evaluate.samplers import Sample, SamplerConfig, as_messages, seed_of
from distil.prompts.encoder import template_options
from distil.prompts.messages import JUDGE_GREETING
from distil.types import Prompt, without_halves

BACK_OFF = 1.0
"""Seconds before the second try, doubled for each later one; up to as many again are added."""

TRIES = 6
"""Of one request: half a minute to a minute until it's given up, beside what it takes itself."""

GREETING_TOKENS = 16

_GIVEN_UP = Failure("given up, as another request failed")


class RemoteSampler:
    """A model behind an endpoint, found to answer. Raises ModelError if it doesn't."""

    def __init__(
        self,
        wanted: SamplerConfig,
        model: str,
        settings: EvalConfig,
        length: int,
        thinking: Thinking,
    ) -> None:
        self._wanted, self._model = wanted, model
        self._settings, self._length, self._options = settings, length, template_options(thinking)
        self._where = f"The model {model!r} at {wanted.endpoint}"
        run_to_end(self._greet(self._client()))

    @contextmanager
    def session(self, first: int) -> Iterator[None]:
        """Nothing: each request has a seed of its own."""
        yield

    def sample(self, prompts: Sequence[Prompt], first: int) -> list[Sample]:
        """One completion of each prompt. Raises ModelError for a request that fails for good."""
        found: list[Sample | Failure] = run_to_end(self._all(self._client(), prompts, first))
        for place, answer in enumerate(found):
            if isinstance(answer, Failure) and answer is not _GIVEN_UP:
                asked = as_messages(prompts[place])[-1]["content"][:60]
                raise ModelError(
                    f"{self._where} gave attempt {first + place + 1} no completion, asked up to "
                    f"{TRIES} times ({answer}{answer.said}). It was asked: {asked!r} ..."
                )
        return [answer for answer in found if isinstance(answer, Sample)]

    def _client(self) -> Any:
        return open_client(
            self._wanted.endpoint, self._wanted.api_key_env,
            who="An endpoint", field="--api-key-env",
        )  # fmt: skip

    async def _all(
        self, client: Any, prompts: Sequence[Prompt], first: int
    ) -> list[Sample | Failure]:
        """Every answer, in order; after one that failed for good, no further request is made."""
        gate, failed = asyncio.Semaphore(self._wanted.concurrency), asyncio.Event()

        async def one(place: int, prompt: Prompt) -> Sample | Failure:
            async with gate:
                if failed.is_set():
                    return _GIVEN_UP
                answer = await self._ask(client, prompt, first + place, self._length, TRIES)
            if isinstance(answer, Failure):
                failed.set()
            return answer

        async with client:
            return list(await asyncio.gather(*(one(i, p) for i, p in enumerate(prompts))))

    async def _ask(
        self, client: Any, prompt: Prompt, attempt: int, length: int, tries: int
    ) -> Sample | Failure:
        settings = self._settings
        extra: dict[str, Any] = {"top_k": settings.top_k} if settings.top_k else {}
        if self._options:
            extra["chat_template_kwargs"] = self._options

        async def attempt_once() -> Sample | Failure:
            given = await request(
                client, self._wanted.timeout,
                model=self._model, messages=as_messages(prompt), max_tokens=length,
                temperature=settings.temperature, top_p=settings.top_p,
                seed=seed_of(settings.seed, attempt), extra_body=extra,
            )  # fmt: skip
            return given if isinstance(given, Failure) else _read(given)

        return await tried(attempt_once, tries, BACK_OFF)

    async def _greet(self, client: Any) -> None:
        """One short request, so that an endpoint that can't work is refused before sampling."""
        async with client:
            greeting = [{"role": "user", "content": JUDGE_GREETING}]
            answer = await self._ask(client, greeting, 0, GREETING_TOKENS, tries=2)
            if isinstance(answer, Sample):
                return
            names = await model_names(client, self._wanted.timeout) if answer.status == 404 else []
        if answer.status in (401, 403):
            name = self._wanted.api_key_env
            key = f"the key in ${name}" if name else "no key"
            raise ModelError(
                f"{self._where} refused a request that came with {key} ({answer}). "
                "Name the environment variable that holds its key: --api-key-env."
            )
        if answer.status == 404:
            either = "there is no such model (--endpoint-model), or the address lacks its /v1."
            raise ModelError(
                f"{self._where} isn't there ({answer}): {why_not_found(self._model, names, either)}"
            )
        raise ModelError(f"{self._where} gives no completions ({answer}{answer.said}).")


def _read(answer: Any) -> Sample | Failure:
    """openai hands on whatever JSON came: nothing about its form is certain."""
    try:
        choice, tokens = answer.choices[0], answer.usage.completion_tokens
        text, ended = choice.message.content, choice.finish_reason
    except (AttributeError, IndexError, KeyError, TypeError):
        return Failure("an answer without text, finish_reason or usage")
    # A model that was cut while it thought has said nothing yet.
    if not isinstance(text, str | None) or type(tokens) is not int:
        return Failure("an answer without text, finish_reason or usage")
    return Sample(without_halves(text or ""), tokens, ended == "length")
