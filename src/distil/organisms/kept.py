"""Model folders in the cache: whole or not there, and known again by their weights' digest.

For models that are made on this machine: organisms, and what a GGUF file is converted to. Left out:
what is in a folder, and when a folder is made anew (its name says that).
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distil.errors import ModelError

WEIGHTS = "model.safetensors"


def keep(folder: Path, note: str, save: Callable[[Path], Mapping[str, Any]]) -> None:
    """Makes the folder: `save` writes the model into one beside it, which then gets its name.

    What `save` returns goes into the file `note`, with the weights' digest. So a killed build
    leaves no half model, and of two builds at once the first to finish is kept: another process may
    be reading it. Raises ModelError where the cache can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ModelError(
            f"The cache folder {folder.parent} can't be written ({error.strerror}). Set "
            "DISTIL_CACHE to one that can."
        ) from error
    try:
        facts = {**save(scratch), "weights_sha256": file_sha256(scratch / WEIGHTS)}
        (scratch / note).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        _put(scratch, folder, note)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def is_sound(folder: Path, note: str) -> bool:
    """Whether the folder's weights have the digest that was written down when they were made."""
    told, weights = folder / note, folder / WEIGHTS
    if not (told.is_file() and weights.is_file()):
        return False
    try:
        noted = json.loads(told.read_text(encoding="utf-8"))["weights_sha256"]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(noted == file_sha256(weights))


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _put(scratch: Path, folder: Path, note: str) -> None:
    """Renames the finished folder to its place, unless a sound one has got there meanwhile."""
    try:
        scratch.replace(folder)
    except OSError:  # a folder is there: another process's, or an unsound one
        if is_sound(folder, note):
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.replace(aside)
        shutil.rmtree(aside, ignore_errors=True)
        scratch.replace(folder)
