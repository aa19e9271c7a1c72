"""Loss and gradients of the output layer in one pass, where recomputing the logits takes two.

A cross-entropy needs three products of the size tokens x vocabulary x hidden: logits, and the
gradients of hidden states and of the weight. `distil.vocab.chunked` needs a fourth, since its
gradients are known only when the whole loss is. But future credit looks at later tokens only: where
the columns are taken from the last to the first, all that decides a chunk's gradient is known as
its logits are made, and one pass does it all. No chunk is kept; the gradients are, until the
backward pass multiplies them by what arrives.

`fused_loss` is that pass for any loss that is a sum over chunks, each of which may look at those
before it (as constants). `fused_distil_loss` is DistIL's, the plain composition of
`distil.objectives` as its oracle. Precision as in `distil.vocab.chunked`.

Left out: what needs earlier tokens (prefix ratios) or the whole row (the published mathematics
loss): they take `distil.vocab.chunked`. Second derivatives; a second backward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.objectives import (
    Later,
    compare,
    distil_token_loss,
    forward_cross_entropy,
    later_than,
    masked_mean,
)
from distil.objectives.costs import Cost
from distil.objectives.shapes import Mask, PerToken
from distil.vocab.logits import (
    LogitForm,
    addmm,
    cast,
    check_ids,
    check_shapes,
    default_chunk,
    wide_dtype,
)
from distil.vocab.rows import row_stats, signed_target_
from distil.vocab.sums import LayerSums


@dataclass(frozen=True)
class Chunk:
    """The tokens of some neighbouring columns. `rows`, `columns`: where in [batch, seq] each is."""

    rows: Int[Tensor, " tokens"]
    columns: Int[Tensor, " tokens"]
    part: slice
    """The columns that this chunk is answerable for; its neighbours' join."""

    def take(self, whole: Tensor) -> Tensor:
        """[batch, seq, ...] -> [tokens, ...]."""
        return whole[self.rows, self.columns]

    def spread(self, values: Float[Tensor, " tokens"], batch: int) -> PerToken:
        """[tokens] -> [batch, columns of this part], zeros elsewhere; differentiable."""
        empty = values.new_zeros(batch, self.part.stop - self.part.start)
        return empty.index_put((self.rows, self.columns - self.part.start), values)


def last_to_first(scored: Mask, most: int) -> list[Chunk]:
    """Chunks of the scored tokens, the last columns first, of whole columns each.

    At most `most` tokens a chunk, unless a single column has more. Together the parts are all
    columns; without any scored token there is no chunk.
    """
    scored = scored > 0
    counts = scored.sum(0).tolist()
    flipped, rows = scored.t().flip(0).nonzero(as_tuple=True)
    columns = len(counts) - 1 - flipped
    chunks, start, end, tokens = [], 0, len(counts), 0
    for column in range(len(counts) - 1, -1, -1):
        if tokens and tokens + counts[column] > most:
            taken = slice(start, start + tokens)
            chunks.append(Chunk(rows[taken], columns[taken], slice(column + 1, end)))
            start, end, tokens = start + tokens, column + 1, 0
        tokens += counts[column]
    if tokens:
        chunks.append(Chunk(rows[start:], columns[start:], slice(0, end)))
    return chunks


LossOfChunk = Callable[[Chunk, Tensor, Tensor | None], Tensor]
"""(chunk, log-probabilities [tokens, support], entropy [tokens] or None) -> a scalar that is
differentiable in the log-probabilities. Entropies carry no gradient."""

LookAtChunk = Callable[[Chunk, Tensor, LogitForm], None]
"""(chunk, its product [tokens, vocab], what makes logits of it), to be read and not kept: the same
memory holds the chunk's gradient next."""


def fused_loss(
    hidden: Float[Tensor, "batch seq hidden"],
    weight: Float[Tensor, "vocab hidden"],
    ids: Int[Tensor, "batch seq support"],
    scored: Mask,
    loss_of_chunk: LossOfChunk,
    *,
    with_entropy: bool = True,
    look: LookAtChunk | None = None,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Float[Tensor, ""]:
    """The sum of `loss_of_chunk` over the chunks of `scored` tokens, the last columns first. Equals

        logps, entropy = gather_logps_and_entropy(hidden[scored], weight, ids[scored], ...)
        sum of loss_of_chunk(chunk, its logps, its entropy)

    in value and in the gradients of hidden, weight and bias, as long as a chunk treats what it
    knows of other chunks as constants. `loss_of_chunk` is called once a chunk, in order, also
    without gradient. with_entropy: whether it's told entropies (on a CPU they double the reading
    of the rows). look: is shown every chunk's product, as `distil.vocab.rows` takes it, for what
    else is to be read there. `chunk`: at most so many tokens at a time, but a column's always
    together.
    A loss without scored tokens is 0 with zero gradients. Raises ValueError if shapes or ids don't
    fit; RuntimeError if one loss is sent backward twice.
    """
    form = LogitForm.of(temperature, logit_scale, softcap, chunk)
    check_shapes(hidden.flatten(0, 1), weight, bias)
    check_ids(ids.flatten(0, 1), hidden.flatten(0, 1), weight)
    hidden, weight, bias = cast(hidden, weight, bias)
    most = chunk or default_chunk(len(weight), hidden.dtype, hidden.device)
    chunks = last_to_first(scored, most)
    apply: Any = _FusedLoss.apply
    wants = torch.is_grad_enabled(), with_entropy
    return apply(hidden, weight, bias, ids, chunks, loss_of_chunk, look, form, *wants)


def fused_distil_loss(
    hidden: Float[Tensor, "batch seq hidden"],
    weight: Float[Tensor, "vocab hidden"],
    support_ids: Int[Tensor, "batch seq support"],
    teacher_logps: Float[Tensor, "batch seq support"],
    sampled_ids: Int[Tensor, "batch seq"],
    mask: Mask,
    *,
    cost: Cost = forward_cross_entropy,
    tail: bool = True,
    future: Literal["sum", "mean", "none"] = "sum",
    discount: float = 1.0,
    future_weight: float = 1.0,
    group_size: int | None = None,
    baseline: PerToken | None = None,
    score_weight: PerToken | None = None,
    count: Tensor | float | None = None,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Float[Tensor, ""]:
    """DistIL's loss from hidden states, without the [tokens, vocabulary] logits. Equals, where
    student_logps and sampled_logps come from `gather_logps`, and close is `append_tail` or
    `renormalise`:

        costs = cost(close(student_logps), close(teacher_logps))
        masked_mean(distil_token_loss(costs, sampled_logps, mask, **credit options), mask, count)

    `distil_token_loss` explains future, discount, future_weight, group_size, baseline and
    score_weight; `gather_logps` the layer's form. teacher_logps are natural log-probabilities over
    the whole vocabulary at support_ids, NO_PROBABILITY where an id is a repeat. In nats.
    """
    ids = torch.cat([support_ids, sampled_ids[..., None]], -1)
    total = (mask > 0).sum() if count is None else count
    later: Later | None = None

    def loss_of_chunk(here: Chunk, logps: Tensor, _: Tensor | None) -> Tensor:
        nonlocal later
        each, _ = compare(logps[:, :-1], here.take(teacher_logps), cost, tail=tail)
        costs = here.spread(each, len(mask))
        active = mask[:, here.part]
        per_token = distil_token_loss(
            costs, here.spread(logps[:, -1], len(mask)), active,
            future=future, discount=discount, future_weight=future_weight, group_size=group_size,
            baseline=None if baseline is None else baseline[:, here.part],
            score_weight=None if score_weight is None else score_weight[:, here.part],
            later=later,
        )  # fmt: skip
        later = later_than(costs.detach(), active, discount, later)
        return masked_mean(per_token, active, total)

    return fused_loss(
        hidden, weight, ids, mask, loss_of_chunk, with_entropy=False,
        bias=bias, temperature=temperature, logit_scale=logit_scale, softcap=softcap, chunk=chunk,
    )  # fmt: skip


class _FusedLoss(torch.autograd.Function):
    """The loss; its gradients are made on the way, and kept until they are asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        chunks: Sequence[Chunk],
        loss_of_chunk: LossOfChunk,
        look: LookAtChunk | None,
        form: LogitForm,
        with_gradient: bool,
        with_entropy: bool,
    ) -> Tensor:
        wide = wide_dtype(hidden.dtype)
        wanted = [with_gradient and x for x in ctx.needs_input_grad[:3]]
        grad_hidden = torch.zeros_like(hidden) if wanted[0] else None
        sums = LayerSums(weight if wanted[1] else None, bias if wanted[2] else None, form.gain)
        total = hidden.new_zeros((), dtype=wide)
        for chunk, states, product in _products(hidden, weight, bias, chunks, form):
            here = chunk.take(ids)
            lse, logps, entropy = row_stats(product, here, form, with_entropy=with_entropy)
            loss, grad = _with_gradient(loss_of_chunk, chunk, logps, entropy)
            total += loss
            if look is not None:
                look(chunk, product, form)
            if not any(wanted):
                continue
            signed_target_(product, lse, here, grad, form)
            if grad_hidden is not None:
                part = addmm(None, product, weight, form.gain, out=torch.empty_like(states))
                grad_hidden[chunk.rows, chunk.columns] = part
            sums.add(product, states)
        ctx.gradients = [grad_hidden, *sums.gradients()]
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The loss is one number, so what arrives is one factor."""
        if ctx.gradients is None:
            raise RuntimeError(
                "This loss was sent backward before, and its gradients were freed. Compute the "
                "loss again, or add losses up and send their sum backward once."
            )
        gradients, ctx.gradients = ctx.gradients, None
        return (*(None if g is None else g.mul_(grad) for g in gradients), *[None] * 7)


def _products(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, chunks: Sequence[Chunk], form: LogitForm
) -> Iterator[tuple[Chunk, Tensor, Tensor]]:
    """(chunk, its hidden states, gain * (states @ weight.T + bias)), all in one buffer."""
    buffer = hidden.new_empty(max((len(c.rows) for c in chunks), default=0), len(weight))
    for chunk in chunks:
        states = chunk.take(hidden)
        out = buffer[: len(states)]
        yield chunk, states, addmm(bias, states, weight.t(), form.gain, out=out)


def _with_gradient(
    loss_of_chunk: LossOfChunk, chunk: Chunk, logps: Tensor, entropy: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(a chunk's loss, its gradient at the log-probabilities)."""
    with torch.enable_grad():
        leaf = logps.detach().requires_grad_()
        loss = loss_of_chunk(chunk, leaf, entropy)
        grad = torch.zeros_like(leaf)
        if loss.requires_grad:
            (grad,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), grad
