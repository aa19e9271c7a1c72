"""A cost stepped in policy space: the natural gradient at the output, instead of the logits' own.

The guarantee of improvement holds for policy-space steps (natural gradient, mirror descent), not
for gradient steps on softmax logits, where each token's step is multiplied by its probability once
more. Dividing that out again gives the step that the theorem speaks of, as far as the output goes;
the weights below it still share their parameters, and the optimiser has a word too.
"""

import torch

from distil.objectives.costs import NO_PROBABILITY, Cost, empty_tail
from distil.objectives.shapes import OverSupport, PerToken


def policy_space(
    cost: Cost, student_logps: OverSupport, teacher_logps: OverSupport, clip: float
) -> PerToken:
    """The cost's value, with a gradient that makes a *policy-space* step of plain descent.

    With g_a = d cost / d p_a (forward cross-entropy: -q_a / p_a), the gradient that reaches the
    logit of support token a is

        w_a = clamp(g_a - sum_b p_b g_b, -clip, clip),  then w_a - mean(w)

    instead of p_a (g_a - sum_b p_b g_b). Shifting all logits by one number changes no policy, so
    the mean may be taken off; it makes the surrogate sum_a w_a log p_a have that very gradient. A
    support with a tail bucket counts the bucket as one token, and one that holds nothing (a support
    of the whole vocabulary) as none. Raises ValueError unless clip > 0.
    """
    if not clip > 0:
        raise ValueError(f"clip is {clip}, and must be above 0: the step is kept in [-clip, clip].")
    with torch.enable_grad():
        leaf = student_logps.detach().requires_grad_()
        value = cost(leaf, teacher_logps)
        (by_logp,) = torch.autograd.grad(value.sum(), leaf)
    # Where both sides have none (NO_PROBABILITY), there is no token, and so no step; no more has an
    # empty bucket, whose gradient is 0.
    logps = leaf.detach()
    some = (logps > NO_PROBABILITY) & (logps != empty_tail(logps))
    p = logps.exp().clamp(min=torch.finfo(leaf.dtype).tiny)
    expected = by_logp.sum(-1, keepdim=True)  # sum_b p_b g_b, since d/d log p_b = p_b g_b
    step = (by_logp / p - expected).clamp(-clip, clip) * some
    step = (step - step.sum(-1, keepdim=True) / some.sum(-1, keepdim=True).clamp(min=1)) * some
    surrogate = (step * torch.where(some, student_logps, torch.zeros_like(p))).sum(-1)
    return value.detach() + surrogate - surrogate.detach()
