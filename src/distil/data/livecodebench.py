"""LiveCodeBench v6: contest problems of some months, with their public and hidden tests.

Two tables of the same problems: livecodebench-test has all tests of each, livecodebench-train a
random half (rounded up, so at least one; public and hidden ones alike), drawn from the seed and the
problem's id. Public tests say "public": true, and feedback may show what they expect. Left out: the
format demand, and running anything.
"""

import random
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from distil.data.dataset import DataSet, Item
from distil.data.privatetests import private_tests
from distil.data.rows import BadRow, Filtered, Row, shown
from distil.data.splits import SEED
from distil.tasks.rows import parse_json

FIRST, LAST = date(2025, 2, 1), date(2025, 5, 1)
FILES = ("test.jsonl", *(f"test{n}.jsonl" for n in range(2, 7)))
READS = (
    "{problem}\n\nWrite a Python program that reads the input from standard input and prints the "
    "answer to standard output."
)
COMPLETES = (
    "{problem}\n\nComplete this Python code, keeping its names:\n\n```python\n{starter}\n```"
)


def sort_by_date(row: Row) -> str:
    """Those of the published months."""
    told = row.text("contest_date")
    try:
        day = datetime.fromisoformat(told).date()
    except ValueError as error:
        raise BadRow("contest_date", f"is {told!r}, and no date ({error}).") from error
    if not FIRST <= day <= LAST:
        raise Filtered(f"contest before {FIRST}" if day < FIRST else f"contest after {LAST}")
    return "livecodebench"


def problem(row: Row) -> Item:
    """Statement and tests; title, difficulty, platform and date stay as columns."""
    function = _function(row.text("metadata"))
    public = _list("public_test_cases", _parsed(row.text("public_test_cases"), "public_test_cases"))
    hidden = _list("private_test_cases", private_tests(row.text("private_test_cases")))
    tests = [_test(t, function, "public_test_cases", n, True) for n, t in enumerate(public, 1)]
    tests += [_test(t, function, "private_test_cases", n, False) for n, t in enumerate(hidden, 1)]
    if not tests:
        raise BadRow("private_test_cases", "is an empty list, and so is 'public_test_cases'.")
    content, starter = row.text("question_content"), row.optional_text("starter_code")
    if function and not starter:
        raise BadRow("starter_code", "is empty, and the tests call a function of it.")
    return {
        "id": row.text("question_id"),
        "question": COMPLETES.format(problem=content, starter=starter.strip("\n"))
        if function and starter
        else READS.format(problem=content),
        "tests": tests,
        "title": row.text("question_title"),
        "difficulty": row.text("difficulty"),
        "platform": row.text("platform"),
        "date": row.text("contest_date")[:10],
    }


def halved(table: str, items: Sequence[Item]) -> dict[str, list[Item]]:
    """The two tables: half of each problem's tests to train on, all of them to judge by."""
    return {
        f"{table}-train": [{**item, "tests": half(item["id"], item["tests"])} for item in items],
        f"{table}-test": list(items),
    }


def half(name: str, tests: Sequence[Any], seed: int = SEED) -> list[Any]:
    """A random half of the tests, rounded up, in their order."""
    chosen = random.Random(f"half/{seed}/{name}").sample(range(len(tests)), (len(tests) + 1) // 2)
    return [tests[place] for place in sorted(chosen)]


def _function(text: str) -> str | None:
    metadata = _parsed(text, "metadata")
    if not isinstance(metadata, dict):
        raise BadRow("metadata", f"is {shown(metadata)}, and must be an object.")
    name = metadata.get("func_name")
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise BadRow("metadata", f"has the func_name {shown(name)}, and must have a function's.")
    return name


def _test(test: Any, function: str | None, field: str, number: int, public: bool) -> Item:
    where = f"test {number}"
    if not isinstance(test, dict):
        raise BadRow(field, f"has {shown(test)} as {where}, and must have an object.")
    for name in ("input", "output", "testtype"):
        if not isinstance(test.get(name), str):
            told = shown(test[name]) if name in test else "missing"
            raise BadRow(field, f"has a {where} whose {name!r} is {told}, and must be a text.")
    if test["testtype"] == "stdin":
        return {"stdin": test["input"], "expected": test["output"], "public": public}
    if test["testtype"] != "functional":
        told = f"{where} of the testtype {test['testtype']!r}"
        raise BadRow(field, f"has a {told}; known are 'stdin' and 'functional'.")
    if function is None:
        raise BadRow("metadata", f"has no 'func_name', and {where} of {field!r} calls a function.")
    args = [_parsed(line, f"{field}, {where}") for line in test["input"].strip("\n").split("\n")]
    expected = _parsed(test["output"], f"{field}, {where}")
    return {"function": function, "args": args, "expected": expected, "public": public}


def _list(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadRow(field, f"is {shown(value)}, and must be a list of tests.")
    return value


def _parsed(text: str, field: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise BadRow(field, f"is {shown(text)}, and no valid JSON ({error}).") from error


LIVECODEBENCH = DataSet(
    name="livecodebench",
    domain="coding",
    about=f"LiveCodeBench v6, contests from {FIRST} to {LAST}",
    licence="see the dataset's card; problems belong to their contests",
    check="programs",
    origins={"livecodebench/code_generation_lite": FILES},
    convert=problem,
    sort=sort_by_date,
    write=halved,
    published={"livecodebench": {"rows": 131}},
    settings={"first": str(FIRST), "last": str(LAST), "half_of_the_tests_seed": SEED},
)
