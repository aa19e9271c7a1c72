"""The rows of the table before, after and of the teacher (`distil.layout` draws it)."""

from collections.abc import Mapping, Sequence

from distil.evaluate import Attempt, count_ungraded, mean_interval, paired_difference, summarise


def result_rows(evaluations: Mapping[str, Sequence[Attempt]]) -> list[list[str]]:
    """Header and rows: one column an evaluation; "after - before" where both are there.

    Each figure with its 95% interval over problems; the difference is paired, problem by problem.
    Figures that need more samples than an evaluation has are left blank.
    """
    summaries = {name: summarise(attempts) for name, attempts in evaluations.items()}
    compare = {"before", "after"} <= set(evaluations)
    figures = list(dict.fromkeys(f for s in summaries.values() for f in s))
    rows = [["", *evaluations, *(["after - before"] if compare else [])]]
    for figure in figures:
        cells = [str(mean_interval(s[figure])) if figure in s else "" for s in summaries.values()]
        if compare:
            both = figure in summaries["before"] and figure in summaries["after"]
            cells.append(
                f"{_signed(summaries['before'][figure], summaries['after'][figure])}"
                if both
                else ""
            )
        rows.append([figure, *cells])
    rows.append(["tokens", *(f"{_mean_length(a):.1f}" for a in evaluations.values())])
    if any(count_ungraded(a) for a in evaluations.values()):
        rows.append(["ungraded", *(str(count_ungraded(a)) for a in evaluations.values())])
    return [[*row, *[""] * (len(rows[0]) - len(row))] for row in rows]


def _signed(before: list[float], after: list[float]) -> str:
    d = paired_difference(before, after)
    return f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"


def _mean_length(attempts: Sequence[Attempt]) -> float:
    return sum(a.tokens for a in attempts) / len(attempts)
