"""Figure of the likelihood of success: hard prompts' weights, and pass@N at equal mean reward."""

from pathlib import Path

import numpy as np

from distil.theory.plots import COLOURS, finish, save, style, two_panels
from distil.theory.success import MEAN_REWARD, ROLLOUTS, optima
from distil.theory.weights import METHODS, simulated_weight, weight

LABELS = {
    "expert": "success posterior: 1/p",
    "sibling": f"siblings, groups of {ROLLOUTS}",
    "grpo, std": "GRPO, divided by std",
    "grpo": "GRPO without std",
}

SHOWN = {
    "log-success (EM)": "log-success (EM)",
    "forward cross-entropy": "forward cross-entropy",
    "Jensen-Shannon": "Jensen-Shannon",
    "reward, with std": "reward, with std",
    "reward": "reward, and reverse KL (equal)",
}


def draw_success(path: Path) -> None:
    """Above: the factor on grad p by p, curves exact and crosses sampled. Below: pass@N."""
    figure, (above, below) = two_panels()
    rates = np.geomspace(0.002, 0.95, 60)
    for place, method in enumerate(METHODS):
        found = weight(method, rates, ROLLOUTS)
        above.plot(rates, found, label=LABELS[method], **style(place, 60))
        spots = (0.02, 0.3)
        sampled = [simulated_weight(method, p, ROLLOUTS, 20_000) for p in spots]
        above.plot(spots, sampled, "x", color=COLOURS[4], markersize=9, markeredgewidth=2)
    above.set_xscale("log")
    above.set_yscale("log")
    finish(above, "success rate p of a prompt", "weight on grad p", "who pulls at hard prompts")
    tries = 2 ** np.arange(9)
    for place, (name, label) in enumerate(SHOWN.items()):
        passed = [optima()[name].pass_at(int(n)) for n in tries]
        below.plot(tries, passed, label=label, **style(place))
    below.set_xscale("log", base=2)
    title = f"optima at equal mean reward, {MEAN_REWARD}"
    finish(below, "N", "pass@N", title, loc="lower right")
    save(figure, path)
