"""Figure of wrong teachers: the end reward by the share of confident, wrong feedback."""

from pathlib import Path
from typing import Any

from distil.theory.following import ENTROPY_GATE, NO_GATE, REWARD_GATE, Gate, Objective
from distil.theory.plots import COLOURS, finish, save, style, two_panels
from distil.theory.trained import SAMPLED_PROMPT_GATE, outcome, start, taught

OBJECTIVES: dict[Objective, str] = {
    "forward_cross_entropy": "forward cross-entropy",
    "jensen_shannon": "Jensen-Shannon",
    "reverse_kl": "reverse KL",
    "sft": "SFT on the demonstrations",
    "grpo": "GRPO (no teacher)",
}
GATES: dict[str, tuple[Objective, Gate]] = {
    "no gate": ("forward_cross_entropy", NO_GATE),
    "entropy of the teacher": ("forward_cross_entropy", ENTROPY_GATE),
    "reward, each feedback's": ("forward_cross_entropy", REWARD_GATE),
    "reward, 2 answers a prompt": ("forward_cross_entropy", SAMPLED_PROMPT_GATE),
    "the same, with GRPO": ("forward+grpo", SAMPLED_PROMPT_GATE),
}


def draw_wrong_teachers(path: Path) -> None:
    """Above: objectives without a gate. Below: forward cross-entropy with gates. Bars: 95%."""
    figure, (above, below) = two_panels()
    plain = {label: (objective, NO_GATE) for objective, label in OBJECTIVES.items()}
    for axes, lines in ((above, plain), (below, GATES)):
        for place, (label, (objective, gate)) in enumerate(lines.items()):
            _line(axes, place, label, objective, gate)
        axes.axhline(start(), xmin=0.62, color=COLOURS[4], linewidth=1, linestyle=":")
        axes.text(0.9, start() + 0.015, "start", fontsize=12, ha="center")
        axes.set_ylim(-0.02, 1.04)
    x, y = "share of feedback that is confident and wrong", "reward at the end"
    finish(above, x, y, "objectives, no gate", loc="lower left")
    finish(below, x, y, "gates on the forward cross-entropy", loc="lower left")
    save(figure, path)


def _line(axes: Any, place: int, label: str, objective: Objective, gate: Gate) -> None:
    found = outcome("scattered", objective, gate)
    levels, mean, half = taught("scattered").levels, found.mean(), found.half_width()
    look = style(place)
    axes.errorbar(levels, mean, half, label=label, capsize=3, elinewidth=1, **look)
