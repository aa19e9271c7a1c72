"""Programs in an unknown dialect: "add 3 , subtract 4 , scale 2" -> "inc 3 ; dec 4 ; mul 2 ; end".

Each operation has two spellings, of which the interpreter takes one: those of the dialect. A failed
program gets the interpreter's report, which names its first fault. The interpreter is a function of
this file over words: total, without loops, and nothing is ever handed to Python's own.
"""

import random
from collections.abc import Sequence
from typing import ClassVar

from distil.tasks.organisms.base import OrganismTask, digits
from distil.types import Feedback, Problem

KINDS = ("add", "subtract", "scale")
DIALECTS: tuple[dict[str, str], ...] = (
    {"inc": "add", "dec": "subtract", "mul": "scale"},
    {"plus": "add", "minus": "subtract", "times": "scale"},
)
"""For each dialect, what its spellings mean."""

REPORT_WORDS = ("line", ":", "unknown", "op", "use", "expected", "a", "number", "input", "got", "-")
STEPS = 3
INPUTS = 2

Step = tuple[str, int]
"""What is done and with which number: ("add", 3)."""


class Fault(Exception):
    """A program can't be read; its text is the report."""


class ProgramsTask(OrganismTask):
    """Programs of three steps, run on two inputs in the `dialect` (0 or 1)."""

    name = "organism_programs"
    words = (*"0123456789", *KINDS, *DIALECTS[0], *DIALECTS[1], ",", ";", "end", *REPORT_WORDS)
    options: ClassVar[dict[str, int]] = {"dialect": 0}

    def prepare(self) -> None:
        """Refuses a dialect that doesn't exist."""
        if self.option("dialect") not in range(len(DIALECTS)):
            raise self.refuse(f"the dialect must be one of {list(range(len(DIALECTS)))}.")

    def draw(self, rng: random.Random) -> Problem:
        """Kinds, numbers (1 to 9) and inputs (0 to 9) uniform."""
        return programs_problem(rng, self.option("dialect"))

    def check(self, problem: Problem, completion: str) -> Feedback:
        """1 if every input gives what it should, else 0 and the report."""
        steps = [(kind, number) for kind, number in problem.data["steps"]]
        text = report(completion, steps, problem.data["inputs"], self.option("dialect"))
        return Feedback(float(text is None), text, problem.answer, self.name)


def programs_problem(rng: random.Random, dialect: int) -> Problem:
    """A random problem with its answer in the dialect."""
    steps = [(rng.choice(KINDS), rng.randint(1, 9)) for _ in range(STEPS)]
    question = " , ".join(f"{kind} {number}" for kind, number in steps)
    inputs = rng.sample(range(10), INPUTS)
    answer = write([(spelling(kind, dialect), number) for kind, number in steps])
    return Problem("", question, answer, {"steps": [list(s) for s in steps], "inputs": inputs})


def spelling(kind: str, dialect: int) -> str:
    """How the dialect spells an operation."""
    return next(word for word, meaning in DIALECTS[dialect].items() if meaning == kind)


def write(lines: Sequence[tuple[str, int]]) -> str:
    """Lines as a program: [("inc", 3)] -> "inc 3 ; end"."""
    return " ; ".join([*(f"{op} {number}" for op, number in lines), "end"])


def report(program: str, steps: Sequence[Step], inputs: Sequence[int], dialect: int) -> str | None:
    """The first fault of a program that should do `steps`, in words; None if there is none."""
    try:
        written = parse(program, dialect)
    except Fault as fault:
        return str(fault)
    for value in inputs:
        expected, got = run(steps, value), run(written, value)
        if got != expected:
            return f"input {digits(value)} : expected {digits(expected)} , got {digits(got)}"
    return None


def parse(program: str, dialect: int) -> list[Step]:
    """The steps of a program: lines "op digit", then "end". Raises Fault at the first bad line.

    Reads on to the end only, and a step has one digit, so values stay small and nothing can loop.
    """
    lines = [line.split() for line in program.split(";")]
    steps: list[Step] = []
    for place, line in enumerate(lines, start=1):
        if place == len(lines):
            if line == ["end"]:
                return steps
            raise Fault(f"line {digits(place)} : expected end")
        steps.append(_step(line, f"line {digits(place)} :", dialect))
    raise AssertionError("a split text has a last line")


def _step(line: list[str], where: str, dialect: int) -> Step:
    """One line as a step. Raises Fault."""
    op = line[0] if line else ""
    if op not in DIALECTS[dialect]:
        for other in DIALECTS:
            if op in other:
                wanted = spelling(other[op], dialect)
                raise Fault(f"{where} unknown op {op} , use {wanted}")
        raise Fault(f"{where} expected op")
    if len(line) != 2 or len(line[1]) != 1 or line[1] not in "0123456789":
        raise Fault(f"{where} expected a number")
    return DIALECTS[dialect][op], int(line[1])


def run(steps: Sequence[Step], value: int) -> int:
    """What the steps make of a value."""
    for kind, number in steps:
        if kind == "add":
            value += number
        elif kind == "subtract":
            value -= number
        else:
            value *= number
    return value
