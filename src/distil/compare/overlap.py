"""How many of the judged problems a learning rate was chosen on as well, counted by question.

Tuning runs draw their problems anew (another task.seed), which are others in a large world. A small
one repeats itself, and a file of problems is only divided anew. Left out: questions that differ in
wording alone.
"""

from dataclasses import dataclass, replace

from distil.compare.suite import Suite
from distil.errors import TaskError
from distil.tasks import load_task


@dataclass(frozen=True)
class Overlap:
    """judged: held-out problems. Of those, how many tuning runs had to train on, and judge by."""

    judged: int
    trained_on: int
    judged_by: int

    def text(self) -> str:
        """What a reader of the table is told of the tuning runs' problems."""
        if not self.trained_on + self.judged_by:
            return "and none of the judged problems was among theirs"
        return (
            f"and theirs were drawn anew: of the {self.judged} judged problems {self.trained_on} "
            f"are in their training sets, {self.judged_by} among those they were judged by"
        )


def overlap_of(suite: Suite) -> Overlap | None:
    """None where the problems can't be made here, as on a machine without their file."""
    task = suite.recipe(suite.reference).task
    try:
        judged = {p.question for p in load_task(task).heldout}
        trained_on: set[str] = set()
        judged_by: set[str] = set()
        for seed in suite.tuning_seeds:
            tuning = load_task(replace(task, seed=seed))
            trained_on |= judged & {p.question for p in tuning.train}
            judged_by |= judged & {p.question for p in tuning.heldout}
    except TaskError:
        return None
    return Overlap(len(judged), len(trained_on), len(judged_by))
