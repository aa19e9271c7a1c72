"""The passes of `distil.vocab.rows` over a chunk of logits, as Triton kernels.

`launches` starts them; importing either needs triton. A row of x [rows, vocab], the product that
makes the logits, is split into sections, each of which one program reads once:

    scan         running maximum, sum of exponentials and of their products with the logits; for
                 the top-K also the maximum of every group of GROUP consecutive entries
    finish       joins a row's sections; log-probabilities at ids
    pick         the entries of a row's chosen groups, side by side
    at_targets   the gradient at a row's ids, where the incoming gradients of equal ids add up
    overwrite    the gradient everywhere else

CAP is `LogitForm.cap`, part of the compiled code since an argument would be rounded to float32;
WIDE the dtype of all that is computed, each result being rounded to its own dtype once. Addresses
are 64-bit: a chunk may have more than 2**31 entries. Left out: what is computed where.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)
"""Stands for a logit of minus infinity, whose difference from another would be no number."""


@triton.jit
def logits_of(x, CAP: tl.constexpr, WIDE: tl.constexpr):
    """cap * tanh(x), or x where cap is None.

    tanh by the quotient of polynomials of Cephes for small x, where the exponentials cancel.
    """
    x = x.to(WIDE)
    if CAP is not None:
        size = tl.abs(x)
        near = tl.minimum(size, 1.0)
        z = near * near
        top = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z
        top = top - 1.61468768441708447952e3
        low = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z
        low = low + 4.84406305325125486048e3
        small = near + near * z * (top / low)
        e = tl.exp(-2.0 * size)
        y = tl.where(size < 0.625, small, 1.0 - 2.0 * e / (1.0 + e)) * CAP
        x = tl.where(x < 0, -y, y)
    return x


@triton.jit
def slope_of(y, CAP: tl.constexpr):
    """The derivative of `logits_of`, from its value."""
    return 1.0 if CAP is None else CAP - y * y / CAP


@triton.jit
def scan(
    x,
    stride,
    vocab,
    section,
    highs,
    sums,
    moments,
    maxima,
    groups,
    CAP: tl.constexpr,
    WIDE: tl.constexpr,
    WITH_ENTROPY: tl.constexpr,
    WITH_MAXIMA: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Of one section: m = max(y), sum(exp(y - m)), sum(exp(y - m) * (y - m)); groups' maxima.

    Every lane keeps its own three numbers until the end, so that threads needn't wait for each
    other, and one exponential an entry does: exp(-|y - m|) rescales either the past or the entry.
    """
    row = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * section
    in_group = tl.arange(0, GROUP)[None, :]
    in_block = tl.arange(0, BLOCK // GROUP)[:, None] * GROUP + in_group
    high = tl.full((BLOCK // GROUP, GROUP), LOWEST, WIDE)
    total = tl.zeros((BLOCK // GROUP, GROUP), WIDE)
    moment = tl.zeros((BLOCK // GROUP, GROUP), WIDE)
    for offset in range(start, tl.minimum(start + section, vocab), BLOCK):
        at = offset + in_block
        raw = tl.load(x + row * stride + at, mask=at < vocab, other=float("-inf"))
        if WITH_MAXIMA:
            group = offset // GROUP + tl.arange(0, BLOCK // GROUP)
            here = maxima + row * groups + group
            tl.store(here, tl.max(raw, axis=1), mask=group < groups)
        y = logits_of(raw, CAP, WIDE)
        if CAP is not None:
            y = tl.where(at < vocab, y, LOWEST)
        # Not tl.maximum, which would lose a logit that is no number.
        y = tl.where(y < LOWEST, LOWEST, y)
        step = y - high
        scale = tl.exp(-tl.abs(step))
        if WITH_ENTROPY:
            moment = tl.where(step > 0, scale * (moment - step * total), moment + scale * step)
        total = tl.where(step > 0, total * scale + 1.0, total + scale)
        high = tl.where(step > 0, y, high)
    m = tl.max(high)
    scale = tl.exp(high - m)
    out = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(highs + out, m)
    tl.store(sums + out, tl.sum(total * scale))
    if WITH_ENTROPY:
        tl.store(moments + out, tl.sum(scale * (moment + (high - m) * total)))


@triton.jit
def finish(
    x,
    stride,
    highs,
    sums,
    moments,
    sections,
    ids,
    width,
    lse,
    logps,
    entropy,
    CAP: tl.constexpr,
    WIDE: tl.constexpr,
    WITH_ENTROPY: tl.constexpr,
    SECTIONS: tl.constexpr,
    IDS: tl.constexpr,
):
    """Joins a row's sections; log-probabilities at IDS of its ids."""
    row = tl.program_id(0).to(tl.int64)
    section = tl.arange(0, SECTIONS)
    here = row * sections + section
    high = tl.load(highs + here, mask=section < sections, other=LOWEST)
    total = tl.load(sums + here, mask=section < sections, other=0.0)
    m = tl.max(high)
    scale = tl.exp(high - m)
    whole = tl.sum(total * scale)
    log_sum = tl.log(whole)
    if tl.program_id(1) == 0:
        tl.store(lse + row, m + log_sum)
        if WITH_ENTROPY:
            moment = tl.load(moments + here, mask=section < sections, other=0.0)
            mean = tl.sum(scale * (moment + (high - m) * total)) / whole
            tl.store(entropy + row, log_sum - mean)
    column = tl.program_id(1) * IDS + tl.arange(0, IDS)
    spot = row * width + column
    at = tl.load(ids + spot, mask=column < width, other=0)
    y = logits_of(tl.load(x + row * stride + at), CAP, WIDE)
    tl.store(logps + spot, (y - m) - log_sum, mask=column < width)


@triton.jit
def pick(x, stride, chosen, many, out, out_stride, GROUP: tl.constexpr, MANY: tl.constexpr):
    """out[row, i * GROUP + j] = x[row, chosen[row, i] * GROUP + j] for MANY of the i."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * MANY + tl.arange(0, MANY)
    group = tl.load(chosen + row * many + i, mask=i < many, other=0)
    j = tl.arange(0, GROUP)[None, :]
    entries = tl.load(x + row * stride + group[:, None] * GROUP + j)
    here = out + row * out_stride + i[:, None] * GROUP + j
    tl.store(here, entries, mask=(i < many)[:, None])


@triton.jit
def at_targets(
    x,
    stride,
    lse,
    ids,
    grad,
    total,
    width,
    out,
    CAP: tl.constexpr,
    WIDE: tl.constexpr,
    IDS: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """(grads of this id, added up - p * total) * slope, for IDS of a row's ids."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * IDS + tl.arange(0, IDS)
    spot = row * width + column
    mine = tl.load(ids + spot, mask=column < width, other=0)
    y = logits_of(tl.load(x + row * stride + mine), CAP, WIDE)
    dy = -tl.load(total + row) * tl.exp(y - tl.load(lse + row))
    for start in range(0, width, OTHERS):
        other = start + tl.arange(0, OTHERS)
        theirs = tl.load(ids + row * width + other, mask=other < width, other=-1)
        amount = tl.load(grad + row * width + other, mask=other < width, other=0.0)
        dy += tl.sum(tl.where(mine[:, None] == theirs[None, :], amount[None, :], 0.0), axis=1)
    tl.store(out + spot, dy * slope_of(y, CAP), mask=column < width)


@triton.jit
def overwrite(
    x,
    stride,
    vocab,
    section,
    lse,
    total,
    CAP: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """X = -p * total * slope, in one section."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * section
    shift = tl.load(lse + row)
    factor = -tl.load(total + row)
    for offset in range(start, tl.minimum(start + section, vocab), BLOCK):
        at = offset + tl.arange(0, BLOCK)
        here = x + row * stride + at
        y = logits_of(tl.load(here, mask=at < vocab, other=0.0), CAP, WIDE)
        tl.store(here, factor * tl.exp(y - shift) * slope_of(y, CAP), mask=at < vocab)
