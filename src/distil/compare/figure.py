"""The figure: avg@n and pass@n against rollouts and against training seconds, a line a contender.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; line styles and markers
differ too, for print in grey. Bands are 95% t-intervals over seeds.
"""

from pathlib import Path
from typing import Any

from distil.compare.curves import band
from distil.compare.results import Results

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C6D00",
)  # fmt: skip
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
MARKERS = "osD^vPX*"
WIDTH_INCHES, ROW_INCHES, DOTS = 8.0, 3.3, 150


def draw(results: Results, file: Path) -> None:
    """Writes the PNG; contenders without a curve are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [name for name, c in results.contenders.items() if c.curves]
    legend_rows = -(-len(shown) // 3)
    height = ROW_INCHES * len(results.figures) + 0.9 + 0.3 * legend_rows
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(results.figures), 2, sharex="col", sharey="row", squeeze=False)
    for row, name in enumerate(results.figures):
        for column in (0, 1):
            _panel(axes[row][column], results, name, against_seconds=bool(column))
        axes[row][0].set_ylabel(f"{name}, held-out problems", fontsize=13)
    axes[-1][0].set_xlabel("rollouts", fontsize=13)
    axes[-1][1].set_xlabel("training time, seconds", fontsize=13)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(3, len(labels)), fontsize=13,
        frameon=False, handlelength=3.2, title=_how_many(results), title_fontsize=12,
    )  # fmt: skip
    figure.savefig(file, dpi=DOTS)


def _how_many(results: Results) -> str:
    """What lines and bands are."""
    most = max((len(c.curves) for c in results.contenders.values()), default=0)
    return "one seed" if most == 1 else f"mean over {most} seeds; bands: 95% t-intervals"


def _panel(axes: Any, results: Results, figure: str, *, against_seconds: bool) -> None:
    """One figure of all contenders against one axis."""
    heights: list[float] = []
    for place, (name, contender) in enumerate(results.contenders.items()):
        if not contender.curves:
            continue
        points = band(list(contender.curves.values()), figure, against_seconds=against_seconds)
        xs, means = [x for x, _ in points], [i.mean for _, i in points]
        style: dict[str, Any] = {
            "color": COLOURS[place % len(COLOURS)],
            "linestyle": LINES[(place + place // len(COLOURS)) % len(LINES)],
            "marker": MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
            "markevery": (place % 3 if len(xs) > 6 else 0, max(1, len(xs) // 6)),
        }
        axes.plot(xs, means, label=name, linewidth=2, markersize=6, **style)
        lows = [i.mean if i.low is None else max(0.0, i.low) for _, i in points]
        highs = [i.mean if i.high is None else min(1.0, i.high) for _, i in points]
        axes.fill_between(xs, lows, highs, color=style["color"], alpha=0.13, linewidth=0)
        heights += [*lows, *highs]
    if heights:
        margin = 0.05 * (max(heights) - min(heights)) or 0.05
        axes.set_ylim(max(-0.02, min(heights) - margin), min(1.02, max(heights) + margin))
    axes.set_xlim(left=0)
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
