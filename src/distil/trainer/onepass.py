"""A micro-batch's loss in one pass over the output layer, for every objective that allows it.

The student's hidden states go through `distil.vocab.fused_loss`, the last columns first; each slice
of columns is compared with the teacher and assembled as a batch of its own that is told what
follows it. So the maths is `distil.trainer.assembly`'s, once. Left out: objectives that need
earlier tokens or whole rows, for which `distil.trainer.scoring.score_student` computes the logits
again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distil import objectives
from distil.config import ObjectiveConfig
from distil.objectives.costs import Cost
from distil.profiling import parts
from distil.trainer.assembly import Assembled, assemble
from distil.trainer.scoring import LookForChoices, StudentScores, student_hidden
from distil.vocab import Chunk, fused_loss
from distil.vocab.output_layer import output_layer

Batch = dict[str, Tensor]


def takes_one_pass(objective: ObjectiveConfig, batch: Batch) -> bool:
    """Whether a token's gradient follows from itself, its group and later tokens.

    Prefix ratios multiply over earlier tokens; the published mathematics loss looks at whole rows.
    """
    looks_back = objective.ratio == "prefix" and "old_logps" in batch
    return objective.name != "as_released_math" and not looks_back


@parts.part("output layer")
def one_pass_loss(
    model: Any,
    base: Any,
    batch: Batch,
    objective: ObjectiveConfig,
    cost: Cost,
    *,
    temperature: float,
    share: float,
    look: Sequence[int] = (),
) -> tuple[StudentScores, Assembled]:
    """(scores, loss), equal to `score_student` and `assemble`; only the loss carries a gradient."""
    hidden = student_hidden(model, base, batch)
    layer = output_layer(base)
    wanted = torch.cat([batch["support_ids"], batch["completion_ids"][..., None]], -1)
    slices = _Slices(objective, cost, batch, share)
    looking = LookForChoices(layer, batch["scored"], look) if look else None
    loss = fused_loss(
        hidden, layer.weight, wanted, batch["scored"], slices.loss_of, look=looking,
        **layer.form(temperature),
    )  # fmt: skip
    parts.count(batch["scored"], "output layer")
    parts.at_gradient(loss, "output layer")
    parts.at_gradient(hidden, "backward")
    scores = StudentScores(
        slices.cost, slices.sampled_logps, slices.entropy, slices.agreement, slices.variance,
        None if looking is None else looking.found,
    )  # fmt: skip
    return scores, Assembled(loss, slices.credit, slices.ratio, slices.weighted_cost)


class _Slices:
    """Assembles one slice of columns after the other, from the right, and keeps their values."""

    def __init__(self, objective: ObjectiveConfig, cost: Cost, batch: Batch, share: float) -> None:
        self._objective, self._cost, self._share = objective, cost, share
        self._batch = batch | {"row_tokens": (batch["active"] > 0).sum(1)}
        self._later: objectives.Later | None = None
        empty = torch.zeros_like(batch["weight"])
        self.cost, self.sampled_logps, self.entropy = empty.clone(), empty.clone(), empty.clone()
        self.agreement, self.credit = empty.clone(), empty.clone()
        self.weighted_cost, self.ratio = empty.clone(), torch.ones_like(empty)
        self.variance = empty.clone() if "teacher_draws" in batch else None

    def loss_of(self, chunk: Chunk, logps: Tensor, entropy: Tensor | None) -> Tensor:
        """This slice's part of the loss."""
        assert entropy is not None
        batch, part = self._columns(chunk.part), chunk.part
        rows = len(batch["active"])
        teacher_logps = chunk.take(self._batch["teacher_logps"])
        costs, agreement = objectives.compare(
            logps[:, :-1], teacher_logps, self._cost, tail=self._objective.tail
        )
        if self.variance is not None:
            variance = objectives.sampling_variance(
                logps[:, :-1].detach(), teacher_logps, self._batch["teacher_draws"]
            )
            self.variance[:, part] = chunk.spread(variance, rows)
        spread = [chunk.spread(v, rows) for v in (costs, logps[:, -1], entropy, agreement)]
        scores = StudentScores(spread[0], spread[1], spread[2], spread[3])
        found = assemble(self._objective, scores, batch, share=self._share, later=self._later)
        self._later = objectives.later_than(
            found.cost, batch["active"], self._objective.discount, self._later
        )
        for whole, values in (
            (self.cost, scores.cost),
            (self.sampled_logps, scores.sampled_logps),
            (self.entropy, scores.entropy),
            (self.agreement, scores.agreement),
            (self.credit, found.credit),
            (self.ratio, found.ratio),
            (self.weighted_cost, found.cost),
        ):
            whole[:, part] = values.detach()
        return found.loss

    def _columns(self, part: slice) -> Batch:
        """The batch's [batch, seq, ...] tensors in these columns; the others as they are."""
        shape = self._batch["active"].shape
        return {
            name: value[:, part] if value.shape[:2] == shape else value
            for name, value in self._batch.items()
        }
