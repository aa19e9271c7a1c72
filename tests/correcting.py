"""For the tests of `distil correct`: hand-made rollouts of a run, and somebody who types."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from distil.cli import main
from distil.feedback.correctionfile import parse
from distil.runs.folder import begin_run


def rollout(problem: str, completion: str, **more: Any) -> dict[str, Any]:
    record = {
        "step": 1,
        "problem": problem,
        "prompt": [{"role": "user", "content": f"Question {problem}?"}],
        "completion": completion,
        "reward": 0.0,
        "feedback": [],
    }
    return record | more


def run_of(folder: Path, *rollouts: dict[str, Any], recipe: dict[str, Any] | None = None) -> Path:
    """A run's folder with these rollouts, and a recipe if one is given."""
    if recipe is not None:
        begin_run(folder, recipe, seed=0)
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(r, ensure_ascii=False) + "\n" for r in rollouts]
    (folder / "rollouts.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


Say = Any


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs `distil correct` on what somebody types; returns what was printed."""

    def run(folder: Path, typed: str, *flags: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert main(["correct", str(folder), *flags]) == status
        printed = capsys.readouterr()
        return printed.out if status == 0 else printed.err

    return run


def stored(folder: Path) -> list[dict[str, Any]]:
    file = folder / "corrections.jsonl"
    if not file.exists():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(parse(file.read_bytes()).rows) == len(rows)
    return rows


def shown(printed: str) -> list[str]:
    """The problems that were shown, in order."""
    lines = [line for line in printed.split("\n") if line.startswith("--- ")]
    return [line.split("problem ")[1].split(",")[0] for line in lines]
