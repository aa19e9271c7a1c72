"""Rollouts whose prompt is read once a group, by transformers' own `generate`.

TRL reads each rollout's prompt; here each distinct prompt is read once, its keys and values are
repeated for its rollouts (a transformers cache's `batch_select_indices`), and the very `generate`
that TRL would call goes on from there, with TRL's settings. On a CPU tokens are drawn by one random
number each (`distil.trainer.draws`): the same distribution; elsewhere by the same random stream.
It is handed to TRL as its `rollout_func`.

TRL calls that argument experimental and warns of it. TRL's minor version is pinned, and tests run
the call, so the warning is silenced where DistIL itself gives the argument. Left out: vLLM, which
shares prompts by itself; tools, images, shards; models that `distil.teacher.prefixes.can_share`
refuses.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from distil.distributed import zero3
from distil.distributed.processes import fsdp_asked
from distil.errors import ModelError, RecipeError
from distil.teacher.prefixes import can_share
from distil.trainer.draws import by_one_number
from distil.trainer.probe import left_padded, until_end
from distil.vocab.hidden import base_model


@contextmanager
def with_shared_prompts(args: Any, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A trainer's keyword arguments, with the rollout function if `args.share_prompts`.

    Raises RecipeError for what it doesn't go with.
    """
    if not args.share_prompts:
        yield options
        return
    given = {
        "use_vllm": args.use_vllm,
        "use_transformers_continuous_batching": args.use_transformers_continuous_batching,
        "cache_implementation": args.cache_implementation,
        "tools": options.get("tools"),
        "environment_factory": options.get("environment_factory"),
        "rollout_func": options.get("rollout_func"),
        "FSDP": fsdp_asked(),
        "deepspeed": args.deepspeed,
        "ZeRO-3": zero3.asked_for(args),
    }
    if found := [name for name, value in given.items() if value]:
        raise RecipeError(
            f"share_prompts doesn't go with {', '.join(found)}: it samples whole weights with "
            "transformers' generate, from prompts alone. Leave one of them out."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)
        yield options | {"rollout_func": shared_prompt_rollouts}


def check_can_share(model: Any) -> None:
    """Raises ModelError for a model that gives other numbers when a prompt is read apart."""
    with torch.no_grad():
        able = can_share(model, base_model(model))
    if not able:
        raise ModelError(
            f"{type(base_model(model)).__name__} can't go on from a prompt that was read apart "
            "(windows, a state, or another cache). Leave share_prompts out."
        )


def shared_prompt_rollouts(prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
    """TRL's rollout function: one completion of each prompt; equal prompts are read once."""
    prompt_ids = [trainer.encoder.encode(prompt) for prompt in prompts]
    model = trainer.accelerator.unwrap_model(trainer.model)
    training = model.training
    model.eval()  # activation checkpointing would do without a cache
    try:
        written = complete(
            model, prompt_ids, trainer.generation_config, trainer.processing_class.pad_token_id
        )
    finally:
        model.train(training)
    completion_ids = [until_end(row, trainer.eos_token_ids) for row in written]
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}


@torch.no_grad()
def complete(
    model: Any, prompt_ids: Sequence[list[int]], config: Any, pad_token_id: int
) -> list[list[int]]:
    """What `model.generate` writes after each prompt, pads after its end included."""
    ids, mask = left_padded(prompt_ids, pad_token_id, model.device)
    place: dict[tuple[int, ...], int] = {}
    which = [place.setdefault(tuple(prompt), len(place)) for prompt in prompt_ids]
    cache = None
    if min(map(len, place)) > 1 and len(place) < len(prompt_ids):
        once, real = left_padded([list(prompt) for prompt in place], pad_token_id, model.device)
        once, real = once[:, :-1], real[:, :-1]  # generate reads each row's last token itself
        cache = model(
            input_ids=once, attention_mask=real, use_cache=True, logits_to_keep=1,
            position_ids=(real.cumsum(-1) - 1).clamp(min=0),
        ).past_key_values  # fmt: skip
        cache.batch_select_indices(torch.tensor(which, device=model.device))
    output = model.generate(
        input_ids=ids, attention_mask=mask, past_key_values=cache,
        **by_one_number(config, model.device),
    )  # fmt: skip
    written: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return written
