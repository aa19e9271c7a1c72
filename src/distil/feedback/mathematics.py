r"""Checks an answer in mathematics: is it the right one, in whatever form.

check_mathematics(r"... \boxed{\frac{1}{2}}", "0.5").reward  # 1.0

The last closed \boxed{} is the answer; where no box is opened, math-verify finds one in the end of
the completion. Equal is what math-verify can show to be equal (`distil.feedback.equivalence`):
numbers to six decimals, expressions, equations, sets, intervals, tuples, matrices. It drops units,
and takes 50% for 50 as well as for 0.5. Each answer is judged within `cpu_s` seconds of computing,
in another process: no expression hangs or breaks this one.
"""

from collections.abc import Sequence

from distil.feedback import answers
from distil.feedback.deadline import CPU_S, Outcome, shared
from distil.feedback.extract import last_box, last_line
from distil.feedback.sibling import without_thinking
from distil.types import Feedback

SOURCE = "mathematics"
BOXES = (r"\boxed{", r"\fbox{")
COMPARE = "distil.feedback.equivalence:compare"
MAX_ANSWER = 2_000
"""Characters. What is longer is no answer, and where there's no box so much is searched for one."""
TOO_LONG = "It has {length} characters, and no answer here has more than {most}."
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
    rows = [
        _Attempt(completion, answer, solution, reveal)
        for completion, answer, solution in zip(completions, answers_, solutions, strict=True)
    ]
    asked = [row for row in rows if row.verdict is None]
    outcomes = shared(COMPARE).map([row.call for row in asked], cpu_s=cpu_s)
    for row, outcome in zip(asked, outcomes, strict=True):
        row.judge(outcome)
    return [row.verdict for row in rows if row.verdict is not None]


def read_mathematics(completion: str) -> str | None:
    r"""The last closed \boxed{}, else the last line: what answers are counted by, unjudged."""
    text = without_thinking(completion)
    return last_box(text) or last_line(text)


def demonstration(answer: str, solution: str | None = None) -> str:
    """The worked solution, else a sentence with the answer in a box."""
    return solution or rf"{answers.DEMONSTRATION} \boxed{{{answer}}}."


class _Attempt:
    """One completion: judged at once where nothing has to be computed, else by its outcome."""

    def __init__(self, completion: str, answer: str, solution: str | None, reveal: bool) -> None:
        text, answer = without_thinking(completion), last_box(answer) or answer
        self._box, self._gold = last_box(text), answer if reveal else None
        self._demonstration = demonstration(answer, solution)
        self.call = (self._box or text[-MAX_ANSWER:], answer, self._box is not None)
        self.verdict: Feedback | None = None
        if self._box is not None:
            self._judge_box(self._box, answer)
        elif not text or any(box in text for box in BOXES):
            self._say(None, answers.OPEN_BOX if text else answers.ABSENT)

    def judge(self, outcome: Outcome) -> None:
        """Makes the verdict of what a worker found."""
        if outcome.fault is not None:
            self.verdict = answers.unjudged(
                SOURCE, self._demonstration, self._box, outcome, gold=self._gold
            )
            return
        found = outcome.value
        if found["same"]:
            self.verdict = answers.right(SOURCE, self._demonstration)
        elif found["read"] is None:
            self._say(None, answers.ABSENT)
        else:
            self._say(
                found["read"], HINTS[found["hint"]] if found["readable"] else answers.UNREADABLE
            )

    def _judge_box(self, box: str, answer: str) -> None:
        """Where it needs no algebra: nothing in it, too much, or the very text of the answer."""
        if not box:
            self._say(None, answers.EMPTY_BOX)
        elif box == answer.strip():
            self.verdict = answers.right(SOURCE, self._demonstration)
        elif len(box) > MAX_ANSWER:
            self._say(box, TOO_LONG.format(length=len(box), most=MAX_ANSWER))

    def _say(self, read: str | None, why: str) -> None:
        self.verdict = answers.wrong(SOURCE, self._demonstration, read, why, gold=self._gold)
