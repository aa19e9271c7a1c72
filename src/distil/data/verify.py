"""Items against the check that will judge them: as a table they have to load, each answer right.

Uses the very kinds of `task.check`, so that what passes here passes in a run. Left out: choosing
what to do about a fault.
"""

from collections.abc import Sequence

from distil.config import TaskConfig
from distil.data.dataset import DataSet, Item
from distil.data.rows import BadRow
from distil.tasks.kinds import KINDS, Fault
from distil.types import Problem


class Verifier:
    """answers: whether gold answers are judged, too, which runs a coding set's programs."""

    def __init__(self, dataset: DataSet, *, answers: bool) -> None:
        self._kind = KINDS[dataset.check](TaskConfig(name=dataset.name, check=dataset.check))
        self._answers = answers

    def ask(self, item: Item) -> Problem:
        """The item as the problem that a run will see. Raises BadRow where it can't be one."""
        try:
            question, data = self._kind.row(item["question"], item.get("answer", ""), item)
        except Fault as fault:
            raise BadRow(fault.field, str(fault)) from fault
        data = {"solution": item.get("solution"), **data}
        return Problem(item["id"], question, item.get("answer"), data)

    def faults(self, problems: Sequence[Problem]) -> list[BadRow | None]:
        """For each problem why its own answer wouldn't get full marks, None where it does."""
        found: list[BadRow | None] = [None] * len(problems)
        if not self._answers:
            return found
        known = [(n, problem) for n, problem in enumerate(problems) if problem.answer is not None]
        verdicts = self._kind.check_gold([problem for _, problem in known])
        for (place, problem), verdict in zip(known, verdicts, strict=True):
            if verdict.reward != 1:
                told = (
                    f"is {str(problem.answer)[:80]!r}, and its own check gives it no full marks: "
                )
                found[place] = BadRow("answer", told + (verdict.text or "it couldn't be judged."))
        return found
