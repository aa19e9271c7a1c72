"""A table of programs: what is read, what is refused, and how a batch is judged in the sandbox."""

import json
from pathlib import Path
from typing import Any

import pytest

from distil.config import Recipe, SandboxConfig, TaskConfig
from distil.errors import RecipeError, SandboxUnavailable, TaskError
from distil.recipe.checks import check_recipe
from distil.recipe.recipefile import load_recipe
from distil.tasks import load_task
from distil.tasks.grader import Grader

ROOT = Path(__file__).parents[1]
ECHO = {"question": "Echo.", "id": "echo", "tests": [{"stdin": "a\n", "expected": "a"}]}
ADD = {
    "question": "Add.",
    "id": "add",
    "tests": [
        {"function": "add", "args": [1, 2], "expected": 3},
        {"function": "add", "args": [5, 5], "expected": 10, "public": False},
    ],
    "answer": "def add(a, b):\n    return a + b",
    "solution": "Use plus.",
}


def task_of(tmp_path: Path, rows: list[dict[str, Any]], **fields: Any) -> Any:
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    sizes = {"train_size": len(rows), "eval_size": 0, **fields}
    return load_task(TaskConfig(name=str(file), check="programs", **sizes))


def block(program: str) -> str:
    return f"Here:\n```python\n{program}\n```\n"


def test_an_answer_need_not_be_there(tmp_path: Path) -> None:
    task = task_of(tmp_path, [ECHO, ADD])
    assert {p.id: p.answer for p in task.train} == {"echo": None, "add": ADD["answer"]}


def test_a_batch_is_judged_row_by_row(tmp_path: Path) -> None:
    task = task_of(tmp_path, [ECHO, ADD])
    echo, add = sorted(task.train, key=lambda p: p.id, reverse=True)
    programs = [
        "print(input())",
        "print(1)",
        "def add(a, b): return a + b",
        "def add(a, b): return 3",
    ]
    verdicts = task.check_all([echo, echo, add, add], [block(p) for p in programs])
    assert [v.reward for v in verdicts] == [1.0, 0.0, 1.0, 0.0]
    assert verdicts[1].text == "Test Case 1: Wrong Answer\nInput\na\nOutput\n1\nExpected\na"
    # The second test is hidden: what it expects is not told.
    assert verdicts[3].text == "Test Case 2: Wrong Answer\nInput\nadd(5, 5)\nOutput\n3"
    assert [v.demonstration for v in verdicts] == [None, None, "Use plus.", "Use plus."]
    assert {v.source for v in verdicts} == {"execution"}


def test_reveal_tells_what_hidden_tests_expect(tmp_path: Path) -> None:
    task = task_of(tmp_path, [ADD], options={"reveal": True})
    [verdict] = task.check_all(task.train, [block("def add(a, b): return 3")])
    assert verdict.text.endswith("Expected\n10")


def test_an_answer_without_a_program_is_wrong_and_told_so(tmp_path: Path) -> None:
    task = task_of(tmp_path, [ECHO])
    verdict = task.check(task.train[0], "I don't know.")
    assert verdict.reward == 0
    assert verdict.text.startswith("No program was found in the answer.")
    assert task.read("I don't know.") is None


def test_a_failure_of_the_machines_masks_the_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(tmp_path, [ECHO])
    monkeypatch.setattr("distil.sandbox.broker.SETTLE_S", 0.0)
    pool = task._kind._pool
    monkeypatch.setattr(pool, "map", lambda jobs: [_lost(len(job.tests)) for job in jobs])
    grader = Grader(task)
    prompts = [[{"role": "user", "content": "Echo."}]]
    assert grader.reward(prompts, [block("print(input())")], ["echo"]) == [None]


def _lost(tests: int) -> Any:
    from distil.sandbox import Report, Verdict

    return Report(Verdict.INFRA_ERROR, 0, tests, (), "standard", "lost")


def test_the_level_is_among_the_facts_of_a_run(tmp_path: Path) -> None:
    facts = task_of(tmp_path, [ECHO]).facts()["sandbox"]
    assert facts["level"] in ("strong", "standard")
    assert facts["kernel"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?"}, "the field 'tests' can't be used"),
        ({"question": "?", "tests": []}, "at least one test"),
        ({"question": "?", "tests": [{"stdin": "a"}]}, "lacks 'expected'"),
        ({"question": "?", "tests": [{"stdin": 1, "expected": ""}]}, "'stdin' is 1"),
        ({"question": "?", "tests": [{"input": "a"}]}, "needs exactly one of 'stdin'"),
        ({**ADD, "answer": "def add(a, b):\n    return 3"}, "wouldn't get full marks itself"),
        ({**ADD, "answer": "while True: pass"}, "Time Limit Exceeded"),
    ],
)
def test_a_row_that_cannot_be_judged_is_refused_with_its_line(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError) as told:
        task_of(tmp_path, [ECHO, row], sandbox=SandboxConfig(cpu_s=0.5))
    assert "p.jsonl, line 2" in str(told.value)
    assert message in str(told.value)


def test_a_package_that_is_not_there_is_refused_at_load(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="'nopackage', and no such package"):
        task_of(tmp_path, [ADD], sandbox=SandboxConfig(preload=("nopackage",)))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskConfig(sandbox=SandboxConfig(cpu_s=9)), "no program is run"),
        (
            TaskConfig("x.jsonl", check="programs", sandbox=SandboxConfig(cpu_s=0)),
            "cpu_s is 0, and",
        ),
        (
            TaskConfig("x.jsonl", check="programs", sandbox=SandboxConfig("unsafe")),
            "set task.sandbox.allow_unsafe: true",
        ),
    ],
)
def test_a_recipe_that_the_sandbox_contradicts_is_refused(task: TaskConfig, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_recipe(Recipe(task=task))


def test_the_example_gives_its_own_answers_full_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    task = load_task(load_recipe("recipes/own-programs.yaml").task)
    assert (len(task.train), len(task.heldout)) == (8, 2)  # loading judged every answer
