"""The easy functions: each row's own answer passes its tests, and no lazy program does."""

import ast
import doctest
import json
from pathlib import Path
from typing import Any

import pytest

from distil.config import SandboxConfig, TaskConfig
from distil.recipe.recipefile import load_recipe
from distil.tasks.table import TableTask

TABLE = Path(__file__).parents[1] / "recipes" / "coding" / "easy-functions.jsonl"
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()
]


@pytest.fixture(scope="module")
def task() -> TableTask:
    """The whole table; loading it runs every answer against its tests."""
    return TableTask(
        TaskConfig(
            str(TABLE),
            check="programs",
            options={"stop_at_first": True},
            sandbox=SandboxConfig(cpu_s=2.0, mem_mb=512),
            train_size=len(ROWS),
            eval_size=0,
        )
    )


def header(program: str) -> ast.FunctionDef:
    function = ast.parse(program).body[0]
    assert isinstance(function, ast.FunctionDef)
    return function


def names(row: dict[str, Any]) -> list[str]:
    return [argument.arg for argument in header(row["answer"]).args.args]


def by_heart(row: dict[str, Any]) -> str:
    """Looks the shown examples up, and for anything else returns what the last of them returns."""
    shown = [test for test in row["tests"] if test["public"]]
    lines = [
        f"    if [{', '.join(names(row))}] == {test['args']!r}: return {test['expected']!r}\n"
        for test in shown
    ]
    return f"{''.join(lines)}    return {shown[-1]['expected']!r}".lstrip()


LAZY = {
    "pass": lambda row: "pass",
    "the first argument": lambda row: f"return {names(row)[0]}",
    "the last argument": lambda row: f"return {names(row)[-1]}",
    "the examples by heart": by_heart,
}


def test_every_answer_gets_full_marks(task: TableTask) -> None:
    assert len(task.train) == len(ROWS) >= 120


@pytest.mark.parametrize("body", LAZY)
def test_no_lazy_program_passes(task: TableTask, body: str) -> None:
    problems = {problem.id: problem for problem in task.train}
    rows = [row for row in ROWS if body != "the last argument" or len(names(row)) > 1]
    programs = [
        f"```python\ndef {header(row['answer']).name}({', '.join(names(row))}):\n"
        f"    {LAZY[body](row)}\n```"
        for row in rows
    ]
    verdicts = task.check_all([problems[row["id"]] for row in rows], programs)
    assert [row["id"] for row, v in zip(rows, verdicts, strict=True) if v.reward != 0] == []
    # They fail as programs that ran: by a wrong answer, not by an error.
    assert all("Wrong Answer" in str(verdict.text) for verdict in verdicts)


def test_a_constant_fails() -> None:
    for row in ROWS:
        assert len({json.dumps(test["expected"]) for test in row["tests"]}) > 1, row["id"]


def test_ids_and_functions_are_distinct() -> None:
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert len({header(row["answer"]).name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_the_question_shows_the_public_tests_and_no_other(row: dict[str, Any]) -> None:
    asked, answer = header(row["question"]), header(row["answer"])
    assert ast.unparse(asked.args) == ast.unparse(answer.args)
    examples = doctest.DocTestParser().get_examples(ast.get_docstring(asked) or "")
    shown = [(e.source.strip(), ast.literal_eval(e.want)) for e in examples]
    public = [t for t in row["tests"] if t["public"]]
    calls = [f"{asked.name}({', '.join(map(repr, test['args']))})" for test in public]
    assert [ast.unparse(ast.parse(source)) for source, _ in shown] == calls
    assert [want for _, want in shown] == [test["expected"] for test in public]
    assert 1 <= len(public) <= 2
    assert 4 <= len(row["tests"]) <= 7
    assert {test["function"] for test in row["tests"]} == {asked.name}


def test_the_recipe_asks_for_no_more_than_there_is() -> None:
    task = load_recipe(str(TABLE.parent / "distil-small.yaml")).task
    assert task.name == "recipes/coding/easy-functions.jsonl"
    assert (task.train_size, task.eval_size) == (80, 40)
    assert task.train_size + task.eval_size <= len(ROWS)
