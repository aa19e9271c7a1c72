"""A file of the user's own problems as a task: what is read, what is refused, how it's judged."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distil.config import TaskConfig
from distil.errors import TaskError
from distil.feedback import answers, mathematics
from distil.recipe.checks import check_recipe
from distil.recipe.recipefile import load_recipe
from distil.tasks import Task, load_task
from distil.tasks.grader import Grader
from distil.tasks.kinds import KINDS

FOLDER = Path(__file__).parent.parent / "recipes"
# But for accelerate's own settings.
RECIPES = sorted(f for f in FOLDER.rglob("*.yaml") if f.parent.name != "accelerate")
Make = Callable[..., Task]

SUM = {"question": "What is 1/2 + 1/3?", "answer": "5/6"}
CITY = {"question": "Which is in Italy?", "choices": ["Paris", "Rome"], "answer": "B"}


@pytest.fixture
def table(tmp_path: Path) -> Make:
    """Writes rows (objects, or lines as they are) and loads them."""

    def make(rows: list[Any], check: Any = "math", **fields: Any) -> Task:
        file = tmp_path / "problems.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        sizes = {"train_size": len(rows), "eval_size": 0, **fields}
        return load_task(TaskConfig(name=str(file), check=check, **sizes))

    return make


def sums(count: int) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} + 1?", "answer": i + 1} for i in range(count)]


# ---------------------------------------------------------------- what is read


def test_a_row_becomes_a_problem(table: Make) -> None:
    task = table([{**SUM, "solution": "3/6 + 2/6", "id": "a", "level": 3}, *sums(1)])
    [with_id] = [p for p in task.train if p.id == "a"]
    assert (with_id.question, with_id.answer) == (SUM["question"], "5/6")
    [numbered] = [p for p in task.train if p.id != "a"]
    assert (numbered.id, numbered.answer) == ("2", "1")
    assert json.loads(json.dumps(dict(numbered.data))) == numbered.data


def test_blank_lines_and_a_byte_order_mark_are_no_rows(table: Make, tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_text("\ufeff" + json.dumps(SUM) + "\n\n  \n", encoding="utf-8")
    task = load_task(TaskConfig(name=str(file), check="math", train_size=1, eval_size=0))
    assert [p.id for p in task.train] == ["1"]


def test_choices_are_shown_below_the_question(table: Make) -> None:
    task = table([CITY, {"question": "A or B?\nA. x\nB. y", "choices": 2, "answer": "A"}], "choice")
    asked = {p.id: p.question for p in task.train}
    assert asked == {"1": "Which is in Italy?\nA. Paris\nB. Rome", "2": "A or B?\nA. x\nB. y"}


def test_the_seed_decides_which_problems_are_held_out(table: Make) -> None:
    splits = {}
    for seed in (0, 0, 1):
        task = table(sums(40), train_size=20, eval_size=10, seed=seed)
        train, heldout = {p.id for p in task.train}, {p.id for p in task.heldout}
        assert (len(train), len(heldout)) == (20, 10)
        assert not train & heldout
        assert splits.setdefault(seed, heldout) == heldout
    assert splits[0] != splits[1]


def test_a_split_column_decides_instead_if_there_is_one(table: Make) -> None:
    rows = [{**row, "split": "test" if i < 4 else "train"} for i, row in enumerate(sums(10))]
    task = table(rows, train_size=5, eval_size=4)
    assert sorted(p.id for p in task.heldout) == ["1", "2", "3", "4"]
    assert len(task.train) == 5
    with pytest.raises(TaskError, match="6 rows to train on and 4 to test on, and the recipe asks"):
        table(rows, train_size=7, eval_size=4)
    with pytest.raises(TaskError, match=r"10 of 11 rows have no 'split'\. Give every row one"):
        table([*sums(10), {**SUM, "split": "train"}])


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{", "line 2: no valid JSON (Expecting property name"),
        ("[1, 2]", "line 2: [1, 2] is no object. Write one, such as"),
        ('{"question": "?", "answer": NaN}', "line 2: no valid JSON (NaN is no number of JSON's)"),
        ({"answer": "5"}, "line 2: the field 'question' is missing. The row has answer."),
        ({"question": "?"}, "line 2: the field 'answer' is missing. The row has question."),
        ({"question": " ", "answer": "5"}, "line 2: the field 'question' is ' '. Make it a text"),
        ({"question": 3, "answer": "5"}, "line 2: the field 'question' is 3. Make it a text that"),
        ({"question": "?", "answer": ""}, "line 2: the field 'answer' is ''. Make it a text that"),
        ({"question": "?", "answer": True}, "line 2: the field 'answer' is True. Make it a text"),
        ({"question": "?", "answer": ["5"]}, "line 2: the field 'answer' is ['5']. Make it a text"),
        ({"question": "?", "awnser": "5"}, "the field 'awnser' isn't known. Perhaps you meant 'a"),
        ({**SUM, "soluton": "x"}, "the field 'soluton' isn't known. Perhaps you meant 'solution'."),
        ({**SUM, "solution": 5}, "line 2: the field 'solution' is 5. Make it a text that isn't"),
        (
            {**SUM, "split": "dev"},
            "line 2: the field 'split' is 'dev'. Make it 'train', 'validation' or 'test'.",
        ),
        (
            {"question": "What is \ud83d?", "answer": "5"},
            "line 2: the field 'question' has '\\ud83d', half of a character (a lone surrogate),",
        ),
        ({"question": "?", "answer": "\udc00"}, "the field 'answer' has '\\udc00', half of a char"),
        ({**SUM, "hint": "\ud800"}, "line 2: the field 'hint' has '\\ud800', half of a character"),
        ({**SUM, "id": "1"}, "line 2: the field 'id' is that of line 1. Take one of them out."),
        (sums(1)[0], "line 2: the field 'question' is that of line 1. Take one of them out."),
        (
            {"question": "?", "answer": "{5"},
            "the field 'answer' is '{5', and wouldn't get full marks itself: The attempt's",
        ),
    ],
)
def test_a_row_that_is_no_problem_is_refused_by_file_line_and_field(
    table: Make, row: Any, expected: str
) -> None:
    with pytest.raises(TaskError) as told:
        table([*sums(1), row])
    assert "problems.jsonl, line 2: " in str(told.value)
    assert expected in str(told.value)


def test_a_test_may_feed_a_program_half_of_a_character(table: Make) -> None:
    row = {"question": "?", "tests": [{"stdin": "\ud800", "expected": ""}]}
    assert table([row], check="programs", train_size=1, eval_size=0).train[0].data["tests"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"answer": "C"}, "the field 'answer' is 'C'. Make it the letter of a choice, A to B."),
        ({"answer": "b"}, "the field 'answer' is 'b'. Make it the letter of a choice, A to B."),
        ({"answer": "Rome"}, "letter of a choice, A to B. Perhaps you meant 'B'."),
        ({"choices": None}, "the field 'choices' is None. Make it a list of 2 to 26 texts"),
        ({"choices": ["Rome"]}, "the field 'choices' is ['Rome']. Make it a list of 2 to 26"),
        ({"choices": ["Rome", "\ud800"]}, "the field 'choices' has '\\ud800', half of a character"),
        ({"choices": ["Rome", 2]}, "the field 'choices' is ['Rome', 2]. Make it a list of"),
        ({"choices": 10**9}, "the field 'choices' is 1000000000. Make it a list of 2 to 26"),
        ({"choises": 2}, "the field 'answer' is 'B'."),
    ],
)
def test_a_choice_needs_choices_and_the_letter_of_one(
    table: Make, changes: dict[str, Any], expected: str
) -> None:
    if "choises" in changes:  # unlike a field of no use here, it looks like a typo
        with pytest.raises(TaskError, match=r"'choises' isn't known\. Perhaps you meant 'choices'"):
            table([{"question": "?", "answer": "B", "choises": 2}], "choice")
        return
    with pytest.raises(TaskError) as told:
        table([{**CITY, **changes}], "choice")
    assert expected in str(told.value)


def test_a_file_that_isnt_there_or_has_no_rows_or_too_few_is_refused(
    table: Make, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=r"can't be read: No such file or directory\. A path is"):
        load_task(TaskConfig(name=str(tmp_path / "no.jsonl"), check="math"))
    with pytest.raises(TaskError, match=r"have no rows\. Write one JSON object a line"):
        table([])
    with pytest.raises(TaskError, match=r"has 12 rows, and the recipe asks for 10 to train on \("):
        table(sums(12), train_size=10, eval_size=3)
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}')
    with pytest.raises(TaskError, match="are no UTF-8 text"):
        load_task(TaskConfig(name=str(tmp_path / "latin.jsonl"), check="math"))


@pytest.mark.parametrize(
    ("check", "options", "expected"),
    [
        ("math", {"tolerance": 0.1}, "The check 'math' has no option 'tolerance'. Known: reveal."),
        ("tolerant", {"tolerence": 1}, "no option 'tolerence'. Perhaps you meant 'tolerance'."),
        ("tolerant", {"tolerance": -1}, "The option 'tolerance' is -1, and must be a number from"),
        (
            "tolerant",
            {"tolerance": math.inf},
            "The option 'tolerance' is inf, and must be a number",
        ),
        ("tolerant", {"tolerance": True}, "The option 'tolerance' is True, and must be a number"),
        ("exact", {"reveal": 1}, "The option 'reveal' is 1, and must be true or false."),
        (None, {}, "task.check isn't set, and it says how the answers of"),
    ],
)
def test_options_are_the_checks_own(
    table: Make, check: Any, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(TaskError) as told:
        table(sums(2), check, options=options)
    assert expected in str(told.value)


def test_an_answer_that_the_extractor_doesnt_read_is_refused_at_load(table: Make) -> None:
    rows = [{"question": "?", "answer": "Paris"}]
    assert table(rows, "exact").train
    with pytest.raises(TaskError, match="is 'Paris', and wouldn't get full marks itself: No answe"):
        table(rows, "exact", extract="last_number")


# ---------------------------------------------------------------- how it's judged

ROWS: dict[str, list[dict[str, Any]]] = {
    "math": [*sums(30), SUM, {"question": "Solve.", "answer": r"\left[-1, \frac{1}{2}\right)"}],
    "choice": [
        {"question": f"Which is {'ABCD'.index(c)}?", "choices": list("0123"), "answer": c}
        for c in "ABCD"
    ],
    "exact": [*sums(30), {"question": "City?", "answer": "São Paulo (SP)"}],
    "tolerant": [*sums(30), {"question": "City?", "answer": "The Hague"}],
    "programs": [
        {
            "question": f"Write add{i}.", "answer": f"def add{i}(x):\n    return x + {i}",
            "tests": [{"function": f"add{i}", "args": [1], "expected": 1 + i}],
        }
        for i in range(3)
    ],
}  # fmt: skip


@pytest.mark.parametrize("check", KINDS)
def test_every_gold_answer_and_every_demonstration_gets_full_marks(table: Make, check: str) -> None:
    for extract in ("last_line", "whole", "answer_tag"):
        task = table(ROWS[check], check, extract=extract)
        kind = KINDS[check](TaskConfig(extract=extract))
        for text_of in (kind.written, lambda p: str(task.check(p, "").demonstration)):  # noqa: B023
            verdicts = task.check_all(task.train, [text_of(p) for p in task.train])
            assert [v for v in verdicts if (v.reward, v.text) != (1.0, None)] == []
        # Answers of the next problem: none is right, and each is told.
        others = [*task.train[1:], task.train[0]]
        wrong = task.check_all(task.train, [kind.written(p) for p in others])
        assert all(v.reward == 0 and v.text for v in wrong)


def test_a_worked_solution_is_shown_rather_than_the_answer(table: Make) -> None:
    task = table([{**SUM, "solution": "3/6 + 2/6 = 5/6."}, *sums(1)])
    shown = {p.id: task.check(p, "").demonstration for p in task.train}
    assert shown == {"1": "3/6 + 2/6 = 5/6.", "2": r"The final answer is \boxed{1}."}


def test_a_hint_is_told_below_the_report_on_a_failed_attempt_only(table: Make) -> None:
    task = table([{**SUM, "hint": "Sixths."}])
    right, wrong = task.check_all(task.train * 2, [r"\boxed{5/6}", r"\boxed{2/5}"])
    assert (right.reward, right.text) == (1.0, None)
    assert wrong.text == (
        "The answer was read as '2/5'. It is wrong.\n\nA hint for this problem:\nSixths."
    )
    assert "Sixths." not in task.train[0].question
    with pytest.raises(TaskError, match=r"line 1: the field 'hint' is 3\. Make it a text that"):
        table([{**SUM, "hint": 3}])


def test_options_reach_the_check(table: Make) -> None:
    row = {"question": "How long is it?", "answer": "2.5"}
    [strict] = (task := table([row], "tolerant")).train
    assert task.check(strict, "2.6").reward == 0
    loose = table([row], "tolerant", options={"tolerance": 0.1, "reveal": True})
    assert loose.check(strict, "2.6").reward == 1
    assert loose.check(strict, "3").text == (
        "The answer was read as '3'. It is wrong. The right answer is '2.5'."
    )


def test_a_batch_of_256_with_endless_answers_masks_nothing_and_marks_the_others(
    table: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mathematics.check_mathematics_all, "__kwdefaults__", {
        "solutions": None, "reveal": False, "cpu_s": 0.5
    })  # fmt: skip
    task = table(sums(32))
    said = [
        r"\boxed{9^{9^{9^9}}}" if i % 60 == 7 else rf"It is \boxed{{{int(str(p.answer))}.0}}"
        for i, p in enumerate(task.train * 8)
    ]
    batch = {"completions": said, "problem_id": [p.id for p in task.train * 8]}
    grader = Grader(task)
    rewards = grader.reward(prompts=[""] * 256, **batch)
    assert rewards == [0.0 if i % 60 == 7 else 1.0 for i in range(256)]
    texts = [v.text for v in grader.feedback(prompts=[""] * 256, **batch)]
    late = f"The answer was read as '9^{{9^{{9^9}}}}'. {answers.TOO_MUCH.format(what='time')}"
    assert texts == [late if i % 60 == 7 else None for i in range(256)]


def test_the_recipes_that_name_a_table_load_and_run_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parent)
    named = [r for file in RECIPES if (r := load_recipe(file)).task.name.startswith("recipes/")]
    assert named
    for recipe in named:
        task = load_task(check_recipe(recipe).task)
        assert len(task.train) == recipe.task.train_size
        assert len(task.heldout) == recipe.task.eval_size
