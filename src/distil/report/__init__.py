"""`distil report`: runs, finished or going on, as one HTML file that a person looks at.

folder     what lies in a run's folder        series    curves, intervals, shares: numbers to draw
scan       every rollout's line, looked at once: what it's about, how striking its tokens are
pack       rollouts as compressed blocks, within a number of megabytes
page       all of it, with the scripts and styles of page/ and vendor/, as one file

The file asks for nothing over the network. Nothing here imports torch, and no run is changed.
"""

from collections.abc import Sequence
from pathlib import Path

from distil.errors import RunError
from distil.report.folder import read_run
from distil.report.page import make_page
from distil.runs.folder import write_text

MEGABYTES = 18.0
"""A page's size, unless told otherwise."""


def report(
    folders: Sequence[str | Path], out: str | Path | None = None, megabytes: float = MEGABYTES
) -> Path:
    """Writes the report of one run or several; returns where it lies.

    out: the file; if not given, report.html in the first run's folder. megabytes: about so large
    may it be; rollouts that don't fit are thinned, and the page says how many.
    Raises RunError if a folder holds no run, or the file can't be written.
    """
    if not folders:
        raise RunError("Name the folder of a run, or of several: distil report RUN [RUN ...].")
    if megabytes < 2:
        raise RunError(
            f"A report of {megabytes:g} megabytes has no room for a rollout: its charts and tables "
            "alone take one. Give --megabytes 2 or more."
        )
    runs = [read_run(Path(folder)) for folder in folders]
    file = Path(out) if out else Path(folders[0]) / "report.html"
    if file.is_dir():
        raise RunError(f"{file} is a folder. Give --out a file's name, as in {file}/report.html.")
    page = make_page(runs, int(megabytes * 1e6))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, page)
    except OSError as error:
        raise RunError(
            f"{file} can't be written ({error.strerror}). Give another one with --out."
        ) from error
    return file
