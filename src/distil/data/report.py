"""What was kept and dropped, why, and the digests by which two people compare their data.

Nothing in it depends on when, where or as whom it was made: the same source gives the same bytes.
Left out: writing it (`writing`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from distil.data.dataset import DataSet
from distil.data.prepare import Prepared, Table
from distil.data.sources import Source
from distil.data.splits import SEED, SHARE
from distil.figures.layout import as_text

BAD_SHOWN = 10


def make_report(
    dataset: DataSet, source: Source, done: Prepared, digests: Mapping[str, tuple[int, str]],
    *, skip_bad: bool, verify: bool,
) -> dict[str, Any]:  # fmt: skip
    """digests: written file -> (rows, SHA-256)."""
    tables = {name: _table(dataset, name, table) for name, table in done.tables.items()}
    split = {"test_share": SHARE, "split_seed": SEED} if dataset.split == "tenth" else {}
    return {
        "set": dataset.name,
        "check": dataset.check,
        "source": source.name,
        "version": source.version,
        "settings": {**dataset.settings, **split, "skip_bad": skip_bad, "verified": verify},
        "source_files": [
            {"file": file.label, "rows": done.read[file.label], "sha256": file.sha256()}
            for file in source.files
        ],
        "rows_read": sum(done.read.values()),
        "rows_kept": sum(len(table.rows) for table in done.tables.values()),
        "filtered": _ordered(done.filtered),
        "bad_before_sorting": _ordered(done.unsorted),
        "tables": tables,
        "bad_rows": done.bad[:BAD_SHOWN],
        "files": {
            file: {"rows": rows, "sha256": digest} for file, (rows, digest) in digests.items()
        },
        "warnings": _warnings(dataset, done),
    }


def _table(dataset: DataSet, name: str, table: Table) -> dict[str, Any]:
    told: dict[str, Any] = {"rows": len(table.rows), "dropped": _ordered(table.dropped)}
    if any(table.drawn.keys()):
        kept = Counter(one.item["split"] for one in table.rows)
        told["split"] = {part: kept[part] for part in ("train", "test")}
        told["split_before_dropping"] = {part: table.drawn[part] for part in ("train", "test")}
    if name in dataset.published:
        told["published"] = dict(dataset.published[name])
    return told


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _warnings(dataset: DataSet, done: Prepared) -> list[str]:
    """Where our counts aren't the published ones, which are counts before anything is dropped."""
    told = []
    for name, published in dataset.published.items():
        drawn = done.tables[name].drawn if name in done.tables else Counter[str]()
        ours = {part: drawn[part] if part != "rows" else drawn.total() for part in published}
        if ours != published:
            counts = "/".join(map(str, ours.values()))
            wanted = f"{'/'.join(map(str, published.values()))} ({', '.join(published)})"
            told.append(f"{name}: {counts} rows, and published were {wanted}: not the same data.")
    return told


def as_lines(report: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    version = f", version {report['version']}" if report["version"] else ""
    lines = [f"{report['set']} from {report['source']}{version}: {report['rows_read']} rows read"]
    lines += [f"  {f['sha256']}  {f['file']}" for f in report["source_files"]]
    rows = [["table", "kept", "train", "test", "dropped"]]
    for name, table in report["tables"].items():
        split = table.get("split", {"train": "-", "test": "-"})
        parts = [str(split["train"]), str(split["test"])]
        rows.append([name, str(table["rows"]), *parts, _reasons([table["dropped"]])])
    lines += ["", as_text(rows)]
    lines.append(f"of no table: {_reasons([report['filtered'], report['bad_before_sorting']])}")
    lines += [f"  {fault}" for fault in report["bad_rows"]]
    lines += [f"warning: {told}" for told in report["warnings"]]
    return [*lines, "", "written, with SHA-256:"]


def _reasons(counts: Sequence[Mapping[str, int]]) -> str:
    told = [f"{count} {reason}" for each in counts for reason, count in each.items()]
    return "; ".join(told) or "none"
