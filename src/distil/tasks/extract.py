"""Which part of a completion is its answer. Explicit rules by name; no guessing between them."""

import re
from collections.abc import Callable

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_NUMBER = re.compile(rf"(?<![\w.])-?(?:{_UNSIGNED}|\.\d+)|{_UNSIGNED}")


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
    found = re.findall(r"<answer>(.*?)</answer>", completion, flags=re.DOTALL)
    return found[-1].strip() if found else None


def whole(completion: str) -> str | None:
    """All of it, without outer white space."""
    return completion.strip() or None


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "last_number": last_number,
    "last_line": last_line,
    "answer_tag": answer_tag,
    "whole": whole,
}
