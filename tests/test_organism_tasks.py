"""The organisms' tasks: problems, judges and recipes of three small worlds, one by one and all."""

import random
from pathlib import Path
from typing import Any

import pytest

from distil.errors import TaskError
from distil.organisms import ORGANISMS, programs, sums
from distil.recipe.recipefile import load_recipe
from distil.tasks import load_task
from distil.tasks.organisms import TASKS
from distil.tasks.organisms.programs import Fault, parse, programs_problem, report, run
from distil.tasks.organisms.sums import sums_problem
from distil.types import Problem
from worlds import make, name

__all__ = ["name"]  # a fixture

# ---------------------------------------------------------------- every world's task


def test_the_gold_answer_gets_full_marks_over_the_whole_task_set(name: str) -> None:
    task = make(name)
    for problem in [*task.train, *task.heldout]:
        verdict = task.check(problem, problem.answer)
        assert (verdict.reward, verdict.text) == (1.0, None), problem


def test_another_problems_answer_fails_with_a_report_and_the_experts_answer(name: str) -> None:
    task = make(name)
    for problem, other in zip(task.heldout, task.train, strict=False):
        if task.read(problem.answer) != task.read(other.answer):
            verdict = task.check(problem, other.answer)
            assert verdict.reward == 0.0
            assert verdict.text
            assert verdict.demonstration == problem.answer


def test_no_heldout_question_is_in_the_training_set(name: str) -> None:
    task = make(name)
    train, heldout = [{p.question for p in part} for part in (task.train, task.heldout)]
    assert (len(train), len(heldout)) == (300, 64)
    assert not train & heldout
    assert len({p.id for p in [*task.train, *task.heldout]}) == 364


def test_the_seed_decides_the_problems(name: str) -> None:
    assert make(name, seed=3).train == make(name, seed=3).train
    assert make(name, seed=3).train != make(name, seed=4).train


def test_an_unknown_option_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TaskError, match=r"no option 'larges'\. Perhaps you meant 'largest'"):
        make("sums", options={"larges": 9})


@pytest.mark.parametrize("value", [True, 1.5, "0"])
def test_an_option_that_is_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(TaskError, match=r"'dialect' of 'organism_programs' is .* an integer"):
        make("programs", options={"dialect": value})


@pytest.mark.parametrize(
    ("world", "options"),
    [
        ("sums", {"smallest": 50, "largest": 20}),
        ("sums", {"largest": 100}),
        ("programs", {"dialect": 2}),
    ],
)
def test_an_impossible_option_is_refused(world: str, options: dict[str, int]) -> None:
    with pytest.raises(TaskError, match=f"'organism_{world}' refuses the options"):
        make(world, options=options)


def test_an_unknown_world_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TaskError, match=r"'organism_sum'\. Perhaps you meant 'organism_sums'"):
        make("sum")


def test_an_instruction_in_unknown_words_is_refused() -> None:
    with pytest.raises(TaskError, match=r"'Reply' is none of 'organism_sums'\. Set task\.instruct"):
        make("sums", instruction="Reply with only the final answer.")


def test_more_problems_than_there_are_is_refused() -> None:
    with pytest.raises(TaskError, match=r"gave only 4 distinct questions.* ask for 10"):
        make("sums", options={"largest": 1}, train_size=5, eval_size=5)


# ---------------------------------------------------------------- sums


def test_the_working_of_a_sum_by_hand() -> None:
    problem = sums_problem(47, 38)
    assert problem.question == "4 7 + 3 8"
    assert problem.answer == "7 + 8 = 1 5 , 4 + 3 + 1 = 0 8 , 0 8 5"
    assert sums_problem(5, 99).answer == "5 + 9 = 1 4 , 0 + 9 + 1 = 1 0 , 1 0 4"


@pytest.mark.parametrize(
    ("attempt", "reward", "text"),
    [
        ("7 + 8 = 1 4 , 4 + 3 + 1 = 0 8 , 0 8 4", 0.0, "wrong"),
        ("nothing that matters , 0 8 5", 1.0, None),
        ("8 5", 1.0, None),
        ("7 + 8 = 1 5 , 4 + 3 + 1 = 0 8 ,", 0.0, "no result"),
        ("7 + 8 = 1 5", 0.0, "no result"),
        ("", 0.0, "no result"),
    ],
)
def test_a_sum_is_judged_by_what_follows_the_last_comma(
    attempt: str, reward: float, text: str | None
) -> None:
    verdict = make("sums").check(sums_problem(47, 38), attempt)
    assert (verdict.reward, verdict.text) == (reward, text)


def test_the_unsure_student_is_right_as_often_as_its_error_says() -> None:
    rng, task, draws = random.Random(0), make("sums"), 4000
    right = 0.0
    for _ in range(draws):
        a, b = rng.randrange(100), rng.randrange(100)
        right += task.check(sums_problem(a, b), sums.attempt(rng, a, b)).reward or 0.0
    expected = (1 - sums.ERROR) ** 2
    assert abs(right / draws - expected) < 4 * (expected * (1 - expected) / draws) ** 0.5


# ---------------------------------------------------------------- programs

STEPS = [("add", 3), ("scale", 2), ("subtract", 4)]


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("inc 3 ; mul 2 ; dec 4 ; end", None),
        ("inc 3 ; times 2 ; minus 4 ; end", "line 2 : unknown op times , use mul"),
        ("inc 3 ; mul 2 ; dec 5 ; end", "input 4 : expected 1 0 , got 9"),
        ("dec 7 ; mul 2 ; dec 4 ; end", "input 4 : expected 1 0 , got - 1 0"),
        ("mul 2 ; inc 2 ; end", None),  # the same function: 2 (x + 3) - 4 = 2 x + 2
        ("mul 2 ; inc 3 ; end", "input 4 : expected 1 0 , got 1 1"),
        ("inc 6 ; end", "input 0 : expected 2 , got 6"),  # right for 4, and for no other
        ("inc 3 ; mul 2 ; dec 4", "line 3 : expected end"),
        ("inc 3 mul 2", "line 1 : expected end"),
        ("inc 3 ; ; end", "line 2 : expected op"),
        ("inc ; end", "line 1 : expected a number"),
        ("inc 3 3 ; end", "line 1 : expected a number"),
        ("end ; inc 3", "line 1 : expected op"),
        ("end", "input 4 : expected 1 0 , got 4"),
        ("", "line 1 : expected end"),
    ],
)
def test_the_report_names_the_first_fault(program: str, text: str | None) -> None:
    assert report(program, STEPS, [4, 0], dialect=0) == text


def test_each_dialect_is_refused_by_the_others_interpreter() -> None:
    assert parse("plus 3 ; end", dialect=1) == [("add", 3)]
    with pytest.raises(Fault, match="line 1 : unknown op inc , use plus"):
        parse("inc 3 ; end", dialect=1)


def test_steps_are_done_in_order() -> None:
    assert run(STEPS, 4) == (4 + 3) * 2 - 4
    assert run([], 4) == 4


def test_the_interpreter_is_total_and_its_reports_are_in_the_vocabulary() -> None:
    rng, words = random.Random(0), TASKS["organism_programs"].words
    seen = set()
    for _ in range(5000):
        soup = " ".join(rng.choices(words, k=rng.randrange(12)))
        said = report(soup, STEPS, [4, 0], rng.randrange(2))
        assert said is None or set(said.split()) <= set(words)
        seen.add(said is None or said.split(" : ")[1].split()[0])
    assert {"unknown", "expected"} <= seen


def test_who_follows_a_report_mends_the_reported_line() -> None:
    rng = random.Random(0)
    for _ in range(200):
        said = "line 2 : unknown op times , use mul"
        lines = programs.following(rng, STEPS, said, dialect=0).split(" ; ")
        assert lines[1].split()[0] == "mul"
        assert len(lines) == 4


def test_who_follows_a_report_is_right_more_often_than_who_has_none() -> None:
    rng = random.Random(0)
    alone, told, draws = 0, 0, 2000
    for _ in range(draws):
        problem = programs_problem(rng, 0)
        steps = [(kind, number) for kind, number in problem.data["steps"]]
        attempt = programs.attempt(rng, steps)
        said = report(attempt, steps, problem.data["inputs"], 0)
        alone += said is None
        if said is not None:
            again = programs.following(rng, steps, said, 0)
            told += report(again, steps, problem.data["inputs"], 0) is None
    assert 0.05 < alone / draws < 0.15
    assert told > 3 * alone


# ---------------------------------------------------------------- cipher


def test_one_key_for_all_words_and_another_for_another_number() -> None:
    keys = []
    for number in (0, 1):
        task = make("cipher", options={"key": number})
        key: dict[str, str] = {}
        for problem in [*task.train, *task.heldout]:
            letters = problem.question.removeprefix("encode ").split()
            for plain, code in zip(letters, problem.answer.split(), strict=True):
                assert key.setdefault(plain, code) == code
        assert len(set(key.values())) == len(key) == 16
        keys.append(key)
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        ("a b c", None),
        ("a c b", "letter 2 wrong"),
        ("a b", "letter 3 wrong"),
        ("a b c d", "letter 4 wrong"),
        ("", "letter 1 wrong"),
        ("a b " * 40, "letter 3 wrong"),
    ],
)
def test_the_report_on_a_word_names_the_first_wrong_letter(attempt: str, text: str | None) -> None:
    verdict = make("cipher").check(Problem("", "encode x y z", "a b c"), attempt)
    assert (verdict.reward, verdict.text) == (float(text is None), text)


# ---------------------------------------------------------------- recipes

RECIPES = Path(__file__).parent.parent / "recipes" / "organisms"


def test_every_recipe_loads_and_leaves_room_for_the_gold_answers(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert recipe.model.name in ORGANISMS
    assert recipe.task.name == recipe.model.name.replace("-", "_")
    task = load_task(recipe.task)
    room = recipe.rollout.max_completion_length
    assert all(len(p.answer.split()) < room for p in [*task.train, *task.heldout])
