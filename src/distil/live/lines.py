"""The facts as one plain line: no escape sequence, no line end in it."""

from distil.figures.layout import clock
from distil.live.cells import one_line
from distil.live.facts import Facts

TEXT_CELLS = 60
"""Of a question, and of an answer."""


def as_line(facts: Facts, now: float) -> str:
    """'step 3/100, 5:20 left, reward 0.25 (0.12 2 steps before), cost 1.9, ...'."""
    parts = [where(facts), f"{left(facts, now)} left", *_figures(facts)]
    if facts.shares:
        parts.append("teacher saw " + shares(facts))
    if facts.speeds:
        parts.append("tokens/s " + speeds(facts))
    if facts.alarms:
        parts.append("alarms: " + "; ".join(facts.alarms))
    line = ", ".join(parts)
    if facts.rollout is None:
        return line
    question = one_line(facts.rollout.question, TEXT_CELLS)
    answer = one_line(facts.rollout.answer, TEXT_CELLS)
    return f'{line}; last: "{question}" -> "{answer}": {facts.rollout.verdict}'


def where(facts: Facts) -> str:
    """'step 3/100', and the update where a step has several."""
    done, steps = facts.update // facts.updates, facts.total // facts.updates
    several = f" (update {facts.update}/{facts.total})" if facts.updates > 1 else ""
    return f"step {done}/{steps}{several}"


def left(facts: Facts, now: float) -> str:
    """The time left as a clock, '?' until a step has been measured."""
    return "?" if facts.ends is None else clock(facts.ends - now)


def shares(facts: Facts) -> str:
    """'sibling 50%, expert 25%, nobody 25%'."""
    return ", ".join(f"{kind} {share:.0%}" for kind, share in facts.shares)


def speeds(facts: Facts) -> str:
    """'sampling 320, teacher 900, student 450'."""
    return ", ".join(f"{who} {rate:,.0f}" for who, rate in facts.speeds)


def credit(facts: Facts) -> str | None:
    """'0.031, 40% of the loss': nats a token, and its part in the loss; None without a teacher."""
    value, share = (facts.latest.get(f"distil/future_{n}") for n in ("credit", "share"))
    if value is None:
        return None
    return f"{value:.3f}" + ("" if share is None else f", {share:.0%} of the loss")


def _figures(facts: Facts) -> list[str]:
    found = []
    if facts.rewards:
        before = len(facts.rewards) - 1
        ago = "one step" if before == 1 else f"{before} steps"
        was = f" ({facts.rewards[0]:.2f} {ago} before)" if before else ""
        found.append(f"reward {facts.rewards[-1]:.2f}{was}")
    if facts.cost is not None:
        found.append(f"{facts.cost[0]} {facts.cost[1]:.3f}")
    if (told := credit(facts)) is not None:
        found.append(f"future credit {told}")
    return found
