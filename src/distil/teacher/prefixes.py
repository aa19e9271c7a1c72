"""A beginning that many rows share, read once: its keys and values, and the rows after it.

Only for models that hold nothing of earlier tokens but each one's keys and values, at every layer:
transformers' DynamicCache with full attention throughout (Llama, Qwen2 and 3, Mistral and SmolLM
without sliding windows, OLMo, Granite, GLM, mixtures of experts of that build, ...), adapters and
FSDP2 shards included. Not for sliding windows or chunks (Gemma, gpt-oss), linear attention and
hybrids (Qwen3-Next, Mamba, Jamba), layers that share keys, or models that take no position ids.
`can_share` tells, by the cache that a config asks for and by trying once on a few tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from distil.teacher.passplan import Row, Stage
from distil.vocab.hidden import decoder_hidden, forward_arguments
from distil.vocab.output_layer import output_module

PAD = 0
"""The id at padded positions: any will do, for nothing reads them."""

_ABLE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def run(
    model: nn.Module, base: nn.Module, stages: Sequence[Stage], device: torch.device
) -> Iterator[tuple[list[Row], Tensor, list[int]]]:
    """(rows, [rows, positions, H] hidden states, each row's count of positions) of every pass.

    A row's hidden states are those after its prefix. Call it under no_grad. Equal, but for the
    order of sums, to each row run alone: padding is on the right, where a causal model doesn't
    look, and positions are counted from each row's own beginning.
    """
    for stage in stages:
        cache = before = None
        if stage.prefixes:
            cache, before = _read(model, base, stage.prefixes, device)
        for rows in stage.passes:
            rest = [stage.rest(row) for row in rows]
            ids, attention, positions = _padded(rest, device)
            joined = None
            if cache is not None and before is not None:
                owner = torch.tensor([stage.owner[row.place] for row in rows], device=device)
                attention = torch.cat([before[owner], attention], 1)
                positions = positions + before.sum(1)[owner, None]
                joined = _joined(cache, owner)
            hidden = decoder_hidden(model, base, ids, attention, positions, joined)
            yield rows, hidden, [len(r) for r in rest]


def can_share(model: nn.Module, base: Any) -> bool:
    """Whether this model's hidden states stay the same when a beginning is read apart.

    The first call for a model runs three passes over a few tokens, on every process alike. Under
    no_grad, as `run`.
    """
    if base not in _ABLE:
        _ABLE[base] = keeps_all_keys(base) and _same_when_shared(model, base)
    return _ABLE[base]


def keeps_all_keys(base: Any) -> bool:
    """Whether the cache that this model's config asks for is full attention's at every layer."""
    if not {"past_key_values", "position_ids", "use_cache"} <= forward_arguments(base):
        return False
    layers = DynamicCache(config=base.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def near(found: Tensor, plain: Tensor) -> bool:
    """Whether hidden states are those of a plain pass but for rounding: 1e-3 of their norm.

    5% in half precision.
    """
    exact = plain.dtype == torch.float32 and not torch.is_autocast_enabled(plain.device.type)
    difference = (found.float() - plain.float()).norm() / plain.float().norm()
    return difference.item() <= (1e-3 if exact else 0.05)


class _Joined(DynamicLayer):
    """One layer's keys and values of prefixes, put before those of rows; nothing new is kept."""

    def __init__(self, layer: Any, owner: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.owner = layer.keys, layer.values, owner
        self.dtype, self.device = layer.keys.dtype, layer.keys.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """[rows, heads, prefix + new, head] of both."""
        return (
            torch.cat([self.keys[self.owner], key_states], -2),
            torch.cat([self.values[self.owner], value_states], -2),
        )


def _read(
    model: nn.Module, base: Any, prefixes: Sequence[list[int]], device: torch.device
) -> tuple[Cache, Tensor]:
    """The prefixes' keys and values, and [prefixes, longest] where there are any."""
    cache = DynamicCache(config=base.config)
    ids, attention, positions = _padded(prefixes, device)
    decoder_hidden(model, base, ids, attention, positions, cache)
    return cache, attention


def _joined(cache: Cache, owner: Tensor) -> Cache:
    return Cache(layers=[_Joined(layer, owner) for layer in cache.layers])


def _padded(rows: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """[rows, longest] ids, padded on the right; 1 where they are real; positions 0, 1, ..."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], device=device)
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    positions = torch.arange(longest, device=device).expand(len(rows), -1)
    return ids, real.to(device), positions


def _same_when_shared(model: nn.Module, base: Any) -> bool:
    """Tries it: three rows after two prefixes of unequal length, and the same rows whole."""
    head = output_module(base)
    device = head.weight.device
    rows = [
        Row(place, [i % head.out_features for i in ids], 1)
        for place, ids in enumerate(([5, 6, 7, 8, 9], [5, 6, 7, 10], [11, 12, 13, 14]))
    ]
    prefixes = [rows[0].ids[:3], rows[2].ids[:1]]
    shared, whole = Stage([rows], prefixes, {0: 0, 1: 0, 2: 1}), Stage([rows])
    apart, plain = (
        torch.stack([hidden[i, length - 1] for i, length in enumerate(lengths)])
        for _, hidden, lengths in run(model, base, [shared, whole], device)
    )
    return near(apart, plain)
