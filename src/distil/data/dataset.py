"""What a published set is to us: where it lies, how its rows become rows of a table, how judged.

    DataSet("amc23", "math", "...", origins={"math-ai/amc23": ("*.parquet",)}, convert=..., ...)

Left out: the sets themselves (`distil.data.sets`), and what is done with one (`prepare`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from distil.config import CheckName
from distil.data.rows import Row

Domain: TypeAlias = Literal["science", "coding", "math"]
Item: TypeAlias = dict[str, Any]
"""A row as `distil.tasks.table` reads it."""


@dataclass(frozen=True)
class DataSet:
    """One published set.

    origins: hub id or pip package -> the files of it, as patterns; the first is the default.
    convert: a row as an Item; raises BadRow. sort: the table that a row belongs to; raises Filtered
    or BadRow. split: none, a tenth of each table to test, or as the files' names say.
    judgeable: of items, which ones the check can't judge, by reason. write: a table's items as the
    tables that are written. published: table -> the counts that were published. read: reads a file
    whose rows aren't a plain list. settings: what else decides the tables, for the report.
    """

    name: str
    domain: Domain
    about: str
    licence: str
    check: CheckName
    origins: Mapping[str, tuple[str, ...]]
    convert: Callable[[Row], Item]
    sort: Callable[[Row], str] | None = None
    split: Literal["none", "tenth", "files"] = "none"
    judgeable: Callable[[Sequence[Item]], list[str | None]] | None = None
    write: Callable[[str, Sequence[Item]], dict[str, list[Item]]] | None = None
    published: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    read: Callable[[Path, str], Iterator[Row]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default(self) -> str | None:
        """Where it is taken from if nothing else is said."""
        return next(iter(self.origins), None)

    def table_of(self, row: Row) -> str:
        """The table that a row belongs to."""
        return self.sort(row) if self.sort else self.name
