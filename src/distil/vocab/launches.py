"""Starts the Triton kernels of `distil.vocab.kernels` on a chunk of logits.

`rows` says what each of the three functions equals and calls them where `uses_triton` says so.
Left out: choosing block sizes by trial on the device, so that no result depends on what ran before.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from distil.vocab.kernels import at_targets, finish, overwrite, pick, scan
from distil.vocab.logits import LogitForm, wide_dtype
from distil.vocab.rows import GROUP, ids_of_groups

BLOCK = 4096
"""Entries of a row that a program holds at a time, 16 for each of its threads."""

PROGRAMS = 4096
"""A row is split until about so many programs share a chunk: some rounds of a large device."""

IDS = 128
"""Ids of a row that a program takes."""


def row_stats(
    x: Tensor, ids: Tensor, form: LogitForm, *, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`rows.row_stats`."""
    return _finish(x, ids, form, _scan(x, form, with_entropy=with_entropy))


def signed_target_(x: Tensor, lse: Tensor, ids: Tensor, grad: Tensor, form: LogitForm) -> Tensor:
    """`rows.signed_target_`."""
    if len(x) == 0:
        return x
    lse, ids, grad = lse.contiguous(), ids.contiguous(), grad.contiguous()
    count, width = ids.shape
    total = grad.sum(-1)
    options = _options(x, form)
    values = x.new_empty(count, width)
    if width:
        grid = (count, triton.cdiv(width, IDS))
        at_targets[grid](
            x, x.stride(0), lse, ids, grad, total, width, values, IDS=IDS, OTHERS=16, **options
        )
    section = _section(x)
    overwrite[(count, triton.cdiv(x.shape[1], section))](
        x, x.stride(0), x.shape[1], section, lse, total, BLOCK=BLOCK, num_warps=8, **options
    )
    return x.scatter_(-1, ids, values)


def top_k(
    x: Tensor, k: int, form: LogitForm, ids: Tensor, *, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """`rows.top_k`."""
    groups = x.shape[1] // GROUP
    grouped = 0 < k < groups
    maxima = x.new_empty(len(x), groups) if grouped else None
    parts = _scan(x, form, with_entropy=with_entropy, maxima=maxima)
    top = x.topk(k).indices if maxima is None else _of_groups(x, maxima, k)
    _, logps, entropy = _finish(x, torch.cat([top, ids], -1), form, parts)
    return logps[:, :k], top, logps[:, k:], entropy


def _of_groups(x: Tensor, maxima: Tensor, k: int) -> Tensor:
    """The ids of the k largest entries, found as `rows.ids_of_largest` does."""
    chosen = maxima.topk(k, sorted=False).indices
    covered = maxima.shape[1] * GROUP
    rest = x[:, covered:]
    entries = x.new_empty(len(x), k * GROUP + rest.shape[1])
    entries[:, k * GROUP :] = rest
    if len(x):
        grid = (len(x), triton.cdiv(k, 16))
        pick[grid](x, x.stride(0), chosen, k, entries, entries.stride(0), GROUP=GROUP, MANY=16)
    return ids_of_groups(entries.topk(k).indices, chosen, covered)


def _scan(
    x: Tensor, form: LogitForm, *, with_entropy: bool, maxima: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    section = _section(x)
    highs = x.new_empty(len(x), triton.cdiv(x.shape[1], section), dtype=wide_dtype(x.dtype))
    sums = torch.empty_like(highs)
    moments = torch.empty_like(highs) if with_entropy else None
    if len(x):
        scan[tuple(highs.shape)](
            x,
            x.stride(0),
            x.shape[1],
            section,
            highs,
            sums,
            moments,
            maxima,
            0 if maxima is None else maxima.shape[1],
            WITH_ENTROPY=with_entropy,
            WITH_MAXIMA=maxima is not None,
            BLOCK=BLOCK,
            GROUP=GROUP,
            num_warps=8,
            **_options(x, form),
        )
    return highs, sums, moments


def _finish(
    x: Tensor, ids: Tensor, form: LogitForm, parts: tuple[Tensor, Tensor, Tensor | None]
) -> tuple[Tensor, Tensor, Tensor | None]:
    highs, sums, moments = parts
    lse = highs.new_empty(len(x))
    logps = highs.new_empty(ids.shape)
    entropy = None if moments is None else torch.empty_like(lse)
    if len(x):
        finish[(len(x), max(triton.cdiv(ids.shape[1], IDS), 1))](
            x,
            x.stride(0),
            highs,
            sums,
            moments,
            highs.shape[1],
            ids.contiguous(),
            ids.shape[1],
            lse,
            logps,
            entropy,
            WITH_ENTROPY=entropy is not None,
            SECTIONS=triton.next_power_of_2(highs.shape[1]),
            IDS=IDS,
            **_options(x, form),
        )
    return lse, logps, entropy


def _options(x: Tensor, form: LogitForm) -> dict[str, Any]:
    return {"CAP": form.cap, "WIDE": tl.float64 if x.dtype == torch.float64 else tl.float32}


def _section(x: Tensor) -> int:
    """Entries of a section, a multiple of BLOCK: enough sections that PROGRAMS share the chunk."""
    blocks = triton.cdiv(x.shape[1], BLOCK)
    sections = min(triton.cdiv(PROGRAMS, max(len(x), 1)), blocks)
    return triton.cdiv(blocks, sections) * BLOCK
