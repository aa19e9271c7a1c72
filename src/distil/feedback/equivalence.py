"""Whether two mathematical expressions are the same, by math-verify: what a worker runs.

No limits here: `distil.feedback.mathematics` calls it through `distil.feedback.deadline`.
Around math-verify stand rules for what it gets wrong, each with a test:
  - words are compared as words (it takes "listen" for a product of letters, equal to "silent")
  - numbers in a written base need the same base (it drops the subscript)
  - equal numbers agree to 1 in 10,000 (it takes 1e-20 and 2e-20 both for 0)
  - 2^{0.5} is sqrt(2) (its symbolic test has no room for a float's last digit)
  - dashes, full-width digits, thousands spaces, a full stop, signs such as π, names such as sin,
    x**2 and 1e-9 are made plain LaTeX first
"""

import re
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Basic, FiniteSet, Float, Interval, Tuple

from distil.feedback.extract import DASHES

SIGNS = str.maketrans(
    {
        **dict.fromkeys(DASHES, "-"),
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        "\0": "", "½": r"\frac12", "⅓": r"\frac13", "¼": r"\frac14", "¾": r"\frac34",
        "⅔": r"\frac23", "π": r"\pi ", "∞": r"\infty ", "\u00d7": r"\times ", "·": r"\cdot ",
        "÷": "/", "≤": r"\le ", "≥": r"\ge ", "\u222a": r"\cup ", "∅": r"\emptyset ",
        "°": r"^\circ ", "²": "^2", "³": "^3",
    }
)  # fmt: skip
_SPACE = r"\s|~|\*\*|\$|\\[,;:! ]|\\q?quad\b|\\displaystyle\b"
_AROUND = re.compile(rf"^(?:{_SPACE})+|(?:(?:{_SPACE})|(?<!\\)[.;,])+$")
FUNCTIONS = frozenset(("cot", "sec", "csc", "exp", "det", "max", "min", "gcd", "lcm", "mod"))
"""Names that are no words, though nothing but letters."""
SAME_NUMBER = 1e-4
"""Largest relative difference of two numbers that pass for one, whatever math-verify says."""
FLOAT_NOISE = 1e-9
NEARLY = 0.01
"""A relative difference below this is called a rounding in the report."""


def compare(said: str, gold: str, boxed: bool) -> dict[str, Any]:
    """{"read": what was read or None, "same", "readable", "hint": "", "rounded" or "reordered"}.

    said: an answer (`boxed`), or a text to find one in, which is math-verify's choice then.
    """
    found = _parsed(said) if boxed else _found(said)
    if not found and not boxed:
        return {"read": None, "same": False, "readable": False, "hint": ""}
    read = said if boxed else str(found[-1])
    wanted = _parsed(gold)
    same = _same(tidy(read), tidy(gold), found, wanted)
    readable = any(isinstance(f, Basic) or hasattr(f, "shape") for f in found)
    hint = "" if same or not readable else _hint(found[0], wanted[0] if wanted else None)
    return {"read": read, "same": same, "readable": readable, "hint": hint}


def tidy(text: str) -> str:
    """The expression in plain LaTeX: the signs above, no dollars, stars or full stop around it.

    1 234 becomes 1234, and x**2 and 1e-9 become LaTeX too.
    """
    text = _AROUND.sub("", text.translate(SIGNS))
    text = text.replace(r"\varnothing", r"\emptyset").replace("{,}", ",")
    text = re.sub(r"(?:√|(?<![\\a-z])sqrt(?=\())\s*(\d+|\w|\([^()]*\))", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\A-Za-z])(sin|cos|tan|log|ln|pi)(?![A-Za-z])", r"\\\1 ", text)
    text = re.sub(r"\*\*\s*(\d+|\w|\([^()]*\))", r"^{\1}", text)
    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]?\d+)(?!\w)", r"\1 \\times 10^{\2}", text)
    return re.sub(r"(?<=\d)(?:\\[,!;: ]|[ ~\u00a0\u202f])(?=\d{3}(?!\d))", "", text)


def _parsed(answer: str) -> list[Any]:
    """math-verify's reading of an answer: an expression if it is one, and its text."""
    return _parsed_tidy(tidy(answer))


@lru_cache(maxsize=64)
def _parsed_tidy(answer: str) -> list[Any]:
    return list(parse(rf"\boxed{{{answer}}}", [LatexExtractionConfig()], parsing_timeout=None))


def _found(text: str) -> list[Any]:
    """What math-verify takes for the answer in a text, and its text last; [] if nothing."""
    rules = [LatexExtractionConfig(), ExprExtractionConfig()]
    return list(parse(text.translate(SIGNS), rules, parsing_timeout=None))


def _same(said: str, gold: str, found: list[Any], wanted: list[Any]) -> bool:
    if said == gold:
        return said != ""
    said_words, gold_words = _words(said), _words(gold)
    if said_words or gold_words:
        return said_words == gold_words
    bases = _base(said), _base(gold)
    if None not in bases:
        return bases[0] == bases[1]
    if not found or not wanted:
        return False
    gap = _gap(found[0], wanted[0])
    if gap is not None and gap < FLOAT_NOISE and _has_float(found[0], wanted[0]):
        return True
    percent = "%" in said + gold or "percent" in said + gold
    if gap is not None and gap > SAME_NUMBER and not percent:
        return False
    return bool(verify(wanted, found, allow_set_relation_comp=True, timeout_seconds=None))


def _words(text: str) -> str | None:
    r"""A text of words without mathematics, in lower case, \text{} taken off; else None."""
    text = re.sub(r"\\(?:text|textbf|mathrm|operatorname)\s*\{([^{}]*)\}", r"\1", text)
    words = re.findall(r"[a-z]+", text.lower())
    plain = re.fullmatch(r"[A-Za-z\s.,'!?-]+", text) is not None
    if not plain or not any(len(w) > 2 for w in words) or FUNCTIONS & set(words):
        return None
    return " ".join(words)


def _base(text: str) -> tuple[str, int] | None:
    """A number with its base, 1001_2 as ("1001", 2); else None."""
    found = re.fullmatch(r"(?:\\text\{)?([0-9A-Za-z]+)\}?_\{?(\d+)\}?", text.replace(" ", ""))
    return (found[1].lstrip("0").lower(), int(found[2])) if found else None


def _gap(said: Any, gold: Any) -> float | None:
    """The relative difference of two numbers, 0 to 2; None where either isn't a finite one."""
    if not (isinstance(said, Basic) and isinstance(gold, Basic)):
        return None
    if said.free_symbols or gold.free_symbols:
        return None
    try:
        a, b = complex(said.evalf(20)), complex(gold.evalf(20))
    except (TypeError, ValueError, AttributeError, OverflowError):  # a set, say, or infinity
        return None
    if not (abs(a) < float("inf") and abs(b) < float("inf")):
        return None
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def _has_float(*expressions: Any) -> bool:
    return any(isinstance(e, Basic) and e.has(Float) for e in expressions)


def _hint(said: Any, gold: Any) -> str:
    gap = _gap(said, gold)
    if gap is not None:
        return "rounded" if 0 < gap < NEARLY else ""
    parts = _parts(said), _parts(gold)
    return "reordered" if parts[0] is not None and parts[0] == parts[1] else ""


def _parts(expression: Any) -> list[str] | None:
    """The members of a set or tuple, or the ends of an interval, sorted; None of anything else."""
    if isinstance(expression, Interval):
        return sorted(map(str, (expression.start, expression.end)))
    if isinstance(expression, FiniteSet | Tuple):
        return sorted(map(str, expression.args))
    return None
