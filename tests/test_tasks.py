"""What is asked and how answers are judged, over whole task sets."""

from typing import Any, get_args, get_type_hints

import pytest
from reasoning_gym.factory import DATASETS

from distil.config import TaskConfig
from distil.errors import TaskError
from distil.feedback.extract import EXTRACTORS, last_number
from distil.feedback.reasoning import check_reasoning
from distil.tasks import Task, load_task
from distil.types import SUCCESS_REWARD, Feedback, Problem

ONE_DIGIT_SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def make(name: str = "chain_sum", **fields: Any) -> Task:
    settings = {"train_size": 20, "eval_size": 10, "extract": "last_number", **fields}
    return load_task(TaskConfig(name=name, **settings))


def questions(problems: Any) -> list[str]:
    return [p.question for p in problems]


TASKS = {
    "one_digit_sums": ("chain_sum", {"options": ONE_DIGIT_SUMS, "train_size": 120}),
    "chain_sum": ("chain_sum", {}),
    "gcd": ("gcd", {}),
    "basic_arithmetic": ("basic_arithmetic", {}),
    "letter_counting": ("letter_counting", {}),
    "spell_backward": ("spell_backward", {"extract": "last_line"}),
    "simple_equations": ("simple_equations", {"extract": "answer_tag"}),
    "maze": ("maze", {"extract": "whole"}),
}


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    name, fields = TASKS[request.param]
    return make(name, **fields)


# ---------------------------------------------------------------- the task set


def test_the_gold_answer_gets_full_marks_over_the_whole_task_set(task: Task) -> None:
    for problem in [*task.train, *task.heldout]:
        gold = problem.answer
        attempt = f"<answer>{gold}</answer>" if task.read("<answer>?</answer>") == "?" else gold
        verdict = task.check(problem, attempt)
        assert (verdict.reward, verdict.text) == (1.0, None), problem


def test_a_wrong_answer_never_counts_as_a_success(task: Task) -> None:
    answers = sorted({p.answer for p in [*task.train, *task.heldout]})
    for problem in task.heldout:
        for other in [a for a in answers if a != problem.answer][:20]:
            attempt = (
                f"<answer>{other}</answer>" if task.read("<answer>?</answer>") == "?" else other
            )
            verdict = task.check(problem, attempt)
            assert verdict.reward < SUCCESS_REWARD, (problem.question, other)
            assert verdict.text


def test_no_heldout_question_is_in_the_training_set(task: Task) -> None:
    train, heldout = questions(task.train), questions(task.heldout)
    assert len(set(train)) == len(train)
    assert len(set(heldout)) == len(heldout) == 10
    assert not set(train) & set(heldout)
    ids = [p.id for p in [*task.train, *task.heldout]]
    assert len(set(ids)) == len(ids)


def test_sizes_are_the_ones_asked_for() -> None:
    task = make(train_size=7, eval_size=3)
    assert (len(task.train), len(task.heldout)) == (7, 3)
    assert len(make(eval_size=0).heldout) == 0


def test_the_expert_speaks_the_gold_answer_so_that_it_can_be_read_back() -> None:
    task = make(options=ONE_DIGIT_SUMS, train_size=120)
    for problem in task.train:
        said = task.check(problem, "").demonstration
        assert said == f"The final answer is {problem.answer}."
        assert task.check(problem, said).reward == 1.0


def test_a_dataset_without_answers_has_no_demonstration() -> None:
    task = make("propositional_logic", extract="whole", train_size=3, eval_size=1)
    for problem in [*task.train, *task.heldout]:
        assert problem.answer is None
        assert task.check(problem, "").demonstration is None
        assert task.check(problem, "nonsense").demonstration is None


def test_the_same_seed_gives_the_same_problems_in_the_same_order() -> None:
    first, second = make(seed=3), make(seed=3)
    assert first.train == second.train
    assert first.heldout == second.heldout


def test_another_seed_gives_other_problems() -> None:
    four_digits = {"min_terms": 2, "max_terms": 2, "min_digits": 4, "max_digits": 4}
    asked = []
    for seed in (0, 1, 2):
        task = make(options=four_digits, seed=seed)
        asked.append({*questions(task.train), *questions(task.heldout)})
    # 30 of some 10**8 questions each: any shared one means that the streams overlap.
    assert not asked[0] & asked[1]
    assert not asked[1] & asked[2]
    assert not asked[0] & asked[2]


def test_options_reach_the_dataset() -> None:
    for problem in make(options={"min_terms": 3, "max_terms": 3, "min_digits": 2}).train:
        assert problem.data["entry"]["metadata"]["num_terms"] == 3


# ---------------------------------------------------------------- what can't be made


def test_an_unknown_dataset_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TaskError, match=r"'chain_sums'\. Perhaps you meant 'chain_sum'"):
        make("chain_sums")


def test_an_unknown_option_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TaskError, match=r"no option 'min_term'\. Perhaps you meant 'min_terms'"):
        make(options={"min_term": 2})


@pytest.mark.parametrize("ours", ["seed", "size"])
def test_seed_and_size_are_not_the_datasets_to_set(ours: str) -> None:
    with pytest.raises(TaskError, match=f"no option '{ours}'"):
        make(options={ours: 3})


@pytest.mark.parametrize(
    "options", [{"min_terms": 5, "max_terms": 2}, {"min_terms": "two"}, {"min_digits": 0}]
)
def test_options_that_the_dataset_refuses_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=r"'chain_sum' refuses the options \{"):
        make(options=options)


def test_more_problems_than_there_are_is_refused_with_the_number_there_are() -> None:
    # a + b and a - b for digits 0 to 9: at most 200 questions.
    with pytest.raises(TaskError, match=r"gave only \d{3} distinct questions.* ask for 210"):
        make(options=ONE_DIGIT_SUMS, train_size=200)


# ---------------------------------------------------------------- verdicts


@pytest.fixture(scope="module")
def five() -> tuple[Task, Problem]:
    """The task of one-digit sums, and a problem of it whose answer is 5."""
    task = make(options=ONE_DIGIT_SUMS, train_size=120)
    return task, next(p for p in task.train if p.answer == "5")


@pytest.mark.parametrize("attempt", ["5", "It is 5.", "2 + 3 = 5", "05", "5.0"])
def test_a_right_answer_in_other_words_gets_full_marks(
    five: tuple[Task, Problem], attempt: str
) -> None:
    task, problem = five
    assert task.check(problem, attempt).reward == 1.0


@pytest.mark.parametrize("attempt", ["15", "55", "50", "-5", "5.5", "6", "5 and then 6"])
def test_a_wrong_answer_that_holds_the_right_one_is_no_success(
    five: tuple[Task, Problem], attempt: str
) -> None:
    task, problem = five
    verdict = task.check(problem, attempt)
    assert 0 <= verdict.reward < SUCCESS_REWARD
    assert f"The answer was read as {last_number(attempt)!r}." in verdict.text


def test_thinking_is_no_part_of_an_answer(five: tuple[Task, Problem]) -> None:
    task, problem = five
    for attempt, read in {
        "<think>2 + 3 is 6, no, 5</think>\n6": "6",
        "2 + 3 may be 5</think> It is 6": "6",
        "<think>Is it 5": None,
    }.items():
        assert task.read(attempt) == read
        assert task.check(problem, attempt).reward == 0.0
    assert (
        check_reasoning("<think>2 + 3</think>\n5", "chain_sum", problem.data["entry"]).reward == 1
    )


def test_a_wrong_answers_report_word_for_word(five: tuple[Task, Problem]) -> None:
    task, problem = five
    verdict = task.check(problem, "6")
    assert verdict == Feedback(
        0.0, "The answer was read as '6'. It is wrong.", "The final answer is 5.", "chain_sum"
    )


def test_an_attempt_without_an_answer_gets_nothing_and_is_told_so(
    five: tuple[Task, Problem],
) -> None:
    task, problem = five
    verdict = task.check(problem, "I do not know.")
    assert (verdict.reward, verdict.text) == (0.0, "No answer could be read from the attempt.")


def test_a_verifier_that_raises_gives_no_reward() -> None:
    task = make("prime_factorization", extract="whole", train_size=1, eval_size=0)
    verdict = task.check(task.train[0], "five")
    assert verdict.reward is None
    assert "'five'" in verdict.text
    assert "couldn't judge it (ValueError: invalid literal for int()" in verdict.text


def test_an_answer_that_isnt_read_back_is_refused_with_the_extractors_that_would_do() -> None:
    with pytest.raises(TaskError, match=r"extract: last_line\. Set task\.extract to answer_tag"):
        make("sudoku", extract="last_line", train_size=1, eval_size=0)
    with pytest.raises(TaskError, match=r"Set task\.extract to last_line or answer_tag or whole"):
        make("spell_backward", train_size=1, eval_size=0)


def test_a_verifier_that_refuses_its_own_answers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DATASETS["chain_sum"][0], "score_answer", lambda self, answer, entry: 0.9)
    with pytest.raises(TaskError, match="Its verifier refuses its own answers: take another"):
        make(train_size=1, eval_size=0)


def test_every_extractor_that_a_recipe_may_name_exists() -> None:
    assert set(get_args(get_type_hints(TaskConfig)["extract"])) == set(EXTRACTORS)
    text = "1 <answer>2</answer>\n3 apples"
    read = {name: make(extract=name, train_size=1, eval_size=0).read(text) for name in EXTRACTORS}
    assert read == {
        "last_number": "3", "last_line": "3 apples", "answer_tag": "2", "whole": text
    }  # fmt: skip
