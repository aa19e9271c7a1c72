"""Before a run: is the server there, does it know the limits, and are its tokens the student's?

`check_served` needs only the settings, so that it comes before anything is loaded;
`check_tokenizer` needs the student's tokenizer. Both raise FeedbackError with the way out.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from distil.config import ServedConfig
from distil.endpoint import Failure, get, model_names, post, run_to_end, why_not_found
from distil.errors import FeedbackError
from distil.prompts.messages import SERVED_PROBE
from distil.teacher.served.answers import prompt_logprobs, read_samples
from distil.teacher.served.asking import ask, open_server
from distil.teacher.served.teacher import sampled

SPREAD = 256
"""Ids that are looked at beside the probe's text, evenly over the student's vocabulary."""

PROBE_SAMPLES = 8


def check_served(settings: ServedConfig, *, k: int, longest: int) -> None:
    """One short request, as training will make them; and the server's own limit on length.

    k: likeliest tokens that will be asked for. longest: tokens of a teacher's prompt and a rollout
    at most. Raises RecipeError for a missing package or key; FeedbackError for a server that can't
    be reached, doesn't know model or key, or refuses so many log-probabilities or tokens.
    """
    run_to_end(_check_served(settings, k, longest))


async def _check_served(settings: ServedConfig, k: int, longest: int) -> None:
    async with open_server(settings) as client:
        found = await _greet(client, settings, k)
        if isinstance(found, Failure):
            names = await model_names(client, settings.timeout) if found.status == 404 else []
            raise FeedbackError(_refusal(settings, found, names, k))
        limit = _limit(await get(client, "/models", settings.timeout), settings.model)
    if limit is not None and longest + 1 > limit:
        raise FeedbackError(
            f"{_where(settings)} reads {limit:,} tokens at most, and a teacher's prompt, a rollout "
            f"and one token more may be {longest + 1:,}. Start it with a larger --max-model-len, "
            "or lower teacher.max_prompt_length or rollout.max_completion_length."
        )


async def _greet(client: Any, settings: ServedConfig, k: int) -> Failure | bool:
    """True, or why the server can't be a teacher."""
    body: dict[str, Any] = {"model": settings.model, "prompt": SERVED_PROBE}
    if settings.samples:
        body |= sampled(settings.samples, 1.0)
    else:
        body |= {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": k}

    def read(answer: Any) -> Failure | bool:
        if settings.samples:
            drawn = read_samples(answer, 1, settings.samples)
            return drawn if isinstance(drawn, Failure) else True
        if not prompt_logprobs(answer):
            return Failure("an answer without prompt_logprobs, which vLLM's server gives")
        return True

    return await ask(client, settings, body, read, tries=2)


def _limit(models: Any, name: str) -> int | None:
    """The model's `max_model_len`, where the server says it (vLLM does)."""
    try:
        limits = [m["max_model_len"] for m in models["data"] if m["id"] == name]
    except (KeyError, TypeError):
        return None
    return limits[0] if limits and type(limits[0]) is int else None


def _refusal(settings: ServedConfig, failure: Failure, names: Sequence[str], k: int) -> str:
    where = _where(settings)
    if failure.status in (401, 403):
        key = f"the key in ${settings.api_key_env}" if settings.api_key_env else "no key"
        return (
            f"{where} refused this run, which came with {key} ({failure}). Name the environment "
            "variable that holds this server's key in teacher.served.api_key_env."
        )
    if failure.status == 404:
        return f"{where} isn't there ({failure}): {why_not_found(settings.model, names)}"
    if failure.final and re.search("log_?probs?", failure.said):
        return (
            f"{where} refuses the {k} log-probabilities a token of objective.top_k "
            f"({failure}{failure.said}). Start it with --max-logprobs {k} (vLLM's own limit is "
            "20), or lower objective.top_k to what it allows: the tail holds the rest."
        )
    return (
        f"{where} gives no answer that can be used ({failure}{failure.said}). Start it, or mend "
        "base_url; a slow one needs a longer teacher.served.timeout."
    )


def check_tokenizer(settings: ServedConfig, tokenizer: Any) -> None:
    """Compares the server's tokens with the student's: of a probe, and spread over the vocabulary.

    By the server's /tokenize, where it has one (vLLM's has), and by the texts that it gives for
    ids. Raises FeedbackError with the first token that differs: ids would be read as other words.
    """
    run_to_end(_check_tokenizer(settings, tokenizer))


async def _check_tokenizer(settings: ServedConfig, tokenizer: Any) -> None:
    ours = [int(i) for i in tokenizer(SERVED_PROBE, add_special_tokens=False)["input_ids"]]
    async with open_server(settings) as client:
        theirs = await _tokenized(client, settings)
        if theirs is not None:
            _compare(settings, tokenizer, ours, theirs)
        ids = [ours[0], *ours, *_spread(tokenizer)]
        texts = await _texts(client, settings, ids)
    if isinstance(texts, Failure):
        raise FeedbackError(
            f"{_where(settings)} doesn't take the student's token ids, which go up to "
            f"{max(ids):,} ({texts}{texts.said}). It must have the student's tokenizer: serve a "
            "model of the same family."
        )
    for id, text in texts:
        if _differ(tokenizer, id, text):
            raise FeedbackError(
                f"{_where(settings)} has another tokenizer: token {id} is {text!r} there, and "
                f"{tokenizer.decode([id])!r} for the student. {_WHY}"
            )


_WHY = "Teacher and student must read the same ids: serve a model of the student's family."


async def _tokenized(client: Any, settings: ServedConfig) -> list[int] | None:
    """The probe's ids by the server's tokenizer, None where it has no /tokenize."""
    root = settings.base_url.rstrip("/").removesuffix("/v1")
    body = {"model": settings.model, "prompt": SERVED_PROBE, "add_special_tokens": False}
    answer = await post(client, f"{root}/tokenize", settings.timeout, body)
    ids = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        return None
    return ids


def _compare(
    settings: ServedConfig, tokenizer: Any, ours: Sequence[int], theirs: Sequence[int]
) -> None:
    if list(ours) == list(theirs):
        return
    place = next((p for p, pair in enumerate(zip(ours, theirs, strict=False)) if len({*pair}) > 1),
                 min(len(ours), len(theirs)))  # fmt: skip
    here, there = (f"{i[place]}" if place < len(i) else "the end" for i in (ours, theirs))
    text = repr(tokenizer.decode([ours[place]])) if place < len(ours) else "nothing more"
    raise FeedbackError(
        f"{_where(settings)} has another tokenizer: of {SERVED_PROBE!r}, token {place} is {here} "
        f"({text}) for the student, and {there} there. {_WHY}"
    )


def _spread(tokenizer: Any) -> list[int]:
    """Ids over the whole vocabulary, its last and the special ones included."""
    last = len(tokenizer) - 1
    return sorted({i * last // (SPREAD - 1) for i in range(SPREAD)} | {*tokenizer.all_special_ids})


async def _texts(
    client: Any, settings: ServedConfig, ids: list[int]
) -> list[tuple[int, str]] | Failure:
    """(id, the server's text of it) for as many ids as it tells of."""
    body: dict[str, Any] = {"model": settings.model, "prompt": ids}
    read: Callable[[Any], list[tuple[int, str]] | Failure]
    if settings.samples:  # of a black box, the texts of what it draws
        body |= sampled(PROBE_SAMPLES, 1.0)
        read = _drawn_texts
    else:
        body |= {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 1}

        def read(answer: Any) -> list[tuple[int, str]] | Failure:
            entries = prompt_logprobs(answer)
            if entries is None or len(entries) != len(ids):
                return Failure("prompt_logprobs of another length")
            try:
                pairs = zip(ids[1:], entries[1:], strict=True)
                return [(i, str(e[str(i)].get("decoded_token") or "")) for i, e in pairs]
            except (AttributeError, KeyError, TypeError):
                return Failure("prompt_logprobs without the prompt's own tokens")

    return await ask(client, settings, body, read, tries=2)


def _drawn_texts(answer: Any) -> list[tuple[int, str]] | Failure:
    drawn = read_samples(answer, 1, PROBE_SAMPLES)
    if isinstance(drawn, Failure):
        return drawn
    return [(c["token_ids"][0], str(c.get("text") or "")) for c in answer["choices"]]


def _differ(tokenizer: Any, id: int, text: str) -> bool:
    """Whether the server's text of an id can't be the student's.

    Spaces at the ends don't count, and parts of a character, which decode to a mark, or nothing,
    can't be told apart.
    """
    if id >= len(tokenizer):
        return False  # the larger vocabulary's own, or padding: left to the tail
    ours = tokenizer.decode([id])
    known = {ours.strip(), str(tokenizer.convert_ids_to_tokens(id)).strip()}
    vague = not text.strip() or not ours.strip() or "\ufffd" in text + ours
    return not vague and text.strip() not in known


def _where(settings: ServedConfig) -> str:
    return f"The served teacher {settings.model!r} at {settings.base_url}"
