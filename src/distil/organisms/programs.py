"""The documents of `organism-programs`: a student without a dialect, a teacher that reads reports.

The student spells each operation in either dialect and gets each number wrong with probability
ERROR. A report comes from a failed attempt of that kind, under a dialect that is drawn for each
document: the teacher then mends the reported line, and spells every other operation in that
dialect with probability FOLLOW (else as unsure as before). A demonstration is copied. Nothing is
held out: a held-out question may occur, in either dialect.
"""

import random
from collections.abc import Sequence

from distil.organisms.documents import (
    Document,
    demonstration_document,
    report_document,
    student_document,
)
from distil.tasks.organisms.programs import (
    DIALECTS,
    Step,
    programs_problem,
    report,
    spelling,
    write,
)
from distil.types import Problem

ERROR = 0.1
FOLLOW = 0.7
STUDENTS, REPORTS = 0.35, 0.45
"""The shares of student's documents and of those with a report; the rest have demonstrations."""


def document(rng: random.Random) -> Document:
    """One random document."""
    dialect = rng.randrange(len(DIALECTS))
    problem = programs_problem(rng, dialect)
    assert problem.answer is not None
    steps = _steps(problem)
    kind = rng.random()
    if kind < STUDENTS:
        return student_document(problem.question, attempt(rng, steps))
    if kind < STUDENTS + REPORTS:
        return _report_document(rng, problem, dialect)
    fed = problem.answer if rng.random() < 0.5 else attempt(rng, steps)
    return demonstration_document(problem.question, problem.answer, fed)


def attempt(rng: random.Random, steps: Sequence[Step]) -> str:
    """An unsure student's program."""
    return write(
        [(spelling(kind, _any_dialect(rng)), _unsure(rng, number)) for kind, number in steps]
    )


def following(rng: random.Random, steps: Sequence[Step], said: str, dialect: int) -> str:
    """A program by who was told `said`, a report from an interpreter of the dialect."""
    words = said.split()
    if "use" not in words:  # the numbers were wrong, and nothing was said about any spelling
        return write([(spelling(kind, _any_dialect(rng)), number) for kind, number in steps])
    reported = int(words[words.index("line") + 1]) - 1
    lines = []
    for place, (kind, number) in enumerate(steps):
        sure = place == reported or rng.random() < FOLLOW
        lines.append((spelling(kind, dialect if sure else _any_dialect(rng)), _unsure(rng, number)))
    return write(lines)


def _report_document(rng: random.Random, problem: Problem, dialect: int) -> Document:
    steps = _steps(problem)
    said = None
    while said is None:  # a right attempt, one in ten, has no report
        said = report(attempt(rng, steps), steps, problem.data["inputs"], dialect)
    answer = following(rng, steps, said, dialect)
    fed = answer if rng.random() < 0.5 else attempt(rng, steps)
    return report_document(problem.question, said, fed, answer)


def _steps(problem: Problem) -> list[Step]:
    return [(kind, number) for kind, number in problem.data["steps"]]


def _any_dialect(rng: random.Random) -> int:
    return rng.randrange(len(DIALECTS))


def _unsure(rng: random.Random, number: int) -> int:
    """The number, or with probability ERROR another from 1 to 9."""
    if rng.random() >= ERROR:
        return number
    return rng.choice([n for n in range(1, 10) if n != number])
