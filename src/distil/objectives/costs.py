"""What one token costs: divergences between teacher and student over a support, in nats.

`student_logps` and `teacher_logps` are natural log-probabilities over the same support, closed by
`append_tail` or `renormalise`, or the whole vocabulary. Computed in float32, or in float64 where
that is what comes in. To add a divergence: a function of these two tensors, and its name in COSTS
(or, without touching the package, `objective.name: my_file.py:my_function`).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distil.objectives.shapes import OverSupport, PerToken, same_shape

Cost = Callable[[Tensor, Tensor], Tensor]

NO_PROBABILITY = -1e4
"""Stands for log 0 where both sides have none: exp of it is exactly 0, and no infinity arises."""


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
    # Two infinities would make the mixture's gradient NaN; at this floor exp is exactly 0 too.
    student, teacher = student.clamp(min=NO_PROBABILITY), teacher.clamp(min=NO_PROBABILITY)
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


def empty_tail(logps: OverSupport) -> Float[Tensor, ""]:
    """What `append_tail` gives a bucket without any probability, in this dtype."""
    return _log1mexp(logps.new_full((), -torch.finfo(logps.dtype).eps))


def renormalise(logps: OverSupport) -> OverSupport:
    """The distribution given that the token is in the support: logps - logsumexp(logps)."""
    return logps - torch.logsumexp(logps, dim=-1, keepdim=True)


def repeated(ids: Int[Tensor, "batch seq support"]) -> Bool[Tensor, "batch seq support"]:
    """True where an id stands in its row's support already, further left (supports joined)."""
    ordered, places = ids.sort(dim=-1, stable=True)
    again = torch.zeros_like(ids, dtype=torch.bool)
    again[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
    return torch.zeros_like(again).scatter(-1, places, again)


def drop_repeats(logps: OverSupport, repeats: Bool[Tensor, "batch seq support"]) -> OverSupport:
    """NO_PROBABILITY at repeated ids, so that no token is counted twice; no gradient there."""
    return logps.masked_fill(repeats, NO_PROBABILITY)


def sampling_variance(
    student_logps: OverSupport, teacher_logps: OverSupport, samples: int | Tensor
) -> PerToken:
    """Of c = -(1/M) sum_m log pi(a_m), a_m drawn from the teacher: an unbiased estimate, nats^2.

    teacher_logps: logs of the shares drawn, with NO_PROBABILITY where nothing was, no tail. With x
    = log pi over what was drawn: (sum_a share_a x_a^2 - c^2) / (M - 1). NaN for one sample.
    """
    same_shape(student_logps, teacher_logps)
    share, student = teacher_logps.exp(), student_logps.to(torch.float32)
    mean = _weighted(share, student)
    return _weighted(share, (student - mean[..., None]).square()) / (samples - 1)


def compare(
    student_logps: Float[Tensor, "tokens support"],
    teacher_logps: Float[Tensor, "tokens support"],
    cost: Cost,
    *,
    tail: bool,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """(cost, agreement) of each token, over a support closed by a tail or renormalised.

    agreement is 1 - total variation, without gradient. An id that the teacher's side marks as a
    repeat (NO_PROBABILITY) counts on neither side.
    """
    close = append_tail if tail else renormalise
    teacher = close(teacher_logps[None])
    student = close(drop_repeats(student_logps, teacher_logps <= NO_PROBABILITY)[None])
    overlap = torch.minimum(student.detach().exp(), teacher.exp()).sum(-1)
    return cost(student, teacher)[0], overlap[0]


COSTS: dict[str, Cost] = {
    "forward_cross_entropy": forward_cross_entropy,
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}


def _both(student_logps: Tensor, teacher_logps: Tensor) -> tuple[Tensor, Tensor]:
    """Student and detached teacher, shapes checked, in float32 or wider."""
    same_shape(student_logps, teacher_logps)
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
