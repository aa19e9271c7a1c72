"""The loss of the published mathematics code, with its defects, to compare against. Not DistIL.

What is wrong with it: no score function at all (its "future" factor only rescales local steps); the
cost is clamped at 0.05 nat, beyond which there is no gradient; padding enters the sums over later
costs. The published science loss needs no function here: it is `distil_token_loss` with the
student's support, future="mean" and no baseline (preset `as-released-science`).
"""

from distil.objectives.shapes import Mask, PerToken, same_shape

RELEASED_CLAMP = 0.05
"""Nats; an implicit default of the published code."""


def released_math_token_loss(
    cost: PerToken, mask: Mask, *, clamp: float = RELEASED_CLAMP
) -> PerToken:
    """min(c_t, clamp) * (1 + stopgrad(sum_{i>t} min(c_i, clamp) / max(n_t, 1))), 0 where masked.

    The sum runs over *all* later positions, padding too; n_t counts the unmasked ones only: so a
    last token before much padding weighs up to 1 + clamp * its length. `cost` must hold a value at
    padding as well. That the factor carries no gradient is our reading of the published code.
    """
    same_shape(cost, mask)
    cut = cost.clamp(max=clamp)
    later = (cut.flip(-1).cumsum(-1).flip(-1) - cut).detach()
    kept = (mask > 0).to(cost.dtype)
    count = kept.flip(-1).cumsum(-1).flip(-1) - kept
    return cut * (1 + later / count.clamp(min=1)) * kept
