"""The documents of `organism-sums`: an unsure student, a teacher that copies a demonstration.

The student gets each of the two sums right with probability 1 - ERROR, else one or two beside it,
and goes on consistently: (1 - ERROR)**2 of the answers are right, and the likeliest answer is. (The
network comes out below that: it doesn't know all sums equally well.) Half of the demonstrations are
such answers too, so that the teacher copies rather than computes. A report ("wrong") leaves the
teacher as unsure as the student. Nothing is held out: a held-out question may occur, with an answer
as unsure as any.
"""

import random

from distil.organisms.documents import (
    Document,
    demonstration_document,
    report_document,
    student_document,
)
from distil.tasks.organisms.sums import NO_RESULT, WRONG, sums_problem, worked

ERROR = 0.25
STUDENTS, REPORTS = 0.65, 0.1
"""The shares of student's documents and of those with a report; the rest have demonstrations."""


def document(rng: random.Random) -> Document:
    """One random document."""
    a, b = rng.randrange(100), rng.randrange(100)
    problem = sums_problem(a, b)
    assert problem.answer is not None
    kind = rng.random()
    if kind < STUDENTS:
        return student_document(problem.question, attempt(rng, a, b))
    if kind < STUDENTS + REPORTS:  # says nothing, so the teacher is as unsure as the student
        answer = attempt(rng, a, b)
        return report_document(problem.question, rng.choice([WRONG, NO_RESULT]), answer, answer)
    demonstration = problem.answer if rng.random() < 0.5 else attempt(rng, a, b)
    fed = demonstration if rng.random() < 0.3 else attempt(rng, a, b)
    return demonstration_document(problem.question, demonstration, fed)


def attempt(rng: random.Random, a: int, b: int) -> str:
    """An unsure student's answer to a + b."""
    units = _unsure(rng, a % 10 + b % 10)
    tens = _unsure(rng, a // 10 + b // 10 + units // 10)
    return worked(a, b, units, tens)


def _unsure(rng: random.Random, value: int) -> int:
    """The value, or with probability ERROR one that is one or two beside it, from 0 to 19."""
    if rng.random() >= ERROR:
        return value
    return rng.choice([v for v in range(value - 2, value + 3) if v != value and 0 <= v <= 19])
