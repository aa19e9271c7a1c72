"""What a state costs, and the cost's slope in the student's logits: by hand, for whole rows.

Rows are probabilities, [S, V]: p the student's, q the teacher's. A cost is a function of (p, q)
that returns its values c, [S] in nats, and g_a = dc/dp_a, [S, V], up to a constant in a row (which
no softmax feels). Where a probability is 0 on the side that weighs a term, the term is 0.

    slope_a = dc/dz_a = p_a (g_a - sum_b p_b g_b)        z the logits, p = softmax(z)

A support keeps K tokens of a row and closes them by one bucket for the rest, or rescales them.
Left out: which objective is whose, see docs/method.md.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Cost = Callable[[Array, Array], tuple[Array, Array]]


def softmax(logits: Array) -> Array:
    """exp(z_a) / sum_b exp(z_b), row by row."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def entropy(q: Array) -> Array:
    """H(q) = - sum_a q_a log q_a, [S] in nats."""
    return -_weighted_log(q, q)


def forward_cross_entropy(p: Array, q: Array) -> tuple[Array, Array]:
    """c = H(q, p) = - sum_a q_a log p_a;  g_a = - q_a / p_a.  DistIL's cost."""
    return -_weighted_log(q, p), -_ratio(q, p)


def forward_kl(p: Array, q: Array) -> tuple[Array, Array]:
    """c = KL(q || p) = H(q, p) - H(q);  g as the cross-entropy's, since q is held constant."""
    cost, slope = forward_cross_entropy(p, q)
    return cost - entropy(q), slope


def reverse_kl(p: Array, q: Array) -> tuple[Array, Array]:
    """c = KL(p || q) = sum_a p_a log(p_a / q_a);  g_a = log(p_a / q_a)."""
    log_ratio = _log(p) - _log(q)
    return (p * log_ratio).sum(-1), log_ratio


def jensen_shannon(p: Array, q: Array, weight: float = 0.5) -> tuple[Array, Array]:
    """c = w KL(q || m) + (1 - w) KL(p || m), m = w q + (1 - w) p;  g_a = (1 - w) log(p_a / m_a)."""
    m = weight * q + (1 - weight) * p
    to_teacher = _weighted_log(q, q) - _weighted_log(q, m)
    to_student = _weighted_log(p, p) - _weighted_log(p, m)
    slope = (1 - weight) * (_log(p) - _log(m))
    return weight * to_teacher + (1 - weight) * to_student, slope


COSTS: dict[str, Cost] = {
    "forward_cross_entropy": forward_cross_entropy,
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}


def in_logits(p: Array, g: Array) -> Array:
    """p_a (g_a - sum_b p_b g_b): a slope in probabilities as a slope in logits."""
    return p * (g - (p * g).sum(-1, keepdims=True))


def likeliest(rows: Array, count: int) -> NDArray[np.bool_]:
    """True at each row's `count` largest entries, [S, V]: a support."""
    inside = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(inside, np.argsort(-rows, axis=-1, kind="stable")[:, :count], True, axis=-1)
    return inside


def on_support(
    cost: Cost, p: Array, q: Array, inside: NDArray[np.bool_], close: Literal["tail", "rescaled"]
) -> tuple[Array, Array]:
    """(c, slope in logits) of a cost that sees the tokens inside only, the support held constant.

    tail: all other tokens are one more token, with their probabilities' sum on either side.
    rescaled: both sides are divided by their sum over the support.
    """
    if close == "rescaled":
        within = [np.where(inside, x, 0) for x in (p, q)]
        kept_p, kept_q = (x / x.sum(-1, keepdims=True) for x in within)
        c, g = cost(kept_p, kept_q)
        return c, in_logits(kept_p, g)
    with_tail = [
        np.concatenate([np.where(inside, x, 0), np.where(inside, 0, x).sum(-1, keepdims=True)], -1)
        for x in (p, q)
    ]
    c, g = cost(*with_tail)
    return c, in_logits(p, np.where(inside, g[:, :-1], g[:, -1:]))


def _log(x: Array) -> Array:
    return np.log(np.where(x > 0, x, 1.0))


def _weighted_log(weight: Array, x: Array) -> Array:
    """sum_a weight_a log x_a, 0 where the weight is 0."""
    return np.asarray((weight * _log(np.where(weight > 0, x, 1.0))).sum(-1))


def _ratio(a: Array, b: Array) -> Array:
    return np.asarray(np.where(a > 0, a / np.where(b > 0, b, 1.0), 0.0))
