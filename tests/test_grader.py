"""The grader: each attempt is judged once for reward and feedback, and a batch at once."""

from collections.abc import Sequence

import pytest

from distil.tasks import one_by_one
from distil.tasks.grader import Grader
from distil.types import Feedback, Problem


class CountingTask:
    """Right is what equals the problem's answer; counts how often it is asked."""

    instruction = ""

    def __init__(self) -> None:
        self.train = [Problem("a", "1 + 1", "2"), Problem("b", "2 + 2", "4")]
        self.heldout = [Problem("c", "3 + 3", "6")]
        self.asked: list[tuple[str, str]] = []

    def check(self, problem: Problem, completion: str) -> Feedback:
        self.asked.append((problem.id, completion))
        if completion == "?":
            return Feedback(None, "ungraded")
        return Feedback(float(completion == problem.answer), completion)

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        return one_by_one(self.check, problems, completions)

    def read(self, completion: str) -> str | None:
        return completion


def test_each_attempt_is_judged_once_for_reward_and_feedback() -> None:
    task = CountingTask()
    grader = Grader(task)
    batch = {"prompts": ["p"] * 4, "completions": ["2", "3", "4", "3"], "problem_id": list("aabb")}
    rewards = grader.reward(**batch)
    verdicts = grader.feedback(**batch, rewards=rewards, completion_ids=[[1]] * 4)
    assert rewards == [1.0, 0.0, 1.0, 0.0]
    assert [v.text for v in verdicts] == ["2", "3", "4", "3"]
    assert task.asked == [("a", "2"), ("a", "3"), ("b", "4"), ("b", "3")]


def test_a_batch_is_handed_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task = CountingTask()
    batches: list[list[tuple[str, str]]] = []

    def check_all(problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        batches.append([(p.id, c) for p, c in zip(problems, completions, strict=True)])
        return one_by_one(task.check, problems, completions)

    monkeypatch.setattr(task, "check_all", check_all)
    grader = Grader(task)
    batch = {"prompts": ["p"] * 4, "completions": ["2", "3", "2", "2"], "problem_id": list("abba")}
    grader.reward(**batch)
    grader.feedback(**batch)
    assert batches == [[("a", "2"), ("b", "3"), ("b", "2")]]


def test_a_new_batch_is_judged_anew() -> None:
    task = CountingTask()
    grader = Grader(task)
    for _ in range(2):
        grader.reward(prompts=["p"], completions=["2"], problem_id=["a"])
    assert task.asked == [("a", "2"), ("a", "2")]


def test_a_conversations_completion_is_graded_like_plain_text() -> None:
    grader = Grader(CountingTask())
    chat = [{"role": "assistant", "content": "2"}]
    assert grader.reward(prompts=[[]], completions=[chat], problem_id=["a"]) == [1.0]
    assert grader.reward(prompts=["p"], completions=["2"], problem_id=["a"]) == [1.0]


def test_what_could_not_be_graded_has_reward_none() -> None:
    grader = Grader(CountingTask())
    rewards = grader.reward(prompts=["p"] * 2, completions=["?", "2"], problem_id=["a", "a"])
    assert rewards == [None, 1.0]


def test_heldout_problems_can_be_graded_too() -> None:
    grader = Grader(CountingTask())
    assert grader.reward(prompts=["p"], completions=["6"], problem_id=["c"]) == [1.0]


def test_ids_and_completions_of_unequal_number_are_refused() -> None:
    grader = Grader(CountingTask())
    with pytest.raises(ValueError, match="zip"):
        grader.reward(prompts=["p"] * 2, completions=["2", "2"], problem_id=["a"])
