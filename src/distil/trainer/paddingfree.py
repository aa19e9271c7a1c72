"""The student's pass over real tokens alone: no padding, and each distinct prompt once.

A micro-batch runs as one row (`distil.trainer.flatrows`). All that a decoder does token by token
(products, norms, rotations by position) runs on its tokens and no others; attention takes the row
apart again: prompts look at themselves, completions at their prompt and themselves. The numbers
and the gradient are those of padded rows, but for the order of sums.

It stands on transformers' public AttentionInterface: `prepare` names `attention` as the model's
implementation, which is plain sdpa wherever no layout is handed to the forward pass (the teacher,
`generate`, TRL's own passes). Only for models whose implementation is sdpa, whose every layer
attends to all earlier tokens (`distil.teacher.prefixes.keeps_all_keys`), and that give the same
hidden states in a trial over a few tokens (`works`); others run padded. Left out: flash and flex
attention, whose kernels want layouts of their own.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from distil.teacher.prefixes import keeps_all_keys, near
from distil.trainer.flatrows import FlatRow, Layout, lay_out
from distil.vocab.hidden import completion_hidden, decoder_hidden, takes_any_argument
from distil.vocab.output_layer import output_module

NAME = "distil_padding_free"
"""The attention implementation's name in a model's config."""

_WORKS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def prepare(base: Any, wanted: bool = True) -> None:
    """Names `attention` as this model's implementation where it can be; else changes nothing.

    If it isn't wanted, a model that an earlier trainer prepared gets sdpa back.
    """
    config = base.config
    if not wanted and config._attn_implementation == NAME:
        base.set_attn_implementation("sdpa")
    fits = (
        wanted
        and config._attn_implementation == "sdpa"
        and config.get_text_config() is config
        and not getattr(config, "output_router_logits", False)  # that reads a mask of two axes
        and takes_any_argument(base)
        and keeps_all_keys(base)
    )
    if fits:
        base.set_attn_implementation(NAME)


def works(model: nn.Module, base: Any) -> bool:
    """Whether this model's passes go without padding: `prepare` named it, and a trial agrees.

    The first call for a model runs two passes over a few tokens, on every process alike. A model
    that fails gets sdpa back.
    """
    if base.config._attn_implementation != NAME:
        return False
    if base not in _WORKS:
        _WORKS[base] = _same_numbers(model, base)
    if not _WORKS[base]:
        base.set_attn_implementation("sdpa")
    return _WORKS[base]


def padded_hidden(
    model: nn.Module, base: nn.Module, batch: dict[str, Tensor]
) -> Float[Tensor, "batch seq hidden"]:
    """Hidden states that predict the completions' tokens, each row with its prompt and padding."""
    return completion_hidden(
        model,
        base,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
        batch["completion_ids"].shape[1],
    )


def flat_hidden(
    model: nn.Module, base: nn.Module, flat: FlatRow
) -> Float[Tensor, "batch seq hidden"]:
    """What `padded_hidden` gives at scored tokens; any hidden state elsewhere."""
    unread = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=flat.ids.device)  # 4D: left as it is
    hidden = decoder_hidden(model, base, flat.ids, unread, flat.positions, layout=flat.layout)
    return hidden[0, flat.predicts]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' sdpa; for a layout's one row prompt by prompt and completion by completion.

    Shapes as for every function of AttentionInterface: [batch, heads, seq, head] in, and
    [batch, seq, heads, head] out.
    """
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    def cut(whole: Tensor, places: Tensor) -> Tensor:
        """[1, heads, N, head] -> [rows, heads, longest, head]."""
        flat = whole[0].index_select(1, places.flatten())
        return flat.unflatten(1, places.shape).transpose(0, 1)

    def after(prompts: Tensor, own: Tensor) -> Tensor:
        """Completions' keys or values behind those of their prompts."""
        each = zip(prompts.split(1), layout.owned, strict=True)
        return torch.cat([torch.cat([one.expand(n, -1, -1, -1) for one, n in each]), own], 2)

    queries, keys, values = (cut(whole, layout.prompts) for whole in (query, key, value))
    output, _ = sdpa_attention_forward(module, queries, keys, values, None, **kwargs)
    parts = [output.flatten(0, 1)]
    if layout.completions.numel():
        own, own_keys, own_values = (cut(x, layout.completions) for x in (query, key, value))
        keys, values = after(keys, own_keys), after(values, own_values)
        output, _ = sdpa_attention_forward(module, own, keys, values, layout.seen, **kwargs)
        parts.append(output.flatten(0, 1))
    return torch.cat(parts).index_select(0, layout.back)[None], None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@torch.no_grad()
def _same_numbers(model: nn.Module, base: Any) -> bool:
    """Tries it: three completions of two prompts of unequal length, padded and flat."""
    head = output_module(base)

    def tensor(rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=head.weight.device)

    completions = tensor([[10, 11, 12], [13, 0, 0], [14, 15, 0]])
    batch = {
        "prompt_ids": tensor([[0, 5, 6], [7, 8, 9], [0, 5, 6]]) % head.out_features,
        "prompt_mask": tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1]]),
        "completion_ids": completions % head.out_features,
        "completion_mask": tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]),
    }
    batch["scored"] = batch["completion_mask"]
    flat = lay_out(batch)
    assert flat is not None
    training = model.training
    model.eval()
    real = batch["scored"] > 0
    padded = padded_hidden(model, base, batch)[real]
    same = near(flat_hidden(model, base, flat)[real], padded)
    model.train(training)
    return same
