"""What the tables of the token trees bear out: one claim each, on random trees.

Each claim's numbers are medians over trees unless they say otherwise. Left out: how they come about
(`trees`, `estimators`, `stock`, `treebias`).
"""

from collections.abc import Sequence

import numpy as np

from distil.theory.claims import Claim
from distil.theory.treebias import (
    PUBLISHED_COSINES,
    SIZES,
    SUPPORT,
    Row,
    cost_of_correction,
    covered,
    estimator_table,
    largest_difference,
    mean_cosines,
    overtaken,
    sweep,
    variances,
)

SECTION = "token trees"


def claims() -> list[Claim]:
    """What the table bears out."""
    found = sweep()
    table = estimator_table(found)
    return [*_exact(found, table), *_biased(found, table), *_supports(found, table), *_lengths()]


def _exact(found: Sequence[dict[str, Row]], table: dict[str, Row]) -> list[Claim]:
    slope = largest_difference()
    exact = ("sum (exact)", "sum, baseline", "stale, prefix ratio")
    worst = max(rows[name].bias for rows in found for name in exact)
    ratios = [rows["sum, baseline"].variance for rows in found]
    return [
        Claim(
            SECTION,
            "Local and future credit are the gradient of the objective.",
            "dL/dz = d(s) dc/dz + d(s) p_a (U(sa) - E U)",
            {"largest error": slope},
            slope < 1e-8,
        ),
        Claim(
            SECTION,
            "`sum`, with a leave-one-out baseline or without, and prefix ratios have no bias.",
            "E[g] = grad L",
            {"largest relative bias": worst},
            worst < 1e-10,
        ),
        Claim(
            SECTION,
            "The leave-one-out baseline lowers the variance (groups of two).",
            "score_t = G_t - G_t'",
            {"variance / sum's": table["sum, baseline"].variance, "worst tree": max(ratios)},
            max(ratios) < 1,
        ),
    ]


def _biased(found: Sequence[dict[str, Row]], table: dict[str, Row]) -> list[Claim]:
    """Scales, discounts, endings and ratios that bend the gradient."""

    def bias(name: str) -> float:
        return table[name].bias

    def beats(unbiased: str, biased: str) -> float:
        return float(np.median([overtaken(rows, biased, unbiased) for rows in found]))

    wins = {
        "sum beats mean": beats("sum (exact)", "mean (published)"),
        "the same with baselines": beats("sum, baseline", "mean, baseline"),
        "sum, baseline beats local": beats("sum, baseline", "local credit only"),
    }
    corrected = {f"{n} tokens": cost_of_correction(n) for n in (3, 5, 8)}
    plain, centred = (f"sum{b}, no score at endings" for b in ("", ", baseline"))
    return [
        Claim(
            SECTION,
            "Without a baseline, leaving endings without a score changes nothing.",
            "G_t = 0 at an ending",
            {"relative bias": bias(plain)},
            bias(plain) < 1e-12,
        ),
        Claim(
            SECTION,
            "With a baseline it does, and is biased (so `credit_end: false` needs a baseline).",
            "score = -G_t' at an ending, taken away",
            {"relative bias": bias(centred), "variance / sum's": table[centred].variance},
            bias(centred) > 0.05,
        ),
        Claim(
            SECTION,
            "A discount below 1 trades bias for variance.",
            "G_t = sum d^(i-t-1) c_i",
            {
                "bias at .9": bias("discount 0.9"),
                "bias at .5": bias("discount 0.5"),
                "variance at .5": table["discount 0.5"].variance,
            },
            0 < bias("discount 0.9") < bias("discount 0.5") and table["discount 0.5"].variance < 1,
        ),
        Claim(
            SECTION,
            "Token ratios leave a bias that prefix ratios don't have, until these are cut.",
            "rho_t instead of prod_{i<t} rho_i",
            {
                "no ratio": bias("stale, no ratio"),
                "token": bias("stale, token ratio"),
                "token <= 2": bias("stale, token ratio <= 2"),
                "prefix <= 2": bias("stale, prefix ratio <= 2"),
            },
            bias("stale, no ratio") > bias("stale, token ratio") > 0.01,
        ),
        _noise(),
        Claim(
            SECTION,
            "Correcting old rollouts exactly costs variance, the more the longer they are.",
            "prod_{i<t} rho_i on c_t, over fresh ones'",
            corrected,
            1 < corrected["3 tokens"] < corrected["8 tokens"],
        ),
        Claim(
            SECTION,
            "The exact `sum` errs less than `mean` from 8 rollouts a prompt on.",
            "bias^2 + variance / n: rollouts n",
            wins,
            wins["the same with baselines"] <= 8,
        ),
    ]


def _noise() -> Claim:
    """How much noise future credit adds, by length."""
    short, long = variances(3), variances(8)
    names = {"sum (exact)": "sum", "sum, baseline": "sum, baseline", "mean (published)": "mean"}
    numbers = {
        f"{label}, {n} tokens": found[name] / found["local credit only"]
        for name, label in names.items()
        for n, found in ((3, short), (8, long))
    }
    return Claim(
        SECTION,
        "`sum` is noisier than local credit alone, the more the longer; `mean` stays near.",
        "variance / local credit's",
        numbers,
        numbers["sum, 8 tokens"] > 2 * numbers["sum, 3 tokens"]
        and numbers["mean, 8 tokens"] < 1.5 * numbers["mean, 3 tokens"],
    )


def _supports(found: Sequence[dict[str, Row]], table: dict[str, Row]) -> list[Claim]:
    own, other = covered()
    names = [
        f"{w}'s top {SUPPORT}, {c}" for w in ("teacher", "student") for c in ("tail", "rescaled")
    ]
    best = np.mean([min(names, key=lambda n: rows[n].bias) == names[0] for rows in found])
    return [
        Claim(
            SECTION,
            "The teacher's top K with a tail is the least biased support.",
            "K = 2 of 5 tokens",
            {"share of trees": float(best), **{n: table[n].bias for n in names}},
            best == 1,
        ),
        Claim(
            SECTION,
            "The student's top K misses what the teacher wants.",
            "teacher's probability inside",
            {"teacher's top 2": own, "student's top 2": other},
            own > other + 0.2,
        ),
    ]


def _lengths() -> list[Claim]:
    rows = []
    inside, lowest = True, 1.0
    for (vocabulary, length), published in zip(SIZES, PUBLISHED_COSINES, strict=True):
        full = mean_cosines(vocabulary, length, early_stop=False, trees=60)
        early = mean_cosines(vocabulary, length, early_stop=True, trees=60)
        low, middle, high = np.percentile(full, [2.5, 50, 97.5])
        inside = inside and low <= published <= high
        lowest = min(lowest, float(np.percentile(early, 5)))
        size = f"({vocabulary},{length})"
        rows.append({f"{size} median": float(middle), f"{size} low": float(low)})
    numbers = {k: v for row in rows for k, v in row.items()}
    return [
        Claim(
            SECTION,
            "`mean` is biased, the more the longer: cosines of .990, .986, .943 and .894 "
            "measured on four trees before are ordinary ones (95% of trees).",
            "G_t / number of later tokens, (V, length)",
            numbers,
            inside,
        ),
        Claim(
            SECTION,
            "Those cosines are about the lowest that `mean` has, with early ends too.",
            "the same",
            {"5% of trees below": lowest},
            lowest > 0.85,
        ),
    ]
