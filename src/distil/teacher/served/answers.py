"""What a server said, read: log-probabilities at a prompt's tokens, or sampled next tokens.

The forms are vLLM's. `choices[0].prompt_logprobs` is a list with null for the first token of the
prompt, and for each later one {token id, as text: {"logprob", "rank", "decoded_token"}} of the K
likeliest and of the token that stands there. `choices[i].token_ids`, which `return_token_ids` asks
for, are a completion's ids. Nothing about what came is certain: another form, another length or
numbers that are no log-probabilities are a `Failure`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distil.endpoint import Failure

LOWEST = -9999.0
"""Stands for log 0 (vLLM's, too: JSON has no infinity)."""

LARGEST_ID = 2**63 - 1
"""A tensor holds none above it. What lies between a vocabulary and this is a larger model's."""

SUM_TOLERANCE = 0.02
"""How far the K probabilities may sum to above 1: a server's may be rounded to 16 bits."""


@dataclass(frozen=True)
class Scored:
    """The K likeliest tokens of one state, likeliest first, and the log-probability of its own."""

    ids: list[int]
    logps: list[float]
    own: float


def read_scores(
    answer: Any, prompt: Sequence[int], places: Sequence[int], k: int
) -> list[Scored] | Failure:
    """What predicts the prompt's tokens at `places`; a Failure if one of them isn't as it must be.

    places: from 1 on (nothing predicts the first token).
    """
    entries = prompt_logprobs(answer)
    if entries is None:
        return Failure("an answer without prompt_logprobs")
    if len(entries) != len(prompt):
        return Failure(f"prompt_logprobs of {len(entries)} tokens for a prompt of {len(prompt)}")
    found = []
    for place in places:
        scored = _scored(entries[place], prompt[place], k)
        if isinstance(scored, Failure):
            return scored
        found.append(scored)
    return found


def prompt_logprobs(answer: Any) -> list[Any] | None:
    """The answer's list of prompt_logprobs, None if it has none."""
    try:
        found = answer["choices"][0]["prompt_logprobs"]
    except (IndexError, KeyError, TypeError):
        return None
    return found if isinstance(found, list) else None


def read_samples(answer: Any, prompts: int, samples: int) -> list[list[int]] | Failure:
    """The next token's samples, for each of several prompts in one request."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != prompts * samples:
        return Failure(f"not the {prompts * samples} completions that were asked for")
    found: list[list[int]] = [[] for _ in range(prompts)]
    seen = set()
    for choice in choices:
        try:
            index, (token,) = choice["index"], choice["token_ids"]
        except (KeyError, TypeError, ValueError):
            return Failure("a completion without its one token id (return_token_ids)")
        if type(index) is not int or type(token) is not int or index in seen:
            return Failure("completions without index or token id")
        if not 0 <= index < len(choices) or not 0 <= token <= LARGEST_ID:
            return Failure("completions without index or token id")
        seen.add(index)
        found[index // samples].append(token)  # all of a prompt's stand together
    return found


def _scored(entry: Any, own_id: int, k: int) -> Scored | Failure:
    try:
        pairs = [(float(said["logprob"]), int(token)) for token, said in entry.items()]
        own = float(entry[str(own_id)]["logprob"])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return Failure("prompt_logprobs of another form, or without the prompt's own token")
    ids = {id for _, id in pairs}
    if len(ids) < len(pairs) or not all(0 <= id <= LARGEST_ID for id in ids):
        return Failure("prompt_logprobs with a token twice, or an id that is none")
    # The prompt's own token is there beside the likeliest: among equals it stands behind them.
    pairs.sort(key=lambda pair: (-pair[0], pair[1] == own_id))
    top = pairs[:k]
    if len(top) < k:
        return Failure(f"{len(top)} log-probabilities of a token where {k} were asked for")
    if not all(value <= 1e-3 for value, _ in pairs):
        return Failure("prompt_logprobs that are no log-probabilities")  # NaN ends here, too
    if math.fsum(math.exp(value) for value, _ in top) > 1 + SUM_TOLERANCE:
        return Failure("prompt_logprobs that sum to a probability above 1")
    return Scored([id for _, id in top], [max(v, LOWEST) for v, _ in top], max(own, LOWEST))
