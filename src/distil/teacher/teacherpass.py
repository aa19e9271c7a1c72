"""The teacher's scoring pass over one batch of rollouts: every number that is asked of it, at once.

It scores the student's *completion ids*, after the teacher's prompts, only at scored tokens, so
that pads and rows without a context cost nothing. Rows of like length run together and what rows
begin with alike is read once (`distil.teacher.passplan`, `distil.teacher.prefixes`); whatever the
plan, the numbers are those of each row run alone. Shapes: B rollouts, T completion tokens, S
support tokens. Left out: the student's passes (`distil.trainer.scoring`), whose weights score
(`distil.teacher.teachers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.distributed import zero3
from distil.distributed.metrics import MetricSums
from distil.distributed.shards import is_sharded, most
from distil.errors import TrainingError
from distil.objectives import drop_repeats, repeated
from distil.teacher.passplan import Row, Stage, make_plan
from distil.teacher.prefixes import can_share, run
from distil.vocab import topk_and_gather_logps
from distil.vocab.output_layer import OutputLayer, output_layer, output_module

CPU_PASS_TOKENS = 32.0
"""Tokens that take a CPU as long as a pass's start, when all weights are read (docs/speed.md)."""

PASS_PARAMETER_TOKENS = 2e12
"""The same on an accelerator, times the parameters: about 25 ms of launches at 1.6e14 operations a
second, two operations a parameter and token. Arithmetic, not measured."""

GATHER_TOKENS = 800.0
"""And beside it where shards are gathered for each pass: two bytes a parameter at 2e11 bytes a
second. Arithmetic, too."""


@dataclass(frozen=True)
class TeacherWork:
    """Tokens that were scored in their contexts; positions run for them; how many were padding.

    failed: the rows that a served teacher didn't answer for, of so many `asked`; None where the
    teacher's weights are here.
    """

    tokens: int
    positions: int
    padding: int
    failed: tuple[int, ...] | None = None
    asked: int = 0

    def add_metrics(self, sums: MetricSums, seconds: float) -> None:
        """Tokens a second; share of positions that were padding; of tokens not read again.

        And the share of rows that a served teacher didn't answer for.
        """
        if self.failed is not None:
            sums.ratio("teacher/failed", len(self.failed), self.asked)
        sums.rate("speed/teacher_tokens", self.tokens, seconds)
        sums.ratio("speed/teacher_padding", self.padding, self.positions)
        sums.ratio(
            "speed/teacher_shared", self.tokens - (self.positions - self.padding), self.tokens
        )


@dataclass(frozen=True)
class TeacherScores:
    """The teacher at each token; zeros where not scored.

    An id that stands twice in a support has NO_PROBABILITY the second time. samples: how many
    draws the support is made of, in place of log-probabilities; `sampled_logps` aren't known then.
    """

    ids: Int[Tensor, "batch seq support"]
    logps: Float[Tensor, "batch seq support"]
    sampled_logps: Float[Tensor, "batch seq"]
    entropy: Float[Tensor, "batch seq"]
    work: TeacherWork
    samples: int = 0


def score_teacher(
    model: Any,
    base: Any,
    prompt_ids: Sequence[list[int] | None],
    completion_ids: Int[Tensor, "batch seq"],
    scored: Int[Tensor, "batch seq"],
    *,
    k: int,
    temperature: float,
    batch_size: int,
    also: Int[Tensor, "batch seq others"] | None = None,
) -> TeacherScores:
    """The teacher's K likeliest tokens at every scored token, and the ids `also` if any are given.

    `prompt_ids[i]` is rollout i's teacher prompt, None if it has none (its row stays 0). What is
    read of a completion ends with its last scored token (tool output within is read). Call it under
    no_grad, inside `teacher.scoring(model)`. A pass has at most as many positions as `batch_size`
    of the longest rows. Log-probabilities are over the whole vocabulary. Raises TrainingError
    unless each completion has its place among the prompts.
    """
    check_one_each(prompt_ids, completion_ids)
    rows, length = completion_ids.shape
    prompted = torch.tensor([prompt is not None for prompt in prompt_ids], device=scored.device)
    scored = scored * prompted[:, None]
    k = min(k, output_module(base).out_features)
    if also is None:
        also = completion_ids.new_zeros(rows, length, 0)
    asked = torch.cat([also, completion_ids[..., None]], -1)
    logps = torch.zeros(rows, length, k + also.shape[-1], device=completion_ids.device)
    found = logps, logps.long(), logps.new_zeros(rows, length), logps.new_zeros(rows, length)
    training = model.training
    model.eval()
    to_run = _rows(prompt_ids, completion_ids, scored)
    stages = make_plan(
        to_run,
        limit=batch_size * max((len(row.ids) for row in to_run), default=0),
        fixed=pass_tokens(model, base),
        share=can_share(model, base),
    )
    passes = [lengths for stage in stages for lengths in stage.lengths()]
    spare = most(model, len(passes)) - len(passes)  # counted before any pass waits for others
    # ZeRO-3 gathers it for this, on all processes at once; FSDP2 has it gathered after a pass.
    layer = output_layer(base) if zero3.in_parts(base.parameters()) else None
    for members, hidden, counts in run(model, base, stages, completion_ids.device):
        at, tokens, positions = _places(members, counts, scored)
        here = layer or output_layer(base)
        parts = _looked_up(here, hidden[positions], asked[at, tokens], k, temperature)
        for whole, part in zip(found, parts, strict=True):
            whole[at, tokens] = part.to(whole.dtype)
    throw_away = Stage([[Row(0, [0, 0], 1)]])
    for _ in run(model, base, [throw_away] * spare, completion_ids.device):
        pass  # others' passes need this process's shards
    model.train(training)
    logps, ids, sampled_logps, entropy = found
    if k and also.shape[-1]:
        logps = drop_repeats(logps, repeated(ids) & (scored > 0)[..., None])
    read = sum(len(row.ids) for row in to_run)
    positions_run = sum(len(p) * max(p) for p in passes)
    work = TeacherWork(read, positions_run, positions_run - sum(map(sum, passes)))
    return TeacherScores(ids, logps, sampled_logps, entropy, work)


def check_one_each(prompt_ids: Sequence[list[int] | None], completion_ids: Tensor) -> None:
    """Raises TrainingError unless there is one teacher prompt, or None, for each completion."""
    if len(prompt_ids) != len(completion_ids):
        raise TrainingError(
            f"Got {len(prompt_ids)} teacher prompts for {len(completion_ids)} completions: each "
            "completion needs one, None where its teacher has nothing to show."
        )


def _looked_up(
    layer: OutputLayer, hidden: Tensor, asked: Tensor, k: int, temperature: float
) -> tuple[Tensor, ...]:
    """Of N tokens: support's log-probabilities and ids, the last asked one's, and entropy."""
    top, top_ids, at_ids, entropy = topk_and_gather_logps(
        hidden, layer.weight, k, asked, **layer.form(temperature)
    )
    return (
        torch.cat([top, at_ids[:, :-1]], -1),
        torch.cat([top_ids, asked[:, :-1]], -1),
        at_ids[:, -1],
        entropy,
    )


def pass_tokens(model: Any, base: Any) -> float:
    """How many tokens take as long as starting one more pass."""
    if base.get_output_embeddings().weight.device.type == "cpu":
        return CPU_PASS_TOKENS
    launches = PASS_PARAMETER_TOKENS / zero3.count(base.parameters())
    return launches + (GATHER_TOKENS if is_sharded(model) else 0)


def _rows(
    prompt_ids: Sequence[list[int] | None], completion_ids: Tensor, scored: Tensor
) -> list[Row]:
    """Prompt and completion up to what the last scored token is predicted from, row by row.

    Rows without a scored token are left out; rows without a prompt have none.
    """
    places = torch.arange(1, scored.shape[1] + 1, device=scored.device)
    ends = ((scored > 0) * places).amax(1).tolist() if scored.numel() else []
    completions = completion_ids.tolist()
    return [
        Row(i, [*prompt, *completion[: end - 1]], end)
        for i, (prompt, completion, end) in enumerate(
            zip(prompt_ids, completions, ends, strict=True)
        )
        if prompt is not None and end > 0
    ]


def _places(
    members: Sequence[Row], counts: Sequence[int], scored: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """For each scored token: its row in the batch, its place, and where the pass predicts it."""
    device = scored.device
    rows = torch.tensor([row.place for row in members], device=device)
    first = torch.tensor(
        [count - row.wanted for row, count in zip(members, counts, strict=True)], device=device
    )
    of, tokens = scored[rows].nonzero(as_tuple=True)
    return rows[of], tokens, (of, first[of] + tokens)
