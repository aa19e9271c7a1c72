"""Future credit: what a token's choice led to, and the baseline that makes it less noisy."""

from typing import Literal

import torch
from torch import Tensor

from distil.objectives.shapes import Mask, PerToken, same_shape


def future_credit(
    cost: PerToken,
    mask: Mask,
    *,
    reduction: Literal["sum", "mean"] = "sum",
    discount: float = 1.0,
) -> PerToken:
    """G_t: the cost still to come, strictly later than t. No gradient; 0 at masked tokens.

    sum:  G_t = sum_{i>t} discount^(n(t,i)-1) mask_i c_i, n(t,i) counting the unmasked tokens in
          (t, i]: tokens that were not sampled (pads, tool output) take no part, not even as a step.
    mean: the same divided by the number of unmasked tokens after t (at least 1). This is the
          released code's scaling: it keeps the future term as large as the local one, and is
          biased: docs/theory.md has by how much.

    The last unmasked token of a row has credit 0. `mask` is 1 at sampled tokens and 0 elsewhere.
    A masked cost may be anything, NaN included: it's dropped before the sum.
    Raises ValueError on shapes that differ and on a discount outside (0, 1].
    """
    same_shape(cost, mask)
    if not 0 < discount <= 1:
        raise ValueError(f"discount is {discount}, and must lie in (0, 1]; 1 is exact.")
    mask = mask.to(cost.dtype)
    kept = torch.where(mask > 0, cost.detach(), torch.zeros_like(cost))
    later = _reverse_cumsum(kept) - kept if discount == 1 else _discounted(kept, mask, discount)
    if reduction == "mean":
        later = later / (_reverse_cumsum(mask) - mask).clamp(min=1)
    elif reduction != "sum":
        raise ValueError(f"reduction is {reduction!r}, and must be 'sum' or 'mean'.")
    return later * mask


def leave_one_out(values: PerToken, mask: Mask, group_size: int) -> PerToken:
    """Mean, position by position, over the *other* members of a row's group; 0 if there is none.

    Rows [0, group_size), [group_size, 2 group_size), ... are groups (rollouts of one prompt). Only
    members that are unmasked at that position count, and a rollout that has ended no longer does.
    Since it doesn't depend on a row's own tokens, subtracting it from the row's credit leaves the
    expected gradient as it is. Raises ValueError if the rows aren't whole groups.
    """
    same_shape(values, mask)
    rows, length = values.shape
    if group_size < 1 or rows % group_size:
        raise ValueError(
            f"{rows} rows can't be split into groups of {group_size}: pass whole groups, in order."
        )
    mask = mask.to(values.dtype)
    kept = torch.where(mask > 0, values, torch.zeros_like(values)).view(-1, group_size, length)
    valid = mask.view(-1, group_size, length)
    others = kept.sum(1, keepdim=True) - kept
    count = valid.sum(1, keepdim=True) - valid
    return (others / count.clamp(min=1) * (count > 0)).view(rows, length)


def _reverse_cumsum(values: Tensor) -> Tensor:
    """out_t = sum_{i>=t} values_i along the last dimension."""
    return values.flip(-1).cumsum(-1).flip(-1)


def _discounted(kept: Tensor, mask: Tensor, discount: float) -> Tensor:
    """G_t = c_next + discount * G_next, walking back over the unmasked tokens."""
    credit = torch.zeros_like(kept)
    running = torch.zeros_like(kept[:, 0])
    for t in range(kept.shape[1] - 1, -1, -1):
        credit[:, t] = running
        running = torch.where(mask[:, t] > 0, kept[:, t] + discount * running, running)
    return credit
