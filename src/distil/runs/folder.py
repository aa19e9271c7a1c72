"""A run's folder: what lies in it, how it's begun, how it's taken up again.

    recipe.yaml        the recipe as resolved         environment.json   versions, seed, git
    metrics.jsonl      one line a logged step         rollouts.jsonl     one line a rollout
    rollouts-old.jsonl those before, in a long run (train.rollouts_mb)
    before.json, after.json, teacher.json             evaluations, sample by sample
    eval-000010.json   one after step 10 (eval.every), on the held-out problems
    validation-000010.json                            or on the validation ones, if there are some
    best/, best.json   the state that did best on those (eval.keep_best); how it does held out
    results.json, results.md                          the table that was printed
    profile.json       a step's time and memory by part (--profile)
    alarms.jsonl, before-alarm/                       what sounded, the checkpoint from before
    bad-steps.jsonl, bad-steps/                       skipped steps, and their batches
    ungraded.jsonl     rollouts that a broken reward function couldn't grade, if there was one
                       (of another process than the main one: ungraded-process-N.jsonl)
    earlier-N/         logs of an earlier training in the same folder (distil.runs.earlier)
    checkpoint-N/      Hugging Face format, with optimiser, random state, EMA teacher
    model/             the trained model

Which checkpoints count is `distil.runs.checkpoints`'. Resuming cuts the logs back to the step of
the one that it goes on from.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from distil.config import Recipe
from distil.errors import RunError
from distil.types import RunInfo

RECIPE_FILE = "recipe.yaml"
ROLLOUTS_FILE = "rollouts.jsonl"
OLD_ROLLOUTS_FILE = "rollouts-old.jsonl"
METRICS_FILE = "metrics.jsonl"
ALARMS_FILE = "alarms.jsonl"
BAD_STEPS_FILE = "bad-steps.jsonl"
PROFILE_FILE = "profile.json"
LOGS = (METRICS_FILE, ROLLOUTS_FILE, OLD_ROLLOUTS_FILE, BAD_STEPS_FILE, ALARMS_FILE)
WITH_LOGS = (PROFILE_FILE, "bad-steps", "before-alarm", "ungraded*.jsonl")
"""What belongs to the same training as the logs: names, or patterns of names."""
WRITTEN = (*LOGS, *WITH_LOGS, "environment.json", "before.json", "after.json", "teacher.json",
           "best.json", "best", "results.json", "results.md", "model", "eval-*.json",
           "validation-*.json", "checkpoint-*", "README.md")  # fmt: skip
"""All that a run writes into its folder; README.md is the model card of transformers' trainer."""
PROBLEMS = "problems_digest"
"""environment.json's word for `distil.tasks.problems_digest`."""
PACKAGES = (
    "distil",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "datasets",
    "reasoning-gym",
)


def check_new_run(folder: str | Path) -> Path:
    """Makes the folder. Raises RunError if it can't be written, or if a run lies there already.

    Also where anything else lies there by a name that a run writes.
    """
    path = Path(folder)
    if (path / RECIPE_FILE).exists():
        raise RunError(
            f"{path} already holds a run. Go on with it (--resume), give another "
            "--train.output-dir, or remove that folder."
        )
    there = sorted(f.name for name in WRITTEN for f in path.glob(name)) if path.is_dir() else []
    if there:
        raise RunError(
            f"{path} has {', '.join(there[:5])}{' and more' if len(there) > 5 else ''}, which the "
            "run would overwrite. Give another --train.output-dir, or move what is there."
        )
    make_writable(path, "--train.output-dir")
    return path


def make_writable(folder: Path, flag: str) -> None:
    """Makes a folder. Raises RunError, which names the flag for another, if it can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / ".writable", "")
        (folder / ".writable").unlink()
    except OSError as error:
        raise RunError(
            f"The folder {folder} can't be written ({error.strerror}). Give another one with "
            f"{flag}."
        ) from error


def begin_run(
    folder: str | Path, recipe: dict[str, Any], seed: int, facts: Mapping[str, Any] | None = None
) -> Path:
    """`check_new_run`, then writes recipe and environment: from here on, it is a run.

    facts: more to be written into environment.json, the sandbox's level, for one.
    """
    path = check_new_run(folder)
    write_json(path / "environment.json", {**asdict(run_info(seed)), **(facts or {})})
    write_text(path / RECIPE_FILE, yaml.safe_dump(recipe, sort_keys=False))
    return path


def reopen_run(folder: str | Path, recipe: dict[str, Any], problems: str = "") -> Path:
    """Checks that the folder holds a run of this very recipe. Raises RunError with what differs.

    problems: `distil.tasks.problems_digest` of today's, which must be those it began with.
    """
    path = Path(folder)
    try:
        stored = yaml.safe_load((path / RECIPE_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} holds no run to resume ({error.strerror}).") from error
    different = [
        f"  {name}: was {old!r}, is {new!r}"
        for name, (old, new) in differences(stored, recipe)
        if name != "train.output_dir"
    ]
    if different:
        raise RunError(
            f"The run in {path} was begun with another recipe, so going on would mix two runs:\n"
            + "\n".join(different)
            + f"\nResume with `distil train {path} --resume`, or start anew elsewhere."
        )
    if problems and _begun_with(path) not in (None, problems):
        raise RunError(
            f"The problems of task.name ({recipe['task']['name']}) are others than those that the "
            f"run in {path} began with, so it would be judged before and after on different ones. "
            "Bring them back as they were, or start anew elsewhere."
        )
    return path


def _begun_with(path: Path) -> str | None:
    """The digest of the problems that a run began with; None where it doesn't say."""
    try:
        found: str | None = json.loads((path / "environment.json").read_text("utf-8")).get(PROBLEMS)
    except (OSError, json.JSONDecodeError):
        return None
    return found


def cut_logs(folder: str | Path, last_step: int) -> None:
    """Drops log lines after `last_step`, and what is no record, as a kill leaves half a line."""
    for name in LOGS:
        path = Path(folder) / name
        if not path.is_file():
            continue
        kept = []
        # By bytes and "\n" only: a kill may cut a character in two, and text may hold U+2028.
        for line in path.read_bytes().split(b"\n"):
            try:
                if json.loads(line)["step"] > last_step:
                    continue
            except (json.JSONDecodeError, UnicodeDecodeError, TypeError):
                continue
            kept.append(line.decode("utf-8"))
        write_text(path, "".join(line + "\n" for line in kept))


def updates_per_step(recipe: Recipe) -> int:
    """Optimiser updates (transformers' global_step) in one of `train.steps`."""
    return recipe.train.updates_per_batch * recipe.train.num_iterations


def rollouts_after(recipe: Recipe, step: int) -> int:
    """Rollouts sampled in the first `step` of `train.steps`: each is one batch of fresh ones."""
    return step * recipe.rollout.prompts_per_step * recipe.rollout.num_generations


def run_info(seed: int) -> RunInfo:
    """Versions, seed, git revision of the working folder, and the machine."""
    return RunInfo(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        git=_git_revision(),
        versions={"python": platform.python_version(), **_versions()},
        machine={
            "system": platform.platform(),
            "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "command": sys.argv,
        },
    )


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a kill leaves the old file or the new one, never a half."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def append_lines(path: Path, *records: Mapping[str, Any]) -> None:
    """Adds records to a file of JSON lines, which it makes if there is none.

    Raises ValueError for NaN and infinities, which JSON has no word for: write None, or their name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def rollout_files(folder: Path) -> list[Path]:
    """The files of a run's rollouts that there are, the older first."""
    files = [folder / OLD_ROLLOUTS_FILE, folder / ROLLOUTS_FILE]
    return [file for file in files if file.is_file()]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines; none if there is no file.

    Half a line, which a kill left or which is being written, is passed over, as is JSON that is no
    object. By bytes and "\\n" only: text may hold U+2028.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError):
                continue
            if isinstance(record, dict):
                yield record


def read_metrics(folder: Path) -> dict[int, dict[str, Any]]:
    """Update -> all that metrics.jsonl says of it, updates in order."""
    log: dict[int, dict[str, Any]] = {}
    for record in read_lines(folder / METRICS_FILE):
        log.setdefault(record["step"], {}).update(record)
    return dict(sorted(log.items()))


def write_text(path: Path, text: str) -> None:
    """As `write_json`, for text."""
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def _versions() -> dict[str, str]:
    return {p: metadata.version(p) for p in PACKAGES if _installed(p)}


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _git_revision() -> str | None:
    """The commit of the working folder, with "-dirty" if it has changes; None outside git."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def differences(old: Any, new: Any, where: str = "") -> list[tuple[str, tuple[Any, Any]]]:
    """(field, (old, new)) wherever two nested dicts differ, fields dotted."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [(where, (old, new))]
    found = []
    for key in {**old, **new}:
        path = f"{where}.{key}" if where else key
        found += differences(old.get(key), new.get(key), path)
    return found
