"""Any reasoning-gym dataset, by name and options: procedural problems with verifiers.

Problems are drawn from one stream, made distinct by their question, shuffled and split, so that no
held-out question was trained on. Left out: curricula and composite datasets.
"""

import dataclasses
import random
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from distil.config import TaskConfig
from distil.errors import TaskError, perhaps
from distil.tasks.extract import EXTRACTORS
from distil.types import SUCCESS_REWARD, Feedback, Problem

# Draws before giving up on finding another distinct question: a small space repeats itself.
DRAWS_PER_PROBLEM = 30

# A bare number as "solution" helps the embedded model half as often as this sentence does, and
# these words are the ones it uses itself, so that the teacher differs in the answer alone.
DEMONSTRATION = "The final answer is"


class ReasoningTask:
    """A reasoning-gym dataset as a Task. Raises TaskError for an unknown name or option."""

    def __init__(self, config: TaskConfig) -> None:
        self.instruction = config.instruction
        self.read = EXTRACTORS[config.extract]
        self._name = config.name
        self._dataset = _create(config)
        problems = _distinct(self._dataset, config)
        self.heldout = problems[: config.eval_size]
        self.train = problems[config.eval_size :]

    def check(self, problem: Problem, completion: str) -> Feedback:
        """The dataset's own score (0 to 1) of the answer read from the completion.

        Partial marks are scaled to stay below SUCCESS_REWARD: reasoning-gym gives half marks to
        "15" where 5 is right, and that must not pass for a correct solution.

        A verifier that raises on an odd answer gives reward None: masked and counted, not a 0.
        """
        answer = self.read(completion)
        # Some datasets know no answer of their own, only how to check one.
        demonstration = None if problem.answer is None else f"{DEMONSTRATION} {problem.answer}."
        if answer is None:
            text = "No answer could be read from the attempt."
            return Feedback(0.0, text, demonstration, self._name)
        try:
            score = float(self._dataset.score_answer(answer, problem.data["entry"]))
        except Exception as error:  # a third-party verifier, one boundary; counted as ungraded
            text = (
                f"The answer was read as {answer!r}, which the verifier couldn't judge ({error})."
            )
            return Feedback(None, text, demonstration, self._name)
        if score >= 1:
            return Feedback(1.0, None, demonstration, self._name)
        verdict = "It is wrong." if score < 0.1 else f"It scores {score:.2f} of 1."
        text = f"The answer was read as {answer!r}. {verdict}"
        return Feedback(score * SUCCESS_REWARD, text, demonstration, self._name)


def _create(config: TaskConfig) -> Any:
    """The dataset object, its name and options checked first."""
    if config.name not in DATASETS:
        raise TaskError(
            f"There is no reasoning-gym dataset {config.name!r}.{perhaps(config.name, DATASETS)}"
        )
    known = {f.name for f in dataclasses.fields(DATASETS[config.name][1])} - {"seed", "size"}
    for option in config.options:
        if option not in known:
            raise TaskError(
                f"The dataset {config.name!r} has no option {option!r}.{perhaps(option, known)}"
            )
    size = DRAWS_PER_PROBLEM * (config.train_size + config.eval_size)
    # Problem i is drawn from seed + i, so neighbouring seeds would share nearly all problems.
    seed = random.Random(f"problems/{config.name}/{config.seed}").getrandbits(31)
    try:
        return reasoning_gym.create_dataset(config.name, seed=seed, size=size, **config.options)
    except (AssertionError, TypeError, ValueError) as error:
        raise TaskError(
            f"The dataset {config.name!r} refuses the options {dict(config.options)}: {error}"
        ) from error


def _distinct(dataset: Any, config: TaskConfig) -> list[Problem]:
    """train_size + eval_size distinct problems in a shuffled order that the seed decides."""
    wanted = config.train_size + config.eval_size
    entries: dict[str, dict[str, Any]] = {}
    for index in range(len(dataset)):
        entry = dataset[index]
        entries.setdefault(entry["question"], entry)
        if len(entries) == wanted:
            break
    if len(entries) < wanted:
        raise TaskError(
            f"The dataset {config.name!r} with options {dict(config.options)} gave only "
            f"{len(entries)} distinct questions in {len(dataset)} draws, and task.train_size + "
            f"task.eval_size ask for {wanted}. Lower them, or widen the options."
        )
    problems = [
        Problem(f"{config.name}-{i:05d}", question, entry["answer"], {"entry": entry})
        for i, (question, entry) in enumerate(entries.items())
    ]
    random.Random(f"split/{config.name}/{config.seed}").shuffle(problems)
    return problems
