"""The figure of regret against rounds, and of cloning's errors against the horizon."""

from pathlib import Path

import numpy as np

from distil.theory.cloning import HORIZONS, errors
from distil.theory.plots import COLOURS, finish, save, style, two_panels
from distil.theory.regret import ROUNDS, follow_the_leader, make_game, mirror_descent, rate


def draw_regret(path: Path) -> None:
    """Average regret of both learners on one tree; steps off the path of cloning and DAgger."""
    figure, (above, below) = two_panels()
    game = make_game()
    shown = np.unique(np.geomspace(1, ROUNDS, 40).astype(int))
    learners = {"follow the leader": follow_the_leader, "mirror descent": mirror_descent}
    for place, (name, learn) in enumerate(learners.items()):
        found = learn(game)
        label = f"{name}: n^{rate(found):.2f}"
        above.plot(shown, [found[n - 1].regret for n in shown], label=label, **style(place, 40))
        if name == "mirror descent":
            bound = [found[n - 1].bound for n in shown]
            above.plot(shown, bound, color=COLOURS[4], linestyle=":", label="its bound")
    above.set_xscale("log")
    above.set_yscale("log")
    finish(above, "rounds", "average regret, nats", "regret against the best policy, one tree")
    lines = {
        "cloning": errors(cloned=True),
        "DAgger": errors(cloned=False),
        "DAgger, no way back": errors(cloned=False, way_back=False),
    }
    for place, (name, found_errors) in enumerate(lines.items()):
        label = f"{name}: T^{found_errors.exponent:.2f}"
        wide = {"linewidth": 6, "alpha": 0.45} if name == "cloning" else {}  # seen beneath another
        below.plot(HORIZONS, found_errors.steps, label=label, **style(place) | wide)
    below.set_xscale("log", base=2)
    below.set_yscale("log")
    finish(
        below, "horizon T, steps", "steps off the path", "one mistake in 1,000 steps on the path"
    )
    save(figure, path)
