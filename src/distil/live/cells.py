"""Text of a model's or a person's in so many cells of a terminal: one line, harmless, cut safely.

A full-width character takes two cells, and is never cut in two. Left out: colours and frames.
"""

from collections.abc import Sequence

from rich.cells import cell_len

from distil.figures.layout import harmless

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-~=+*#"
"""For terminals whose encoding has no blocks."""


def one_line(text: str, cells: int) -> str:
    """At most so many cells of it, the middle cut out; spaces and line ends become one space.

    What is invisible is written out, so that no escape sequence gets through.
    """
    if len(text) > 8 * cells:  # what is cut out anyway needn't be looked at
        text = text[: 4 * cells] + text[-4 * cells :]
        whole = False
    else:
        whole = True
    line = " ".join(harmless(" ".join(text.split())).split())
    if whole and cell_len(line) <= cells:
        return line
    room = cells - 1
    if room < 2:
        return _head(line, max(cells, 0))
    return _head(line, room - room // 2) + "…" + _tail(line, room // 2)


def rows(text: str, cells: int, most: int) -> list[str]:
    """`one_line` broken into at most so many rows of so many cells; at least one row."""
    line = one_line(text, cells * most - most)  # a wide character may leave a cell free in each
    found: list[str] = []
    while line and len(found) < most:
        row = _head(line, cells)
        found.append(row)
        line = line[len(row) :].lstrip()
    return found or [""]


def trend(values: Sequence[float], cells: int, *, plain: bool = False) -> str:
    """The last so many values as bars from their lowest to their highest."""
    shown = values[-cells:] if cells > 0 else []
    if len(shown) < 2:
        return ""
    low, high = min(shown), max(shown)
    bars = PLAIN_BARS if plain else BARS
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((value - low) * scale)] for value in shown)


def _head(text: str, cells: int) -> str:
    """As much of its beginning as fits."""
    found = text[:cells]
    while cell_len(found) > cells:
        found = found[:-1]
    return found


def _tail(text: str, cells: int) -> str:
    """As much of its end as fits."""
    found = text[-cells:] if cells > 0 else ""
    while cell_len(found) > cells:
        found = found[1:]
    return found
