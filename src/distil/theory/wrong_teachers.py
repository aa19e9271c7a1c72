"""Wrong teachers: where each objective breaks, and which gate saves it.

The worlds are `teachers`' (one right answer in five; feedback that is noisy, worse, or confident
and wrong), the training `following`'s (exact, 200 steps), the runs `trained`'s.

With one right answer no divergence has a first-order fall under a better teacher (`bandits`), so
what separates them here is what they make of *many* teachers: the forward cross-entropy ends at
their mean, reverse KL at their normalised geometric mean, which a scattered minority hardly moves.
Left out: sampling noise of the gradient (GRPO's most of all), live teachers, shared parameters.
"""

import numpy as np

from distil.theory import teachers
from distil.theory.claims import Claim
from distil.theory.divergences import reward
from distil.theory.following import ENTROPY_GATE, REWARD_GATE, Objective
from distil.theory.trained import (
    DIVERGENCES,
    PROMPT_GATE,
    SAMPLED_GATE,
    SAMPLED_PROMPT_GATE,
    SHORT,
    WRONG,
    at,
    at_each,
    best_threshold,
    break_even,
    geometric_mean_of_teachers,
    mean_of_teachers,
    outcome,
    start,
    taught,
    world,
)

SECTION = "wrong teachers"


def claims() -> list[Claim]:
    """Everything this section claims, with its numbers; about 20 seconds."""
    return [*_ends(), *_rewards_at_the_end(), *_entropy_gates(), *_reward_gates(), *_reward()]


def _ends() -> list[Claim]:
    """Where training ends, as a function of its teachers."""
    r, errors = world().r, {}
    for kind in teachers.LEVELS:
        ends = {"forward_cross_entropy": mean_of_teachers, "reverse_kl": geometric_mean_of_teachers}
        for objective, end in ends.items():
            found = outcome(kind, objective).reward
            gap = np.abs(found - reward(end(taught(kind)), r))
            errors[f"{SHORT[objective]}, {kind}"] = float(gap.max())
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
            "Forward cross-entropy ends at its teachers' mean, reverse KL at their geometric mean.",
            "max |J(end) - J(sum_f w_f q_f)|, |J(end) - J(prod_f q_f^w_f / Z)|",
            errors, max(errors.values()) < 1e-2,
        ),
        Claim(
            SECTION, "Logit steps end where policy-space steps do.",
            "largest difference of mean end rewards over the levels", logit,
            max(logit.values()) < 0.03,
        ),
    ]  # fmt: skip


def _rewards_at_the_end() -> list[Claim]:
    """How good that end is, by what is wrong with the teachers."""
    scattered = at_each((*DIVERGENCES, "sft"), "scattered", 0.5)
    systematic = at_each((*DIVERGENCES, "sft"), "systematic", 0.5)
    even = {
        f"{SHORT[o]}, {kind}": break_even(kind, outcome(kind, o))
        for kind in ("noise", "worse", *WRONG)
        for o in DIVERGENCES
    }
    noisy = at_each(DIVERGENCES, "logits", 4.0)
    spread = [systematic[SHORT[o]] for o in DIVERGENCES]
    return [
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
            SECTION, "Forward cross-entropy averages zero-mean noise on the teacher's logits away.",
            "end reward at 4 nats of noise; the teacher without noise has 0.94", noisy,
            noisy["forward"] > 0.85,
        ),
        Claim(
            SECTION,
            "Told wrong answers over four times in five, all objectives end below their start.",
            "level (share of wrong feedback; of noise; trust lost) where end = start", even,
            all(even[f"{SHORT[o]}, {kind}"] < 0.8 + 1e-6 for o in DIVERGENCES for kind in WRONG),
        ),
    ]  # fmt: skip


def _entropy_gates() -> list[Claim]:
    """Gates that look at how unsure the teacher is."""
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
    ]  # fmt: skip


def _reward_gates() -> list[Claim]:
    """Gates that ask which teacher is better than the student, known or sampled."""
    forward: Objective = "forward_cross_entropy"
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
            SECTION,
            "Forward cross-entropy in policy space with a reward gate never falls, whatever the "
            "teachers.",
            "lowest dJ on the way = sum_f w_f max(J(q_f) - J(p), 0) >= 0", lowest,
            min(v for n, v in lowest.items() if n.startswith("forward")) > -1e-12,
        ),
        Claim(
            SECTION, "A reward gate on each feedback's own teacher keeps what honest ones teach.",
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
    gate: dict[str, float] = {}
    for kind in WRONG:
        both |= at(kind, 0.5, outcome(kind, "grpo"), f"{kind}, grpo")
        both |= at(kind, 0.5, outcome(kind, "forward+grpo"), f"{kind}, no gate")
        gated = outcome(kind, "forward+grpo", SAMPLED_PROMPT_GATE)
        gate |= at(kind, 0.5, gated, kind)
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
            "the same; prompt's mean, teacher's 2 answers against the student's 8", gate,
            min(gate[kind] for kind in WRONG) > 0.95,
        ),
        Claim(
            SECTION,
            "An honest teacher beats the reward's exact gradient to it; one 30% wrong does not.",
            "reward after 10 and 20 steps at one rate, policy space", early,
            early["forward, 0 wrong, step 20"] > early["grpo, 0 wrong, step 20"]
            and early["forward, 0.3 wrong, step 20"] < early["grpo, 0.3 wrong, step 20"],
        ),
    ]  # fmt: skip
