"""For the tests of recipes and flags: recipes as files, and what a command was about to run.

`recipe_file` and `started` are fixtures.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distil.cli import main
from distil.commands.evalflags import EvalFlags
from distil.config import Recipe

FOLDER = Path(__file__).parent.parent / "recipes"
# But for accelerate's own settings.
RECIPES = sorted(f for f in FOLDER.rglob("*.yaml") if f.parent.name != "accelerate")
Write = Callable[[str], str]

# What null stands for under objective.name's default, distil.
DISTIL: dict[str, Any] = {"future": "sum", "support": "teacher", "advantage_weight": 0.0}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Write:
    def write(text: str) -> str:
        file = tmp_path / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return write


@pytest.fixture(autouse=True)  # a mistake that goes untold must not start a real run either
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `distil train` and `distil eval` were about to run, in place of running it."""
    calls: list[Any] = []

    def train(recipe: Recipe, *, resume: bool, profile: bool) -> int:
        calls.append((recipe, resume, profile) if profile else (recipe, resume))
        return 0

    def evaluate_model(flags: EvalFlags) -> int:
        calls.append(flags)
        return 0

    # Their real modules load torch and trl.
    fakes = {"train": SimpleNamespace(train=train)}
    fakes["eval"] = SimpleNamespace(evaluate_model=evaluate_model)
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, f"distil.commands.{name}", fake)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "1")  # the command line sets them: put back afterwards
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    return calls


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error message of a command that must fail with exit status 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("distil: RecipeError: ")
    assert "Traceback" not in captured.err
    return captured.err


def with_field(path: str, value: Any, recipe: Recipe | None = None) -> Recipe:
    """The recipe (else the default one) with one field changed."""
    recipe = recipe or Recipe()
    group, *inner, name = path.split(".")
    part = getattr(recipe, group)
    if inner:
        changed = replace(part, **{inner[0]: replace(getattr(part, inner[0]), **{name: value})})
    else:
        changed = replace(part, **{name: value})
    return replace(recipe, **{group: changed})


def as_run(recipe: Recipe) -> Recipe:
    """A recipe of the objective distil as it is run: what null stands for is filled in."""
    assert recipe.objective.name == "distil"
    nulls = {name: v for name, v in DISTIL.items() if getattr(recipe.objective, name) is None}
    return replace(recipe, objective=replace(recipe.objective, **nulls))
