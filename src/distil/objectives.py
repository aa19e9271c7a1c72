"""DistIL's objectives: pure tensor functions, one value a token, nothing reduced in secret.

Shapes: B rollouts, T completion tokens, S support tokens. Every log-probability is a natural log;
costs are in nats. Computed in float32, or in float64 where that is what comes in.

The method (arXiv 2606.05152). With teacher q_t = pi(.|s_t, f), held constant, and student p_t:

    L(theta) = E_{y ~ pi} [ sum_t c_t ],   c_t = H(q_t, p_t) = - sum_a q_t(a) log p_t(a)
    grad L   = E[ sum_t grad c_t ]  +  E[ sum_t grad log p_t(y_t) * sum_{i>t} c_i ]
                local credit            future credit

Left out: where the log-probabilities come from (`distil.vocab`), who the teacher is
(`distil.teacher`), importance ratios.
"""

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

PerToken = Float[Tensor, "batch seq"]
OverSupport = Float[Tensor, "batch seq support"]
Mask = Shaped[Tensor, "batch seq"]  # 1 or True at sampled tokens, 0 or False elsewhere


def forward_cross_entropy(student_logps: OverSupport, teacher_logps: OverSupport) -> PerToken:
    """H(teacher, student) = - sum_s exp(teacher_s) * student_s, in nats.

    DistIL's cost. Gradients flow into the student only (the teacher is detached); a support token
    that the teacher gives probability 0 (-inf) counts 0 even where the student's is -inf too.
    """
    student, teacher = _both(student_logps, teacher_logps)
    return -_weighted(teacher.exp(), student)


def forward_kl(student_logps: OverSupport, teacher_logps: OverSupport) -> PerToken:
    """KL(teacher || student) = sum_s exp(teacher_s) * (teacher_s - student_s), in nats.

    Same gradient as `forward_cross_entropy` in the local term; another future credit, since the
    teacher's entropy is taken off.
    """
    student, teacher = _both(student_logps, teacher_logps)
    return _weighted(teacher.exp(), teacher - student)


def reverse_kl(student_logps: OverSupport, teacher_logps: OverSupport) -> PerToken:
    """KL(student || teacher) = sum_s exp(student_s) * (student_s - teacher_s), in nats (SDPO)."""
    student, teacher = _both(student_logps, teacher_logps)
    return _weighted(student.exp(), student - teacher)


def jensen_shannon(
    student_logps: OverSupport, teacher_logps: OverSupport, teacher_weight: float = 0.5
) -> PerToken:
    """w KL(teacher || m) + (1 - w) KL(student || m), m = w teacher + (1 - w) student, in nats.

    `teacher_weight` is w, in (0, 1); 0.5 is the Jensen-Shannon divergence (SDPO's science setting,
    OPSD). Raises ValueError outside (0, 1), where it would be 0 for every pair.
    """
    if not 0 < teacher_weight < 1:
        raise ValueError(
            f"teacher_weight is {teacher_weight}, and must lie between 0 and 1: at the ends this "
            "divergence is 0 everywhere. Use forward_kl or reverse_kl for those directions."
        )
    student, teacher = _both(student_logps, teacher_logps)
    w = torch.tensor(teacher_weight, dtype=student.dtype, device=student.device)
    mixture = torch.logaddexp(teacher + w.log(), student + torch.log1p(-w))
    to_teacher = _weighted(teacher.exp(), teacher - mixture)
    to_student = _weighted(student.exp(), student - mixture)
    return w * to_teacher + (1 - w) * to_student


def append_tail(logps: OverSupport) -> Float[Tensor, "batch seq support_and_tail"]:
    """Adds one bucket with all the probability outside the support: log(1 - sum_s exp(logps_s)).

    Stable as the sum nears 1 (log1p and expm1). Where rounding makes the sum 1 or more, the bucket
    is the log of the dtype's epsilon: small and finite, and its gradient is 0 there rather than
    infinite. Ids of a support must differ, or probability would be counted twice.
    """
    total = torch.logsumexp(logps, dim=-1, keepdim=True)
    eps = torch.finfo(logps.dtype).eps
    return torch.cat([logps, _log1mexp(total.clamp(max=-eps))], dim=-1)


def renormalise(logps: OverSupport) -> OverSupport:
    """The distribution given that the token is in the support: logps - logsumexp(logps)."""
    return logps - torch.logsumexp(logps, dim=-1, keepdim=True)


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
          biased (METHOD.md: cosine with the exact gradient .99 to .89).

    The last unmasked token of a row has credit 0. `mask` is 1 at sampled tokens and 0 elsewhere.
    A masked cost may be anything, NaN included: it's dropped before the sum.
    Raises ValueError on shapes that differ and on a discount outside (0, 1].
    """
    _same_shape(cost, mask)
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
    _same_shape(values, mask)
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
) -> PerToken:
    """The surrogate: cost_t + future_weight * log pi(y_t) * stopgrad(G_t - b_t), 0 where masked.

    G is `future_credit`; b is the `leave_one_out` baseline of G if `group_size` is given, or
    `baseline` if the groups' credits were gathered elsewhere (groups split over micro-batches or
    processes), or 0. With future="sum", discount 1 and future_weight 1, the sum over tokens has the
    exact gradient of L in expectation, with or without the baseline.
    """
    _same_shape(cost, sampled_logps)
    _same_shape(cost, mask)
    active = mask > 0
    zero = torch.zeros_like(cost)
    loss = torch.where(active, cost, zero)
    if future == "none" or future_weight == 0:
        return loss
    credit = future_credit(cost, mask, reduction=future, discount=discount)
    if group_size is not None:
        credit = credit - leave_one_out(credit, mask, group_size)
    elif baseline is not None:
        credit = credit - baseline.detach()
    return loss + future_weight * torch.where(active, sampled_logps, zero) * credit * active


def masked_mean(
    values: PerToken, mask: Mask, count: Tensor | float | None = None
) -> Float[Tensor, ""]:
    """sum(values * mask) / count; count is the number of unmasked tokens if it isn't given.

    Give `count` where this batch is a part of a larger one (micro-batches, processes): the parts'
    results then add up to the whole's. No unmasked token at all: a zero that still has a gradient.
    Masked values may be NaN.
    """
    _same_shape(values, mask)
    total = torch.where(mask > 0, values, torch.zeros_like(values)).sum()
    if count is None:
        count = (mask > 0).sum()
    count = torch.as_tensor(count, dtype=total.dtype, device=total.device)
    return total / torch.where(count > 0, count, torch.ones_like(count))


def _both(student_logps: Tensor, teacher_logps: Tensor) -> tuple[Tensor, Tensor]:
    """Student and detached teacher, shapes checked, in float32 or wider."""
    _same_shape(student_logps, teacher_logps)
    wide = torch.promote_types(
        torch.promote_types(student_logps.dtype, teacher_logps.dtype), torch.float32
    )
    return student_logps.to(wide), teacher_logps.detach().to(wide)


def _weighted(probability: Tensor, value: Tensor) -> Tensor:
    """sum over the support of probability * value, 0 where the probability is 0 (0 * inf = 0)."""
    value = torch.where(probability > 0, value, torch.zeros_like(value))
    return (probability * value).sum(-1)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, accurate near 0 and far from it (Maechler 2012)."""
    near = torch.log(-torch.expm1(x.clamp(min=-0.7)))
    far = torch.log1p(-torch.exp(x.clamp(max=-0.6)))
    return torch.where(x > -0.6931472, near, far)


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


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"Shapes differ: {tuple(a.shape)} and {tuple(b.shape)}. Values, log-probabilities and "
            "masks describe the same tokens, so pass tensors of one shape."
        )
