"""Which part of a completion is its answer. Explicit rules by name; no guessing between them.

EXTRACTORS are those that a recipe's `task.extract` may name; `read_answer` reads by one of them.
`last_box` is how the checks of mathematics and of choices read LaTeX.
"""

import re
from collections.abc import Callable

from distil.errors import TaskError, perhaps

DASHES = "\u2010\u2011\u2013\u2014\u2212"
"""Hyphens, dashes and the minus sign that stand where plain text has "-"."""

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_NUMBER = re.compile(rf"(?<![\w.])-?(?:{_UNSIGNED}|\.\d+)|{_UNSIGNED}")
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


def last_number(completion: str) -> str | None:
    """The last integer or decimal, sign included, thousands separators removed ("1,200" -> 1200).

    A minus sign counts only where no digit or letter stands before it: "7-3" ends in 3, not -3.
    A comma counts only between groups of three: "1,2,3" ends in 3.
    """
    found = _NUMBER.findall(completion)
    return found[-1].replace(",", "") if found else None


def last_line(completion: str) -> str | None:
    """The last line that isn't blank, without outer white space."""
    lines = [line.strip() for line in completion.splitlines() if line.strip()]
    return lines[-1] if lines else None


def answer_tag(completion: str) -> str | None:
    """The text in the last <answer>...</answer>."""
    start = completion.rfind("<answer>", 0, max(completion.rfind("</answer>"), 0))
    if start < 0:
        return None
    return completion[start + len("<answer>") :].partition("</answer>")[0].strip()


def whole(completion: str) -> str | None:
    """All of it, without outer white space."""
    return completion.strip() or None


def last_box(completion: str) -> str | None:
    r"""What stands in the last \boxed{...} that is closed, outer white space taken off; may be "".

    A box inside a box belongs to the outer one. None if there is no box, or none is closed.
    """
    found, opened = None, []
    for token in _BRACE.finditer(completion):
        if token.group().endswith("{") and token.group() != r"\{":
            opened.append((token.group() != "{", token.end()))
        elif token.group() == "}" and opened:
            is_box, start = opened.pop()
            if is_box:
                found = completion[start : token.start()]
    return None if found is None else found.strip()


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "last_number": last_number,
    "last_line": last_line,
    "answer_tag": answer_tag,
    "whole": whole,
}


def read_answer(completion: str, extract: str) -> str | None:
    """What the extractor of that name reads of a completion, its thinking taken out.

    Raises TaskError for an unknown name.
    """
    if extract not in EXTRACTORS:
        raise TaskError(f"There is no extractor {extract!r}.{perhaps(extract, EXTRACTORS)}")
    return EXTRACTORS[extract](without_thinking(completion))


def without_thinking(text: str) -> str:
    """The text without <think>...</think>.

    From an unclosed <think> on, everything goes; up to a </think> that was never opened too: some
    chat templates open the thinking in the prompt, so that a completion begins inside it.
    """
    kept, place = [], 0
    while (start := text.find("<think>", place)) >= 0 and (
        end := text.find("</think>", start)
    ) >= 0:
        kept.append(text[place:start])
        place = end + len("</think>")
    text = "".join([*kept, text[place:]])
    text = text.rsplit("</think>", 1)[-1]
    return text.split("<think>", 1)[0].strip()
