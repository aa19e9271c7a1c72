"""Many bandits at once: how often a step lowers the reward, and the worst case that a search finds.

Bandits: student and teacher from Dirichlet(1), rewards uniform in [0, 1], kept if the teacher's
reward is higher. Every share comes with Wilson's 95% interval.
The search is exact in the rewards (a linear program, all of whose corners are tried) and random in
student and teacher, then climbs; it finds bad cases, and proves nothing about there being none.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from distil.theory.costs import Array, softmax
from distil.theory.divergences import (
    Geometry,
    Slope,
    change,
    direction,
    first_order,
    forward_cross_entropy,
    move,
    reward,
)


@dataclass(frozen=True)
class Share:
    """A share with its 95% interval (Wilson)."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Bandits:
    """N bandits with A arms; each [N, A]."""

    p: Array
    q: Array
    r: Array


def wilson(hits: int, trials: int, z: float = 1.959963984540054) -> Share:
    """Wilson's score interval of a share: right also where no hit was seen."""
    share = hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    half /= 1 + z * z / trials
    return Share(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def share_below_zero(values: Array) -> Share:
    """Of these dJ, the share below 0; 1e-12 is rounding."""
    return wilson(int((values < -1e-12).sum()), len(values))


def draw(count: int, arms: int = 3, seed: int = 0, right: int | None = None) -> Bandits:
    """`count` bandits whose teacher is better than the student.

    right: rewards are 1 for that many of the arms and 0 for the others, instead of uniform.
    """
    generator = np.random.default_rng([seed, arms])
    parts: list[Bandits] = []
    found = 0
    while found < count:
        p, q = (generator.dirichlet(np.ones(arms), count) for _ in range(2))
        r = generator.random((count, arms))
        if right is not None:
            r = np.broadcast_to((np.arange(arms) < right).astype(float), (count, arms))
        kept = reward(q, r) > reward(p, r)
        parts.append(Bandits(p[kept], q[kept], r[kept]))
        found += int(kept.sum())
    return Bandits(*(np.concatenate([getattr(b, n) for b in parts])[:count] for n in "pqr"))


def _rewards(bandits: Bandits) -> Array:
    return reward(bandits.p, bandits.r)


def decreases(bandits: Bandits, slope: Slope, geometry: Geometry) -> Share:
    """Share of bandits whose reward falls, to first order, though the teacher is better."""
    return share_below_zero(change(slope, bandits.q, bandits.p, bandits.r, geometry))


def decreases_in_full(bandits: Bandits, rate: float) -> Share:
    """Share whose reward falls in one *full* mirror step on the forward cross-entropy."""
    step = direction(bandits.p, forward_cross_entropy(bandits.q, bandits.p), "policy")
    moved = move(bandits.p, step, rate)
    return share_below_zero(reward(moved, bandits.r) - _rewards(bandits))


def decreases_when_scaled(bandits: Bandits, cap: float) -> Share:
    """Share that falls in a full mirror step, scaled as a whole to entries within [-cap, cap].

    The direction stays; a smaller cap is a smaller rate, and the share goes to 0 with it.
    """
    step = direction(bandits.p, forward_cross_entropy(bandits.q, bandits.p), "policy")
    step = step * np.minimum(1, cap / np.abs(step).max(-1, keepdims=True))
    return share_below_zero(reward(move(bandits.p, step, 1.0), bandits.r) - _rewards(bandits))


def decreases_when_clipped(bandits: Bandits, clip: float) -> Share:
    """Share that falls where each entry of the forward step is kept in [-clip, clip].

    What `distil.objectives.policy_space` does against steps of any size: the price is exactness.
    """
    step = direction(bandits.p, forward_cross_entropy(bandits.q, bandits.p), "policy")
    return share_below_zero(first_order(bandits.p, bandits.r, step.clip(-clip, clip)))


def decreases_in_a_class(bandits: Bandits, features: int, seed: int = 0) -> Share:
    """Share that falls under the natural gradient of a class with fewer parameters than arms.

    Logits log p + Phi theta, Phi [A, features] normal. Step -F^-1 Cov_p(Phi, g), F = Cov_p(Phi).
    """
    generator = np.random.default_rng([seed, features])
    p, r = bandits.p[..., None], bandits.r
    phi = generator.standard_normal((*bandits.p.shape, features))
    phi = phi - (p * phi).sum(-2, keepdims=True)
    fisher = np.swapaxes(p * phi, -1, -2) @ phi
    g = forward_cross_entropy(bandits.q, bandits.p)[..., None]
    theta = np.linalg.solve(fisher, (p * phi * -g).sum(-2)[..., None])
    return share_below_zero(first_order(bandits.p, r, (phi @ theta)[..., 0]))


@dataclass(frozen=True)
class Worst:
    """The worst bandit found: dJ is per unit length of the step in its own geometry."""

    p: Array
    q: Array
    r: Array
    change: float
    better_by: float  # J(q) - J(p)


def worst_rewards(effect: Array, gap: Array, margin: float) -> tuple[Array, Array]:
    """min over r in [0, 1]^A of effect . r, given gap . r >= margin: ([N] minimum, [N, A] r).

    A linear program whose best corner has at most one r_a strictly inside (0, 1), and then the
    constraint is tight. All corners are tried. effect, gap: [N, A]. Infeasible: +inf.
    """
    count, arms = effect.shape
    best, at = np.full(count, np.inf), np.zeros((count, arms))
    for corner in itertools.product((0.0, 1.0), repeat=arms):
        for inside in (None, *range(arms)):
            r = np.tile(np.array(corner), (count, 1))
            if inside is not None:
                r[:, inside] = 0
                own, slack = gap[:, inside].copy(), margin - (gap * r).sum(-1)
                none = np.full(count, np.nan)  # where this arm can't make up for the rest
                r[:, inside] = np.divide(slack, own, out=none, where=own != 0)
            fits = ((r >= 0) & (r <= 1)).all(-1) & ((gap * r).sum(-1) >= margin - 1e-12)
            cost = np.where(fits, (effect * np.where(fits[:, None], r, 0)).sum(-1), np.inf)
            at[cost < best] = r[cost < best]
            best = np.minimum(best, cost)
    return best, at


def search(
    slope: Slope, geometry: Geometry, *, margin: float = 0.1, floor: float = 0.01,
    count: int = 20_000, rounds: int = 30, seed: int = 0,
) -> Worst:  # fmt: skip
    """The bandit with the most negative dJ, though the teacher is better by at least `margin`.

    Three arms, no probability below `floor`. dJ is divided by the step's length: in policy space
    sqrt(E_p step^2) (Fisher's), in logit space the Euclidean one; so it lies within [-1/2, 1/2] in
    policy space. Random pairs first, then `rounds` of smaller and smaller moves about the best.
    """
    generator = np.random.default_rng([seed, 7])
    p, q = (generator.dirichlet(np.ones(3), count) for _ in range(2))
    best: Worst | None = None
    for round_ in range(rounds + 1):
        p, q = (floor + (1 - 3 * floor) * x for x in (p, q))
        step = direction(p, slope(q, p), geometry)
        weight = p if geometry == "policy" else np.ones_like(p)
        length = np.sqrt((weight * step**2).sum(-1, keepdims=True))
        effect = p * (step - (p * step).sum(-1, keepdims=True)) / length
        values, rewards = worst_rewards(effect, q - p, margin)
        i = int(values.argmin())
        if best is None or values[i] < best.change:
            gap = float(((q[i] - p[i]) * rewards[i]).sum())
            best = Worst(p[i], q[i], rewards[i], float(values[i]), gap)
        spread = 0.5 * 0.8**round_
        p, q = (_about(x, spread, floor, generator) for x in (best.p, best.q))
    assert best is not None
    return best


def _about(x: Array, spread: float, floor: float, generator: np.random.Generator) -> Array:
    """1,000 distributions about x, on the scale that `search` stretches off its floor."""
    inner = ((x - floor) / (1 - 3 * floor)).clip(1e-12)
    logits = np.log(inner) + spread * generator.standard_normal((1000, len(x)))
    return softmax(logits)
