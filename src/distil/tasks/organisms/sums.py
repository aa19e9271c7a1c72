"""Sums with working, graded right or wrong: "4 7 + 3 8" -> "7 + 8 = 1 5 , 4 + 3 + 1 = 0 8 , 0 8 5".

The units, the tens with the carry, the result; each number has a fixed width, so that every answer
has the same length. Only the result is graded. The report says no more than that it is wrong: who
wants to learn from this world needs a successful sibling, or the expert.
"""

import random
from typing import ClassVar

from distil.tasks.organisms.base import OrganismTask, digits
from distil.types import Feedback, Problem

WRONG = "wrong"
NO_RESULT = "no result"


class SumsTask(OrganismTask):
    """a + b for numbers from `smallest` to `largest`, at most two digits each."""

    name = "organism_sums"
    words = (*"0123456789", "+", "=", ",", "wrong", "no", "result")
    options: ClassVar[dict[str, int]] = {"smallest": 0, "largest": 99}

    def prepare(self) -> None:
        """Refuses numbers that have more than two digits."""
        if not 0 <= self.option("smallest") <= self.option("largest") <= 99:
            raise self.refuse("they must be in order, from 0 to 99.")

    def draw(self, rng: random.Random) -> Problem:
        """Both numbers uniform."""
        bounds = self.option("smallest"), self.option("largest")
        return sums_problem(rng.randint(*bounds), rng.randint(*bounds))

    def read(self, completion: str) -> str | None:
        """The digits after the last comma, without spaces; None if anything else stands there."""
        text = super().read(completion)
        last = [] if text is None else text.rpartition(",")[2].split()
        fine = bool(last) and all(len(word) == 1 and word in "0123456789" for word in last)
        return "".join(last) if fine else None

    def check(self, problem: Problem, completion: str) -> Feedback:
        """1 if the result is the sum, else 0."""
        result = self.read(completion)
        if result is None:
            return Feedback(0.0, NO_RESULT, problem.answer, self.name)
        if int(result) != problem.data["sum"]:
            return Feedback(0.0, WRONG, problem.answer, self.name)
        return Feedback(1.0, None, problem.answer, self.name)


def sums_problem(a: int, b: int) -> Problem:
    """The problem a + b, for numbers of at most two digits."""
    units = a % 10 + b % 10
    answer = worked(a, b, units, a // 10 + b // 10 + units // 10)
    return Problem("", f"{digits(a, 2)} + {digits(b, 2)}", answer, {"sum": a + b})


def worked(a: int, b: int, units: int, tens: int) -> str:
    """The working for a + b where its two sums are said to be `units` and `tens`, right or not."""
    carry = units // 10
    return (
        f"{a % 10} + {b % 10} = {digits(units, 2)} , "
        f"{a // 10} + {b // 10} + {carry} = {digits(tens, 2)} , "
        f"{digits(tens, 2)} {units % 10}"
    )
