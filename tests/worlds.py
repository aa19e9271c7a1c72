"""For the tests of the organisms: the three worlds' names, and the task of each."""

from typing import Any

import pytest

from distil.config import TaskConfig
from distil.tasks import Task, load_task
from distil.tasks.organisms import TASKS

NAMES = [name.removeprefix("organism_") for name in TASKS]


def make(name: str, **fields: Any) -> Task:
    settings = {"instruction": "", "extract": "whole", "train_size": 300, "eval_size": 64, **fields}
    return load_task(TaskConfig(name=f"organism_{name}", **settings))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
