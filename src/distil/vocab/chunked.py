"""Log-probabilities over the vocabulary, straight from hidden states, a chunk of tokens at a time.

The [tokens, vocabulary] matrix of logits is the largest thing in a step of distillation (1.2 GB for
2,048 tokens of a 152k vocabulary, several times over), while only some hundred entries of each row
are wanted. So it is never made: a chunk of rows is computed, read and overwritten by the next, and
the backward pass computes the chunk again. The price is one extra matrix product of five.

Precision: the product runs in the dtype of the weight, or that of autocast where it is on, as in
the model's own output layer, so that both give the same logits. All that follows (softcap,
log-softmax, sums) runs in float32, or in float64 for a float64 weight. In half precision the
gradient of the weight is summed over chunks in float32, but each chunk's part is rounded once; on
a GPU each chunk's product is added in float32 to the sum, and the sum rounded once a chunk, since
a float32 sum would take twice the memory of the gradient. Natural logarithms, so nats throughout.

Left out: chunks over the vocabulary, second derivatives, a vocabulary spread over devices.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.vocab.logits import (
    LogitForm,
    addmm,
    cast,
    check_ids,
    check_shapes,
    products,
    wide_dtype,
)
from distil.vocab.rows import row_stats, signed_target_, top_k
from distil.vocab.sums import LayerSums


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
    form = LogitForm.of(temperature, logit_scale, softcap, chunk)
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
    form = LogitForm.of(temperature, logit_scale, softcap, chunk)
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
    form = LogitForm.of(temperature, logit_scale, softcap, chunk)
    return _topk(hidden, weight, bias, k, form, with_entropy=False)[:2]


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
    """All a teacher is asked in one product: top-k, their ids, logps at `ids`, entropy. Equals

        *topk_logps(hidden, weight, k, ...), *gather_logps_and_entropy(hidden, weight, ids, ...)

    without gradient. k may be 0. Raises ValueError if shapes or ids don't fit, or k is too large.
    """
    form = LogitForm.of(temperature, logit_scale, softcap, chunk)
    check_shapes(hidden, weight, bias)
    check_ids(ids, hidden, weight)
    logps, top, entropy, at_ids = _topk(hidden, weight, bias, k, form, with_entropy=True, also=ids)
    return logps, top, at_ids, entropy


def _gather(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    form: LogitForm,
    *,
    with_entropy: bool,
) -> tuple[Tensor, Tensor]:
    check_shapes(hidden, weight, bias)
    check_ids(ids, hidden, weight)
    apply: Any = _GatherLogps.apply
    logps, entropy = apply(*cast(hidden, weight, bias), ids, form, with_entropy)
    return logps, entropy


@torch.no_grad()
def _topk(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    k: int,
    form: LogitForm,
    *,
    with_entropy: bool,
    also: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(top-k, their ids, entropy, log-probabilities at the ids `also`: width 0 without any)."""
    check_shapes(hidden, weight, bias)
    if not (1 if also is None else 0) <= k <= len(weight):
        raise ValueError(
            f"k is {k}, but a row has {len(weight)} entries, one for each id of the vocabulary: "
            f"choose k from 1 to {len(weight)}."
        )
    hidden, weight, bias = cast(hidden, weight, bias)
    logps = hidden.new_empty(len(hidden), k, dtype=wide_dtype(hidden.dtype))
    ids = torch.empty_like(logps, dtype=torch.int64)
    entropy = logps.new_empty(len(hidden))
    if also is None:
        also = ids.new_empty(len(hidden), 0)
    at_ids = logps.new_empty(also.shape)
    for rows, product in products(hidden, weight, bias, form):
        logps[rows], ids[rows], at_ids[rows], entropies = top_k(
            product, k, form, also[rows], with_entropy=with_entropy
        )
        if entropies is not None:
            entropy[rows] = entropies
    return logps, ids, entropy, at_ids


class _GatherLogps(torch.autograd.Function):
    """(log-probabilities at ids, entropy); keeps the inputs and computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        form: LogitForm,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(ids.shape, dtype=wide_dtype(hidden.dtype))
        entropy = logps.new_empty(len(hidden))
        lse = torch.empty_like(entropy)
        for rows, product in products(hidden, weight, bias, form):
            lse[rows], logps[rows], entropies = row_stats(
                product, ids[rows], form, with_entropy=with_entropy
            )
            if entropies is not None:
                entropy[rows] = entropies
        ctx.save_for_backward(hidden, weight, bias, ids, lse)
        ctx.form = form
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, lse = ctx.saved_tensors
        form, wanted = ctx.form, ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if wanted[0] else None
        sums = LayerSums(weight if wanted[1] else None, bias if wanted[2] else None, form.gain)
        for rows, product in products(hidden, weight, bias, form):
            signed_target_(product, lse[rows], ids[rows], grad[rows], form)
            if grad_hidden is not None:
                addmm(None, product, weight, form.gain, out=grad_hidden[rows])
            sums.add(product, hidden[rows])
        return grad_hidden, *sums.gradients(), None, None, None
