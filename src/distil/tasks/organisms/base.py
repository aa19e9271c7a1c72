"""What the three worlds share: options, distinct problems, the split, and how answers are read.

Every text is words with one space between them, and every word is one token of the organism, so
that a number is its digits: 85 is "8 5".
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from distil.config import TaskConfig
from distil.errors import TaskError, perhaps
from distil.feedback.extract import read_answer
from distil.tasks import DRAWS_PER_PROBLEM, one_by_one, parts, problems_wanted
from distil.types import Feedback, Problem


class OrganismTask(ABC):
    """Problems of one world and their judge, as a `distil.tasks.Task`.

    A class says its `name`, its `words` (all that a text of this world can hold) and its `options`
    with their defaults, each an integer. Raises TaskError for an unknown or impossible option, for
    an instruction in words that the organism hasn't learnt, and where problems run out.
    """

    name: ClassVar[str]
    words: ClassVar[tuple[str, ...]]
    options: ClassVar[dict[str, int]]

    def __init__(self, config: TaskConfig) -> None:
        self._check_words("instruction", config.instruction)
        self._check_words("system", config.system)
        self.system, self.instruction = config.system, config.instruction
        self._extract = config.extract
        self._options = {**self.options, **self._checked(config.options)}
        self.prepare()
        self.heldout, self.validation, self.train = parts(self._distinct(config), config)

    def option(self, name: str) -> int:
        """An option's value: the recipe's, else the default."""
        return self._options[name]

    def prepare(self) -> None:  # noqa: B027
        """Called once the options are known, before problems are drawn."""

    @abstractmethod
    def draw(self, rng: random.Random) -> Problem:
        """One random problem (its id is set afterwards); `answer` is the expert's."""

    @abstractmethod
    def check(self, problem: Problem, completion: str) -> Feedback:
        """Judges one completion: reward 1 or 0, a report on what is wrong, the expert's answer."""

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """One after the other: nothing here takes long."""
        return one_by_one(self.check, problems, completions)

    def facts(self) -> dict[str, Any]:
        """Nothing: answers are judged alike everywhere."""
        return {}

    def read(self, completion: str) -> str | None:
        """The part of the completion that counts as its answer, None if there is none."""
        return read_answer(completion, self._extract)

    def refuse(self, fault: str) -> TaskError:
        """The error for an impossible option."""
        return TaskError(f"The task {self.name!r} refuses the options {self._options}: {fault}")

    def _checked(self, given: dict[str, int | float | bool | str]) -> dict[str, int]:
        """The options as integers, each of a known name."""
        checked = {}
        for option, value in given.items():
            if option not in self.options:
                raise TaskError(
                    f"The task {self.name!r} has no option {option!r}."
                    f"{perhaps(option, self.options)}"
                )
            if isinstance(value, bool) or not isinstance(value, int):
                raise TaskError(
                    f"The option {option!r} of {self.name!r} is {value!r}, and must be an integer."
                )
            checked[option] = value
        return checked

    def _check_words(self, field: str, text: str) -> None:
        unknown = [w for w in text.split() if w not in self.words]
        if unknown:
            raise TaskError(
                f"task.{field} is {text!r}, but an organism knows only its world's "
                f"words, and {unknown[0]!r} is none of {self.name!r}. Set task.{field} to ''."
            )

    def _distinct(self, config: TaskConfig) -> list[Problem]:
        """As many problems as the recipe asks for, questions distinct, decided by the seed."""
        wanted = problems_wanted(config)
        rng = random.Random(f"problems/{self.name}/{config.seed}")
        found: dict[str, Problem] = {}
        for _ in range(DRAWS_PER_PROBLEM * wanted):
            if len(found) == wanted:
                break
            problem = self.draw(rng)
            found.setdefault(problem.question, problem)
        if len(found) < wanted:
            raise TaskError(
                f"The task {self.name!r} with options {self._options} gave only {len(found)} "
                f"distinct questions, and task.train_size, validation_size and eval_size ask for "
                f"{wanted}. Lower them, or widen the options."
            )
        return [
            Problem(f"{self.name}-{i:05d}", p.question, p.answer, p.data)
            for i, p in enumerate(found.values())
        ]


def digits(number: int, width: int = 1) -> str:
    """The number's digits, at least `width` of them, one word each: 85 -> "8 5", -5 -> "- 5"."""
    sign = "- " if number < 0 else ""
    return sign + " ".join(f"{abs(number):0{width}d}")
