"""A judge behind an OpenAI-compatible endpoint: asked in parallel, within limits, never trusted.

Whatever goes wrong during a run (unreachable, slow, an error, an answer that is none) costs the
critiques concerned, not the run; one warning a batch says what it was. Before a run, `check_judge`
raises instead. Left out: what is asked (`distil.prompts.messages`), reading it
(`distil.feedback.critique`).
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from distil.config import CritiqueConfig
from distil.endpoint import (
    Failure,
    all_within,
    model_names,
    open_client,
    request,
    run_to_end,
    tried,
    why_not_found,
)
from distil.errors import FeedbackError
from distil.prompts.messages import JUDGE_GREETING
from distil.types import Message, without_halves

BACK_OFF = 1.0
"""Seconds before the second try, to which up to as many again are added at random."""

_log = logging.getLogger(__name__)


def ask_judge(conversations: Sequence[list[Message]], settings: CritiqueConfig) -> list[str | None]:
    """The judge's answer to each conversation, in order; None where there was none to be had.

    Returns after `settings.deadline` seconds at the latest. Raises RecipeError without the package
    `openai` or the key.
    """
    if not conversations:
        return []
    client = _client(settings)
    calls = [partial(_ask, client, messages, settings) for messages in conversations]
    found = run_to_end(
        all_within(client, calls, concurrency=settings.concurrency, deadline=settings.deadline)
    )
    failures = Counter(str(answer) for answer in found if isinstance(answer, Failure))
    if failures:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in failures.most_common())
        _log.warning(
            "The judge gave no critique of %d of %d attempts: %s.",
            failures.total(), len(found), reasons,
        )  # fmt: skip
    return [None if isinstance(answer, Failure) else answer for answer in found]


def check_judge(settings: CritiqueConfig) -> None:
    """One short request, so that a judge that can't work is refused before anything is loaded.

    Raises RecipeError for a missing package or key, and FeedbackError for an endpoint that can't be
    reached, doesn't know the model or the key, or doesn't answer.
    """
    failure, names = run_to_end(_greet(_client(settings), settings))
    if failure is None:
        return
    where = f"The judge {settings.model!r} at {settings.base_url}"
    if failure.status in (401, 403):
        key = f"the key in ${settings.api_key_env}" if settings.api_key_env else "no key"
        raise FeedbackError(
            f"{where} refused this run, which came with {key} ({failure}). Name the environment "
            "variable that holds this endpoint's key in critique.api_key_env."
        )
    if failure.status == 404:
        raise FeedbackError(
            f"{where} isn't there ({failure}): {why_not_found(settings.model, names)}"
        )
    raise FeedbackError(
        f"{where} gives no answer ({failure}{failure.said}), so there would be no critiques. Start "
        "it, or mend base_url; a slow one needs a longer timeout, and one that thinks before it "
        "speaks more max_tokens."
    )


async def _ask(client: Any, messages: list[Message], settings: CritiqueConfig) -> str | Failure:
    """One answer, tried for twice where the second time may be better than the first."""
    return await tried(lambda: _try(client, messages, settings), 2, BACK_OFF)


async def _try(client: Any, messages: list[Message], settings: CritiqueConfig) -> str | Failure:
    answer = await request(
        client, settings.timeout, model=settings.model, messages=messages,
        max_tokens=settings.max_tokens, temperature=settings.temperature,
    )  # fmt: skip
    if isinstance(answer, Failure):
        return answer
    # openai hands on whatever JSON came: nothing about its form is certain.
    try:
        text = answer.choices[0].message.content
    except (AttributeError, IndexError, KeyError, TypeError):
        return Failure("an answer of another form")
    if not isinstance(text, str) or not text.strip():
        return Failure("an empty answer")
    return without_halves(text)


async def _greet(client: Any, settings: CritiqueConfig) -> tuple[Failure | None, list[str]]:
    """(why the judge doesn't work, the models that its endpoint lists); (None, []) if it does."""
    async with client:
        greeting: list[Message] = [{"role": "user", "content": JUDGE_GREETING}]
        answer = await _ask(client, greeting, settings)
        if isinstance(answer, str):
            return None, []
        return answer, await model_names(client, settings.timeout) if answer.status == 404 else []


def _client(settings: CritiqueConfig) -> Any:
    return open_client(
        settings.base_url, settings.api_key_env, who="A judge", field="critique.api_key_env"
    )
