"""Figures of the bandits: the three-arm example on its way, and how often each divergence falls."""

from pathlib import Path

from distil.theory.bandits import RIVALS, alpha_shares, example_trajectory, shares
from distil.theory.divergences import GEOMETRIES
from distil.theory.plots import COLOURS, finish, save, style, two_panels

NAMES = {
    "forward_cross_entropy": "forward cross-entropy",
    "reverse_kl": "reverse KL",
    "jensen_shannon": "Jensen-Shannon",
}
LEGENDS = {"policy": "center right", "logit": "lower right"}
SPACES = {"policy": "policy-space steps", "logit": "steps on logits"}


def draw_bandits(path: Path) -> None:
    """Reward along the three-arm example's training, in both geometries."""
    figure, panels = two_panels()
    steps = 400
    for axes, geometry in zip(panels, GEOMETRIES, strict=True):
        for place, name in enumerate(RIVALS):
            rewards = example_trajectory(name, geometry, steps)
            axes.plot(rewards, label=NAMES[name], **style(place, steps))
        for level, line in ((0.68, "-"), (0.58, ":")):
            axes.axhline(level, color=COLOURS[4], linewidth=1, linestyle=line)
        axes.text(2, 0.684, "teacher", fontsize=12)
        axes.text(steps, 0.583, "start", fontsize=12, ha="right")
        axes.set_ylim(top=0.70)
        axes.set_xlim(-4, steps + 4)
        title = f"three arms, {SPACES[geometry]}"
        finish(axes, "steps at rate 0.05", "reward", title, loc=LEGENDS[geometry])
    save(figure, path)


def draw_divergences(path: Path) -> None:
    """Share of random bandits that fall, along the alpha divergences and for the named ones."""
    figure, panels = two_panels()
    for axes, geometry in zip(panels, GEOMETRIES, strict=True):
        alphas = alpha_shares(geometry)
        percents = [100 * share for share in alphas.values()]
        axes.plot(list(alphas), percents, label="alpha divergences", **style(0))
        percent = 100 * shares(geometry, ("jensen_shannon",))["js"]
        axes.axhline(
            percent, label=f"Jensen-Shannon: {percent:.1f}%", color=COLOURS[1], linestyle="--"
        )
        for alpha, name in ((0, "reverse KL"), (1, "forward KL")):
            spot = 100 * alphas[alpha]
            where = (0.3, spot + 2.5) if alpha == 0 else (-0.9, max(1.5, spot - 5))
            axes.annotate(
                f"{name}: {spot:.1f}%", (alpha, spot), where, fontsize=12,
                arrowprops={"arrowstyle": "-"},
            )  # fmt: skip
        axes.set_ylim(-0.5, 25)
        title = f"falls under a better teacher, {SPACES[geometry]}"
        finish(axes, "alpha", "% of bandits", title, loc="upper right")
    save(figure, path)
