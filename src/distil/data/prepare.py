"""From a set's rows to tables: sort, split, convert, drop repeated ones, verify, count.

The order is fixed, since it decides what is in the tables: the split is drawn over all rows that
belong to a table, in the order of the files, as the published runs had it; bad and repeated rows
are dropped from it afterwards. Of two rows that ask the same, the one in the test split stays.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from distil.data.dataset import DataSet, Item
from distil.data.reading import read_rows
from distil.data.rows import BadRow, Filtered, Row
from distil.data.sources import Source
from distil.data.splits import train_test_split
from distil.data.verify import Verifier
from distil.errors import DataError
from distil.types import Problem

REPEATED, IN_TEST = "asks the same as another row", "asks the same as a row of the test split"


class Kept(NamedTuple):
    """A row of the set, as the table will have it, and as the problem that a run will see."""

    row: Row
    item: Item
    problem: Problem


@dataclass
class Table:
    """One table as it comes into being. drawn: the split's sizes before anything was dropped."""

    rows: list[Kept] = field(default_factory=list)
    drawn: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass
class Prepared:
    """filtered: reason -> rows that belong to no table; unsorted: bad ones among them."""

    tables: dict[str, Table] = field(default_factory=dict)
    read: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    unsorted: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


def prepare(dataset: DataSet, source: Source, *, skip_bad: bool, verify: bool) -> Prepared:
    """The set's tables. Raises DataError at the first bad row, unless they are to be skipped."""
    done = Prepared()

    def refuse(row: Row, fault: BadRow, counts: Counter[str]) -> None:
        field_ = f"the field {fault.field!r} " if fault.field else ""
        told = f"{row.place}: {field_}{fault}"
        if not skip_bad:
            raise DataError(f"{told} Mend it, or drop and count such rows with --skip-bad.")
        counts[f"bad: {fault.field or 'the whole row'}"] += 1
        done.bad.append(told)

    verifier = Verifier(dataset, answers=verify)
    for name, rows in _sorted(dataset, source, done, refuse).items():
        table = done.tables[name] = Table()
        splits = _splits(dataset, rows)
        table.drawn = Counter(splits)
        for row, split in zip(rows, splits, strict=True):
            try:
                item = _identified(dataset.convert(row), name, row)
                with_split = {**item, "split": split} if split else item
                table.rows.append(Kept(row, with_split, verifier.ask(item)))
            except BadRow as fault:
                refuse(row, fault, table.dropped)
        _drop_repeated(table, refuse)
        _judge(dataset, table, verifier, refuse)
    _check_not_empty(done, source)
    return done


Refuse = Callable[[Row, BadRow, Counter[str]], None]


def _sorted(
    dataset: DataSet, source: Source, done: Prepared, refuse: Refuse
) -> dict[str, list[Row]]:
    """Table -> its rows, in the order of the files; the tables by name."""
    found: dict[str, list[Row]] = {}
    for row in _rows(dataset, source):
        done.read[row.file] += 1
        try:
            row.fields()
            found.setdefault(dataset.table_of(row), []).append(row)
        except Filtered as reason:
            done.filtered[str(reason)] += 1
        except BadRow as fault:
            refuse(row, fault, done.unsorted)
    return dict(sorted(found.items()))


def _rows(dataset: DataSet, source: Source) -> Iterator[Row]:
    for file in source.files:
        yield from (dataset.read or read_rows)(file.path, file.label)


def _splits(dataset: DataSet, rows: list[Row]) -> list[str]:
    """train or test of each row, "" where the set has no split."""
    if dataset.split == "tenth":
        return train_test_split(len(rows))
    if dataset.split == "files":
        parts = [row.part for row in rows]
        return parts if all(parts) else [""] * len(rows)
    return [""] * len(rows)


def _identified(item: Item, table: str, row: Row) -> Item:
    """With an id: the set's, else the table's name and the row's number."""
    return {"id": item.get("id") or f"{table}-{row.number}", **item}


def _drop_repeated(table: Table, refuse: Refuse) -> None:
    """Two rows with one id, or with one question and two answers, are bad; a row that only asks
    the same again is dropped and counted."""
    asked: dict[str, tuple[Row, Item]] = {}
    ids: dict[str, Row] = {}
    gone: set[int] = set()
    in_test_first = sorted(
        enumerate(table.rows), key=lambda one: one[1].item.get("split") != "test"
    )
    for place, (row, item, problem) in in_test_first:
        before = asked.setdefault(problem.question, (row, item))
        first = ids.setdefault(item["id"], row)
        if before[0] is not row:
            gone.add(place)
            if before[1].get("answer") != item.get("answer"):
                told = f"is {item['answer']!r}, and {before[0].place} answers the same question "
                fault = BadRow("answer", f"{told}with {before[1]['answer']!r}.")
                refuse(row, fault, table.dropped)
            else:
                moved = before[1].get("split") != item.get("split")
                table.dropped[IN_TEST if moved else REPEATED] += 1
        elif first is not row:
            gone.add(place)
            told = f"is {item['id']!r}, and so is that of {first.place}."
            refuse(row, BadRow("id", told), table.dropped)
    table.rows = [one for place, one in enumerate(table.rows) if place not in gone]


def _judge(dataset: DataSet, table: Table, verifier: Verifier, refuse: Refuse) -> None:
    """Drops what the check can't judge, and refuses gold answers that it gives no full marks."""
    if dataset.judgeable:
        reasons = dataset.judgeable([kept.item for kept in table.rows])
        table.dropped.update(reason for reason in reasons if reason)
        pairs = zip(table.rows, reasons, strict=True)
        table.rows = [one for one, reason in pairs if reason is None]
    faults = verifier.faults([kept.problem for kept in table.rows])
    right = []
    for kept, fault in zip(table.rows, faults, strict=True):
        if fault is None:
            right.append(kept)
        else:
            refuse(kept.row, fault, table.dropped)
    table.rows = right


def _check_not_empty(done: Prepared, source: Source) -> None:
    if any(table.rows for table in done.tables.values()):
        return
    lost = done.filtered + done.unsorted
    for table in done.tables.values():
        lost += table.dropped
    told = "; ".join(f"{reason}: {count}" for reason, count in lost.most_common(5))
    raise DataError(
        f"Nothing of {source.name} is left: {sum(done.read.values())} rows were read, and all of "
        f"them dropped ({told or 'there were none'}). It may be another set's data."
    )
