"""Plans of passes: every row once, little padding, the cheapest cut, beginnings that pay."""

import itertools
import random

import pytest

from distil.teacher.passplan import PADDING, Row, common_beginnings, cost, in_passes, make_plan


def rows_of(lengths: list[int], wanted: int = 1) -> list[Row]:
    """Rows that have nothing in common."""
    return [Row(i, [1000 * (i + 1) + t for t in range(n)], wanted) for i, n in enumerate(lengths)]


def padding(stages: list) -> float:
    passes = [lengths for stage in stages for lengths in stage.lengths()]
    positions = sum(len(p) * max(p) for p in passes)
    return 1 - sum(map(sum, passes)) / positions


def mix(seed: int, groups: int, size: int) -> list[Row]:
    """Groups that share a prompt, its last siblings but a part of it; lengths very unequal."""
    stream = random.Random(f"mix/{seed}")
    rows = []
    for group in range(groups):
        prompt = [stream.randrange(50) for _ in range(stream.randrange(20, 900))]
        for sibling in range(size):
            own = prompt if sibling else [*prompt[: len(prompt) // 2], 99]
            wanted = stream.randrange(1, 300)
            ids = own + [100 + stream.randrange(50) for _ in range(wanted - 1)]
            rows.append(Row(group * size + sibling, ids, wanted))
    return rows


@pytest.mark.parametrize("fixed", [0.0, 48.0, 1e6])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_every_row_stands_once_and_padding_stays_below_its_bound(
    seed: int, share: bool, fixed: float
) -> None:
    rows = mix(seed, 8, 4)
    stages = make_plan(rows, limit=8 * max(len(r.ids) for r in rows), fixed=fixed, share=share)
    there = [row.place for stage in stages for group in stage.passes for row in group]
    assert sorted(there) == list(range(len(rows)))
    assert padding(stages) <= PADDING
    for stage in stages:
        for row in itertools.chain(*stage.passes):
            start = stage.prefixes[stage.owner[row.place]] if stage.prefixes else []
            assert start + stage.rest(row) == row.ids
            assert len(stage.rest(row)) >= row.wanted


def test_no_pass_has_more_positions_than_its_limit() -> None:
    rows = mix(5, 6, 4)
    limit = 3 * max(len(r.ids) for r in rows)
    for share in (True, False):
        for stage in make_plan(rows, limit=limit, fixed=1e6, share=share):
            before = max(map(len, stage.prefixes), default=0)
            assert len(stage.prefixes) * before <= limit
            for group in stage.passes:
                longest = max(len(stage.rest(row)) for row in group)
                assert len(group) * (before + longest) <= limit


def every_cut(count: int) -> list[list[int]]:
    """All ways to cut a list into neighbours' groups, as the groups' sizes."""
    if count == 0:
        return [[]]
    return [[n, *rest] for n in range(1, count + 1) for rest in every_cut(count - n)]


@pytest.mark.parametrize("fixed", [1.0, 7.0, 30.0])
def test_the_cut_is_the_cheapest_of_all(fixed: float) -> None:
    lengths = [3, 19, 4, 20, 11, 9, 10, 2]
    ordered = sorted(lengths, reverse=True)

    def price(groups: list[list[int]]) -> float:
        return sum(len(g) * max(g) + fixed for g in groups)

    found = [[lengths[i] for i in g] for g in in_passes(lengths, limit=50, fixed=fixed, padding=99)]
    cuts = []
    for sizes in every_cut(len(lengths)):
        left = iter(ordered)
        cuts.append([list(itertools.islice(left, n)) for n in sizes])
    allowed = [c for c in cuts if all(len(g) * max(g) <= 50 for g in c)]
    assert price(found) == min(map(price, allowed))


def test_siblings_share_their_prompt_and_never_what_is_looked_at() -> None:
    shared = list(range(40))
    rows = [Row(i, [*shared, 50 + i, 60], 2) for i in range(4)]
    rows.append(Row(4, [*shared[:10], 7, 7, 7], 1))
    rows.append(Row(5, [*range(70, 90)], 20))
    clusters = {tuple(r.place for r in members): n for n, members in common_beginnings(rows, 5)}
    assert clusters == {(0, 1, 2, 3): 40, (4,): 0, (5,): 0}
    same = [Row(i, [*range(30)], 12) for i in range(2)]
    assert [n for n, _ in common_beginnings(same, 5)] == [18]


def test_what_saves_too_little_is_not_shared() -> None:
    rows = [Row(i, [1, 2, 3, *range(10 * i + 10, 10 * i + 20)], 4) for i in range(3)]
    assert [n for n, _ in common_beginnings(rows, 5)] == [3]
    assert [n for n, _ in common_beginnings(rows, 7)] == [0, 0, 0]
    (stage,) = make_plan(rows, limit=1000, fixed=48, share=True)
    assert stage.prefixes == []
    long = [Row(i, [*range(400), 1000 + i], 1) for i in range(4)]
    (stage,) = make_plan(long, limit=10_000, fixed=48, share=True)
    assert stage.prefixes == [[*range(400)]]
    assert cost([stage], 48) == 400 + 4 + 2 * 48


def test_nothing_to_run_is_no_stage() -> None:
    assert make_plan([], limit=0, fixed=48, share=True) == []
