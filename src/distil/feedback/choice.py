r"""Checks a multiple-choice answer: which letter was chosen.

check_choice("<answer>B</answer>", "B", ["Paris", "Rome"]).reward  # 1.0

The first of these that a completion has is its answer, and of each kind the last one counts:
  1. <answer>B</answer>      2. \boxed{B}
  3. "Answer: B", "the answer is (B)": the word, at most a few small ones, a capital letter
  4. a last line that begins with a choice
A choice is a letter, in either case, bare or as (B), B), B., **B** or \text{B}; or the letter with
the very text of that choice behind it, "B. Rome". Whatever names several is none of them.
"""

import re
from collections.abc import Sequence

from distil.feedback import answers
from distil.feedback.extract import answer_tag, last_box, last_line, without_thinking
from distil.types import Feedback

SOURCE = "choice"

_SAID = re.compile(
    r"(?<![</])\b(?:[Aa]nswer|ANSWER|[Cc]hoice|[Oo]ption)\b\W{0,3}(?:is|are|=)?[:\s*]{0,6}"
    r"(?P<all>\(?(?P<letter>[A-Z])\b\)?(?:[ \t]*(?:,|/|&|\||or|and)?[ \t]*\(?[A-Z]\b\)?(?!'))*)"
    r"(?!['\w-])"
)
_LINE = re.compile(r"[(*\\$]*[A-Za-z]\)?\**(?:[.:,)]|\s*$|\s+(?:or|and)\b)")
_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")


def check_choice(
    completion: str,
    answer: str,
    choices: Sequence[str] | int,
    *,
    solution: str | None = None,
    reveal: bool = False,
) -> Feedback:
    """Reward 1 if the letter chosen is `answer`, else 0 and a report.

    choices: the choices' texts, lettered from A, or how many there are. solution: a worked one,
    shown as demonstration in place of the tagged letter. reveal: whether the report names the right
    letter. Raises ValueError if `answer` is none of the letters, or there are more than 26.
    """
    texts = [""] * choices if isinstance(choices, int) else list(choices)
    letters = answers.labels(len(texts))
    if len(texts) > 26 or len(answer) != 1 or answer not in letters:
        raise ValueError(
            f"The right choice is {answer!r}, and must be one of the letters {letters!r} of "
            f"{len(texts)} choices (26 at most)."
        )
    shown, gold = solution or f"<answer>{answer}</answer>", answer if reveal else None
    read = read_choice(completion)
    if read is None:
        return answers.wrong(SOURCE, shown, None, answers.ABSENT, gold=gold)
    letter = letter_of(read, texts)
    if letter == answer:
        return answers.right(SOURCE, shown)
    why = answers.WRONG if letter else answers.NO_CHOICE.format(all=answers.in_words(letters))
    return answers.wrong(SOURCE, shown, read, why, gold=gold)


def read_choice(completion: str) -> str | None:
    """The part of the completion that says its choice (rules above), None if there is none."""
    text = without_thinking(completion)
    for found in (answer_tag(text), last_box(text)):
        if found is not None:
            return found
    said = list(_SAID.finditer(text))
    if said:
        return said[-1]["all"]
    line = last_line(text)
    return line if line is not None and _LINE.match(line) else None


def letter_of(read: str, texts: Sequence[str]) -> str | None:
    """The letter of the one choice that `read` is; None if it is none, or more than one."""
    plain = _DRESS.sub(r"\1", read).replace("*", "").replace("$", "").strip()
    found = re.fullmatch(r"\(?\s*([A-Za-z])\s*\)?(?:(?<=\))\s|[.:)]|$)\s*(.*)", plain, re.DOTALL)
    if found is None:
        return None
    letter, rest = found[1].upper(), " ".join(found[2].split()).rstrip(".").casefold()
    place = ord(letter) - ord("A")
    if place >= len(texts):
        return None
    text = " ".join(texts[place].split()).rstrip(".").casefold()
    return letter if rest in ("", text) else None
