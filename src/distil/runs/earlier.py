"""The logs of an earlier training in the same folder: moved aside, so that no log mixes two runs.

They go to `earlier-1/` in that folder, or the next number that is free, when a training starts from
its beginning. `distil train` refuses a folder with a run in it, so this happens to trainers that
are used as a library. Left out: checkpoints and evaluations, which stay where they are.
"""

import warnings
from itertools import takewhile
from pathlib import Path

from distil.runs.folder import LOGS, METRICS_FILE, WITH_LOGS, read_lines


def set_logs_aside(folder: str | Path) -> Path | None:
    """Moves an earlier training's logs; returns where to, None if there are none. Warns of it.

    There was an earlier one if a log has a line beyond step 0. Lines of step 0 that follow are an
    evaluation's before this training, and stay.
    """
    here = Path(folder)
    if not any(record["step"] for name in LOGS for record in read_lines(here / name)):
        return None
    aside = here / f"earlier-{_free_number(here)}"
    aside.mkdir()
    for pattern in (*LOGS, *WITH_LOGS):
        for found in here.glob(pattern):
            found.rename(aside / found.name)
    _bring_back_start(aside / METRICS_FILE, here / METRICS_FILE)
    warnings.warn(
        f"{here} has the logs of an earlier training; they were moved to {aside}, since this one "
        "starts at step 0. Checkpoints stay where they are. Give each training an output_dir of "
        "its own, or go on with the earlier one: train(resume_from_checkpoint=True).",
        stacklevel=3,
    )
    return aside


def _free_number(folder: Path) -> int:
    number = 1
    while (folder / f"earlier-{number}").exists():
        number += 1
    return number


def _bring_back_start(old: Path, new: Path) -> None:
    """Moves the lines of step 0 at the end of a log into another one."""
    lines = old.read_bytes().splitlines(keepends=True) if old.is_file() else []
    own = list(takewhile(lambda line: line.startswith(b'{"step": 0,'), reversed(lines)))
    if own:
        new.write_bytes(b"".join(reversed(own)))
        old.write_bytes(b"".join(lines[: -len(own)]))
