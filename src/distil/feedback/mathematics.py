r"""Checks an answer in mathematics: is it the right one, in whatever form.

check_mathematics(r"... \boxed{\frac{1}{2}}", "0.5").reward  # 1.0

The last closed \boxed{} is the answer; where no box is opened, math-verify finds one in the end of
the completion. Equal is what math-verify can show to be equal (`distil.feedback.equivalence`):
numbers to six decimals, expressions, equations, sets, intervals, tuples, matrices. It drops units,
and takes 50% for 50 as well as for 0.5. Each answer is judged within `cpu_s` seconds of computing,
in another process: no expression hangs or breaks this one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from distil.feedback import answers
from distil.feedback.deadline import CPU_S, Outcome, shared
from distil.feedback.extract import last_box, last_line, without_thinking
from distil.types import Feedback

SOURCE = "mathematics"
BOXES = (r"\boxed{", r"\fbox{")
COMPARE = "distil.feedback.equivalence:compare"
MAX_ANSWER = 2_000
"""Characters. What is longer is no answer, and where there's no box so much is searched for one."""
HINTS = {"": answers.WRONG, "rounded": answers.ROUNDED, "reordered": answers.REORDERED}


def check_mathematics(
    completion: str,
    answer: str,
    *,
    solution: str | None = None,
    reveal: bool = False,
    cpu_s: float = CPU_S,
) -> Feedback:
    r"""Reward 1 if the completion's answer equals `answer`, else 0 and a report; None if ungraded.

    answer: LaTeX, with or without its \boxed{}. solution: a worked one, shown as demonstration in
    place of the bare answer. reveal: whether the report names the right answer. Thinking is not
    looked at.
    """
    return check_mathematics_all(
        [completion], [answer], solutions=[solution], reveal=reveal, cpu_s=cpu_s
    )[0]


def check_mathematics_all(
    completions: Sequence[str],
    answers_: Sequence[str],
    *,
    solutions: Sequence[str | None] | None = None,
    reveal: bool = False,
    cpu_s: float = CPU_S,
) -> list[Feedback]:
    """`check_mathematics` of each completion with its answer and solution, side by side."""
    solutions = [None] * len(completions) if solutions is None else solutions
    attempts = [
        _attempt(*row, reveal) for row in zip(completions, answers_, solutions, strict=True)
    ]
    verdicts = [_at_once(attempt) for attempt in attempts]
    asked = [a for a, verdict in zip(attempts, verdicts, strict=True) if verdict is None]
    calls = [(a.box or a.text[-MAX_ANSWER:], a.answer, a.box is not None) for a in asked]
    outcomes = iter(shared(COMPARE).map(calls, cpu_s=cpu_s))
    return [
        _judged(attempt, next(outcomes)) if verdict is None else verdict
        for attempt, verdict in zip(attempts, verdicts, strict=True)
    ]


def read_mathematics(completion: str) -> str | None:
    r"""The last closed \boxed{}, else the last line: what answers are counted by, unjudged."""
    text = without_thinking(completion)
    return last_box(text) or last_line(text)


def demonstration(answer: str, solution: str | None = None) -> str:
    """The worked solution, else a sentence with the answer in a box."""
    return solution or rf"{answers.DEMONSTRATION} \boxed{{{answer}}}."


@dataclass(frozen=True)
class _Attempt:
    """A completion without its thinking, its box, and what it is held against.

    gold: the answer where the report may name it.
    """

    text: str
    box: str | None
    answer: str
    demonstration: str
    gold: str | None

    def wrong(self, read: str | None, why: str) -> Feedback:
        """No marks."""
        return answers.wrong(SOURCE, self.demonstration, read, why, gold=self.gold)

    def right(self) -> Feedback:
        """Full marks."""
        return answers.right(SOURCE, self.demonstration)


def _attempt(completion: str, answer: str, solution: str | None, reveal: bool) -> _Attempt:
    text, answer = without_thinking(completion), last_box(answer) or answer
    shown = demonstration(answer, solution)
    return _Attempt(text, last_box(text), answer, shown, answer if reveal else None)


def _at_once(attempt: _Attempt) -> Feedback | None:
    """The verdict where it needs no algebra: nothing said, too much, or the answer's very text."""
    box, text = attempt.box, attempt.text
    if box is None:
        if not text:
            return attempt.wrong(None, answers.ABSENT)
        opened = any(opening in text for opening in BOXES)
        return attempt.wrong(None, answers.OPEN_BOX) if opened else None
    if not box:
        return attempt.wrong(None, answers.EMPTY_BOX)
    if box == attempt.answer.strip():
        return attempt.right()
    if len(box) > MAX_ANSWER:
        return attempt.wrong(box, answers.TOO_LONG.format(length=len(box), most=MAX_ANSWER))
    return None


def _judged(attempt: _Attempt, outcome: Outcome) -> Feedback:
    """The verdict of what a worker found."""
    if outcome.fault is not None:
        return answers.unjudged(
            SOURCE, attempt.demonstration, attempt.box, outcome, gold=attempt.gold
        )
    found = outcome.value
    if found["same"]:
        return attempt.right()
    if found["read"] is None:
        return attempt.wrong(None, answers.ABSENT)
    why = HINTS[found["hint"]] if found["readable"] else answers.UNREADABLE
    return attempt.wrong(found["read"], why)
