"""Figures of the token trees: bias and noise by length, and the tilt away from the teacher."""

from pathlib import Path

import numpy as np

from distil.theory.entropy import SHARPNESS, by_sharpness
from distil.theory.plots import finish, save, style, two_panels
from distil.theory.treebias import PUBLISHED_COSINES, SIZES, mean_cosines, variances


def draw_estimators(path: Path) -> None:
    """Cosine of `mean` with the exact gradient, and the noise of one rollout, against length."""
    figure, (above, below) = two_panels()
    series = {
        "3 tokens": (3, range(2, 7), False),
        "2 tokens": (2, range(2, 11), False),
        "2 tokens, one ends early": (2, range(2, 11), True),
    }
    for place, (label, (vocabulary, lengths, early)) in enumerate(series.items()):
        found = [mean_cosines(vocabulary, n, early_stop=early, trees=40) for n in lengths]
        lowest, middle = np.percentile(found, [5, 50], axis=1)
        look = style(place, len(lengths))
        above.plot(lengths, middle, label=label, **look)
        above.plot(lengths, lowest, **look | {"linewidth": 1, "markersize": 3})
    known = [n for _, n in SIZES]
    above.plot(known, PUBLISHED_COSINES, "k*", markersize=11, label="four single trees, before")
    title = "'mean' and the exact gradient: median, 5% (thin)"
    finish(above, "length, tokens", "cosine", title, loc="lower left")
    short = list(range(2, 9))
    noise = [variances(n, trees=12) for n in short]
    for place, name in enumerate(noise[0]):
        below.plot(short, [x[name] for x in noise], label=name, **style(place, len(short)))
    below.set_yscale("log")
    finish(
        below, "length, tokens", "variance / |grad|^2", "noise of one rollout, 2 tokens", ncols=2
    )
    below.set_ylim(top=below.get_ylim()[1] * 6)
    save(figure, path)


def draw_entropy(path: Path) -> None:
    """The exact optimum's length against the teacher's, by how sure the teacher is."""
    figure, (above, below) = two_panels()
    found = [by_sharpness(s) for s in (0.5, 1.0, *SHARPNESS)]
    nats = [x.entropy for x in found]
    lines = {
        "teacher (KL's optimum)": [x.teacher for x in found],
        "cross-entropy's optimum": [x.optimum for x in found],
    }
    for place, (name, values) in enumerate(lines.items()):
        above.plot(nats, values, label=name, **style(place))
    above.set_ylim(bottom=0)
    finish(above, "teacher's entropy, nats a token", "expected tokens", "length of answers")
    shares = [100 * (1 - x.optimum / x.teacher) for x in found]
    below.plot(nats, shares, **style(1))
    below.set_ylim(bottom=0)
    finish(below, "teacher's entropy, nats a token", "shorter, %", "the optimum's cut")
    save(figure, path)
