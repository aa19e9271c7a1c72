"""Bandits: which divergence's step towards a better teacher raises the reward, and when none does.

The proof, of one line: in policy space dJ = -Cov_p(r, g). With g = -q/p (forward cross-entropy)

    dJ = sum_a p_a (r_a - J(p)) q_a / p_a = J(q) - J(p)

so the first-order change is the teacher's lead, whatever the number of arms: negative if and only
if the teacher is worse. For a divergence sum_a p_a f(q_a / p_a), g = h(q/p), h(u) = f(u) - u f'(u),
and dJ is never below 0 for a better teacher, whatever the rewards, only where h is a falling
straight line: f(u) = c u log u + a line, c > 0, which is KL(q || p). Any other h has a
counter-example with three arms. With two arms none has: h falls (f is convex), so that r and
-h(q/p) rise together, or neither does.
Left out: sampling noise, function approximation beyond one check, and states (token trees).
"""

from functools import cache

import numpy as np

from distil.theory import sweep
from distil.theory.claims import Claim
from distil.theory.costs import Array
from distil.theory.divergences import (
    GEOMETRIES,
    SHORT,
    SLOPES,
    Geometry,
    alpha_divergence,
    change,
    direction,
    forward_cross_entropy,
    move,
    reward,
    trajectory,
)

SECTION = "bandits"
STUDENT, TEACHER, REWARDS = (np.array(x) for x in ([0.1, 0.6, 0.3], [0.6, 0.1, 0.3], [1, 0.8, 0.0]))
RATE, MOMENTS = 0.05, (0, 10, 50, 200, 2000)
RIVALS = ("forward_cross_entropy", "reverse_kl", "jensen_shannon")
ALPHAS = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
COUNT = 100_000
RATES, CAPS = (0.01, 0.05, 0.5, 2.0), (0.05, 0.5, 1.0)
CLIPS = (1.0, 5.0, 10.0, 100.0)


@cache
def bandits(arms: int = 3, count: int = COUNT) -> sweep.Bandits:
    """The random bandits of every claim here, drawn once."""
    return sweep.draw(count, arms)


def example_changes() -> dict[str, float]:
    """The worked three-arm example: first-order dJ of each divergence in each geometry."""
    return {
        f"{SHORT[name]}, {geometry}": float(
            change(SLOPES[name], TEACHER, STUDENT, REWARDS, geometry)
        )
        for name in RIVALS
        for geometry in GEOMETRIES
    }


def example_trajectory(name: str, geometry: Geometry, steps: int = MOMENTS[-1]) -> Array:
    """J after 0, 1, ..., steps mirror (or plain logit) steps of the example; [steps + 1]."""
    students = trajectory(SLOPES[name], TEACHER, STUDENT, geometry=geometry, rate=RATE, steps=steps)
    return reward(students, REWARDS)


def lead_error(arms: int, count: int = 5_000, seed: int = 0) -> float:
    """max |dJ - (J(q) - J(p))|, forward cross-entropy in policy space, teachers of any worth."""
    generator = np.random.default_rng([seed, arms, 3])
    p, q = (generator.dirichlet(np.ones(arms), count) for _ in range(2))
    r = generator.random((count, arms))
    found = change(forward_cross_entropy, q, p, r, "policy")
    return float(np.abs(found - (reward(q, r) - reward(p, r))).max())


def mixture_error(rate: float, steps: int = 20) -> float:
    """max |J(p_n) - (J(q) - (1 - rate)^n (J(q) - J(p_0)))| over bandits and steps.

    The natural step in full, p + rate (q - p): a mixture, so that no step up to rate 1 overshoots.
    """
    b, worst = bandits(count=5_000), 0.0
    p, goal, start = b.p, reward(b.q, b.r), reward(b.p, b.r)
    for n in range(1, steps + 1):
        p = p * (1 + rate * direction(p, forward_cross_entropy(b.q, p), "policy"))
        expected = goal - (1 - rate) ** n * (goal - start)
        worst = max(worst, float(np.abs(reward(p, b.r) - expected).max()))
    return worst


def two_arms(count: int = 20_000) -> dict[str, float]:
    """Decreases with two arms: all divergences, both geometries, and full mirror steps."""
    b = bandits(2, count)
    first = sum(sweep.decreases(b, g, where).share for g in SLOPES.values() for where in GEOMETRIES)
    full = 0.0
    for slope in SLOPES.values():
        moved = move(b.p, direction(b.p, slope(b.q, b.p), "policy"), 0.5)
        full += sweep.share_below_zero(reward(moved, b.r) - reward(b.p, b.r)).share
    highest = sweep.wilson(0, count).high
    return {"to first order": first, "in full, rate 0.5": full, "no more than": highest}


def shares(geometry: Geometry, names: tuple[str, ...] = tuple(SLOPES)) -> dict[str, float]:
    """The random sweep: share of decreases of each divergence, with its interval."""
    numbers: dict[str, float] = {}
    for name in names:
        found = sweep.decreases(bandits(), SLOPES[name], geometry)
        numbers |= {
            SHORT[name]: found.share, f"{SHORT[name]}, low": found.low,
            f"{SHORT[name]}, high": found.high,
        }  # fmt: skip
    return numbers


def graded_shares(arms: int = 3, right: int = 1, count: int = 50_000) -> dict[str, float]:
    """Share of decreases in policy space where `right` arms have reward 1 and the others 0.

    One right arm: dJ = p_r (E_p h - h(u_r)), and E_p h >= h(E_p u) = h(1) >= h(u_r) wherever h is
    convex (Jensen) and the teacher better: forward, reverse, JS and Hellinger, not chi-squared.
    """
    b = sweep.draw(count, arms, right=right)
    return {SHORT[n]: sweep.decreases(b, g, "policy").share for n, g in SLOPES.items()}


def alpha_shares(geometry: Geometry) -> dict[float, float]:
    """Share of decreases along the alpha divergences; 0 is KL(p || q), 1 KL(q || p)."""
    return {a: sweep.decreases(bandits(), alpha_divergence(a), geometry).share for a in ALPHAS}


def claims() -> list[Claim]:
    """Everything this section claims, with its numbers; about 4 seconds."""
    return [*_example(), *_improvement(), *_rivals(), *_limits()]


def _example() -> list[Claim]:
    found = example_changes()
    curves = {name: example_trajectory(name, "policy") for name in RIVALS}
    at = {f"{SHORT[n]}, step {t}": float(c[t]) for n, c in curves.items() for t in MOMENTS}
    return [
        Claim(
            SECTION,
            "In the three-arm example only the forward cross-entropy rises, in policy space.",
            "dJ = -Cov_p(r, g)",
            found,
            found["forward, policy"] > 0 > max(found["reverse, policy"], found["js, policy"]),
        ),
        Claim(
            SECTION,
            "All three end at the teacher's reward; only the forward cross-entropy never falls.",
            "p <- p exp(-rate g) / sum",
            at,
            bool((np.diff(curves["forward_cross_entropy"]) > -1e-12).all())
            and all(abs(c[-1] - 0.68) < 1e-3 for c in curves.values()),
        ),
    ]


def _improvement() -> list[Claim]:
    errors = {f"{arms} arms": lead_error(arms) for arms in (2, 3, 10, 100)}
    mixture = {f"rate {rate}": mixture_error(rate) for rate in (0.05, 0.5, 1.0)}
    return [
        Claim(
            SECTION,
            "A policy-space step on the forward cross-entropy changes the reward by the teacher's "
            "lead, whatever the arms: up if the teacher is better, down if it is worse.",
            "max |dJ - (J(q) - J(p))|",
            errors,
            max(errors.values()) < 1e-10,
        ),
        Claim(
            SECTION,
            "In full, the natural step is a mixture, and never overshoots up to rate 1.",
            "max |J(p_n) - (J(q) - (1 - rate)^n (J(q) - J(p_0)))|",
            mixture,
            max(mixture.values()) < 1e-10,
        ),
    ]


def _rivals() -> list[Claim]:
    """Which divergences fall though the teacher is better, and where none does."""
    policy, alphas, two = shares("policy"), alpha_shares("policy"), two_arms()
    one, pair = graded_shares(right=1), graded_shares(right=2)
    others = [n for n in SLOPES if n != "forward_cross_entropy"]
    worst = {SHORT[n]: sweep.search(SLOPES[n], "policy").change for n in SLOPES}
    return [
        Claim(
            SECTION,
            "Of 100,000 bandits with a better teacher none falls by it in policy space; some "
            "fall by every other divergence.",
            "share of dJ < 0",
            policy,
            policy["forward"] == 0 < min(policy[SHORT[n]] for n in others),
        ),
        Claim(
            SECTION,
            "Along the alpha divergences the share is 0 at KL(q || p), alpha 1, and nowhere else.",
            "share of dJ < 0, g = -((q/p)^alpha - 1) / alpha",
            {f"alpha {a:g}": share for a, share in alphas.items()},
            all((share == 0) == (a == 1) for a, share in alphas.items()),
        ),
        Claim(
            SECTION,
            "A search for the worst case finds a fall for every divergence but KL(q || p).",
            "min dJ / |step|, J(q) - J(p) >= 0.1, no arm below 0.01",
            worst,
            worst["forward"] > 0 > max(worst[SHORT[n]] for n in others),
        ),
        Claim(
            SECTION,
            "With one right arm (rewards 1, 0, 0) nothing falls by reverse KL or JS either.",
            "dJ = p_r (E_p h - h(q_r / p_r)) >= 0 for convex h",
            one | {f"{name}, two right": share for name, share in pair.items()},
            one["forward"] == one["reverse"] == one["js"] == 0,
        ),
        Claim(
            SECTION,
            "With two arms nothing falls: no divergence, in neither geometry, nor in full steps.",
            "share of dJ < 0",
            two,
            two["to first order"] == 0 and two["in full, rate 0.5"] == 0,
        ),
    ]  # fmt: skip


def _limits() -> list[Claim]:
    """Where monotone improvement does not hold, for the forward cross-entropy itself."""
    b = bandits()
    logit = shares("logit")
    logit["forward, worst found"] = sweep.search(forward_cross_entropy, "logit").change
    full = {f"rate {rate}": sweep.decreases_in_full(b, rate).share for rate in RATES}
    scaled = {f"longest {cap}": sweep.decreases_when_scaled(b, cap).share for cap in CAPS}
    clipped = {f"clip {clip:g}": sweep.decreases_when_clipped(b, clip).share for clip in CLIPS}
    small = {
        f"{k} of 9": sweep.decreases_in_a_class(bandits(10, 20_000), k).share for k in (1, 3, 6, 9)
    }
    return [
        Claim(
            SECTION, "Forward cross-entropy raises the reward by plain steps on logits too.",
            "share of dJ < 0, dJ = sum_a p_a (r_a - J) (q_a - p_a)", logit, logit["forward"] == 0,
        ),
        Claim(
            SECTION, "Full mirror steps on it never lower the reward.",
            "share of J(p') < J(p), p' = p exp(rate q/p) / sum", full, max(full.values()) == 0,
        ),
        Claim(
            SECTION, "They never do if the step is scaled down as a whole.",
            "the same, rate = min(1, longest / max|step|)", scaled, max(scaled.values()) == 0,
        ),
        Claim(
            SECTION, "Policy-space steps whose entries are clipped never fall, to first order.",
            "share of Cov_p(r, clip(q/p - 1)) < 0", clipped, max(clipped.values()) == 0,
        ),
        Claim(
            SECTION, "Natural steps in a class with fewer parameters than arms - 1 never fall.",
            "share of Cov_p(r, Phi) F^-1 Cov_p(Phi, q/p) < 0, ten arms", small,
            max(small.values()) == 0,
        ),
    ]  # fmt: skip
