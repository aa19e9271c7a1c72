"""Your own problems, one JSON object a line: task.name: path/to/problems.jsonl, task.check: math.

    {"question": "What is 1/2 + 1/3?", "answer": "5/6", "solution": "3/6 + 2/6 = 5/6."}

Fields: question, answer (text or a number), and optional: id (else the line's number), solution (a
worked one, the demonstration in the answer's place), hint (told below the report on a failed
attempt), split (train, validation or test, in every row or none), and what the check wants
(choices, tests; with tests, the answer is optional). Other fields are left alone, unless they look
like a typo.

Without a split column the rows are shuffled and dealt out as task.seed decides. The held-out ones
may come from a file of their own (task.eval_file): its rows of the split test, or all of them.
Left out: reading and checking rows (`distil.tasks.rows`), how an answer is judged
(`distil.tasks.kinds`).
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

from distil.config import TaskConfig
from distil.errors import TaskError, perhaps
from distil.feedback.answers import HINT
from distil.tasks import parts
from distil.tasks.kinds import KINDS, Kind
from distil.tasks.rows import Rows
from distil.types import Feedback, Problem, succeeds


class TableTask:
    """A file of problems as a Task.

    Raises TaskError where a row is wrong (`distil.tasks.rows.Rows` says how), and where there are
    fewer rows than the recipe asks for.
    """

    def __init__(self, config: TaskConfig) -> None:
        self.system, self.instruction = config.system, config.instruction
        self._kind = read_kind(config)
        rows = Rows(config.name, self._kind)
        if config.eval_file:
            only_eval = replace(config, name=config.eval_file, train_size=0, validation_size=0)
            self.heldout, _, _ = _dealt(Rows(config.eval_file, self._kind), only_eval)
            _, self.validation, self.train = _dealt(rows, replace(config, eval_size=0))
        else:
            self.heldout, self.validation, self.train = _dealt(rows, config)

    def check(self, problem: Problem, completion: str) -> Feedback:
        """The verdict of the recipe's check."""
        return self.check_all([problem], [completion])[0]

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """The verdicts of the recipe's check; a failed attempt's report ends in the row's hint."""
        verdicts = self._kind.check_all(problems, completions)
        return [_hinted(p, verdict) for p, verdict in zip(problems, verdicts, strict=True)]

    def facts(self) -> dict[str, Any]:
        """What a run's folder should say about how answers were judged here."""
        asked = {problem.question for problem in self.train}
        both = sum(problem.question in asked for problem in self.heldout)
        return self._kind.facts() | ({"heldout_also_trained_on": both} if both else {})

    def read(self, completion: str) -> str | None:
        """What counts as the completion's answer."""
        return self._kind.read(completion)


def _hinted(problem: Problem, verdict: Feedback) -> Feedback:
    hint = problem.data.get("hint")
    if hint is None or verdict.reward is None or succeeds(verdict.reward):
        return verdict
    said = [verdict.text] if verdict.text else []
    return replace(verdict, text="\n\n".join([*said, HINT.format(hint=hint)]))


def read_kind(config: TaskConfig) -> Kind:
    """The recipe's judge, its options checked."""
    if config.check is None:
        raise TaskError(
            f"task.check isn't set, and it says how the answers of {config.name!r} are judged. "
            f"Set it to one of {', '.join(KINDS)}."
        )
    kind = KINDS[config.check]
    for option, value in config.options.items():
        if option not in kind.options:
            raise TaskError(
                f"The check {config.check!r} has no option {option!r}."
                f"{perhaps(option, kind.options)}"
            )
        if type(value) not in kind.options[option] or not 0 <= float(value) < inf:
            wanted = "true or false" if bool in kind.options[option] else "a number from 0 up"
            raise TaskError(f"The option {option!r} is {value!r}, and must be {wanted}.")
    return kind(config)


def _dealt(rows: Rows, config: TaskConfig) -> tuple[list[Problem], list[Problem], list[Problem]]:
    """(held out, validation, to train on), as many as are asked for, in an order of the seed's."""
    shuffled = list(zip(rows.problems, rows.splits, strict=True))
    random.Random(f"split/table/{config.seed}").shuffle(shuffled)
    pool = [problem for problem, _ in shuffled]
    if None in rows.splits:
        heldout, validation, train = parts(pool, config)
        there = f"{len(pool)} rows"
    else:
        train, validation, heldout = (
            [problem for problem, split in shuffled if split == name]
            for name in ("train", "validation", "test")
        )
        there = f"{len(train)} rows to train on and {len(heldout)} to test on"
        if validation:
            there += f", and {len(validation)} to validate on"
        else:
            cut = config.validation_size
            validation, train = train[:cut], train[cut:]
    sizes = (config.eval_size, config.validation_size, config.train_size)
    if any(len(p) < size for p, size in zip((heldout, validation, train), sizes, strict=True)):
        raise TaskError(
            f"{config.name} has {there}, and the recipe asks for {config.train_size} to train on "
            f"(task.train_size), {config.validation_size} to validate on (task.validation_size) "
            f"and {config.eval_size} held out (task.eval_size). Lower them."
        )
    return heldout[: sizes[0]], validation[: sizes[1]], train[: sizes[2]]
