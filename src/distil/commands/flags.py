"""The flags of each command but `distil eval`'s (`evalflags`), as typed fields with their help.

Left out: reading them, and the recipe under them (`distil.cli`). Nothing is loaded here.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from distil.config import Recipe, SandboxLevel
from distil.sandbox.jobs import Limits

GPU_GIB = 80.0
"""Memory of a GPU for which `--dry-run` plans, unless it is told."""


@dataclass(frozen=True)
class TrainFlags:
    """Train a model with DistIL. Flags override the recipe."""

    recipe_file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """A YAML file, or the folder of a run to go on with."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    resume: bool = False
    """Go on from the run's last complete checkpoint."""
    dry_run: bool = False
    """Print what would happen: rows, tokens, steps, prompts, memory. Loads no weights."""
    profile: bool = False
    """Print a step's time and peak memory by part, and write RUN/profile.json."""
    gpus: int = 0
    """For --dry-run: the GPUs to train on (0: the CPU)."""
    gpu_gib: float = GPU_GIB
    """For --dry-run: memory of each GPU, GiB."""


@dataclass(frozen=True)
class ReportFlags:
    """Write a run, finished or going on, or several compared, as one HTML file to look at."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """The folders of one or more runs."""
    out: str | None = None
    """The file to write (report.html in the first run's folder)."""
    megabytes: float = 18.0
    """About how large it may be; the rollouts that don't fit are thinned, and the page says so."""


@dataclass(frozen=True)
class CompareFlags:
    """Train a suite's contenders over seeds, tuned alike; one table and one figure.

    Interrupted or killed, the same command goes on where it was.
    """

    suite: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SUITE")]
    """A YAML file: contenders, seeds, the grid of learning rates."""
    report_only: bool = False
    """Run nothing: table and figure from what is finished."""
    retry_failed: bool = False
    """Run failed runs once more."""
    output_dir: str | None = None
    """Another folder than the suite's: to run it all again, beside results that are there."""


@dataclass(frozen=True)
class RunCodeFlags:
    """Run one untrusted program against a file of tests, in the sandbox."""

    program: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROGRAM")]
    """A Python file, a Markdown file (its last Python block), or - for standard input."""
    tests: str
    """A JSON file: a list of tests, or one test a line (docs/cookbook/traces.md)."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    level: SandboxLevel = "auto"
    """How it's locked in; auto: as well as this machine can."""
    preload: tuple[str, ...] = ()
    """Packages that the program may import beside the standard library: numpy, for one."""
    prelude: Literal["none", "lcb"] = "none"
    """lcb: LiveCodeBench's usual imports before the program."""
    allow_unsafe: bool = False
    """Run it even where no sandbox holds: it could then read your files and use your network."""


@dataclass(frozen=True)
class CorrectFlags:
    """Show a run's failed attempts, newest first, and store corrections of them.

    A run with `correction` in its feedback.order uses them from its next step on.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, finished or going on."""
    problem: str = ""
    """Only this problem, whether it has a correction or not."""
    all: bool = False
    """Every failed attempt, instead of each problem's newest where there is no correction yet."""
    limit: int = 0
    """Show at most so many (0: all)."""
    grade: bool = True
    """Ask the run's task what it thinks of a correction."""
    by: str = ""
    """Your name, stored with what you write."""


@dataclass(frozen=True)
class DataFlags:
    """Turn a published set into checked tables of problems, with a report and digests."""

    domain: Annotated[
        Literal["science", "coding", "math"], tyro.conf.Positional, tyro.conf.arg(metavar="DOMAIN")
    ]
    """science, coding or math."""
    out: str
    """The folder for tables and report."""
    set: str = ""
    """One of the domain's sets (distil data list); its first one if not given."""
    source: str = ""
    """A file, a folder, a hub id or a package, if not the set's own."""
    revision: str = ""
    """The commit, tag or branch of a hub id."""
    skip_bad: bool = False
    """Drop and count rows that can't be problems, instead of stopping at the first."""
    verify: bool = True
    """Judge every right answer by its own check; runs the reference programs of a coding set."""


@dataclass(frozen=True)
class TheoryFlags:
    """Every claim of the method with its numbers: which hold, and which don't."""

    out: str | None = None
    """Also write DIR/theory.md's table and DIR/theory/*.png (the repository's: docs)."""
