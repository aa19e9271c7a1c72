"""Wrong teachers: where each objective breaks, and which gate saves it.

The worlds are `teachers`' (one right answer in five; feedback that is noisy, worse, or confident
and wrong), the training `following`'s (exact, 200 steps). Every mean over the 100 prompts comes
with the half-width of its 95% interval ("±").

With one right answer no divergence has a first-order fall under a better teacher (`bandits`), so
what separates them here is what they make of *many* teachers: the forward cross-entropy ends at
their mean, reverse KL at their normalised geometric mean, which a scattered minority hardly moves.
Left out: sampling noise of the gradient (GRPO's most of all), live teachers, shared parameters.
"""

from functools import cache

import numpy as np

from distil.theory import following, teachers
from distil.theory.claims import Claim
from distil.theory.divergences import Array, Geometry, reward
from distil.theory.following import (
    ENTROPY_GATE,
    NO_GATE,
    REWARD_GATE,
    Gate,
    Objective,
    Outcome,
)
from distil.theory.teachers import Corruption

SECTION = "wrong teachers"
PROMPT_GATE = Gate("reward", each=False)
SAMPLED_GATE = Gate("reward", probes=2)
SAMPLED_PROMPT_GATE = Gate("reward", each=False, probes=2)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2)
DIVERGENCES: tuple[Objective, ...] = ("forward_cross_entropy", "jensen_shannon", "reverse_kl")
WRONG: tuple[Corruption, ...] = ("scattered", "systematic")
SHORT: dict[str, str] = {
    "forward_cross_entropy": "forward", "reverse_kl": "reverse", "jensen_shannon": "js",
    "sft": "sft", "grpo": "grpo", "forward+grpo": "forward+grpo",
}  # fmt: skip


@cache
def world() -> teachers.World:
    """The prompts of all claims."""
    return teachers.world()


@cache
def taught(kind: Corruption) -> teachers.Teachers:
    """Their teachers, at each level."""
    return teachers.corrupted(world(), kind)


@cache
def outcome(
    kind: Corruption,
    objective: Objective,
    gate: Gate = NO_GATE,
    geometry: Geometry = "policy",
    steps: int = following.STEPS,
) -> Outcome:
    """One training run for each prompt and level."""
    return following.follow(world(), taught(kind), objective, gate, geometry, steps)


def start() -> float:
    """The students' mean reward before training."""
    return float(reward(world().p, world().r).mean())


def at(kind: Corruption, level: float, result: Outcome, name: str) -> dict[str, float]:
    """The mean reward at one level, and its half-width, as numbers of a claim."""
    i = taught(kind).levels.index(level)
    return {name: float(result.mean()[i]), f"{name} ±": float(result.half_width()[i])}


def break_even(kind: Corruption, result: Outcome) -> float:
    """The lowest level, interpolated, from which training ends below the start; nan if it never does."""
    levels, lead = taught(kind).levels, result.mean() - start()
    for i in range(1, len(levels)):
        if lead[i] < -1e-3 <= lead[i - 1]:
            share = lead[i - 1] / (lead[i - 1] - lead[i])
            return levels[i - 1] + float(share) * (levels[i] - levels[i - 1])
    return float("nan")


def mean_of_teachers(t: teachers.Teachers) -> Array:
    """sum_f w_f q_f: the forward cross-entropy's end; [L, X, A]."""
    return (t.w[..., None] * t.q).sum(-2)


def geometric_mean_of_teachers(t: teachers.Teachers) -> Array:
    """prod_f q_f^(w_f) / Z: reverse KL's end; [L, X, A]."""
    logs = (t.w[..., None] * np.log(t.q)).sum(-2)
    return np.exp(logs - np.logaddexp.reduce(logs, -1, keepdims=True))


def claims() -> list[Claim]:
    """Everything this section claims, with its numbers; about 20 seconds."""
    return [*_ends(), *_gates(), *_reward()]


def _ends() -> list[Claim]:
    r, errors = world().r, {}
    for kind in teachers.LEVELS:
        ends = {"forward_cross_entropy": mean_of_teachers, "reverse_kl": geometric_mean_of_teachers}
        for objective, end in ends.items():
            found = outcome(kind, objective).reward  # type: ignore[arg-type]
            gap = np.abs(found - reward(end(taught(kind)), r))
            errors[f"{SHORT[objective]}, {kind}"] = float(gap.max())
    scattered = _at_each(DIVERGENCES + ("sft",), "scattered", 0.5)
    systematic = _at_each(DIVERGENCES + ("sft",), "systematic", 0.5)
    even = {
        f"{SHORT[o]}, {kind}": break_even(kind, outcome(kind, o))
        for kind in ("noise", "worse", *WRONG)
        for o in DIVERGENCES
    }
    noisy = _at_each(DIVERGENCES, "logits", 4.0)
    spread = [systematic[SHORT[o]] for o in DIVERGENCES]
    logit = {
        f"{SHORT[o]}, {kind}": float(
            np.abs(outcome(kind, o).mean() - outcome(kind, o, geometry="logit").mean()).max()
        )
        for kind in ("noise", *WRONG)
        for o in DIVERGENCES
    }
    return [
        Claim(
            SECTION,
            "Forward cross-entropy ends at the mean of its teachers, reverse KL at their normalised "
            "geometric mean.",
            "max |J(end) - J(sum_f w_f q_f)|, |J(end) - J(prod_f q_f^w_f / Z)|",
            errors, max(errors.values()) < 1e-2,
        ),
        Claim(
            SECTION, "Logit steps end where policy-space steps do.",
            "largest difference of mean end rewards over the levels", logit,
            max(logit.values()) < 0.03,
        ),
        Claim(
            SECTION,
            "Half of the feedback confident and wrong, errors scattered: the forward cross-entropy "
            "stands it as well as its rivals.",
            "end reward; a wrong answer drawn anew each time", {"start": start()} | scattered,
            scattered["forward"] >= max(scattered["js"], scattered["reverse"]),
        ),
        Claim(
            SECTION,
            "Half of the prompts always told one and the same wrong answer: no divergence helps.",
            "end reward", systematic, max(spread) - min(spread) < 0.01,
        ),
        Claim(
            SECTION, "Zero-mean noise on the teacher's logits: the forward cross-entropy averages it away.",
            "end reward at 4 nats of noise; the teacher without noise has 0.94", noisy,
            noisy["forward"] > 0.85,
        ),
        Claim(
            SECTION, "No objective ends above its start once most of what it is told is wrong.",
            "level (share of wrong feedback; of noise; trust lost) where end = start", even,
            all(even[f"{SHORT[o]}, {kind}"] < 0.85 for o in DIVERGENCES for kind in WRONG),
        ),
    ]  # fmt: skip


def _at_each(
    objectives: tuple[Objective, ...], kind: Corruption, level: float, gate: Gate = NO_GATE
) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for o in objectives:
        numbers |= at(kind, level, outcome(kind, o, gate), SHORT[o])
    return numbers


def best_threshold(kind: Corruption, level: float) -> tuple[float, float, float]:
    """(threshold, end reward there, its end reward with honest feedback) of the best entropy gate."""
    i = taught(kind).levels.index(level)
    results = {
        m: outcome(kind, "forward_cross_entropy", Gate("entropy", maximum=m)).mean()
        for m in THRESHOLDS
    }
    best = max(THRESHOLDS, key=lambda m: results[m][i])
    return best, float(results[best][i]), float(results[best][0])


def _gates() -> list[Claim]:
    forward: Objective = "forward_cross_entropy"
    noise = at("noise", 1.0, outcome("noise", forward), "no gate")
    noise |= at("noise", 1.0, outcome("noise", forward, ENTROPY_GATE), "entropy gate")
    lies: dict[str, float] = {}
    for kind in WRONG:
        lies |= at(kind, 0.5, outcome(kind, forward), f"{kind}, no gate")
        lies |= at(kind, 0.5, outcome(kind, forward, ENTROPY_GATE), f"{kind}, entropy gate")
        threshold, there, honest = best_threshold(kind, 0.5)
        lies |= {f"{kind}, best threshold": threshold, f"{kind}, reward there": there}
        lies[f"{kind}, at best threshold and honest feedback"] = honest
    lowest = {
        f"{SHORT[o]}, {kind}": float(outcome(kind, o, REWARD_GATE).lowest.min())
        for o in DIVERGENCES for kind in teachers.LEVELS
    }  # fmt: skip
    saved: dict[str, float] = {"start": start()}
    for kind in WRONG:
        for name, gate in (("each", REWARD_GATE), ("prompt's mean", PROMPT_GATE)):
            saved |= at(kind, 0.5, outcome(kind, forward, gate), f"{kind}, {name}")
    sampled: dict[str, float] = {}
    for kind in WRONG:
        for name, gate in (("each", SAMPLED_GATE), ("prompt's mean", SAMPLED_PROMPT_GATE)):
            sampled |= at(kind, 0.5, outcome(kind, forward, gate), f"{kind}, {name}")
    return [
        Claim(
            SECTION, "An entropy gate stops at a teacher that is all noise.",
            "end reward, uniform teacher; gate H(q) <= 0.8 nat", noise | {"start": start()},
            noise["entropy gate"] > start() - 1e-9 > noise["no gate"],
        ),
        Claim(
            SECTION, "An entropy gate saves the student from confident and wrong teachers.",
            "end reward, half wrong; any threshold", lies,
            all(lies[f"{kind}, reward there"] > 0.85 for kind in WRONG),
        ),
        Claim(
            SECTION,
            "Forward cross-entropy in policy space with a reward gate never falls, whatever the "
            "teachers.",
            "lowest dJ on the way = sum_f w_f max(J(q_f) - J(p), 0) >= 0", lowest,
            min(v for n, v in lowest.items() if n.startswith("forward")) > -1e-12,
        ),
        Claim(
            SECTION, "A reward gate on each feedback's own teacher keeps what the honest ones teach.",
            "end reward, half wrong", saved,
            saved["scattered, each"] > 0.9 and saved["systematic, each"] > saved["start"],
        ),
        Claim(
            SECTION,
            "A reward gate on a prompt's mean, from two sampled answers a step, saves it too.",
            "end reward, half wrong; teacher's 2 against the student's 8", sampled,
            sampled["scattered, prompt's mean"] > 0.85,
        ),
    ]  # fmt: skip


def _reward() -> list[Claim]:
    both: dict[str, float] = {}
    for kind in WRONG:
        both |= at(kind, 0.5, outcome(kind, "grpo"), f"{kind}, grpo")
        both |= at(kind, 0.5, outcome(kind, "forward+grpo"), f"{kind}, no gate")
        gated = outcome(kind, "forward+grpo", SAMPLED_PROMPT_GATE)
        both |= at(kind, 0.5, gated, f"{kind}, sampled gate of the prompt")
    early = {
        f"{SHORT[o]}, {share:g} wrong, step {steps}": float(
            outcome("scattered", o, steps=steps).mean()[taught("scattered").levels.index(share)]
        )
        for o in (*DIVERGENCES, "sft", "grpo")
        for share in (0.0, 0.3) for steps in (10, 20)
    }  # fmt: skip
    return [
        Claim(
            SECTION, "Adding GRPO's advantage saves it without a gate.",
            "end reward, half wrong; slope -q/p - r", both, both["scattered, no gate"] > 0.85,
        ),
        Claim(
            SECTION, "With a gate, even a sampled one, it does.",
            "the same, teacher's 2 answers against the student's 8", both,
            min(both[f"{kind}, sampled gate of the prompt"] for kind in WRONG) > 0.95,
        ),
        Claim(
            SECTION,
            "An honest teacher is faster than the reward's exact gradient; with 30% wrong it is not.",
            "reward after 10 and 20 steps at one rate, policy space", early,
            early["forward, 0 wrong, step 20"] > early["grpo, 0 wrong, step 20"]
            and early["forward, 0.3 wrong, step 20"] < early["grpo, 0.3 wrong, step 20"],
        ),
    ]  # fmt: skip
