"""The surrogate whose gradient is the method's, and the means that make one number of it."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from distil.objectives.credit import Later, future_credit, leave_one_out
from distil.objectives.shapes import Mask, PerRow, PerToken, same_shape


def distil_token_loss(
    cost: PerToken,
    sampled_logps: PerToken,
    mask: Mask,
    *,
    future: Literal["sum", "mean", "none"] = "sum",
    discount: float = 1.0,
    future_weight: float = 1.0,
    group_size: int | None = None,
    baseline: PerToken | None = None,
    score_weight: PerToken | None = None,
    later: Later | None = None,
) -> PerToken:
    """The surrogate: cost_t + future_weight * log pi(y_t) * stopgrad(G_t - b_t), 0 where masked.

    `cost` may carry weights already (`objectives.gates`, prefix ratios): G sums what is given.
    `score_weight`, if given, multiplies the second term, token by token. `later`: what follows,
    where these columns are a slice of the batch's (`objectives.credit`).

    G is `future_credit`; b is the `leave_one_out` baseline of G if `group_size` is given, or
    `baseline` if the groups' credits were gathered elsewhere (groups split over micro-batches or
    processes), or 0. With future="sum", discount 1 and future_weight 1, the sum over tokens has the
    exact gradient of L in expectation, with or without the baseline. Raises ValueError on shapes
    that differ, and as `future_credit` and `leave_one_out` do.
    """
    same_shape(cost, sampled_logps)
    same_shape(cost, mask)
    active = mask > 0
    zero = torch.zeros_like(cost)
    loss = torch.where(active, cost, zero)
    if future == "none" or future_weight == 0:
        return loss
    credit = future_credit(cost, mask, reduction=future, discount=discount, later=later)
    if group_size is not None:
        credit = credit - leave_one_out(credit, mask, group_size)
    elif baseline is not None:
        credit = credit - baseline.detach()
    if score_weight is not None:
        credit = credit * score_weight.detach()
    return loss + future_weight * torch.where(active, sampled_logps, zero) * credit * active


def advantage_token_loss(
    sampled_logps: PerToken, advantages: PerRow, mask: Mask, ratio: PerToken | None = None
) -> PerToken:
    """- A_row * stopgrad(ratio_t) * log pi(y_t), 0 where masked: the policy gradient of the reward.

    On fresh rollouts (ratio 1) its gradient is that of GRPO's clipped loss, whose ratio is 1 there;
    on older ones, with `token_ratio`, it's that of CISPO (the cut ratio carries no gradient).
    """
    same_shape(sampled_logps, mask)
    logps = torch.where(mask > 0, sampled_logps, torch.zeros_like(sampled_logps))
    weight = advantages[:, None].to(logps.dtype) * (1.0 if ratio is None else ratio.detach())
    return -weight * logps * (mask > 0)


def masked_mean(
    values: PerToken, mask: Mask, count: Tensor | float | None = None
) -> Float[Tensor, ""]:
    """sum(values * mask) / count; count is the number of unmasked tokens if it isn't given.

    Give `count` where this batch is a part of a larger one (micro-batches, processes): the parts'
    results then add up to the whole's. No unmasked token at all: a zero that still has a gradient.
    Masked values may be NaN.
    """
    same_shape(values, mask)
    total = torch.where(mask > 0, values, torch.zeros_like(values)).sum()
    if count is None:
        count = (mask > 0).sum()
    count = torch.as_tensor(count, dtype=total.dtype, device=total.device)
    return total / torch.where(count > 0, count, torch.ones_like(count))


def mean_of_sequence_means(
    values: PerToken,
    mask: Mask,
    count: Tensor | float | None = None,
    row_tokens: PerRow | None = None,
) -> Float[Tensor, ""]:
    """sum over rows of (mean of a row's unmasked values) / count; count is the number of rows.

    The published science code's mean: a short row's token weighs more than a long row's, and a row
    without any unmasked token counts as 0 but is counted. Give `count` as for `masked_mean`, and
    `row_tokens`, each row's number of unmasked tokens, where these columns are only some of them.
    """
    same_shape(values, mask)
    kept = mask > 0
    sums = torch.where(kept, values, torch.zeros_like(values)).sum(-1)
    rows = len(values) if count is None else count
    tokens = kept.sum(-1) if row_tokens is None else row_tokens
    return (sums / tokens.clamp(min=1)).sum() / rows
