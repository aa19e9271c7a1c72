"""What is read from, and written over, a chunk of logits: three passes over rows, by device.

Each takes `x`, a [rows, vocab] product as `logits.products` yields it (a row's entries side by side
in memory), and works on the logits over the temperature, y = form.forward_(x), row by row:

    row_stats        log-sum-exp, log-probabilities at ids, entropy; leaves x as it is
    signed_target_   overwrites x by the loss's gradient in x, for gradients that arrive at the ids
    top_k            the K largest log-probabilities and their ids, beside what row_stats gives

Sums run in float32 (float64 for float64), whatever x's dtype. On a GPU they are Triton kernels
(`launches`), as on a CPU under Triton's interpreter (TRITON_INTERPRET=1); elsewhere, and where
no kernel can be started, plain PyTorch on a few rows at a time. Left out: the products themselves.
"""

import importlib.util
import os
import subprocess
import warnings
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from distil.vocab.logits import CPU_BLOCK, LogitForm, entropy_, wide_dtype

BLOCK_BYTES = 2 * 2**20
"""A CPU works on as many rows at a time as this holds, from 1 to CPU_BLOCK: they stay in cache."""

OTHER_BLOCK = 256
"""Rows at a time on another device, for the memory of their copy in the working dtype."""

GROUP = 64
"""Consecutive entries of which the top-K reads the maximum first."""

MOST_IDS = 1024
"""A kernel compares each id of a row with each other; beyond so many, plain PyTorch adds faster."""


def uses_triton(x: Tensor) -> bool:
    """Whether the work on x is done by Triton kernels."""
    if x.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return kernels_start(x.device.type)
    return False


@cache
def kernels_start(kind: str) -> bool:
    """Whether kernels can be started on this kind of device; warns once if not, with the reason."""
    reason = "triton is not installed: install the one that belongs to this torch"
    if importlib.util.find_spec("triton") is not None:
        try:
            if kind != "cpu":
                _try_kernels(kind)
            return True
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            reason = (
                f"Triton can't start kernels ({error}): it needs a C compiler and Python's headers "
                "(apt-get install gcc python3-dev)"
            )
    warnings.warn(
        "The vocabulary's rows are worked on by plain PyTorch, which is slower on a GPU, since "
        f"{reason}.",
        stacklevel=2,
    )
    return False


def _try_kernels(kind: str) -> None:
    """Starts one: Triton then builds what starts them all."""
    from distil.vocab import launches

    x = torch.zeros(1, 2, device=kind)
    ids = torch.zeros(1, 1, dtype=torch.long, device=kind)
    launches.row_stats(x, ids, LogitForm.of(1.0, 1.0, None, None), with_entropy=False)


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
    if uses_triton(x):
        from distil.vocab import launches

        with torch.cuda.device_of(x):
            return launches.row_stats(x, ids, form, with_entropy=with_entropy)
    lse = x.new_empty(len(x), dtype=wide_dtype(x.dtype))
    logps = lse.new_empty(ids.shape)
    entropy = torch.empty_like(lse) if with_entropy else None
    for rows, y, room in _blocks(x, form):
        every = torch.log_softmax(y, -1, dtype=lse.dtype, out=room)
        logps[rows] = every.gather(-1, ids[rows])
        lse[rows] = y.amax(-1) - every.amax(-1)
        if entropy is not None:
            entropy[rows] = entropy_(every)
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
    if uses_triton(x) and ids.shape[1] <= MOST_IDS:
        from distil.vocab import launches

        with torch.cuda.device_of(x):
            return launches.signed_target_(x, lse, ids, grad, form)
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
    if uses_triton(x):
        from distil.vocab import launches

        with torch.cuda.device_of(x):
            return launches.top_k(x, k, form, ids, with_entropy=with_entropy)
    top = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    logps = x.new_empty(len(x), k + ids.shape[1], dtype=wide_dtype(x.dtype))
    entropy = logps.new_empty(len(x)) if with_entropy else None
    for rows, y, room in _blocks(x, form):
        top[rows] = ids_of_largest(x[rows], k)  # not of y, where softcap may have made equals
        every = torch.log_softmax(y, -1, dtype=room.dtype, out=room)
        logps[rows] = every.gather(-1, torch.cat([top[rows], ids[rows]], -1))
        if entropy is not None:
            entropy[rows] = entropy_(every)
    return logps[:, :k], top, logps[:, k:], entropy


def ids_of_largest(x: Tensor, k: int) -> Tensor:
    """x.topk(k).indices, by the maxima of groups.

    The k largest entries lie in the k groups with the largest maxima (or in the rest that fills no
    group): an entry outside is at most as large as each of those k maxima. So a row is read once,
    for the maxima, and what is sorted out is k groups (`benchmarks/topk.py`).
    """
    groups = x.shape[-1] // GROUP
    if not 0 < k < groups:
        return x.topk(k).indices
    covered = groups * GROUP
    split = x[:, :covered].unflatten(-1, (groups, GROUP))
    chosen = split.amax(-1).topk(k, sorted=False).indices
    entries = split.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).flatten(1)
    return ids_of_groups(torch.cat([entries, x[:, covered:]], -1).topk(k).indices, chosen, covered)


def ids_of_groups(found: Tensor, chosen: Tensor, covered: int) -> Tensor:
    """Ids of positions in a row of the chosen groups' entries, then those from `covered` on."""
    inside = chosen.shape[1] * GROUP
    group = chosen.gather(-1, (found // GROUP).clamp(max=chosen.shape[1] - 1))
    return torch.where(found < inside, group * GROUP + found % GROUP, found - inside + covered)


def _blocks(x: Tensor, form: LogitForm) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows, their logits over the temperature, room for as many) for a few rows at a time.

    The logits are x's own memory, in x's dtype, where the form leaves x as it is: only to be read.
    """
    wide = wide_dtype(x.dtype)
    size = OTHER_BLOCK
    if x.device.type == "cpu":
        size = min(max(BLOCK_BYTES // (x.shape[1] * wide.itemsize), 1), CPU_BLOCK)
    room = torch.empty_like(x[:size], dtype=wide)
    copy = None if form.cap is None else torch.empty_like(room)
    for start in range(0, len(x), size):
        part = x[start : start + size]
        y = part if copy is None else form.forward_(copy[: len(part)].copy_(part))
        yield slice(start, start + len(part)), y, room[: len(part)]
