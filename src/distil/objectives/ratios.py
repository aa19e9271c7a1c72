"""Importance ratios for rollouts of an older policy: named by what they correct, and by their bias.

With log rho_t = log p(y_t) - log p_old(y_t) at the sampled tokens, no gradient through any of them:

    token_clipped     rho_t cut above at `clip`: the whole token's loss is weighed by its own ratio.
                      The released code's way (clip 2). Corrects the token, not the prefix: biased.
    token_symmetric   rho_t kept in [1/clip, clip]: as above, no token is silenced altogether.
    prefix            products over the prefix, cut above at `clip`; with clip = inf they make the
                      gradient on old rollouts exactly that of E_{y~p}[ sum_t c_t ]. A reward comes
                      after the whole answer, so its advantage takes the product over all of it.

A ratio for a sampler that isn't the trained model at all (vLLM's kernels) is TRL's, and used as is.
"""

from typing import Literal

import torch

from distil.objectives.shapes import Mask, PerToken, same_shape


def token_ratio(
    logps: PerToken,
    old_logps: PerToken,
    mask: Mask,
    *,
    kind: Literal["token_clipped", "token_symmetric"] = "token_clipped",
    clip: float = 2.0,
) -> PerToken:
    """exp(logps - old_logps), cut to (0, clip] or to [1/clip, clip]; 1 at masked tokens.

    Raises ValueError for another kind, for a clip below 1 and on shapes that differ.
    """
    if kind not in ("token_clipped", "token_symmetric"):
        raise ValueError(f"kind is {kind!r}, and must be 'token_clipped' or 'token_symmetric'.")
    log_ratio = _log_ratio(logps, old_logps, mask, clip)
    return log_ratio.exp().clamp(1 / clip if kind == "token_symmetric" else 0.0, clip)


def prefix_ratios(
    logps: PerToken, old_logps: PerToken, mask: Mask, *, clip: float = torch.inf
) -> tuple[PerToken, PerToken]:
    """(before, through): prod_{i<t} rho_i and prod_{i<=t} rho_i, both cut above at `clip`.

    Off-policy, with behaviour p_old, the exact gradient of E_{y~p}[ sum_t c_t ] is

        E_old[ sum_t before_t grad c_t + grad log p(y_t) (sum_{i>t} before_i c_i - through_t b_t) ]

    so weigh each cost by `before` and the baseline b by `through`. Masked tokens count 1 in the
    products (they were not sampled). The variance grows with the product's length: hence the cut.
    Raises ValueError for a clip below 1 and on shapes that differ.
    """
    log_ratio = _log_ratio(logps, old_logps, mask, clip)
    through = log_ratio.cumsum(-1)
    return (through - log_ratio).exp().clamp(max=clip), through.exp().clamp(max=clip)


def answer_ratio(
    logps: PerToken, old_logps: PerToken, mask: Mask, *, clip: float = torch.inf
) -> PerToken:
    """prod_t rho_t over all of a row's unmasked tokens, cut above at `clip`; the same at each.

    Off-policy, with behaviour p_old, the exact gradient of E_{y~p}[ A(y) ] is, without a cut,

        E_old[ answer(y) A(y) sum_t grad log p(y_t) ]

    Raises ValueError for a clip below 1 and on shapes that differ.
    """
    log_ratio = _log_ratio(logps, old_logps, mask, clip)
    return log_ratio.sum(-1, keepdim=True).exp().clamp(max=clip).expand_as(log_ratio)


def _log_ratio(logps: PerToken, old_logps: PerToken, mask: Mask, clip: float) -> PerToken:
    same_shape(logps, old_logps)
    same_shape(logps, mask)
    if not clip >= 1:
        raise ValueError(f"clip is {clip}, and must be at least 1: 1 would leave no ratio at all.")
    return torch.where(mask > 0, (logps - old_logps).detach(), torch.zeros_like(logps))
