"""Any reasoning-gym dataset, by name and options: procedural problems with verifiers.

Problems are drawn from one stream, made distinct by their question, shuffled and split, so that no
held-out question was trained on. Left out: curricula and composite datasets, and how an answer is
scored (`distil.feedback.reasoning`).
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from distil.config import TaskConfig
from distil.errors import TaskError, perhaps
from distil.feedback.extract import EXTRACTORS, read_answer
from distil.feedback.reasoning import check_reasoning_all
from distil.tasks import DRAWS_PER_PROBLEM, parts, problems_wanted
from distil.types import Feedback, Problem

PROBED = 5
"""Problems whose own answers are read and scored before a task is handed out."""


class ReasoningTask:
    """A reasoning-gym dataset as a Task.

    Raises TaskError for an unknown name or option, and where `extract` or the dataset's verifier
    doesn't give the dataset's own answers full marks: nothing could be learnt from it.
    """

    def __init__(self, config: TaskConfig) -> None:
        self.system, self.instruction = config.system, config.instruction
        self._config = config
        dataset = _create(config)
        problems = _distinct(dataset, config)
        _check_gold(dataset, problems[:PROBED], config)
        self.heldout, self.validation, self.train = parts(problems, config)

    def facts(self) -> dict[str, Any]:
        """Nothing: answers are judged alike everywhere."""
        return {}

    def read(self, completion: str) -> str | None:
        """What counts as the completion's answer: by task.extract, thinking taken out."""
        return read_answer(completion, self._config.extract)

    def check(self, problem: Problem, completion: str) -> Feedback:
        """The dataset's own score of the answer read from the completion."""
        return self.check_all([problem], [completion])[0]

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """`distil.feedback.reasoning`'s verdicts, scored side by side."""
        return check_reasoning_all(
            completions,
            self._config.name,
            [problem.data["entry"] for problem in problems],
            options=self._config.options,
            extract=self._config.extract,
        )


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
    size = DRAWS_PER_PROBLEM * problems_wanted(config)
    # Problem i is drawn from seed + i, so neighbouring seeds would share nearly all problems.
    seed = random.Random(f"problems/{config.name}/{config.seed}").getrandbits(31)
    try:
        return reasoning_gym.create_dataset(config.name, seed=seed, size=size, **config.options)
    except (AssertionError, TypeError, ValueError) as error:
        raise TaskError(
            f"The dataset {config.name!r} refuses the options {dict(config.options)}: {error}"
        ) from error


def _distinct(dataset: Any, config: TaskConfig) -> list[Problem]:
    """As many distinct problems as are asked for, in a shuffled order that the seed decides."""
    wanted = problems_wanted(config)
    entries: dict[str, dict[str, Any]] = {}
    for index in range(len(dataset)):
        entry = dataset[index]
        entries.setdefault(entry["question"], entry)
        if len(entries) == wanted:
            break
    if len(entries) < wanted:
        raise TaskError(
            f"The dataset {config.name!r} with options {dict(config.options)} gave only "
            f"{len(entries)} distinct questions in {len(dataset)} draws, and task.train_size, "
            f"validation_size and eval_size ask for {wanted}. Lower them, or widen the options."
        )
    problems = [
        Problem(f"{config.name}-{i:05d}", question, entry["answer"], {"entry": entry})
        for i, (question, entry) in enumerate(entries.items())
    ]
    random.Random(f"split/{config.name}/{config.seed}").shuffle(problems)
    return problems


def _check_gold(dataset: Any, problems: Sequence[Problem], config: TaskConfig) -> None:
    """Raises TaskError unless the problems' own answers, written as asked, get full marks.

    Scored here and now: these answers aren't a model's.
    """
    for problem in problems:
        if problem.answer is not None and not _survives(dataset, problem, config.extract):
            fine = [name for name in EXTRACTORS if _survives(dataset, problem, name)]
            fix = (
                f"Set task.extract to {' or '.join(fine)}, and say so in task.instruction."
                if fine
                else "Its verifier refuses its own answers: take another dataset or other options."
            )
            raise TaskError(
                f"An answer of the dataset {config.name!r}, {_short(problem.answer)}, gets no full "
                f"marks when it is read with task.extract: {config.extract}. {fix}"
            )


def _survives(dataset: Any, problem: Problem, extract: str) -> bool:
    """Whether the problem's own answer gets full marks when it is written and read so."""
    written = f"<answer>{problem.answer}</answer>" if extract == "answer_tag" else problem.answer
    read = EXTRACTORS[extract](str(written))
    return read is not None and float(dataset.score_answer(read, problem.data["entry"])) >= 1


def _short(answer: str) -> str:
    return repr(answer if len(answer) <= 60 else f"{answer[:60]}...")
