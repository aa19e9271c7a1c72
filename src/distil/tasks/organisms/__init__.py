"""The model organisms' tasks: small worlds that a network of a million weights can know.

sums      two numbers added with working, graded right or wrong
programs  three operations written as a program; an error report names the first fault
cipher    words in a secret code that only the expert knows

The networks that go with them are `distil.organisms`'. Nothing here imports torch.
"""

from distil.config import TaskConfig
from distil.errors import TaskError, perhaps
from distil.tasks.organisms.base import OrganismTask
from distil.tasks.organisms.cipher import CipherTask
from distil.tasks.organisms.programs import ProgramsTask
from distil.tasks.organisms.sums import SumsTask

TASKS: dict[str, type[OrganismTask]] = {
    "organism_sums": SumsTask,
    "organism_programs": ProgramsTask,
    "organism_cipher": CipherTask,
}


def organism_task(config: TaskConfig) -> OrganismTask:
    """The organism's task that a recipe names. Raises TaskError for an unknown name or option."""
    if config.name not in TASKS:
        raise TaskError(
            f"There is no organism's task {config.name!r}.{perhaps(config.name, TASKS)}"
        )
    return TASKS[config.name](config)
