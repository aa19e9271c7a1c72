"""The rows of a table of evaluations and of their paired difference (drawn by `layout`)."""

from collections.abc import Mapping, Sequence

from distil.figures.estimates import (
    Attempt,
    Figures,
    count_ungraded,
    lengths_and_rates,
    mean_interval,
    means,
    paired_difference,
    summarise,
    truncated_tokens,
)

BEFORE_AND_AFTER = ("before", "after")


def result_rows(
    evaluations: Mapping[str, Sequence[Attempt]],
    ks: Sequence[int] = (),
    pair: tuple[str, str] = BEFORE_AND_AFTER,
) -> list[list[str]]:
    """Header and rows: one column an evaluation; "after - before" where the `pair` is there.

    Each figure with its 95% interval over problems; the difference is paired, problem by problem,
    so that both sides must have the same ones in the same order. A cell is blank where an
    evaluation has too few samples for the figure, or doesn't know it.
    """
    figures = {name: summarise(attempts, ks) for name, attempts in evaluations.items()}
    rates = {name: lengths_and_rates(attempts) for name, attempts in evaluations.items()}
    compare = set(pair) <= set(evaluations)
    rows = [["", *evaluations, *([f"{pair[1]} - {pair[0]}"] if compare else [])]]
    for name in dict.fromkeys(f for s in figures.values() for f in s):
        cells = [str(mean_interval(s[name])) if name in s else "" for s in figures.values()]
        rows.append([name, *cells])
        if compare:
            rows[-1].append(_difference(figures, pair, name, 3))
    for name, digits in (("tokens", 1), ("truncated", 3), ("format", 3)):
        if any(name in s for s in rates.values()):
            cells = [f"{means(s)[name]:.{digits}f}" if name in s else "" for s in rates.values()]
            rows.append([name, *cells])
            if compare:
                rows[-1].append(_difference(rates, pair, name, digits))
    cut = [truncated_tokens(a) for a in evaluations.values()]
    if any(cut):
        rows.append(["tokens of truncated", *("" if c is None else f"{c:.1f}" for c in cut)])
    if any(count_ungraded(a) for a in evaluations.values()):
        rows.append(["ungraded", *(str(count_ungraded(a)) for a in evaluations.values())])
    return [[*row, *[""] * (len(rows[0]) - len(row))] for row in rows]


def _difference(sides: Mapping[str, Figures], pair: tuple[str, str], name: str, digits: int) -> str:
    """A signed difference with its interval; blank where a side hasn't the figure."""
    first, second = sides[pair[0]], sides[pair[1]]
    if name not in first or name not in second:
        return ""
    d = paired_difference(first[name], second[name])
    return f"{d.value:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"
