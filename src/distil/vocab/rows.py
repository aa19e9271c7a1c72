"""What is read from, and written over, a chunk of logits: three passes over rows, by device.

Each takes `x`, a [rows, vocab] product as `logits.products` yields it, and works on the logits over
the temperature, y = form.forward_(x), row by row:

    row_stats        log-sum-exp, log-probabilities at ids, entropy; leaves x as it is
    signed_target_   overwrites x by the loss's gradient in x, for gradients that arrive at the ids
    top_k            the K largest log-probabilities and their ids, beside what row_stats gives

Sums run in float32 (float64 for float64), whatever x's dtype. Left out: the products themselves.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from distil.vocab.logits import CPU_BLOCK, LogitForm, wide_dtype


def row_stats(
    x: Tensor, ids: Tensor, form: LogitForm, *, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(lse [rows], log-probabilities at ids [rows, support], entropy [rows] or None). Equals

        y = form.forward_(x.to(wide_dtype(x.dtype)))
        logps = y.log_softmax(-1)
        y.logsumexp(-1), logps.gather(-1, ids), -(logps.exp() * logps).sum(-1)

    in nats and the wide dtype, without gradient; 0 * log 0 counts as 0. x [rows, vocab] stays as it
    is; ids int64 [rows, support], each from 0 to vocab - 1 (not checked here).
    """
    lse = x.new_empty(len(x), dtype=wide_dtype(x.dtype))
    logps = lse.new_empty(ids.shape)
    entropy = torch.empty_like(lse) if with_entropy else None
    for rows, y, room in _blocks(x, form):
        high = y.amax(-1, keepdim=True).to(lse.dtype)
        shifted = torch.sub(y, high, out=room)
        at_ids = shifted.gather(-1, ids[rows])
        if entropy is None:
            log_sum = shifted.exp_().sum(-1, keepdim=True).log_()
        else:
            weights = shifted.exp()
            total = weights.sum(-1, keepdim=True)
            log_sum = total.log()
            # A logit of -inf has weight 0 and must not make it NaN.
            weights.mul_(shifted.clamp_(min=torch.finfo(shifted.dtype).min))
            entropy[rows] = (log_sum - weights.sum(-1, keepdim=True).div_(total)).squeeze(-1)
        logps[rows] = at_ids.sub_(log_sum)
        lse[rows] = log_sum.add_(high).squeeze(-1)
    return lse, logps, entropy


def signed_target_(x: Tensor, lse: Tensor, ids: Tensor, grad: Tensor, form: LogitForm) -> Tensor:
    """Overwrites x by the gradient in x of a loss that has `grad` at the log-probabilities at ids.

        y = form.forward_(x.to(wide_dtype(x.dtype)))
        dy = zeros_like(y).scatter_add(-1, ids, grad) - y.softmax(-1) * grad.sum(-1, keepdim=True)
        x.copy_(form.backward_(dy, y))

    rounded to x's dtype once. An id may come twice in a row: both count. `lse` [rows] is that of
    `row_stats` for the same x; grad [rows, support] is in the wide dtype. The form's gain is not in
    it: it is for the products with weight and hidden states to apply. Returns x.
    """
    in_place = x.dtype == lse.dtype and form.cap is None
    for rows, y, room in _blocks(x, form):
        dy = torch.sub(y, lse[rows, None], out=y if in_place else room)
        dy.exp_().mul_(-grad[rows].sum(-1, keepdim=True)).scatter_add_(-1, ids[rows], grad[rows])
        if not in_place:
            x[rows] = form.backward_(dy, y)
    return x


def top_k(
    x: Tensor, k: int, form: LogitForm, ids: Tensor | None = None, *, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(top-k log-probabilities, their ids, log-probabilities at `ids`, entropy or None). Equals

        y.log_softmax(-1).topk(k)

    largest first, ties in any order, and beside it what `row_stats` gives at `ids` (none: width 0).
    x stays as it is; 0 <= k <= vocab (not checked here).
    """
    if ids is None:
        ids = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    lse, logps, entropy = row_stats(x, ids, form, with_entropy=with_entropy)
    values = lse.new_empty(len(x), k)
    top = torch.empty_like(values, dtype=torch.int64)
    for rows, y, _ in _blocks(x, form):
        found = y.topk(k)
        values[rows] = found.values - lse[rows, None]
        top[rows] = found.indices
    return values, top, logps, entropy


def _blocks(x: Tensor, form: LogitForm) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows, their logits over the temperature, room for as many) for a few rows at a time.

    The logits are x's own memory, in x's dtype, where the form leaves x as it is: only to be read.
    """
    size = min(CPU_BLOCK, len(x)) if x.device.type == "cpu" else len(x)
    room = torch.empty_like(x[:size], dtype=wide_dtype(x.dtype))
    copy = None if form.cap is None else torch.empty_like(room)
    for start in range(0, len(x), max(size, 1)):
        part = x[start : start + size]
        y = part if copy is None else form.forward_(copy[: len(part)].copy_(part))
        yield slice(start, start + len(part)), y, room[: len(part)]
