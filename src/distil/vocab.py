"""Log-probabilities over the vocabulary, straight from hidden states, a chunk of tokens at a time.

The [tokens, vocabulary] matrix of logits is the largest thing in a step of distillation (1.2 GB for
2,048 tokens of a 152k vocabulary, several times over), while only some hundred entries of each row
are wanted. So it is never made: a chunk of rows is computed, read and overwritten by the next, and
the backward pass computes the chunk again. The price is one extra matrix product of five.

Precision: the product runs in the dtype of the weight, or that of autocast where it is on, as in
the model's own output layer, so that both give the same logits. All that follows (softcap,
log-softmax, sums) runs in float32, or in float64 for a float64 weight. In half precision the
gradient of the weight is summed over chunks in float32, but each chunk's part is rounded once.
Natural logarithms, so nats throughout.

Left out: chunks over the vocabulary, second derivatives, a vocabulary spread over devices.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_BYTES = {"cpu": 72 * 2**20, "cuda": 256 * 2**20}
"""The logits of one chunk take about this many bytes; other devices count as cuda."""

CHUNK_TOKENS = 384
"""A chunk has at least so many tokens: each one reads the weight and its gradient as a whole."""

CPU_BLOCK = 64
"""Rows of a chunk worked on at a time on a CPU: enough for its cores, few enough for its cache."""


def gather_logps(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    ids: Int[Tensor, "tokens support"],
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "tokens support"]:
    """The log-probabilities at `ids`, differentiable in hidden, weight and bias. Equals

        logits = softcap_(logit_scale * (hidden @ weight.T + bias))
        torch.log_softmax(logits / temperature, -1).gather(-1, ids)

    with softcap_(x) = softcap * tanh(x / softcap), or x for None. An id may come twice in a row.
    `chunk`: at most so many tokens at a time (by default as `default_chunk` says). Returns
    float32, float64 for a float64 weight. Raises ValueError if shapes or ids don't fit.
    """
    form = _LogitForm.of(temperature, logit_scale, softcap, chunk)
    return _gather(hidden, weight, bias, ids, form, with_entropy=False)[0]


def gather_logps_and_entropy(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    ids: Int[Tensor, "tokens support"],
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "tokens support"], Float[Tensor, " tokens"]]:
    """`gather_logps` and the entropy of each row, -sum(p * log p) in nats, without gradient."""
    form = _LogitForm.of(temperature, logit_scale, softcap, chunk)
    return _gather(hidden, weight, bias, ids, form, with_entropy=True)


def topk_logps(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    k: int,
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
    """The k largest log-probabilities of each row, largest first, and their ids. Equals

        torch.log_softmax(logits / temperature, -1).topk(k)

    without gradient, with logits as in `gather_logps`: normalised over the whole vocabulary, not
    over the k. Raises ValueError if shapes don't fit, or k is no number of entries.
    """
    form = _LogitForm.of(temperature, logit_scale, softcap, chunk)
    return _topk(hidden, weight, bias, k, form, with_entropy=False)[:2]


def topk_logps_and_entropy(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    k: int,
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"], Float[Tensor, " tokens"]]:
    """`topk_logps` and the entropy of each whole row, -sum(p * log p) in nats."""
    form = _LogitForm.of(temperature, logit_scale, softcap, chunk)
    return _topk(hidden, weight, bias, k, form, with_entropy=True)


def topk_and_gather_logps(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    k: int,
    ids: Int[Tensor, "tokens support"],
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[
    Float[Tensor, "tokens k"],
    Int[Tensor, "tokens k"],
    Float[Tensor, "tokens support"],
    Float[Tensor, " tokens"],
]:
    """All a teacher is asked in one product: top-k, their ids, logps at `ids`, entropy.

    Equal to `topk_logps_and_entropy` and `gather_logps` together, without gradient. k may be 0.
    """
    form = _LogitForm.of(temperature, logit_scale, softcap, chunk)
    _check(hidden, weight, bias)
    _check_ids(ids, hidden, weight)
    at_ids = hidden.new_empty(ids.shape, dtype=_wide(_cast(hidden, weight, bias)[0].dtype))
    logps, top, entropy = _topk(
        hidden, weight, bias, k, form, with_entropy=True, also=(ids, at_ids)
    )
    return logps, top, at_ids, entropy


@dataclass(frozen=True)
class _LogitForm:
    """logits / temperature = cap * tanh(x), or x where cap is None, of x = gain * (h @ W.T + b).

    `chunk`: that many tokens at a time at most, None to let their memory decide.
    """

    gain: float
    cap: float | None
    chunk: int | None

    @staticmethod
    def of(
        temperature: float, logit_scale: float, softcap: float | None, chunk: int | None
    ) -> "_LogitForm":
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
            return _LogitForm(logit_scale / temperature, None, chunk)
        return _LogitForm(logit_scale / softcap, softcap / temperature, chunk)

    def forward_(self, x: Tensor) -> Tensor:
        return x if self.cap is None else x.tanh_().mul_(self.cap)

    def backward_(self, grad: Tensor, y: Tensor) -> Tensor:
        """grad * dy/dx, where y = cap * tanh(x) and so dy/dx = cap - y**2 / cap."""
        return grad if self.cap is None else grad.mul_(y.square().div_(-self.cap).add_(self.cap))


def _gather(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    form: _LogitForm,
    *,
    with_entropy: bool,
) -> tuple[Tensor, Tensor]:
    _check(hidden, weight, bias)
    _check_ids(ids, hidden, weight)
    apply: Any = _GatherLogps.apply
    logps, entropy = apply(*_cast(hidden, weight, bias), ids, form, with_entropy)
    return logps, entropy


@torch.no_grad()
def _topk(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    k: int,
    form: _LogitForm,
    *,
    with_entropy: bool,
    also: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`also`: (ids, where to write the log-probabilities at them)."""
    _check(hidden, weight, bias)
    if not (0 if also else 1) <= k <= len(weight):
        raise ValueError(
            f"k is {k}, but a row has {len(weight)} entries, one for each id of the vocabulary: "
            f"choose k from 1 to {len(weight)}."
        )
    hidden, weight, bias = _cast(hidden, weight, bias)
    logps = hidden.new_empty(len(hidden), k, dtype=_wide(hidden.dtype))
    ids = torch.empty_like(logps, dtype=torch.int64)
    entropy = logps.new_empty(len(hidden))
    for rows, product in _products(hidden, weight, bias, form):
        for block, logits, spare in _blocks(rows, product, form):
            every = torch.log_softmax(logits, -1, out=spare)
            logps[block], ids[block] = every.topk(k)
            if also:
                also[1][block] = every.gather(-1, also[0][block])
            if with_entropy:
                entropy[block] = _entropy_(every)
    return logps, ids, entropy


class _GatherLogps(torch.autograd.Function):
    """(log-probabilities at ids, entropy); keeps the inputs and computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        form: _LogitForm,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(ids.shape, dtype=_wide(hidden.dtype))
        entropy = logps.new_empty(len(hidden))
        for rows, product in _products(hidden, weight, bias, form):
            for block, logits, spare in _blocks(rows, product, form):
                every = torch.log_softmax(logits, -1, out=spare)
                logps[block] = every.gather(-1, ids[block])
                if with_entropy:
                    entropy[block] = _entropy_(every)
        ctx.save_for_backward(hidden, weight, bias, ids)
        ctx.form = form
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """With y the logits and p = softmax(y): dy = scatter_add(grad at ids) - p * sum(grad)."""
        hidden, weight, bias, ids = ctx.saved_tensors
        form, wide = ctx.form, grad.dtype
        wanted = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if wanted[0] else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if wanted[1] else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if wanted[2] else None
        for rows, product in _products(hidden, weight, bias, form):
            for block, logits, spare in _blocks(rows, product, form):
                dy = torch.softmax(logits, -1, out=spare).mul_(-grad[block].sum(-1, keepdim=True))
                dy.scatter_add_(-1, ids[block], grad[block])
                part = slice(block.start - rows.start, block.stop - rows.start)
                product[part] = form.backward_(dy, logits)
            if grad_hidden is not None:
                _addmm(None, product, weight, form.gain, out=grad_hidden[rows])
            if grad_weight is not None and weight.dtype == wide:
                grad_weight.addmm_(product.t(), hidden[rows], alpha=form.gain)
            elif grad_weight is not None:
                grad_weight.add_(product.t() @ hidden[rows], alpha=form.gain)
            if grad_bias is not None:
                grad_bias.add_(product.sum(0, dtype=wide), alpha=form.gain)
        narrow = [None if g is None else g.to(weight.dtype) for g in (grad_weight, grad_bias)]
        return grad_hidden, *narrow, None, None, None


def _products(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, form: _LogitForm
) -> Iterator[tuple[slice, Tensor]]:
    """(rows, gain * (hidden[rows] @ weight.T + bias)) in chunks of equal length, in one buffer."""
    tokens, vocab = len(hidden), len(weight)
    if tokens == 0:
        return
    most = form.chunk or default_chunk(vocab, hidden.dtype, hidden.device)
    chunks = math.ceil(tokens / most)
    length = math.ceil(tokens / chunks)
    buffer = hidden.new_empty(length, vocab)
    for start in range(0, tokens, length):
        rows = slice(start, min(start + length, tokens))
        out = buffer[: rows.stop - rows.start]
        yield rows, _addmm(bias, hidden[rows], weight.t(), form.gain, out=out)


def _blocks(
    rows: slice, product: Tensor, form: _LogitForm
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows of the whole, their logits / temperature, room for as many) for a few rows at a time.

    Logits in the working dtype overwrite `product`; from a narrower dtype they are a copy.
    """
    wide = _wide(product.dtype)
    size = min(CPU_BLOCK, len(product)) if product.device.type == "cpu" else len(product)
    room = torch.empty_like(product[:size], dtype=wide)
    for start in range(0, len(product), size):
        part = product[start : start + size]
        block = slice(rows.start + start, rows.start + start + len(part))
        yield block, form.forward_(part.to(wide)), room[: len(part)]


def _addmm(bias: Tensor | None, a: Tensor, b: Tensor, gain: float, *, out: Tensor) -> Tensor:
    """gain * (a @ b + bias), written to `out`."""
    if bias is None:
        return torch.addmm(out, a, b, beta=0, alpha=gain, out=out)
    return torch.addmm(bias, a, b, beta=gain, alpha=gain, out=out)


def _entropy_(logps: Tensor) -> Tensor:
    """-sum(p * log p) of each row, overwriting `logps`; 0 * log 0 counts as 0."""
    p = logps.exp()
    return p.mul_(logps.clamp_(min=torch.finfo(logps.dtype).min)).sum(-1).neg_()


def _cast(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All three in the dtype of the product, differentiably."""
    dtype, device = weight.dtype, weight.device.type
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def default_chunk(vocab: int, dtype: torch.dtype, device: torch.device) -> int:
    """The number of tokens whose logits take about CHUNK_BYTES, at least CHUNK_TOKENS."""
    size = CHUNK_BYTES["cpu" if device.type == "cpu" else "cuda"]
    return max(CHUNK_TOKENS, size // (vocab * dtype.itemsize))


def _check(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
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


def _check_ids(ids: Tensor, hidden: Tensor, weight: Tensor) -> None:
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
