"""`distil theory`: every claim of the method with its numbers, printed, and as docs/theory.md.

With --out DIR it also draws the figures into DIR/theory/ and rewrites the part of DIR/theory.md
between two marks; the prose around them is left as it is. Left out: the theory (`distil.theory`).
"""

import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from distil.errors import DataError
from distil.figures.layout import as_markdown, as_text, clock
from distil.theory import (
    bandits,
    cloning,
    entropy,
    figures_bandits,
    figures_regret,
    figures_success,
    figures_trap,
    figures_trees,
    figures_wrong_teachers,
    regret,
    success,
    trap,
    treeclaims,
    wrong_teachers,
)
from distil.theory.claims import Claim
from distil.theory.treebias import estimator_table, sweep

SECTIONS: tuple[ModuleType, ...] = (
    bandits, treeclaims, entropy, trap, regret, cloning, success, wrong_teachers,
)  # fmt: skip
"""In the order of docs/theory.md; each has `claims()`."""

FIGURES: dict[str, Callable[[Path], None]] = {
    "bandits": figures_bandits.draw_bandits,
    "divergences": figures_bandits.draw_divergences,
    "estimators": figures_trees.draw_estimators,
    "entropy": figures_trees.draw_entropy,
    "trap": figures_trap.draw_trap,
    "regret": figures_regret.draw_regret,
    "success": figures_success.draw_success,
    "wrong_teachers": figures_wrong_teachers.draw_wrong_teachers,
}
"""Name of the PNG -> what draws it."""

BEGIN = "<!-- from here on written by `distil theory --out docs` -->"
END = "<!-- written by `distil theory --out docs` up to here -->"
WIDTH = 96
NOTHING = 1e-8
"""Absolute values below it are rounding, which differs between machines: printed as "< 1e-8"."""


def theory(out: str | None) -> int:
    """Prints all claims and the estimators' table; 0, also where a claim doesn't hold: a finding.

    out: the folder for theory.md and theory/*.png. Raises DataError if its theory.md has no marks.
    """
    begun = time.monotonic()
    page = None if out is None else _page(Path(out) / "theory.md")
    sections: list[list[Claim]] = []
    for module in SECTIONS:
        sections.append(module.claims())
        print(as_lines(sections[-1]), flush=True)
    table = estimator_rows()
    print(f"estimators on token trees\n\n{as_text(table)}\n")
    if out is not None and page is not None:
        _write(Path(out), page, generated(sections, table))
    claims = [claim for section in sections for claim in section]
    holding = sum(claim.holds for claim in claims)
    took = clock(time.monotonic() - begun)
    print(f"{len(claims)} claims in {took}: {holding} hold, {len(claims) - holding} don't.")
    return 0


def as_lines(claims: Sequence[Claim]) -> str:
    """A section for the terminal: its name, and each claim with its numbers."""
    found = [claims[0].section, ""]
    for claim in claims:
        head = "yes    " if claim.holds else "NO     "
        found += textwrap.wrap(claim.words, WIDTH, initial_indent=head, subsequent_indent=" " * 7)
        for text in (claim.formula, numbers(claim)):
            indent = " " * 9
            found += textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return "\n".join([*found, ""])


def numbers(claim: Claim) -> str:
    """'name value; name value', three digits each.

    Numbers called 'x, low' and 'x, high', or 'x ±', are written behind x, as its interval.
    """
    found = []
    for name, value in claim.numbers.items():
        if name.endswith((", low", ", high", " ±")):
            continue
        low, high, half = (claim.numbers.get(f"{name}{end}") for end in (", low", ", high", " ±"))
        text = f"{name} {digits(value)}"
        if low is not None and high is not None:
            text += f" [{digits(low)}, {digits(high)}]"
        found.append(text if half is None else f"{text} ± {digits(half)}")
    return "; ".join(found)


def digits(value: float) -> str:
    """Three significant digits; rounding errors as what they are."""
    if 0 < abs(value) < NOTHING:
        return "< 1e-8"
    return f"{value:.3g}"


def estimator_rows() -> list[list[str]]:
    """`treebias.estimator_table` as cells."""
    head = ["estimator", "relative bias", "cosine", "variance / sum's"]
    found = estimator_table(sweep())
    return [head] + [
        [name, digits(row.bias), f"{row.cosine:.4f}", digits(row.variance)]
        for name, row in found.items()
    ]


def generated(sections: Sequence[Sequence[Claim]], estimators: list[list[str]]) -> str:
    """The written part of theory.md: a table a section, and the estimators'."""
    parts = []
    for claims in sections:
        rows = [["claim", "formula", "numbers", "holds"]]
        for claim in claims:
            holds = "yes" if claim.holds else "**no**"
            rows.append([claim.words, f"`{claim.formula}`", numbers(claim), holds])
        name = claims[0].section
        parts.append(f"### {name[0].upper()}{name[1:]}\n\n{as_markdown(_escaped(rows))}")
    parts.append(f"### Estimators on token trees\n\n{as_markdown(_escaped(estimators))}")
    return "\n\n".join(parts)


def _escaped(rows: list[list[str]]) -> list[list[str]]:
    """A bar would end a cell."""
    return [[cell.replace("|", r"\|") for cell in row] for row in rows]


def _page(file: Path) -> tuple[str, str]:
    """The page before and behind the marks, marks included; a new one if there is no file."""
    if not file.exists():
        return f"# The theory, executable\n\n{BEGIN}\n", f"\n{END}\n"
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise DataError(
            f"{file} has no place for the table: put these two lines where it goes, or name "
            f"another folder.\n{BEGIN}\n{END}"
        )
    return f"{before}{BEGIN}\n", f"\n{END}{behind}"


def _write(folder: Path, page: tuple[str, str], table: str) -> None:
    """The page and all figures."""
    (folder / "theory").mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        draw(folder / "theory" / f"{name}.png")
    (folder / "theory.md").write_text(f"{page[0]}\n{table}\n{page[1]}", encoding="utf-8")
