"""Chunks of logits from hidden states: their form, their product, their dtype, and the checks.

What `distil.vocab`'s functions share. Left out: what is read from the logits.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 72 * 2**20, "cuda": 640 * 2**20}
"""The logits of one chunk take about this many bytes; other devices count as cuda."""

CHUNK_TOKENS = 384
"""A chunk has at least so many tokens: each one reads the weight and its gradient as a whole."""

TILE = 128
"""On an accelerator, chunks are multiples of this: its products work on tiles of so many rows."""

CPU_BLOCK = 64
"""Rows of a chunk worked on at a time on a CPU: enough for its cores, few enough for its cache."""


@dataclass(frozen=True)
class LogitForm:
    """logits / temperature = cap * tanh(x), or x where cap is None, of x = gain * (h @ W.T + b).

    `chunk`: that many tokens at a time at most, None to let their memory decide.
    """

    gain: float
    cap: float | None
    chunk: int | None

    @staticmethod
    def of(
        temperature: float, logit_scale: float, softcap: float | None, chunk: int | None
    ) -> "LogitForm":
        """From an output layer's own numbers. Raises ValueError on one that can't be."""
        for name, value in (("temperature", temperature), ("softcap", softcap)):
            if value is not None and not value > 0:
                raise ValueError(
                    f"{name} is {value}, but logits are divided by it, so it must be positive: "
                    f"leave {name} out where there is none."
                )
        if chunk is not None and chunk < 1:
            raise ValueError(
                f"chunk is {chunk}, but it counts the tokens computed at a time: give 1 or more, "
                "or None to let the memory of a chunk decide."
            )
        if softcap is None:
            return LogitForm(logit_scale / temperature, None, chunk)
        return LogitForm(logit_scale / softcap, softcap / temperature, chunk)

    def forward_(self, x: Tensor) -> Tensor:
        """The logits, over the temperature, of x; overwrites it."""
        return x if self.cap is None else x.tanh_().mul_(self.cap)

    def backward_(self, grad: Tensor, y: Tensor) -> Tensor:
        """grad * dy/dx, where y = cap * tanh(x) and so dy/dx = cap - y**2 / cap."""
        return grad if self.cap is None else grad.mul_(y.square().div_(-self.cap).add_(self.cap))


def products(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, form: LogitForm
) -> Iterator[tuple[slice, Tensor]]:
    """(rows, gain * (hidden[rows] @ weight.T + bias)) in chunks of equal length, in one buffer."""
    tokens, vocab = len(hidden), len(weight)
    if tokens == 0:
        return
    most = form.chunk or default_chunk(vocab, hidden.dtype, hidden.device)
    chunks = math.ceil(tokens / most)
    length = math.ceil(tokens / chunks)
    if hidden.device.type != "cpu":
        length = min(most, math.ceil(length / TILE) * TILE)
    buffer = hidden.new_empty(length, vocab)
    for start in range(0, tokens, length):
        rows = slice(start, min(start + length, tokens))
        out = buffer[: rows.stop - rows.start]
        yield rows, addmm(bias, hidden[rows], weight.t(), form.gain, out=out)


def addmm(bias: Tensor | None, a: Tensor, b: Tensor, gain: float, *, out: Tensor) -> Tensor:
    """gain * (a @ b + bias), written to `out`."""
    if bias is None:
        return torch.addmm(out, a, b, beta=0, alpha=gain, out=out)
    return torch.addmm(bias, a, b, beta=gain, alpha=gain, out=out)


def entropy_(logps: Tensor) -> Tensor:
    """-sum(p * log p) of each row, overwriting `logps`; 0 * log 0 counts as 0."""
    p = logps.exp()
    return p.mul_(logps.clamp_(min=torch.finfo(logps.dtype).min)).sum(-1).neg_()


def cast(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All three in the dtype of the product, differentiably."""
    dtype, device = weight.dtype, weight.device.type
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What log-softmax and sums run in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def default_chunk(vocab: int, dtype: torch.dtype, device: torch.device) -> int:
    """The number of tokens whose logits take about CHUNK_BYTES, at least CHUNK_TOKENS.

    On an accelerator a multiple of twice TILE where it's more than that.
    """
    size = CHUNK_BYTES["cpu" if device.type == "cpu" else "cuda"]
    tokens = size // (vocab * dtype.itemsize)
    if device.type != "cpu":
        tokens -= tokens % (2 * TILE)
    return max(CHUNK_TOKENS, tokens)


def check_shapes(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raises ValueError unless it's [tokens, hidden], [vocab, hidden] and [vocab]."""
    shapes = f"hidden {list(hidden.shape)}, weight {list(weight.shape)}"
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"Got {shapes}, but the product needs [tokens, hidden] and [vocab, hidden] of the same "
            "hidden size: flatten batch and sequence, and take the model's own output matrix."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"Got bias {list(bias.shape)} with {shapes}, but each of the {len(weight)} ids has one "
            "bias: take weight and bias from the same layer."
        )


def check_ids(ids: Tensor, hidden: Tensor, weight: Tensor) -> None:
    """Raises ValueError unless each row of hidden has its row of ids, all of them in the weight."""
    if ids.ndim != 2 or len(ids) != len(hidden) or ids.dtype != torch.int64:
        raise ValueError(
            f"Got ids {list(ids.shape)} of {ids.dtype}, but each of the {len(hidden)} rows of "
            "hidden needs its row of ids: give int64 [tokens, support]."
        )
    if ids.numel() == 0:
        return
    low, high = (int(x) for x in ids.aminmax())
    if low < 0 or high >= len(weight):
        raise ValueError(
            f"ids go from {low} to {high}, but weight has rows 0 to {len(weight) - 1}: mask the "
            "padding before this call, and check that ids and weight share one tokenizer."
        )
