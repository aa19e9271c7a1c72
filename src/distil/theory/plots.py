"""How the theory's figures look: two panels, one below the other, readable on a phone and in grey.

Colours are Okabe and Ito's; line styles and markers differ too. Left out: what is drawn.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)))
MARKERS = "osD^v"
INCHES, DOTS = (6.0, 7.6), 130


def two_panels() -> tuple[Any, Any]:
    """(figure, two axes), drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(2, 1)


def style(place: int, points: int = 0) -> dict[str, Any]:
    """Colour, line and marker of the line at this place; about 6 markers on many points."""
    return {
        "color": COLOURS[place],
        "linestyle": LINES[place],
        "marker": MARKERS[place],
        "markevery": max(1, points // 6),
        "linewidth": 2,
        "markersize": 7,
    }


def finish(axes: Any, x: str, y: str, title: str, **legend: Any) -> None:
    """Labels, grid and legend in sizes that a phone shows."""
    axes.set_xlabel(x, fontsize=13)
    axes.set_ylabel(y, fontsize=13)
    axes.set_title(title, fontsize=13, loc="left")
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=11, frameon=False, handlelength=3.2, **legend)


def save(figure: Any, path: Path) -> None:
    """Writes the PNG in 64 colours, without date or versions: the same figure is the same file."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, dpi=DOTS, metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
