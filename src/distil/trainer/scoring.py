"""The student's scoring passes over one batch of rollouts.

They score the completion ids that the teacher scores (`distil.teacher.teacherpass`), only at scored
tokens, so that pads and rows without a context cost no output layer. Shapes: B rollouts, T
completion tokens, S support tokens, N scored tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.objectives import compare, sampling_variance
from distil.profiling import parts
from distil.trainer.flatrows import lay_out
from distil.trainer.paddingfree import flat_hidden, padded_hidden, works
from distil.vocab import Chunk, gather_logps, gather_logps_and_entropy, topk_logps
from distil.vocab.logits import LogitForm, wide_dtype
from distil.vocab.output_layer import OutputLayer, output_layer
from distil.vocab.rows import top_k

CHOICES = 5
"""How many of a model's likeliest tokens are kept for a person to look at."""


@dataclass(frozen=True)
class Choices:
    """A model's likeliest tokens at each token of R rows, the likeliest first; zeros elsewhere."""

    ids: Int[Tensor, "rows seq choices"]
    logps: Float[Tensor, "rows seq choices"]

    @staticmethod
    def nothing_yet(layer: OutputLayer, rows: int, length: int) -> "Choices":
        """Zeros, to be filled in; CHOICES a token, or all of a smaller vocabulary."""
        shape = rows, length, min(CHOICES, len(layer.weight))
        logps = layer.weight.new_zeros(shape, dtype=wide_dtype(layer.weight.dtype))
        return Choices(torch.zeros_like(logps, dtype=torch.int64), logps)


@dataclass(frozen=True)
class StudentScores:
    """The student at each token; zeros where not scored. Cost and log-probability carry gradients.

    agreement is 1 - total variation between teacher and student over the support and the tail.
    variance: the cost's own, where it is estimated from two or more draws of the teacher's.
    choices: of the rows that were asked about (`look`), None if none was.
    """

    cost: Float[Tensor, "batch seq"]
    sampled_logps: Float[Tensor, "batch seq"]
    entropy: Float[Tensor, "batch seq"]
    agreement: Float[Tensor, "batch seq"]
    variance: Float[Tensor, "batch seq"] | None = None
    choices: Choices | None = None


@parts.part("output layer")
def score_student(
    model: Any,
    base: Any,
    batch: dict[str, Tensor],
    *,
    cost: Callable[[Tensor, Tensor], Tensor],
    tail: bool,
    temperature: float,
    look: Sequence[int] = (),
) -> StudentScores:
    """The student's cost and log-probabilities at every scored token of a batch.

    `batch` has TRL's prompt_ids, prompt_mask, completion_ids, completion_mask, and ours: scored,
    support_ids, teacher_logps. The gradient reaches the model through `cost` and `sampled_logps`,
    also if no token is scored (it's zero then). look: rows whose likeliest tokens are wanted too.
    """
    scored = batch["scored"] > 0
    hidden = student_hidden(model, base, batch)
    layer = output_layer(base)
    wanted = torch.cat([batch["support_ids"], batch["completion_ids"][..., None]], -1)[scored]
    logps, entropy = gather_logps_and_entropy(
        hidden[scored], layer.weight, wanted, **layer.form(temperature)
    )
    parts.count(scored, "output layer")
    parts.at_gradient(logps, "output layer")
    parts.at_gradient(hidden, "backward")
    teacher_logps = batch["teacher_logps"][scored]
    costs, agreement = compare(logps[:, :-1], teacher_logps, cost, tail=tail)

    def spread(values: Tensor) -> Tensor:
        """[N] -> [B, T], zeros elsewhere; keeps a path to the weights even where N is 0."""
        empty = torch.zeros(scored.shape, dtype=values.dtype, device=values.device)
        return empty.masked_scatter(scored, values) + 0.0 * hidden.sum().to(values.dtype)

    return StudentScores(
        cost=spread(costs),
        sampled_logps=spread(logps[:, -1]),
        entropy=spread(entropy).detach(),
        agreement=spread(agreement).detach(),
        variance=spread(sampling_variance(logps[:, :-1], teacher_logps, draws)).detach()
        if (draws := batch.get("teacher_draws")) is not None
        else None,
        choices=choices(hidden, layer, batch["scored"], look, temperature),
    )


def choices(
    hidden: Float[Tensor, "batch seq hidden"],
    layer: OutputLayer,
    scored: Int[Tensor, "batch seq"],
    rows: Sequence[int],
    temperature: float,
) -> Choices | None:
    """The CHOICES likeliest tokens at the scored tokens of some rows; None for no rows."""
    if not rows:
        return None
    found = Choices.nothing_yet(layer, len(rows), scored.shape[1])
    where = scored[list(rows)] > 0
    k = found.ids.shape[-1]
    found.logps[where], found.ids[where] = topk_logps(
        hidden[list(rows)][where], layer.weight, k, **layer.form(temperature)
    )
    return found


class LookForChoices:
    """The same, read from the chunks of a one-pass loss as they pass (its `look`): no product more.

    rows: at least one.
    """

    def __init__(self, layer: OutputLayer, scored: Int[Tensor, "batch seq"], rows: Sequence[int]):
        self.found = Choices.nothing_yet(layer, len(rows), scored.shape[1])
        self._place = torch.full((len(scored),), -1, device=scored.device)
        self._place[list(rows)] = torch.arange(len(rows), device=scored.device)

    def __call__(self, chunk: Chunk, product: Tensor, form: LogitForm) -> None:
        """Fills in `found` for the chunk's tokens that lie in these rows."""
        place = self._place[chunk.rows]
        (here,) = (place >= 0).nonzero(as_tuple=True)
        k = self.found.ids.shape[-1]
        logps, ids, _, _ = top_k(product[here], k, form, with_entropy=False)
        self.found.logps[place[here], chunk.columns[here]] = logps
        self.found.ids[place[here], chunk.columns[here]] = ids


def student_topk(
    model: Any, base: Any, batch: dict[str, Tensor], *, k: int, temperature: float
) -> Int[Tensor, "batch seq support"]:
    """Ids of the student's own K likeliest tokens at every scored token; zeros elsewhere."""
    scored = batch["scored"] > 0
    layer = output_layer(base)
    k = min(k, layer.weight.shape[0])
    hidden = student_hidden(model, base, batch)
    found = topk_logps(hidden[scored], layer.weight, k, **layer.form(temperature))[1]
    ids = found.new_zeros(*scored.shape, k)
    ids[scored] = found
    return ids


@parts.part("output layer")
def sequence_logps(
    model: Any, base: Any, batch: dict[str, Tensor], *, temperature: float
) -> Float[Tensor, "batch seq"]:
    """Log-probabilities of a batch's completion ids at its `scored` tokens; zeros elsewhere."""
    scored = batch["scored"] > 0
    hidden = student_hidden(model, base, batch)
    layer = output_layer(base)
    wanted = batch["completion_ids"][scored][:, None]
    logps = gather_logps(hidden[scored], layer.weight, wanted, **layer.form(temperature))
    parts.count(scored, "output layer")
    parts.at_gradient(logps, "output layer")
    parts.at_gradient(hidden, "backward")
    empty = torch.zeros(scored.shape, dtype=logps.dtype, device=logps.device)
    return empty.masked_scatter(scored, logps) + 0.0 * hidden.sum().to(logps.dtype)


@parts.part("student forward")
def student_hidden(model: Any, base: Any, batch: dict[str, Tensor]) -> Tensor:
    """[B, T, H] at the positions that predict the completion's tokens; any where none is scored.

    Without padding where `distil.trainer.paddingfree` goes.
    """
    flat = lay_out(batch) if works(model, base) else None
    if flat is not None:
        _count(flat.ids.numel())
        return flat_hidden(model, base, flat)
    for mask in ("prompt_mask", "completion_mask"):
        _count(batch[mask])
    return padded_hidden(model, base, batch)


def _count(tokens: Tensor | int) -> None:
    """Says that the decoder reads so many tokens (a mask: its sum), on its way back, too."""
    parts.count(tokens)
    if torch.is_grad_enabled():
        parts.count(tokens, "backward")
