"""Prompts, students and teachers that feedback makes right, noisy, worse, or confident and wrong.

X prompts, A answers, one of them right (reward 1). A feedback f names an answer, and its teacher is
the student who trusts it, frozen: q_f(a) = p(a) exp(trust * [a = f]) / Z. Each prompt is met often,
with feedback drawn anew; so a teacher is a set of F distributions with chances w, at each of L
levels of a corruption:

    noise       (1 - level) q_right + level * uniform
    logits      log q_right + level * normal noise, drawn for each of 16 feedbacks
    worse       trust falls with the level, below 0: the feedback argues against the right answer
    scattered   with chance `level` the feedback names some wrong answer, any of them, confidently
    systematic  a share `level` of the prompts is always told one and the same wrong answer

`demonstrations` are the named answers themselves, one-hot: what SFT learns. Left out: live teachers
(that follow the student), sampling noise, parameters shared between prompts.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distil.theory.costs import Array, softmax

Corruption = Literal["noise", "logits", "worse", "scattered", "systematic"]
LEVELS: dict[Corruption, tuple[float, ...]] = {
    "noise": (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0),
    "logits": (0.0, 1.0, 2.0, 3.0, 4.0, 6.0),
    "worse": (0.0, 2.0, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0),
    "scattered": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "systematic": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
}
"""Levels of each; of `worse`, the trust lost of TRUST, in nats."""
TRUST, DRAWS = 4.0, 16


@dataclass(frozen=True)
class World:
    """Students before training; p and r are [X, A], right [X]."""

    p: Array
    r: Array
    right: np.ndarray
    wrong: np.ndarray  # [X] the wrong answer that a systematic error names


@dataclass(frozen=True)
class Teachers:
    """At each level: distributions [L, X, F, A], their chances [L, X, F]; demonstrations as q."""

    levels: tuple[float, ...]
    q: Array
    w: Array
    demonstrations: Array


def world(prompts: int = 100, answers: int = 5, seed: int = 0) -> World:
    """Normal logits, with one nat more for the right answer: a mean reward of about 0.36."""
    generator = np.random.default_rng([seed, prompts])
    right = generator.integers(answers, size=prompts)
    wrong = (right + generator.integers(1, answers, size=prompts)) % answers
    r = np.eye(answers)[right]
    logits = generator.standard_normal((prompts, answers)) + r
    return World(softmax(logits), r, right, wrong)


def trusting(p: Array, named: Array, trust: float) -> Array:
    """q(a) = p(a) exp(trust * named_a) / Z; [..., A]."""
    q = p * np.exp(trust * named)
    return q / q.sum(-1, keepdims=True)


def corrupted(world: World, kind: Corruption, seed: int = 0) -> Teachers:
    """The teachers of every level of one corruption."""
    levels = LEVELS[kind]
    if kind in ("scattered", "systematic"):
        return _wrong(world, levels, scattered=kind == "scattered")
    honest = trusting(world.p, world.r, TRUST)
    answers = world.p.shape[-1]
    if kind == "noise":
        q = np.stack([(1 - x) * honest + x / answers for x in levels])[:, :, None]
    elif kind == "worse":
        q = np.stack([trusting(world.p, world.r, TRUST - x) for x in levels])[:, :, None]
    else:
        shape = (len(world.p), DRAWS, answers)
        noise = np.random.default_rng([seed, 11]).standard_normal(shape)
        q = np.stack([trusting(honest[:, None], noise, x) for x in levels])
    demonstrations = np.broadcast_to(world.r[None, :, None], q.shape)
    return Teachers(levels, q, np.full(q.shape[:-1], 1 / q.shape[-2]), demonstrations)


def _wrong(world: World, levels: tuple[float, ...], *, scattered: bool) -> Teachers:
    """One feedback for each answer that it may name, with its chance."""
    prompts, answers = world.p.shape
    named = np.broadcast_to(np.eye(answers), (len(levels), prompts, answers, answers))
    q = trusting(world.p[None, :, None], named, TRUST)
    w = np.empty((len(levels), prompts, answers))
    for i, level in enumerate(levels):
        if scattered:
            w[i] = level / (answers - 1) + (1 - level - level / (answers - 1)) * world.r
        else:
            misled = np.arange(prompts) < round(level * prompts)
            w[i] = np.eye(answers)[np.where(misled, world.wrong, world.right)]
    return Teachers(levels, q, w, named)
