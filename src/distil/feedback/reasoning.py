"""Checks an answer to a reasoning-gym problem by the dataset's own verifier.

dataset = reasoning_gym.create_dataset("gcd", seed=1, size=1)
check_reasoning("It is 6", "gcd", dataset[0], extract="last_number")

Several verifiers hand the answer to `eval` or to sympy's parser, so that a model's text could hang
the trainer or run in it: they're run in another process, within `cpu_s` seconds of computing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distil.feedback import answers
from distil.feedback.deadline import CPU_S, Outcome, shared
from distil.feedback.extract import read_answer
from distil.feedback.gym import as_json
from distil.types import SUCCESS_REWARD, Feedback

SCORE = "distil.feedback.gym:score"
WORTHLESS = 0.1
"""A score below this is called wrong in the report, and not so many marks of 1."""


def check_reasoning(
    completion: str,
    name: str,
    entry: Mapping[str, Any],
    *,
    options: Mapping[str, Any] | None = None,
    extract: str = "whole",
    reveal: bool = False,
    cpu_s: float = CPU_S,
) -> Feedback:
    """The score that the dataset `name` (made with `options`) gives to the answer, 0 to 1.

    Partial marks are scaled to stay below SUCCESS_REWARD: reasoning-gym gives half marks to "15"
    where 5 is right, and that must not pass for a correct solution. A verifier that raises on an
    odd answer gives reward None: masked and counted, not a 0. `extract` says which part of the
    completion is the answer (thinking is not looked at); reveal: whether the report names the
    dataset's own.
    """
    return check_reasoning_all(
        [completion], name, [entry], options=options, extract=extract, reveal=reveal, cpu_s=cpu_s
    )[0]


def check_reasoning_all(
    completions: Sequence[str],
    name: str,
    entries: Sequence[Mapping[str, Any]],
    *,
    options: Mapping[str, Any] | None = None,
    extract: str = "whole",
    reveal: bool = False,
    cpu_s: float = CPU_S,
) -> list[Feedback]:
    """`check_reasoning` of each completion with its entry, side by side."""
    reads = [read_answer(completion, extract) for completion in completions]
    made = json.dumps(dict(options or {}), sort_keys=True)
    calls = [
        (read, name, made, as_json(entry))
        for read, entry in zip(reads, entries, strict=True)
        if read is not None
    ]
    outcomes = iter(shared(SCORE).map(calls, cpu_s=cpu_s))
    return [
        judged(name, read, None if read is None else next(outcomes), entry["answer"], reveal)
        for read, entry in zip(reads, entries, strict=True)
    ]


def demonstration(answer: str | None) -> str | None:
    """A sentence with the answer; None for datasets that know none, only how to check one.

    A bare number as "solution" helps the embedded model half as often as this sentence does, and
    these words are the ones it uses itself, so that the teacher differs in the answer alone.
    """
    return None if answer is None else f"{answers.DEMONSTRATION} {answer}."


def judged(
    name: str, read: str | None, outcome: Outcome | None, answer: str | None, reveal: bool
) -> Feedback:
    """The Feedback for what was read and how scoring it ended."""
    shown, gold = demonstration(answer), answer if reveal else None
    if read is None or outcome is None:
        return answers.wrong(name, shown, None, answers.ABSENT, gold=gold)
    if outcome.fault is not None:
        return answers.unjudged(name, shown, read, outcome, gold=gold)
    score = outcome.value
    if score != score:
        return answers.wrong(name, shown, read, answers.NO_SCORE, gold=gold, reward=None)
    if score >= 1:
        return answers.right(name, shown)
    why = answers.WRONG if score < WORTHLESS else f"It scores {score:.2f} of 1."
    return answers.wrong(name, shown, read, why, gold=gold, reward=score * SUCCESS_REWARD)
