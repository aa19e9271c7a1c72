"""What the answer checks say: every word of their reports, and what each verdict is worth.

Right is 1, anything else that could be judged is 0 (partial marks are their check's), and what
couldn't be judged through no fault of the answer's is None: masked and counted.
"""

from collections.abc import Sequence

from distil.feedback.deadline import Outcome
from distil.types import Feedback

ABSENT = "No answer could be read from the attempt."
EMPTY_BOX = r"The attempt's last \boxed{} is empty."
OPEN_BOX = r"The attempt's \boxed{ is never closed, so no answer could be read from it."
WRONG = "It is wrong."
ONLY_FORM = (
    "It differs from the right answer only in form: in case, spaces, punctuation or articles."
)
ROUNDED = "It is close to the right answer but not equal to it: give the exact value, not rounded."
REORDERED = "It has the right parts, but not in the right order or between the right brackets."
UNREADABLE = "It can't be read as mathematics."
NO_CHOICE = "It isn't one of the choices {all}."
NO_NUMBER = "It is no number, and the answer is one."
NO_SCORE = "The verifier gave it no number: ungraded."
TOO_LONG = "It has {length} characters, and no answer here has more than {most}."
TOO_MUCH = "Judging it took too much {what}, so that it counts as wrong: give a plainer expression."
DEMONSTRATION = "The final answer is"
HINT = "A hint for this problem:\n{hint}"

MAX_SHOWN = 200
"""Characters of an answer that a report repeats."""


def right(source: str, demonstration: str | None) -> Feedback:
    """Full marks, and nothing to be said."""
    return Feedback(1.0, None, demonstration, source)


def wrong(
    source: str,
    demonstration: str | None,
    read: str | None,
    why: str,
    *,
    gold: str | None = None,
    reward: float | None = 0.0,
) -> Feedback:
    """Anything but full marks: what was read (None: nothing), why it's wrong, `gold` if given."""
    parts = [] if read is None else [f"The answer was read as {shown(read)}."]
    parts.append(why)
    if gold is not None:
        parts.append(f"The right answer is {shown(gold)}.")
    return Feedback(reward, " ".join(parts), demonstration, source)


def unjudged(
    source: str,
    demonstration: str | None,
    read: str | None,
    outcome: Outcome,
    *,
    gold: str | None = None,
) -> Feedback:
    """A verdict that never came. Too slow or too big is the answer's fault, all else is not."""
    if outcome.fault in ("late", "memory"):
        what = "time" if outcome.fault == "late" else "memory"
        return wrong(source, demonstration, read, TOO_MUCH.format(what=what), gold=gold)
    why = {
        "waited": "The verifier gave no verdict, and wasn't computing one",
        "raised": f"The verifier couldn't judge it ({outcome.note})",
        "died": f"The verifier's process died twice ({outcome.note})",
    }[str(outcome.fault)]
    return wrong(source, demonstration, read, f"{why}: ungraded.", gold=gold, reward=None)


def shown(answer: str) -> str:
    """An answer in quotes, on one line, its middle cut out if it is long."""
    if len(answer) > MAX_SHOWN:
        half = MAX_SHOWN // 2
        answer = f"{answer[:half]} [...] {answer[-half:]}"
    return repr(answer)


def labels(count: int) -> str:
    """The letters of so many choices."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]


def in_words(letters: Sequence[str]) -> str:
    """'A to D'."""
    return f"{letters[0]} to {letters[-1]}"
