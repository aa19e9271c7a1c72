"""Small rows in the published sets' true formats, made up here; files and hub caches of them."""

import base64
import json
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distil.config import TaskConfig
from distil.data.prepare import Prepared, prepare
from distil.data.sets import SETS
from distil.data.sources import find_source
from distil.tasks import Task, load_task


def sciknoweval_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "prompt": {"default": "Given a question and four options, select the right answer."},
        "question": f"Which of these has {number} protons?",
        "choices": {"text": ["one", "two", "three", "four"], "label": ["A", "B", "C", "D"]},
        "answer": "",
        "answerKey": "ABCD"[number % 4],
        "type": "mcq-4-choices",
        "domain": "Chemistry",
        "details": {"level": "L3", "task": "counting", "subtask": "protons", "source": "made up"},
        "metrics": {"type": "CLS_ACC"},
    } | changes


def mmlu_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    answers = {f"answer_{letter}": f"{letter}{number}" for letter in "abcd"}
    topic = {"correct_answer": "ABCD"[number % 4], "topic": "letters"}
    return {"question": f"Which is {number}?", **answers, **topic} | changes


STARTER = "class Solution:\n    def addTwo(self, a: int, b: List[int]) -> int:\n        "


def packed(tests: Any) -> str:
    """As private_test_cases come: base64 of zlib of a pickle of a JSON string."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def stdin_test(given: str, wanted: str) -> dict[str, str]:
    return {"input": given, "output": wanted, "testtype": "stdin"}


def call_test(given: str, wanted: str) -> dict[str, str]:
    return {"input": given, "output": wanted, "testtype": "functional"}


def stdin_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An AtCoder problem: add the number."""
    return {
        "question_title": f"Add {number}",
        "question_content": f"Read N and print N + {number}.",
        "platform": "atcoder",
        "question_id": f"abc39{number}_a",
        "contest_id": f"abc39{number}",
        "contest_date": "2025-02-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([stdin_test("1\n", f"{1 + number}\n")]),
        "private_test_cases": packed(
            [stdin_test(f"{n}\n", f"{n + number}\n") for n in range(2, 7)]
        ),
        "metadata": "{}",
    } | changes


def call_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A LeetCode problem: add two numbers and this one."""
    return (
        stdin_row(number)
        | {
            "question_title": "add-two",
            "question_content": f"Return a + b + {number}.",
            "platform": "leetcode",
            "question_id": f"370{number}",
            "starter_code": STARTER,
            "public_test_cases": json.dumps([call_test("1\n[2]", str(3 + number))]),
            "private_test_cases": packed([call_test("5\n[5]", str(10 + number))]),
            "metadata": json.dumps({"func_name": "addTwo"}),
        }
        | changes
    )


def humaneval_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    name = f"add{number}"
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f'\n\ndef {name}(x: int):\n    """Add {number}.\n    """\n',
        "entry_point": name,
        "canonical_solution": f"    return x + {number}\n",
        "test": f"\n\ndef check(candidate):\n    assert candidate(1) == {1 + number}\n",
    } | changes


def champ_document() -> dict[str, Any]:
    """Three problems; the second's answer is a sentence, the third has no hints."""

    def problem(name: str, answer: str, ch_list: list[str]) -> dict[str, Any]:
        steps = [{"_text": f"Think of {name}.", "ch_idxs": []}, {"_text": "Count.", "ch_idxs": []}]
        return {
            "identifier": name, "_text": f"How many are {name}?", "category": "Combinatorics",
            "solution": {"steps": steps}, "_answer": answer, "ch_list": ch_list,
        }  # fmt: skip

    problems = [
        problem("P_1", "2^(n-1)*sqrt(3)", ["H_1", "C_sum"]),
        problem("P_2", "The limit exists", ["H_1"]),
        problem("P_3", "No", []),
    ]
    return {
        "problems": {each["identifier"]: each for each in problems},
        "concepts": {"C_sum": {"identifier": "C_sum", "name": "rule of sum", "_text": "Add."}},
        "hints": {"H_1": {"identifier": "H_1", "_text": "Try n = 1."}},
    }


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """JSON Lines; a row that is a text stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_hub_cache(cache: Path, repo: str, files: dict[str, bytes], commit: str) -> Path:
    """A dataset as the hub's client leaves it on the disk; the snapshot's folder."""
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    for number, (name, content) in enumerate(files.items()):
        blob = folder / "blobs" / f"{number:064x}"
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return folder / "snapshots" / commit


def prepared(name: str, source: Path, **options: bool) -> Prepared:
    """The set's tables from a path."""
    dataset = SETS[name]
    found = find_source(str(source), dataset.origins)
    return prepare(dataset, found, **{"skip_bad": False, "verify": True, **options})


def items_of(done: Prepared, table: str) -> list[dict[str, Any]]:
    return [item for _, item, _ in done.tables[table].rows]


def loaded(table: Path, check: Any, train: int, test: int, **options: Any) -> Task:
    """A written table as a run loads it: every answer judged."""
    return load_task(
        TaskConfig(name=str(table), check=check, train_size=train, eval_size=test, options=options)
    )
