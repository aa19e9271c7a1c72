"""The figure of the local-only trap: where both credits stand still, and training's way there."""

from pathlib import Path

import numpy as np

from distil.theory.plots import COLOURS, finish, save, style, two_panels
from distil.theory.trap import BOLD, KEYS, look, reward, student_at, train, with_future


def draw_trap(path: Path) -> None:
    """Objective and reward by the probability of a door; reward along training."""
    figure, (above, below) = two_panels()
    doors = np.linspace(0.1, 0.98, 89)
    points = [look(student_at(x)) for x in doors]
    above.plot(doors, [p.objective for p in points], color=COLOURS[4], linewidth=2)
    both = {"local + future": with_future(), "local only": BOLD}
    for place, (name, door) in enumerate(both.items()):
        p = look(student_at(door))
        label = f"{name}: reward {p.reward:.3f}"
        mark = style(place) | {"linestyle": "", "markersize": 12}
        above.plot([door], [p.objective], label=label, **mark)
    title = "where each credit stands still"
    finish(above, "student's probability of a door", "objective L, nats", title)
    start = np.zeros((KEYS, KEYS))
    for place, (name, future) in enumerate({"local + future": True, "local only": False}.items()):
        rewards = [reward(s) for s in train(start, future=future, steps=60)]
        below.plot(range(61), rewards, label=name, **style(place, 61))
    below.set_ylim(bottom=0)
    finish(below, "gradient steps", "reward", "training, from a uniform student", loc="lower left")
    save(figure, path)
