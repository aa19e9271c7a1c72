"""What a step on a divergence does to the reward, in one state: gradients, geometries, steps.

One state, A arms: student p, teacher q, rewards r, all [..., A]; J(p) = sum_a p_a r_a. A loss l(p)
has the slope g_a = dl/dp_a, in nats. Two geometries, to first order in the rate:

    policy space   d log p_a = -(g_a - E_p g)        dJ = -Cov_p(r, g)
    logit space    d theta_a = -p_a (g_a - E_p g)    dJ = -sum_a p_a (r_a - J) p_a (g_a - E_p g)

The first is the natural gradient's and mirror descent's; the second plain descent on the logits of
a softmax. Left out: sampling noise, and more than one state (`distil.theory`'s token trees).
Sources: the paper's page (arXiv 2606.05152); f-divergences: Csiszar's.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from distil.theory.costs import COSTS, Array, in_logits, softmax

Slope = Callable[[Array, Array], Array]
Geometry = Literal["policy", "logit"]
GEOMETRIES: tuple[Geometry, ...] = ("policy", "logit")


def forward_cross_entropy(q: Array, p: Array) -> Array:
    """H(q, p) = -sum_a q_a log p_a. Slope -q/p; the same as KL(q || p)'s, whose value is not."""
    return -q / p


def reverse_kl(q: Array, p: Array) -> Array:
    """KL(p || q) = sum_a p_a log(p_a / q_a). Slope log(p/q), but for a constant."""
    return np.log(p / q)


def jensen_shannon(q: Array, p: Array) -> Array:
    """1/2 KL(q || m) + 1/2 KL(p || m), m = (p + q)/2. Slope 1/2 log(p/m)."""
    return 0.5 * np.log(2 * p / (p + q))


def squared_hellinger(q: Array, p: Array) -> Array:
    """sum_a (sqrt(p_a) - sqrt(q_a))^2. Slope 1 - sqrt(q/p)."""
    return 1 - np.sqrt(q / p)


def pearson_chi2(q: Array, p: Array) -> Array:
    """sum_a (q_a - p_a)^2 / p_a. Slope 1 - (q/p)^2."""
    return 1 - (q / p) ** 2


def alpha_divergence(alpha: float) -> Slope:
    """The slope of f_alpha(u) = (u^alpha - alpha u - (1 - alpha)) / (alpha (alpha - 1)), u = q/p.

    It is -(u^alpha - 1) / alpha. alpha 1 is KL(q || p), alpha 0 KL(p || q), 1/2 twice
    `squared_hellinger`, 2 half of `pearson_chi2`.
    """

    def slope(q: Array, p: Array) -> Array:
        return -np.log(q / p) if alpha == 0 else -((q / p) ** alpha - 1) / alpha

    return slope


SLOPES: dict[str, Slope] = {
    "forward_cross_entropy": forward_cross_entropy,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "squared_hellinger": squared_hellinger,
    "pearson_chi2": pearson_chi2,
}
SHORT = {
    "forward_cross_entropy": "forward", "reverse_kl": "reverse", "jensen_shannon": "js",
    "squared_hellinger": "hellinger", "pearson_chi2": "chi2",
}  # fmt: skip
"""As the numbers of claims name them."""


def value(name: str, q: Array, p: Array) -> Array:
    """The divergence itself, in nats (or, for Hellinger and chi-squared, without unit); [...]."""
    if name in COSTS:
        return COSTS[name](p, q)[0]
    others = {"squared_hellinger": (np.sqrt(p) - np.sqrt(q)) ** 2, "pearson_chi2": (q - p) ** 2 / p}
    return others[name].sum(-1)


def reward(p: Array, r: Array) -> Array:
    """J(p) = sum_a p_a r_a; [...]."""
    return (p * r).sum(-1)


def direction(p: Array, g: Array, geometry: Geometry) -> Array:
    """The step that a small rate takes, on the logits; [..., A]. See the module's first lines."""
    return (p * g).sum(-1, keepdims=True) - g if geometry == "policy" else -in_logits(p, g)


def first_order(p: Array, r: Array, step: Array) -> Array:
    """dJ per unit of rate, of a step on the logits: Cov_p(r, step) = sum_a p_a (r_a - J) step_a."""
    return (p * (r - reward(p, r)[..., None]) * step).sum(-1)


def change(slope: Slope, q: Array, p: Array, r: Array, geometry: Geometry) -> Array:
    """dJ to first order of one step on this divergence in this geometry; [...]."""
    return first_order(p, r, direction(p, slope(q, p), geometry))


def move(p: Array, step: Array, rate: float) -> Array:
    """p_a exp(rate * step_a) / sum: the step on the logits, taken in full.

    With geometry "policy" that is mirror descent under KL (exponentiated gradient), with "logit"
    plain gradient descent on the logits.
    """
    return softmax(np.log(p) + rate * step)


def trajectory(
    slope: Slope, q: Array, p: Array, *, geometry: Geometry, rate: float, steps: int
) -> Array:
    """The student after 0, 1, ..., steps steps; [steps + 1, ..., A]."""
    students = [p]
    for _ in range(steps):
        p = move(p, direction(p, slope(q, p), geometry), rate)
        students.append(p)
    return np.stack(students)
