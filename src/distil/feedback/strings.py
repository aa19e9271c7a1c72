"""Checks an answer that is a text or a number: the very same text, or the same up to its form.

check_exact("Paris", "Paris").reward                                     # 1.0
check_tolerant("the answer:\n The  PARIS!", "Paris", extract="last_line").reward  # 1.0
check_tolerant("3.14", "3.14159", tolerance=0.01).reward                 # 1.0

`extract` says which part of the completion is read (`distil.feedback.extract`); thinking is not
looked at. Left out: texts that mean the same in other words.
"""

import re
import unicodedata
from fractions import Fraction

from distil.feedback import answers
from distil.feedback.extract import DASHES, read_answer
from distil.types import Feedback

_NUMBER = re.compile(
    r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?", re.IGNORECASE
)
MAX_NUMBER = 400
"""Characters of the longest text that is tried as a number."""
_DROPPED = re.compile(
    r"""[;:!?"'`*_()\[\]{}\u2018\u2019\u201c\u201d\u00ab\u00bb]|(?<!\d)[.,]|[.,](?!\d)"""
)
_HYPHEN = re.compile(r"-(?!\d)|(?<=\w)-")


def check_exact(
    completion: str,
    answer: str,
    *,
    extract: str = "whole",
    solution: str | None = None,
    reveal: bool = False,
) -> Feedback:
    """Reward 1 if what is read is `answer`, character by character but for outer white space.

    Else 0, with a report that tells a difference in form alone from a wrong answer. solution: a
    worked one, shown as demonstration in place of the bare answer. reveal: whether the report names
    the right answer.
    """
    read = read_answer(completion, extract)
    shown = demonstration(answer, extract, solution)
    if read is not None and read == answer.strip():
        return answers.right("exact", shown)
    why = answers.ABSENT
    if read is not None:
        why = answers.ONLY_FORM if same(read, answer) else answers.WRONG
    return answers.wrong("exact", shown, read, why, gold=answer if reveal else None)


def check_tolerant(
    completion: str,
    answer: str,
    *,
    tolerance: float = 0.0,
    extract: str = "whole",
    solution: str | None = None,
    reveal: bool = False,
) -> Feedback:
    """Reward 1 if what is read is `answer` up to case, spaces, punctuation and articles, else 0.

    Where the answer is a number, so must what is read be, and |read - answer| at most
    tolerance * max(1, |answer|). `solution` and `reveal` as in `check_exact`.
    """
    read = read_answer(completion, extract)
    shown, gold = demonstration(answer, extract, solution), answer if reveal else None
    if read is None:
        return answers.wrong("tolerant", shown, None, answers.ABSENT, gold=gold)
    if same(read, answer, tolerance):
        return answers.right("tolerant", shown)
    no_number = number(answer) is not None and number(read) is None
    why = answers.NO_NUMBER if no_number else answers.WRONG
    return answers.wrong("tolerant", shown, read, why, gold=gold)


def same(read: str, answer: str, tolerance: float = 0.0) -> bool:
    """Whether they are equal texts but for form, or equal numbers within the tolerance."""
    if plain(read) == plain(answer):
        return True
    wanted, got = number(answer), number(read)
    if wanted is None or got is None:
        return False
    return abs(got - wanted) <= Fraction(tolerance) * max(Fraction(1), abs(wanted))


def number(text: str) -> Fraction | None:
    """The number that a text is, exactly, without thousands commas, $ and %; None if it is none.

    A percentage is its own number: 50% is 50.
    """
    if len(text) > MAX_NUMBER:
        return None
    bare = _normal(text).strip().strip("$%").strip().removesuffix(".")
    return Fraction(bare.replace(",", "")) if bare.isascii() and _NUMBER.fullmatch(bare) else None


def plain(text: str) -> str:
    """Lower case, without articles and punctuation, one space between words.

    A text with nothing else in it ("...", "The") stays as it is, in lower case.
    """
    folded = _normal(text).casefold()
    words = _HYPHEN.sub(" ", _DROPPED.sub("", folded)).split()
    kept = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(kept) or folded.strip()


def _normal(text: str) -> str:
    """Full-width and other compatible signs as plain ones, dashes too."""
    return unicodedata.normalize("NFKC", text).translate(dict.fromkeys(map(ord, DASHES), "-"))


def demonstration(answer: str, extract: str, solution: str | None = None) -> str:
    """The worked solution, else the answer in a form that `extract` reads back."""
    if solution or extract != "answer_tag":
        return solution or answer
    return f"<answer>{answer}</answer>"
