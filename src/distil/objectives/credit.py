"""Future credit: what a token's choice led to, and the baseline that makes it less noisy.

Credit looks at later tokens only. So a batch may be taken in slices of columns, the last one first,
each told what lies right of it (`Later`): the credits are then those of the whole batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from distil.objectives.shapes import Mask, PerRow, PerToken, same_shape


@dataclass(frozen=True)
class Later:
    """What lies right of a slice of columns. `tokens`: how many unmasked ones.

    credit: sum_i discount^(n_i - 1) c_i over them, where the n-th unmasked token has n_i = n.
    """

    credit: PerRow
    tokens: PerRow


def later_than(cost: PerToken, mask: Mask, discount: float, later: Later | None) -> Later:
    """What lies right of the columns before these: these, and what lies right of them."""
    start, one = torch.zeros_like(cost[:, :1]), torch.ones_like(mask[:, :1])
    whole = torch.cat([start, cost], 1), torch.cat([one, mask], 1)
    credit = future_credit(*whole, discount=discount, later=later)[:, 0]
    tokens = (mask > 0).sum(1).to(cost.dtype)
    return Later(credit, tokens if later is None else tokens + later.tokens)


def future_credit(
    cost: PerToken,
    mask: Mask,
    *,
    reduction: Literal["sum", "mean"] = "sum",
    discount: float = 1.0,
    later: Later | None = None,
) -> PerToken:
    """G_t: the cost still to come, strictly later than t. No gradient; 0 at masked tokens.

    sum:  G_t = sum_{i>t} discount^(n(t,i)-1) mask_i c_i, n(t,i) counting the unmasked tokens in
          (t, i]: tokens that were not sampled (pads, tool output) take no part, not even as a step.
    mean: the same divided by the number of unmasked tokens after t (at least 1). This is the
          released code's scaling: it keeps the future term as large as the local one, and is
          biased: docs/theory.md has by how much.

    The last unmasked token of a row has credit 0. `mask` is 1 at sampled tokens and 0 elsewhere.
    A masked cost may be anything, NaN included: it's dropped before the sum. `later`: what follows
    these columns, where they are a slice of the batch's; counts for sum and mean alike.
    Raises ValueError on shapes that differ and on a discount outside (0, 1].
    """
    same_shape(cost, mask)
    if not 0 < discount <= 1:
        raise ValueError(f"discount is {discount}, and must lie in (0, 1]; 1 is exact.")
    mask = mask.to(cost.dtype)
    kept = torch.where(mask > 0, cost.detach(), torch.zeros_like(cost))
    after = torch.zeros_like(kept[:, 0]) if later is None else later.credit.to(kept.dtype)
    if discount == 1:
        credit = _reverse_cumsum(kept) - kept + after[:, None]
    else:
        credit = _discounted(kept, mask, discount, after)
    if reduction == "mean":
        count = _reverse_cumsum(mask) - mask
        count = count if later is None else count + later.tokens[:, None]
        credit = credit / count.clamp(min=1)
    elif reduction != "sum":
        raise ValueError(f"reduction is {reduction!r}, and must be 'sum' or 'mean'.")
    return credit * mask


def leave_one_out(values: PerToken, mask: Mask, group_size: int) -> PerToken:
    """Mean, position by position, over the *other* members of a row's group; 0 if there is none.

    Rows [0, group_size), [group_size, 2 group_size), ... are groups (rollouts of one prompt). Only
    members that are unmasked at that position count, and a rollout that has ended no longer does.
    Since it doesn't depend on a row's own tokens, subtracting it from the row's credit leaves the
    expected gradient as it is. Raises ValueError if the rows aren't whole groups.
    """
    same_shape(values, mask)
    rows = len(values)
    if group_size < 1 or rows % group_size:
        raise ValueError(
            f"{rows} rows can't be split into groups of {group_size}: pass whole groups, in order."
        )
    return leave_one_out_of(values, mask, torch.arange(rows, device=values.device) // group_size)


def leave_one_out_of(values: PerToken, mask: Mask, groups: Int[Tensor, " batch"]) -> PerToken:
    """`leave_one_out` where row i belongs to group `groups[i]`, whatever the order of the rows."""
    same_shape(values, mask)
    mask = mask.to(values.dtype)
    kept = torch.where(mask > 0, values, torch.zeros_like(values))
    empty = values.new_zeros(int(groups.max()) + 1 if len(groups) else 0, values.shape[1])
    others = empty.index_add(0, groups, kept)[groups] - kept
    count = empty.index_add(0, groups, mask)[groups] - mask
    return others / count.clamp(min=1) * (count > 0)


def _reverse_cumsum(values: Tensor) -> Tensor:
    """out_t = sum_{i>=t} values_i along the last dimension."""
    return values.flip(-1).cumsum(-1).flip(-1)


def _discounted(kept: Tensor, mask: Tensor, discount: float, after: Tensor) -> Tensor:
    """G_t = c_next + discount * G_next, walking back over the unmasked tokens, from `after` on."""
    credit = torch.zeros_like(kept)
    running = after
    for t in range(kept.shape[1] - 1, -1, -1):
        credit[:, t] = running
        running = torch.where(mask[:, t] > 0, kept[:, t] + discount * running, running)
    return credit
