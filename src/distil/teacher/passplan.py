"""Which rows of tokens a model reads together, and what it reads once for many of them.

A plan is made from ids and lengths before any pass. Rows in one pass are padded on the right to
its longest, so rows of like length go together; rows that begin alike share their first tokens'
pass. What it minimises: positions run + `fixed` a pass, `fixed` being the tokens that take as long
as starting a pass does. Left out: running it (`distil.teacher.teacherpass`), and what attention
costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

PADDING = 0.05
"""The largest share of positions that may be padding."""

WORTH = 0.9
"""Sharing is done where it brings the cost down to this share or less."""


@dataclass(frozen=True)
class Row:
    """One row's tokens, of which the last `wanted` are looked at. `place`: its row in the batch."""

    place: int
    ids: list[int]
    wanted: int


@dataclass(frozen=True)
class Stage:
    """Passes that need the same prefixes, if any: one over the prefixes, then those over rows.

    Each pass lists its rows; `owner[row.place]` is the row's prefix, whose tokens it begins with.
    """

    passes: list[list[Row]]
    prefixes: list[list[int]] = field(default_factory=list)
    owner: dict[int, int] = field(default_factory=dict)

    def rest(self, row: Row) -> list[int]:
        """The row's tokens after its prefix."""
        return row.ids[len(self.prefixes[self.owner[row.place]]) :] if self.prefixes else row.ids

    def lengths(self) -> list[list[int]]:
        """For each pass, the number of tokens of each thing in it."""
        rows = [[len(self.rest(row)) for row in rows] for rows in self.passes]
        return [[len(p) for p in self.prefixes], *rows] if self.prefixes else rows


def make_plan(rows: Sequence[Row], *, limit: int, fixed: float, share: bool) -> list[Stage]:
    """Stages that together have every row once. At most 5% of the positions are padding.

    limit: positions that a pass may have, a prefix counted once for each of its rows (a single row
    may be longer). share: whether prefixes may be run apart from what follows them.
    """
    lengths = [len(row.ids) for row in rows]
    passes = _picked(rows, in_passes(lengths, limit=limit, fixed=fixed))
    plain = [Stage(passes)] if passes else []
    if not share or not plain:
        return plain
    shared = _sharing(rows, limit, fixed)
    return shared if cost(shared, fixed) <= WORTH * cost(plain, fixed) else plain


def cost(stages: Sequence[Stage], fixed: float) -> float:
    """Positions run, and `fixed` a pass."""
    passes = [lengths for stage in stages for lengths in stage.lengths()]
    return sum(len(p) * max(p) + fixed for p in passes)


def in_passes(
    lengths: Sequence[int],
    *,
    limit: int,
    fixed: float,
    before: int = 0,
    padding: float | None = None,
) -> list[list[int]]:
    """Groups of places, so that sum(rows * longest) + fixed * groups is the least there is.

    before: positions that every row has beside its own (they count for the limit). padding: the
    most padded positions, 5% of all tokens if it's None; `fixed` is lowered until they are no more.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    longest_first = [lengths[i] for i in order]
    allowed = PADDING * sum(lengths) if padding is None else padding
    while True:
        cuts = _cut(longest_first, limit, fixed, before)
        waste = sum(longest_first[a] * (b - a) - sum(longest_first[a:b]) for a, b in cuts)
        if waste <= allowed:
            return [order[a:b] for a, b in cuts]
        fixed = 0.75 * fixed if fixed > 1e-6 else 0.0


def _cut(lengths: Sequence[int], limit: int, fixed: float, before: int) -> list[tuple[int, int]]:
    """The cheapest cut of lengths, longest first, into neighbours' groups (a, b)."""
    best, start = [0.0], [0]
    for b in range(1, len(lengths) + 1):
        # From the smallest group on, so that equal costs leave rows alone: no padding for nothing.
        least, first = float("inf"), b - 1
        for a in range(b - 1, -1, -1):
            if (b - a) * (before + lengths[a]) > limit and b - a > 1:
                break
            here = best[a] + fixed + lengths[a] * (b - a)
            if here < least:
                least, first = here, a
        best.append(least)
        start.append(first)
    cuts, b = [], len(lengths)
    while b:
        cuts.append((start[b], b))
        b = start[b]
    return cuts[::-1]


def _sharing(rows: Sequence[Row], limit: int, fixed: float) -> list[Stage]:
    """The rows that have a common beginning worth it, in stages with it; the others without."""
    clusters = common_beginnings(rows, fixed / 8)
    alone = [row for length, members in clusters if not length for row in members]
    clusters = [(length, members) for length, members in clusters if length]
    stages = []
    half = PADDING / 2  # of all tokens that these clusters run: one for prefixes, one for rows
    allowed = half * sum(n + sum(len(r.ids) - n for r in rows) for n, rows in clusters)
    for group in in_passes([n for n, _ in clusters], limit=limit, fixed=fixed, padding=allowed):
        together = [clusters[i] for i in group]
        longest = max(length for length, _ in together)
        prefixes = [members[0].ids[:length] for length, members in together]
        members = [row for _, rows in together for row in rows]
        owner = {row.place: i for i, (_, rows) in enumerate(together) for row in rows}
        begun = Stage([], prefixes, owner)
        lengths = [len(begun.rest(row)) for row in members]
        allowed = half * (sum(length for length, _ in together) + sum(lengths))
        places = in_passes(lengths, limit=limit, fixed=fixed, before=longest, padding=allowed)
        stages.append(Stage(_picked(members, places), prefixes, owner))
    passes = _picked(alone, in_passes([len(r.ids) for r in alone], limit=limit, fixed=fixed))
    return [*stages, Stage(passes)] if passes else stages


def common_beginnings(rows: Sequence[Row], least: float) -> list[tuple[int, list[Row]]]:
    """(length, rows) of clusters that begin with the same tokens; length 0 for rows alone.

    The clusters save the most tokens that clusters of neighbours in the ids' order can save, each
    saving at least `least`: (rows - 1) * length - least is what counts. No beginning reaches into
    a row's wanted tokens.
    """
    order = sorted(rows, key=lambda row: row.ids)
    common = [0, *(_alike(a.ids, b.ids) for a, b in pairwise(order))]
    best, start, length_at = [0.0], [0], [0]
    for b in range(1, len(order) + 1):
        found = (best[b - 1], b - 1, 0)
        length = len(order[b - 1].ids) - order[b - 1].wanted
        for a in range(b - 2, -1, -1):
            length = min(length, common[a + 1], len(order[a].ids) - order[a].wanted)
            if length == 0:
                break
            found = max(found, (best[a] + (b - a - 1) * length - least, a, length))
        best.append(found[0])
        start.append(found[1])
        length_at.append(found[2])
    clusters, b = [], len(order)
    while b:
        clusters.append((length_at[b], order[start[b] : b]))
        b = start[b]
    return clusters[::-1]


def _alike(a: list[int], b: list[int]) -> int:
    """How many first tokens two lists have in common."""
    shorter = min(len(a), len(b))
    return next((i for i in range(shorter) if a[i] != b[i]), shorter)


def _picked(rows: Sequence[Row], groups: Sequence[Sequence[int]]) -> list[list[Row]]:
    return [[rows[i] for i in group] for group in groups]
