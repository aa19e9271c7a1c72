"""Checkpoints that count: written to their end, and still what was written.

A checkpoint counts only with its marker, which names every file's size and SHA-256. It is written
last, after all files have reached the disk, by a rename: a kill in the middle of saving, or a full
disk, leaves a folder without one, which is passed over. Resuming reads every file again: where one
was cut or altered since, the checkpoint is refused by that file's name, and the one before is used.

Left out: what is in them (transformers', accelerate's, `distil.teacher.teachers`'), and how many
are kept (transformers' save_total_limit).
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distil.errors import RunError
from distil.runs.folder import write_json

MARKER = "distil_complete.json"
THREADS = 8
"""Files digested at a time; hashing leaves Python's lock alone."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""What the system says where a file can't be written."""

SAID = ("no space left", "disk quota exceeded", "file too large", "read-only file system",
        "permission denied", "failed writing file", "unexpected pos")  # fmt: skip
"""The same in the words of libraries that hand on no number (safetensors', torch's zip writer)."""


def mark_complete(checkpoint: Path, step: int) -> None:
    """Declares a checkpoint written to its end, once all of it lies on the disk."""
    files = sorted(f for f in checkpoint.rglob("*") if f.is_file() and f.name != MARKER)
    names = [str(f.relative_to(checkpoint)) for f in files]
    with ThreadPoolExecutor(THREADS) as pool:
        digests = list(pool.map(lambda file: _digest(file, sync=True), files))
    for folder in {f.parent for f in files} | {checkpoint}:
        _sync(folder)
    told = {
        name: {"bytes": file.stat().st_size, "sha256": digest}
        for name, file, digest in zip(names, files, digests, strict=True)
    }
    write_json(checkpoint / MARKER, {"step": step, "files": told})
    _sync(checkpoint)


def complete_checkpoint(folder: str | Path) -> Path:
    """The folder itself if it is a sound checkpoint, else its newest sound one.

    Reads every file of it. A newer one that is no longer sound is told of. Raises RunError if none
    is left, with what is wrong with each.
    """
    path = Path(folder)
    itself = (path / MARKER).is_file()
    found = [path] if itself else sorted(complete_checkpoints(path), key=checkpoint_step)
    refused: list[str] = []
    for checkpoint in reversed(found):
        fault = fault_of(checkpoint)
        if fault is None:
            for said in refused:
                print(f"Passed over: {said}. Going on from {checkpoint.name} instead.")
            return checkpoint
        refused.append(fault)
    if refused:
        raise RunError(
            "No checkpoint can be used: "
            + "; ".join(refused)
            + ". Bring back the files as they were written, or start anew."
        )
    raise RunError(
        f"{path} holds no complete checkpoint, so there is nothing to resume from. Start anew "
        "(the first checkpoint comes after train.save_every steps, or at Ctrl-C)."
    )


def complete_checkpoints(folder: str | Path) -> list[Path]:
    """All of a run's checkpoints that were written to their end, in no order; nothing is read."""
    return [p.parent for p in Path(folder).glob(f"checkpoint-*/{MARKER}")]


def has_checkpoint(folder: str | Path) -> bool:
    """Whether a run has a complete checkpoint to go on from."""
    return bool(complete_checkpoints(folder))


def checkpoint_step(checkpoint: Path) -> int:
    """The number of optimiser steps that a complete checkpoint has behind it.

    By its folder's name where the marker can't be read.
    """
    try:
        return int(_marker(checkpoint)["step"])
    except ValueError:
        return int(checkpoint.name.rpartition("-")[2])


def fault_of(checkpoint: Path) -> str | None:
    """What makes a marked checkpoint unfit to go on from; None: nothing.

    One from before there were digests has none to check.
    """
    try:
        files = _marker(checkpoint).get("files", {})
    except ValueError:
        return f"{checkpoint / MARKER} can't be read"
    for name, told in files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{file} is missing"
        if (size := file.stat().st_size) != told["bytes"]:
            return f"{file} has {size} bytes, and had {told['bytes']} when it was written"
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(lambda name: _digest(checkpoint / name), files)
        for (name, told), digest in zip(files.items(), digests, strict=True):
            if digest != told["sha256"]:
                return f"{checkpoint / name} was altered since it was written"
    return None


def keep_order(folder: str | Path) -> None:
    """Sets back the times of checkpoints that lie in the future, oldest step first.

    transformers deletes the ones with the oldest times, so a clock that was set back between two
    checkpoints would make it delete the newest.
    """
    now = time.time()
    newest_first = sorted(complete_checkpoints(folder), key=checkpoint_step, reverse=True)
    for age, checkpoint in enumerate(newest_first, 1):
        if checkpoint.stat().st_mtime > now - age:
            os.utime(checkpoint, (now - age, now - age))


def not_written(error: BaseException) -> bool:
    """Whether an error says that a file couldn't be written: disk full, folder read-only, ..."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    known = isinstance(error, OSError | RuntimeError) or "safetensors" in type(error).__module__
    return known and any(words in str(error).lower() for words in SAID)


@contextmanager
def disk_faults_told(folder: str | Path) -> Iterator[None]:
    """Inside, such an error becomes a RunError; nothing that was complete before is lost."""
    try:
        yield
    except Exception as error:
        if not_written(error):
            raise _cannot_write(error, folder) from error
        raise


def _cannot_write(error: Exception, folder: str | Path) -> RunError:
    sound = sorted(complete_checkpoints(folder), key=checkpoint_step)
    rest = f"The last complete checkpoint is {sound[-1].name}." if sound else "There is none yet."
    return RunError(
        f"A file of the run in {folder} couldn't be written: {error}. {rest} Make room (or the "
        f"folder writable) and go on with `distil train {folder} --resume`."
    )


def _marker(checkpoint: Path) -> dict[str, Any]:
    """What a marker says. Raises ValueError if it is none."""
    marker = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    fine = isinstance(marker, dict) and isinstance(marker.get("step"), int)
    files = marker.get("files", {}) if fine else None
    if not isinstance(files, dict) or not all(
        isinstance(told, dict) and {"bytes", "sha256"} <= told.keys() for told in files.values()
    ):
        raise ValueError(f"{checkpoint / MARKER} is no marker")
    return dict(marker)


def _digest(file: Path, *, sync: bool = False) -> str:
    with file.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """A folder's own entries, so that names too outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
