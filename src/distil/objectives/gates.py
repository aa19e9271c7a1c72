"""Weights on the costs: which prompts and tokens the teacher is heard on. All 1 in the paper.

Each weight w_t multiplies the cost c_t *before* future credit is summed, so that the gradient stays
the exact one of E[ sum_t w_t c_t ] as long as w doesn't depend on the token that is judged.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.objectives.shapes import Mask, PerRow, PerToken, same_shape


def pass_rate_weight(succeeded: PerRow, group_size: int) -> PerRow:
    """sqrt(p (1 - p)) for each row, p the share of its group (in order) that succeeded.

    Prompts that are always or never solved weigh 0; p = 1/2 weighs most, 1/2. `succeeded` holds 0
    and 1. Source: SC-SDPO, arXiv 2605.27765. Raises ValueError if the rows aren't whole groups.
    """
    if group_size < 1 or len(succeeded) % group_size:
        raise ValueError(
            f"{len(succeeded)} rows can't be split into groups of {group_size}: pass whole groups."
        )
    rate = succeeded.view(-1, group_size).mean(1).repeat_interleave(group_size)
    return (rate * (1 - rate)).sqrt()


def confident_teacher(teacher_entropy: PerToken, maximum: float) -> PerToken:
    """1 where the teacher's entropy is at most `maximum` nats, 0 where it's unsure of itself.

    Source: EGRSD, arXiv 2605.13255 (a gate by the teacher's entropy).
    """
    return (teacher_entropy <= maximum).to(teacher_entropy.dtype)


def not_an_end(
    ids: Int[Tensor, "batch seq"], mask: Mask, stop_ids: Sequence[int]
) -> Float[Tensor, "batch seq"]:
    """0 at a row's last unmasked token if it's one of `stop_ids`, 1 elsewhere.

    A weight for the score term: the exact objective E[ sum_t c_t ] is lowered by ending at once,
    whatever the teacher would have said; without the score of endings, only the local term decides
    about them. Biased, on purpose.
    """
    same_shape(ids, mask)
    later = (mask > 0).long().flip(-1).cumsum(-1).flip(-1)
    last = (later == 1) & (mask > 0)
    stops = torch.tensor(list(stop_ids), dtype=ids.dtype, device=ids.device)
    return (~(last & torch.isin(ids, stops))).float()


def better_teacher(teacher_rate: PerRow, student_rate: PerRow) -> PerRow:
    """1 where the teacher's own success rate is above the student's, 0 where it isn't.

    1 also where the teacher's is NaN (not sampled): nothing is known against it.
    """
    worse = teacher_rate <= student_rate  # False for NaN
    return (~worse).to(student_rate.dtype)


def from_first_error(
    student_logps: PerToken, teacher_logps: PerToken, mask: Mask, margin: float
) -> PerToken:
    """0 before the first token that the teacher objects to, 1 from it on; 0 in rows without one.

    The teacher objects to y_t where log p(y_t) - log q(y_t) > margin, in nats, both at the sampled
    token. The idea is ROSD's, arXiv 2605.28014, where a judge names the first wrong step; here the
    teacher's own log-probability does. The weight of the first objectionable token looks at that
    token itself, so with future credit the gradient is that of the gated loss only nearly.
    """
    objected = _objections(student_logps, teacher_logps, mask, margin)
    return objected.cummax(-1).values.to(student_logps.dtype)


def until_first_error(
    student_logps: PerToken, teacher_logps: PerToken, mask: Mask, margin: float
) -> PerToken:
    """1 up to and with the first token that the teacher objects to, 0 after it; 1 without one.

    As `from_first_error` judges. A teacher that is shown the answer knows how to go on after a
    mistake, and a student that isn't may have no way to: there it would learn to ignore what it has
    written. Looks at earlier tokens only, so with the gate held constant the gradient is exact.
    """
    objected = _objections(student_logps, teacher_logps, mask, margin)
    before = objected.cumsum(-1) - objected
    return (before == 0).to(student_logps.dtype)


def _objections(
    student_logps: PerToken, teacher_logps: PerToken, mask: Mask, margin: float
) -> Int[Tensor, "batch seq"]:
    same_shape(student_logps, teacher_logps)
    same_shape(student_logps, mask)
    return ((student_logps.detach() - teacher_logps > margin) & (mask > 0)).long()
