"""Hand-made runs for the tests of `distil compare`: a suite file, and a launcher without torch."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from distil.compare.plan import Run
from distil.runs.folder import rollouts_after

SUITE: dict[str, Any] = {
    "recipe": "recipe.yaml",
    "reference": "distil",
    "learning_rates": [0.1, 0.01],
    "tuning_seeds": [100],
    "seeds": [0, 1],
    "common": {"eval": {"every": 1, "samples": 4}},
    "contenders": {
        "distil": {},
        "grpo": {"objective": {"name": "grpo"}},
    },
}
RECIPE = {
    "rollout": {"prompts_per_step": 2, "num_generations": 2},
    "train": {"steps": 2, "micro_batch": 2},
}


def write_suite(folder: Path, base: dict[str, Any] = RECIPE, **changes: Any) -> Path:
    """A suite file and its recipe; None drops a field."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(base))
    given = {**SUITE, "output_dir": str(folder / "out"), **changes}
    file = folder / "suite.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in given.items() if v is not None}))
    return file


def write_results(run: Run, values: list[float], *, finished: bool = True, **log: Any) -> None:
    """A run's folder as `distil train` leaves it: one avg@4 an evaluation, pass@4 0.1 above it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump(run.recipe.as_dict()))
    for step, value in enumerate(values):
        last = step == run.recipe.train.steps and finished
        name = "before" if step == 0 else "after" if last else f"eval-{step:06d}"
        record = {
            "seconds": 9.0,
            "step": step,
            "rollouts": rollouts_after(run.recipe, step),
            "tokens": 10.0 - step,
            "figures": {"avg@4": value, "pass@4": value + 0.1},
            "attempts": [],
        }
        (run.folder / f"{name}.json").write_text(json.dumps(record))
    lines = [
        {"step": step, "step_time": 3.0 * step, "student/entropy": 1.0 / step, **log}
        for step in range(1, len(values))
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


class Pretend:
    """Stands in for training processes: `learn(run)` says what each evaluation finds.

    A run for which it raises fails with exit status 1 after its first evaluation.
    """

    def __init__(self, learn: Callable[[Run], list[float]] = lambda run: [0.2, 0.4, 0.6]) -> None:
        self.learn = learn
        self.trained: list[str] = []
        self.resumed: list[str] = []
        self.stop_at = ""
        """The run in which Ctrl-C comes."""
        self.exit = 1
        self._stopped = False
        self._lock = threading.Lock()

    def __call__(self, run: Run, resume: bool) -> int:
        if self._stopped:
            return 130
        with self._lock:
            self.trained.append(run.name)
            if resume:
                self.resumed.append(run.name)
        run.log.write_text("working\nstep 1\rstep 2\n\ndistil: TrainingError: the loss is nan\n")
        if run.name == self.stop_at:
            write_results(run, [0.2], finished=False)
            self._stopped = True
            return 130
        try:
            write_results(run, self.learn(run))
        except ArithmeticError:
            write_results(run, [0.2, 0.3], finished=False)
            return self.exit
        (run.folder / "model").mkdir(exist_ok=True)
        (run.folder / "checkpoint-2").mkdir(exist_ok=True)
        return 0

    def interrupt(self) -> None:
        """From now on, nothing is trained."""
        self._stopped = True


@pytest.fixture(autouse=True)
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a second; the figure's own test draws."""
    monkeypatch.setattr("distil.compare.report.draw", lambda results, file: None)


def better_at_a_tenth(run: Run) -> list[float]:
    """distil is best at 0.1, grpo at 0.01; the seed moves both a little."""
    best = {"distil": 0.1, "grpo": 0.01}[run.contender]
    top = (0.6 if run.contender == "distil" else 0.5) + 0.01 * (run.seed % 100)
    return [0.2, 0.4, top if run.rate == best else 0.3]


def diverges(run: Run) -> list[float]:
    """grpo's first judged seed diverges, and so does its larger rate."""
    if run.contender == "grpo" and (run.seed == 0 or run.rate == 0.1):
        raise ArithmeticError
    return better_at_a_tenth(run)
