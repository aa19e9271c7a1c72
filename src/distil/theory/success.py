"""Likelihood of success: the claims about success posteriors, hard prompts' weights and pass@N.

The parts: `em` (bound, gap, EM steps), `em_trees` (DistIL's step beside EM's), `weights` (a
prompt's pull by its success rate), `passing` (pass@N at equal reward).
"""

from functools import cache

import numpy as np

from distil.theory import em, em_trees, passing, weights
from distil.theory.claims import Claim

SECTION = "likelihood of success"
CLASSES, STEPS = 60, 5
ROLLOUTS = 8
TRIES = (1, 4, 16, 64)
MEAN_REWARD, PRICE = 0.4, 0.3
SHARES = np.array([0.40, 0.35, 0.25])


@cache
def runs(prompts: int = 2, answers: int = 4, parameters: int = 1) -> tuple[em.Run, ...]:
    """EM on random classes too small for their prompts (one parameter for two prompts)."""
    return tuple(
        em.expectation_maximisation(em.random_prompts(prompts, answers, parameters, seed), STEPS)
        for seed in range(CLASSES)
    )


@cache
def optima(by: str = "mean") -> dict[str, passing.Optimum]:
    """Each objective's optimum at equal mean reward ("mean") or equal KL from the start ("kl")."""
    b = passing.start()
    if by == "mean":
        return {name: passing.matched(name, b, MEAN_REWARD) for name in passing.OBJECTIVES}
    return {name: passing.matched(name, b, PRICE, by="kl") for name in passing.OBJECTIVES}


def claims() -> list[Claim]:
    """Everything this section claims, with its numbers; about 6 seconds."""
    return [*_em(), *_weights(), *_passing()]


def _em() -> list[Claim]:
    small, wide = runs(), runs(6, 8, 4)
    every = small + wide
    steps = em_trees.steps(em_trees.random_trees(1000))
    local, future = (em_trees.cosine(x, steps.log_success) for x in (steps.local, steps.future))
    flat = em_trees.steps(em_trees.random_trees(2000, 3, 2))
    backwards = float((em_trees.cosine(flat.future, flat.log_success) < 0).mean())
    falls = {
        "1 parameter, 2 prompts": _share_falling(small),
        "4 parameters, 6 prompts": _share_falling(wide),
        "largest fall": -min(float(np.diff(r.mean_success).min()) for r in every),
    }
    return [
        Claim(
            SECTION,
            "log P(success) = bound + gap; the bound touches before each step.",
            "log P = sum_y q log(pi s / q) + KL(q || posterior)",
            {
                "identity, largest error": max(float(np.abs(r.identity).max()) for r in every),
                "touch, largest error": max(float(np.abs(r.touch).max()) for r in every),
            },
            all(np.abs([*r.identity, *r.touch]).max() < 1e-9 for r in every),
        ),
        Claim(
            SECTION,
            "Minimising the cross-entropy to the success posterior never lowers log P(success).",
            "sum_x log P_x along exact EM steps, classes with fewer parameters than answers",
            {"smallest change": min(float(np.diff(r.log_success).min()) for r in every)},
            all((np.diff(r.log_success) > -1e-9).all() for r in every),
        ),
        Claim(
            SECTION,
            "Nor does it ever lower the mean reward.",
            "share of runs with a fall of mean_x P_x",
            falls,
            falls["largest fall"] <= 0,
        ),
        Claim(
            SECTION,
            "DistIL's own step, on the student's states, is that EM step.",
            "cosine with grad log P(success); trees of 3 tokens, depth 3",
            {
                "local, mean cosine": float(local.mean()), "local, least": float(local.min()),
                "future, mean cosine": float(future.mean()), "future, least": float(future.min()),
                "future, share below 0 at depth 2": backwards,
            },
            float(min(local.min(), future.min())) > 1 - 1e-9,
        ),
    ]  # fmt: skip


def _share_falling(group: tuple[em.Run, ...]) -> float:
    return float(np.mean([(np.diff(r.mean_success) < -1e-9).any() for r in group]))


def _weights() -> list[Claim]:
    rates = np.array([0.001, 0.01, 0.1, 0.5])
    exact = {m: weights.weight(m, rates, ROLLOUTS) for m in weights.METHODS}
    numbers = {
        f"{m}, p {p:g}": float(w)
        for m, values in exact.items()
        for p, w in zip(rates, values, strict=True)
    }
    powers = {m: weights.fitted_power(m, 0.3 / ROLLOUTS, 0.5, ROLLOUTS) for m in weights.METHODS}
    rare = {m: weights.fitted_power(m, 1e-4, 0.1 / ROLLOUTS, ROLLOUTS) for m in weights.METHODS}
    return [
        Claim(
            SECTION,
            "The success posterior weighs a prompt by 1/p against the reward's gradient.",
            "grad log p = grad p / p",
            {"fitted power": rare["expert"]},
            abs(rare["expert"] + 1) < 1e-9,
        ),
        Claim(
            SECTION,
            "So do siblings as teachers, with groups of 8.",
            "weight (1 - (1 - p)^(N - 1)) / p <= N - 1",
            numbers
            | {"sibling, power at p > 0.04": powers["sibling"]}
            | {"sibling, power at p < 0.0125": rare["sibling"]},
            abs(rare["sibling"] + 1) < 0.1,
        ),
    ]


def _passing() -> list[Claim]:
    equal, budget = optima(), optima("kl")
    at = {f"{n}, pass@{k}": o.pass_at(k) for n, o in equal.items() for k in TRIES}
    paid = {f"{n}, KL": o.kl for n, o in equal.items()}
    means = {f"{n}, mean": o.mean for n, o in budget.items()}
    twins = float(np.abs(equal["reverse KL"].p - equal["reward"].p).max())
    blind = {
        f"{objective}, {what}": number
        for objective in ("log-success", "reward")
        for what, number in passing.matching(SHARES, 16, objective).items()
    }
    rivals = [o.pass_at(16) for n, o in equal.items() if n != "log-success (EM)"]
    return [
        Claim(
            SECTION,
            "At equal mean reward the optimum of log-success has the highest pass@N, N > 1.",
            "max sum_x F(p_x) - price * KL, price set so that the mean reward is 0.4",
            at | paid,
            equal["log-success (EM)"].pass_at(16) > max(rivals),
        ),
        Claim(
            SECTION,
            "It is as good in mean reward at equal KL from the start.",
            "the same, price set so that the mean KL is 0.3 nat",
            means,
            means["log-success (EM), mean"] >= means["reward, mean"] - 1e-3,
        ),
        Claim(
            SECTION,
            "Reverse KL to the success posterior has the reward's own optimum, and its pass@N.",
            "argmin kl(p || t) + price kl(p || b): logit p = logit b + a constant",
            {"largest difference of rates": twins},
            twins < 1e-9,
        ),
        Claim(
            SECTION,
            "A policy blind to its prompts matches their shares under log-success, and bets all on "
            "one strategy under the reward.",
            "max sum_s w_s log pi_s, max sum_s w_s pi_s; w = .40, .35, .25",
            blind,
            blind["log-success, pass@16"] > 2 * blind["reward, pass@16"]
            and blind["log-success, mean reward"] < blind["reward, mean reward"],
        ),
    ]
