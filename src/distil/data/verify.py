"""Items against the check that will judge them: as a table they have to load, each answer right.

Uses the very kinds of `task.check`, so that what passes here passes in a run. Left out: choosing
what to do about a fault.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distil.config import TaskConfig
from distil.data.dataset import DataSet, Item
from distil.data.rows import BadRow
from distil.tasks.kinds import KINDS, Fault
from distil.types import Problem

OPTIONS: Mapping[str, dict[str, Any]] = {"livecodebench": {"lcb_prelude": True}}
"""task.options with which a set's programs are to be run."""


class Verifier:
    """answers: whether gold answers are judged, too, which runs a coding set's programs."""

    def __init__(self, dataset: DataSet, *, answers: bool) -> None:
        options = OPTIONS.get(dataset.name, {})
        config = TaskConfig(name=dataset.name, check=dataset.check, options=options)
        self._kind = KINDS[dataset.check](config)
        self._answers = answers

    def ask(self, item: Item) -> Problem:
        """The item as the problem that a run will see. Raises BadRow where it can't be one."""
        try:
            question, data = self._kind.row(item["question"], item.get("answer", ""), item)
        except Fault as fault:
            raise BadRow(fault.field, str(fault)) from fault
        data = {"solution": item.get("solution"), **data}
        return Problem(item["id"], question, item.get("answer"), data)

    def asked(self, item: Item) -> str:
        """The question, with its choices."""
        return self.ask(item).question

    def faults(self, items: Sequence[Item]) -> list[BadRow | None]:
        """For each item why its own answer wouldn't get full marks, None where it does."""
        found: list[BadRow | None] = [None] * len(items)
        if not self._answers:
            return found
        known = [(n, self.ask(item)) for n, item in enumerate(items) if "answer" in item]
        problems = [problem for _, problem in known]
        verdicts = self._kind.check_all(problems, [self._kind.written(p) for p in problems])
        for (place, problem), verdict in zip(known, verdicts, strict=True):
            if verdict.reward != 1:
                told = (
                    f"is {str(problem.answer)[:80]!r}, and its own check gives it no full marks: "
                )
                found[place] = BadRow("answer", told + (verdict.text or "it couldn't be judged."))
        return found
