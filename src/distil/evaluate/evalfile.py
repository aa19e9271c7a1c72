"""An evaluation as a file: its settings, the problems' digests, every attempt.

    {"settings": {"model": ..., "sampler": {...}, "thinking": ..., "task": {...}, "samples": 16,
     ...}, "versions": {...}, "problems": {id: digest}, "tokens": ..., "figures": {...},
     "attempts": [{"problem": ..., "completion": ..., ...}]}

While it's made, attempts are kept batch by batch in FILE.partial.jsonl, so that a kill loses one
batch at most. A run folder's before.json and so on are read too: their settings are the recipe's.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from distil.config import EvalConfig, Recipe, TaskConfig, Thinking
from distil.errors import RunError, TaskError
from distil.figures.estimates import (
    Attempt,
    by_problem,
    lengths_and_rates,
    means,
    samples_of,
    summarise,
)
from distil.recipe.recipefile import load_recipe
from distil.runs.folder import RECIPE_FILE, differences, run_info, write_json, write_text
from distil.types import Problem


@dataclass(frozen=True)
class Evaluation:
    """What a file holds. settings, versions, problems: empty where it doesn't say."""

    name: str
    attempts: list[Attempt]
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def settings_of(
    model: str, sampler: dict[str, Any], thinking: Thinking, task: TaskConfig,
    settings: EvalConfig, length: int,
) -> dict[str, Any]:  # fmt: skip
    """All that decides what is sampled and how it's judged, as JSON has it."""
    return {
        "model": model,
        "sampler": sampler,
        "thinking": thinking,
        "task": plain_task(task),
        "samples": settings.samples,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "seed": settings.seed,
        "max_completion_length": length,
    }


def plain_task(task: TaskConfig) -> dict[str, Any]:
    """As YAML and JSON have it."""
    plain: dict[str, Any] = Recipe(task=task).as_dict()["task"]
    return plain


def digests(problems: Sequence[Problem]) -> dict[str, str]:
    """Problem -> digest of its question: ids may be no more than a file's line numbers."""
    return {p.id: hashlib.sha256(p.question.encode()).hexdigest()[:12] for p in problems}


def versions() -> dict[str, str]:
    """Of Python and the packages that matter."""
    return dict(run_info(0).versions)


def store(file: Path, evaluation: Evaluation, ks: Sequence[int] = ()) -> None:
    """Writes it whole, its means before the attempts."""
    record = {
        "settings": evaluation.settings,
        "versions": evaluation.versions,
        "problems": evaluation.problems,
        **figure_means(evaluation.attempts, ks),
        "attempts": [asdict(a) for a in evaluation.attempts],
    }
    write_json(file, record)


def figure_means(attempts: Sequence[Attempt], ks: Sequence[int] = ()) -> dict[str, Any]:
    """Mean tokens, rates, and the mean of every figure; nothing where no problem was judged."""
    if not attempts:
        return {}
    return {**means(lengths_and_rates(attempts)), "figures": means(summarise(attempts, ks))}


def read(file: Path) -> Evaluation:
    """A stored evaluation. Raises RunError if the file is none, or holds no attempt."""
    record, attempts = read_record(file)
    if not attempts:
        raise RunError(f"{file} holds no attempts: nothing was judged.")
    settings = record.get("settings") or _of_run(file, samples_of(attempts))
    known = record.get("versions", {}), record.get("problems", {})
    return Evaluation(str(file), attempts, settings, *known)


def read_record(file: Path) -> tuple[dict[str, Any], list[Attempt]]:
    """All that an evaluation's file says, and its attempts. Raises RunError if the file is none."""
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return record, [Attempt(**a) for a in record["attempts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} can't be read as an evaluation ({type(error).__name__}: {error}). Name a file "
            "that `distil eval --out` wrote, or a run's before.json, after.json, ..."
        ) from error


def _of_run(file: Path, samples: int) -> dict[str, Any]:
    """The settings of an evaluation in a run's folder: its recipe's, but for the teacher's n."""
    if not (file.parent / RECIPE_FILE).is_file():
        return {}
    recipe = load_recipe(file.parent)
    length, name = recipe.rollout.max_completion_length, f"{recipe.model.name} ({file.stem})"
    sampler, settings = {"kind": "transformers"}, replace(recipe.eval, samples=samples)
    return settings_of(name, sampler, recipe.model.thinking, recipe.task, settings, length)


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """A line for each setting that two evaluations don't share: `field: first, second`."""
    return [f"{name}: {a!r}, {b!r}" for name, (a, b) in differences(dict(one), dict(other))]


def check_same_problems(own: Evaluation, against: Evaluation) -> None:
    """Raises TaskError unless both asked the same problems; own's attempts may be missing yet."""
    asked = set(own.problems) or set(by_problem(own.attempts))
    other = set(by_problem(against.attempts))
    both = f"{own.name} and {against.name}"
    if asked != other:
        raise TaskError(
            f"{both} can't be compared: {len(asked - other)} problems are in the first only, "
            f"{len(other - asked)} in the second only ({min(asked ^ other)!r}, for one). Judge "
            "both on one task, with the same sizes and seed."
        )
    for name in sorted(asked & own.problems.keys() & against.problems.keys()):
        if own.problems[name] != against.problems[name]:
            raise TaskError(
                f"{both} can't be compared: their problem {name!r} isn't the same question. Judge "
                "both on one task."
            )


class Partial:
    """The attempts of an evaluation that is under way, kept in FILE.partial.jsonl.

    `done`: those of an earlier, stopped one. Raises RunError if that had other settings, or if a
    whole line of its file is damaged.
    """

    def __init__(self, file: Path, settings: dict[str, Any], problems: dict[str, str]) -> None:
        self.path = file.with_name(f"{file.name}.partial.jsonl")
        self.done: list[Attempt] = []
        head = {"settings": settings, "problems": problems}
        lines = self._take_up()
        if lines:
            if found := different(lines[0], json.loads(json.dumps(head))):
                raise RunError(
                    f"{self.path} was begun with other settings (then, now):\n"
                    + "\n".join(f"  {line}" for line in found)
                    + "\nGo on with those, or remove it, or give another --out."
                )
        else:
            lines = [head]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(self.path, text)  # again, without the half line that a kill may have left

    def keep(self, attempts: Sequence[Attempt]) -> None:
        """Adds a batch, on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            line = {"attempts": [asdict(a) for a in attempts]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Once the evaluation is stored."""
        self.path.unlink(missing_ok=True)

    def _take_up(self) -> list[dict[str, Any]]:
        """The file's whole lines; all but the first one's attempts are `done`.

        By bytes and "\\n" only: a kill may cut a character in two, and text may hold U+2028.
        """
        rows = self.path.read_bytes().split(b"\n")[:-1] if self.path.is_file() else []
        lines: list[dict[str, Any]] = []
        for number, row in enumerate(rows, 1):
            try:
                line = json.loads(row)
                if not isinstance(line, dict):
                    raise TypeError("no JSON object")
                if lines:
                    self.done += [Attempt(**a) for a in line["attempts"]]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise RunError(
                    f"{self.path}, line {number}, is damaged ({type(error).__name__}: {error}), so "
                    "that the evaluation can't go on. Move the file away: it starts anew then."
                ) from error
            lines.append(line)
        return lines
