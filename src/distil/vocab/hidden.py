"""Hidden states at the positions that predict completion tokens, without the vocabulary's logits.

The whole model is called as its wrapper (DDP, FSDP) expects, asked for one position's logits only,
and the decoder's output is caught on its way to the output layer. Multiplying it by the output
matrix is `distil.vocab`'s. `check_output_layer` proves, once, that the two agree for this model.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import Cache

from distil.errors import ModelError
from distil.vocab import gather_logps
from distil.vocab.output_layer import output_layer, output_module


def completion_hidden(
    model: nn.Module,
    base: nn.Module,
    input_ids: Int[Tensor, "batch prompt_and_completion"],
    attention_mask: Int[Tensor, "batch prompt_and_completion"],
    completion_length: int,
) -> Float[Tensor, "batch completion hidden"]:
    """The decoder's output at positions P-1 ... P+T-2, which predict the T completion tokens.

    `model` is what is called (wrapped or not), `base` the transformers model inside it. Position
    ids count unmasked tokens, so left padding changes no position.
    """
    position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    hidden = decoder_hidden(model, base, input_ids, attention_mask, position_ids)
    return hidden[:, -completion_length - 1 : -1]


def decoder_hidden(
    model: nn.Module,
    base: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch cached_and_seq"] | Bool[Tensor, "batch 1 1 1"],
    position_ids: Int[Tensor, "batch seq"],
    cache: Cache | None = None,
    **more: Any,
) -> Float[Tensor, "batch seq hidden"]:
    """The decoder's output at every position. `cache`: keys and values of what comes before.

    more: what a model hands on to its layers as it is (`takes_any_argument`). A mask of four axes
    goes there as it is, too.
    """
    known = forward_arguments(base)
    extras = {"position_ids": position_ids, "logits_to_keep": 1, "use_cache": cache is not None}
    if cache is not None:
        extras["past_key_values"] = cache
    with _caught_decoder_output(base) as caught:
        model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **{k: v for k, v in extras.items() if k in known},
            **more,
        )
    if len(caught) != 1:
        raise ModelError(
            f"The decoder ran {len(caught)} times in one forward pass, where one was expected, so "
            f"its output can't be told apart. {type(base).__name__} isn't supported."
        )
    return caught[0]


def base_model(model: nn.Module) -> Any:
    """The transformers model inside an adapter model."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


@torch.no_grad()
def check_output_layer(model: nn.Module) -> None:
    """Raises ModelError unless hidden states times the output matrix are this model's logits.

    Costs one pass over four tokens. It catches architectures that scale, cap or shift their logits
    in a way that `distil.vocab.output_layer` doesn't know, before they train on wrong numbers.
    """
    if any(p.is_meta for p in model.parameters()):  # to be sharded: only rank 0 has the weights yet
        return
    base = base_model(model)
    head = output_module(base)
    device, vocabulary = head.weight.device, head.out_features
    ids = torch.arange(4, device=device)[None] % vocabulary
    training = model.training
    model.eval()
    with _caught_decoder_output(base) as caught:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].float()
    model.train(training)
    layer = output_layer(base)
    every = torch.arange(vocabulary, device=device).expand(4, -1)
    ours = gather_logps(
        caught[0][0], layer.weight, every, bias=layer.bias,
        logit_scale=layer.logit_scale, softcap=layer.softcap,
    )  # fmt: skip
    difference = (ours - logits.log_softmax(-1)).abs().max().item()
    tolerance = 1e-3 if layer.weight.dtype == torch.float32 else 0.25
    if not difference <= tolerance:
        raise ModelError(
            f"The output layer of {type(base).__name__} isn't understood: log-probabilities from "
            f"its hidden states differ by {difference:.3g} from the model's own. Its logits go "
            "through a transformation that distil.vocab.output_layer doesn't know."
        )


@contextmanager
def _caught_decoder_output(base: Any) -> Iterator[list[Tensor]]:
    """Collects the decoder's last hidden states from each forward pass inside."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, arguments: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output.last_hidden_state)

    handle = base.get_decoder().register_forward_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def forward_arguments(base: nn.Module) -> set[str]:
    """Argument names of the class's own forward (an instance's may have been wrapped)."""
    return set(inspect.signature(type(base).forward).parameters)


def takes_any_argument(base: nn.Module) -> bool:
    """Whether the class's own forward takes arguments that it doesn't name, as for its layers."""
    parameters = inspect.signature(type(base).forward).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
