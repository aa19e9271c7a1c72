"""Puts an objective together for one micro-batch: weights, ratios, credit, advantage, one number.

The maths is `distil.objectives`'; here is only which of it a recipe asks for, in which order:

    1. weighted   w_t c_t      w = gates (kept in the batch) x prefix ratio, if that is the ratio
    2. credit     G_t - b_t    of the weighted cost; b from the batch (the group's other rollouts)
    3. token loss              local + future credit, x token ratio, x the sampler's ratio (TRL's)
    4. loss                    its mean over active tokens, plus the advantage's over sampled ones

A batch is TRL's dict of tensors. Beside TRL's own keys `distil.trainer.batches` puts in, of B rows,
T completion tokens and S support tokens:

    scored                 [B, T] 1 at tokens that are looked up
    active                 [B, T] 1 at tokens in the distillation loss
    support_ids            [B, T, S] the tokens on which teacher and student are compared
    teacher_logps          [B, T, S] the teacher's log-probabilities of them
    teacher_entropy        [B, T] nats
    teacher_sampled_logps  [B, T] of the student's own token; or, of a teacher that gives samples,
    teacher_draws          how many
    weight                 [B, T] product of the gates
    score_weight           [B, T] where endings take no credit: 0 at them
    old_logps              [B, T] the policy that sampled, where rollouts may be stale
    baseline               [B, T] where the future credit has one; or, where it's taken here,
    group                  [B] which rows belong together
    active_count, sampled_count, row_count            of the whole generation batch, all processes

A batch may be a slice of columns (`Later`); row_tokens [B] are then the whole rows' active tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from distil import objectives
from distil.config import ObjectiveConfig
from distil.distributed.metrics import MetricSums
from distil.objectives.costs import Cost
from distil.recipe.algorithms import algorithm
from distil.recipe.ownfunctions import own_function
from distil.trainer.scoring import StudentScores


@dataclass(frozen=True)
class Assembled:
    """loss: a scalar with its gradient. credit, ratio: [B, T], for metrics and logs.

    cost: [B, T] as it enters the credit, weights and ratios in it.
    """

    loss: Tensor
    credit: Tensor
    ratio: Tensor
    cost: Tensor


def cost_function(objective: ObjectiveConfig) -> Cost | None:
    """The objective's divergence, stepped in policy space if it says so; None without a teacher.

    Raises RecipeError where path/to/file.py:function names no such file or function.
    """
    name = algorithm(objective.name).cost
    if name is None:
        return None
    if ".py:" in name:
        cost = own_function(
            name, "objective.name is", "It must take (student_logps, teacher_logps), both "
            "[batch, seq, support], and return one cost a token.",
        )  # fmt: skip
    else:
        cost = objectives.COSTS[name]
    if objective.policy_space_clip is None:
        return cost
    return partial(objectives.policy_space, cost, clip=objective.policy_space_clip)


def assemble(
    objective: ObjectiveConfig,
    student: StudentScores,
    batch: Mapping[str, Tensor],
    *,
    share: float,
    later: objectives.Later | None = None,
) -> Assembled:
    """The loss of a micro-batch. `share` turns the generation batch's counts into one update's.

    `later`: what follows, where the batch is a slice of columns; the loss is then its part of it.
    """
    active, logps = batch["active"], student.sampled_logps
    before, through, token, answer = _ratios(objective, logps, batch)
    cost = student.cost * batch["weight"] * before
    credit = credit_of(objective, cost, active, later)
    baseline = batch.get("baseline")
    if "group" in batch:
        baseline = objectives.leave_one_out_of(credit, active, batch["group"])
    if baseline is not None:
        baseline = baseline * through
    if objective.name == "as_released_math":
        per_token = objectives.released_math_token_loss(cost, active)
    else:
        per_token = objectives.distil_token_loss(
            cost, logps, active,
            future=objective.future or "none", discount=objective.discount,
            future_weight=objective.future_weight, baseline=baseline,
            score_weight=batch.get("score_weight"), later=later,
        )  # fmt: skip
    sampler = batch.get("importance_sampling_ratio", torch.ones_like(cost[:, :1]))
    per_token = per_token * token * sampler
    if objective.reduction == "sequences":
        loss = objectives.mean_of_sequence_means(
            per_token, active, batch["row_count"] * share, batch.get("row_tokens")
        )
    else:
        loss = objectives.masked_mean(per_token, active, batch["active_count"] * share)
    if objective.advantage_weight:
        own = objectives.advantage_token_loss(
            logps, batch["advantages"], batch["scored"], answer * sampler
        )
        own_mean = objectives.masked_mean(own, batch["scored"], batch["sampled_count"] * share)
        loss = loss + objective.advantage_weight * own_mean
    if baseline is not None:
        credit = credit - baseline * (active > 0)
    return Assembled(loss, credit, token * before, cost.detach())


def credit_of(
    objective: ObjectiveConfig, cost: Tensor, active: Tensor, later: objectives.Later | None = None
) -> Tensor:
    """[B, T] future credit of a weighted cost, before the baseline; zeros for local credit."""
    if objective.future is None or objective.future == "none":
        return torch.zeros_like(cost)
    return objectives.future_credit(
        cost, active, reduction=objective.future, discount=objective.discount, later=later
    )


@torch.no_grad()
def observe(
    sums: MetricSums,
    objective: ObjectiveConfig,
    batch: Mapping[str, Tensor],
    student: StudentScores,
    assembled: Assembled,
) -> None:
    """Adds a micro-batch to the metrics: averages over its active tokens, in nats."""
    active, credit = batch["active"], assembled.credit
    sums.add("distil/cost", student.cost, active)
    sums.add("distil/future_credit", credit, active)
    sums.maximum("distil/future_credit_max", credit, active)
    future = (objective.future_weight * credit * student.sampled_logps).abs() * active
    local = (student.cost.abs() * active).sum()
    sums.ratio("distil/future_share", future.sum(), future.sum() + local)
    sums.add("distil/weight", batch["weight"], active)
    sums.add("student/entropy", student.entropy, active)
    if student.variance is None:
        sums.add("teacher/entropy", batch["teacher_entropy"], active)
        sums.add("distil/agreement", student.agreement, active)
        gap = student.sampled_logps - batch["teacher_sampled_logps"]
        sums.add("distil/log_ratio_to_teacher", gap, active)
    else:  # a few draws tell none of the three
        drawn_twice = active * (batch["teacher_draws"] > 1)
        sums.add("teacher/sampling_variance", student.variance, drawn_twice)
    if "old_logps" in batch:
        sums.add("distil/ratio", assembled.ratio, active)


def replay_loss(
    objective: ObjectiveConfig, student: StudentScores, batch: Mapping[str, Tensor], *, share: float
) -> Tensor:
    """The loss on earlier batches' states: local everywhere, future where the ratio allows.

    DAgger's aggregated loss is local, on the states of the older policies, without ratios. The
    score term is added at tokens whose prefix ratio lies in [1/clip, clip], weighed by it.
    """
    clip, active = objective.ratio_clip, batch["active"]
    _, through = objectives.prefix_ratios(student.sampled_logps, batch["old_logps"], active)
    allowed = (through <= clip) & (through >= 1 / clip)
    score_weight = torch.where(allowed, through, torch.zeros_like(through))
    if "score_weight" in batch:
        score_weight = score_weight * batch["score_weight"]
    per_token = objectives.distil_token_loss(
        student.cost * batch["weight"], student.sampled_logps, active,
        future=objective.future or "none", discount=objective.discount,
        future_weight=objective.future_weight, baseline=batch.get("baseline"),
        score_weight=score_weight,
    )  # fmt: skip
    return objectives.masked_mean(per_token, active, batch["active_count"] * share)


class _Ratios(NamedTuple):
    """What weighs a cost, a baseline, a whole token's loss, and an advantage's score."""

    before: Tensor
    through: Tensor
    token: Tensor
    answer: Tensor


def _ratios(objective: ObjectiveConfig, logps: Tensor, batch: Mapping[str, Tensor]) -> _Ratios:
    """[B, T] each: ones where the recipe has none or it's fresh."""
    ones, old = torch.ones_like(logps).detach(), batch.get("old_logps")
    if old is None or objective.ratio == "none":
        return _Ratios(ones, ones, ones, ones)
    these, clip = (logps, old, batch["scored"]), objective.ratio_clip
    if objective.ratio == "prefix":
        before, through = objectives.prefix_ratios(*these, clip=clip)
        return _Ratios(before, through, ones, objectives.answer_ratio(*these, clip=clip))
    token = objectives.token_ratio(*these, kind=objective.ratio, clip=clip)
    return _Ratios(ones, ones, token, token)
