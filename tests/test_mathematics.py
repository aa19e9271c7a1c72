"""Answers in mathematics: gold answers and near misses over whole tables, and hostile ones."""

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from distil.feedback import answers
from distil.feedback.extract import last_box
from distil.feedback.mathematics import (
    MAX_ANSWER,
    check_mathematics,
    check_mathematics_all,
    read_mathematics,
)
from distil.types import Feedback

Triple = tuple[str, str, str]
"""An answer, another form of it, and a near miss."""

EACH = 12
"""Answers of each kind."""


def box(text: str) -> str:
    return rf"So it is \boxed{{{text}}}."


def maths(completion: str, answer: str, **settings: Any) -> Feedback:
    return check_mathematics(completion, answer, **settings)


# ---------------------------------------------------------------- whole tables


def integers(r: random.Random) -> Triple:
    n = r.choice([-1, 1]) * r.randint(1, 10**7)
    return str(n), f"{n:,}", str(n + 1)


def decimals(r: random.Random) -> Triple:
    n = r.randint(1, 9999)
    return f"{n / 100:.2f}", rf"\frac{{{n}}}{{100}}", f"{(n + 1) / 100:.2f}"


def fractions(r: random.Random) -> Triple:
    a, b, k = r.randint(1, 99), r.randint(2, 99), r.randint(2, 5)
    return rf"\frac{{{a}}}{{{b}}}", rf"{k * a}/{k * b}", rf"\frac{{{a}}}{{{b + 1}}}"


def mixed(r: random.Random) -> Triple:
    whole, a, b = r.randint(1, 9), r.randint(1, 4), r.randint(5, 9)
    value = Fraction(whole * b + a, b)
    return (
        rf"{whole}\frac{{{a}}}{{{b}}}",
        rf"\dfrac{{{value.numerator}}}{{{value.denominator}}}",
        rf"{whole}\frac{{{a}}}{{{b + 1}}}",
    )


def surds(r: random.Random) -> Triple:
    a, b = r.randint(2, 9), r.choice([2, 3, 5, 7, 11])
    return rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"{a}\sqrt{{{b + 1}}}"


def pi_multiples(r: random.Random) -> Triple:
    a, b = r.randint(2, 9), r.randint(10, 19)
    return rf"\frac{{{a}\pi}}{{{b}}}", f"{a}π/{b}", rf"\frac{{{a}}}{{{b}}}"


def intervals(r: random.Random) -> Triple:
    a, b = r.randint(-9, 0), r.randint(1, 9)
    return f"[{a}, {b})", rf"\left[{a},{b}\right)", f"[{a}, {b}]"


def rays(r: random.Random) -> Triple:
    a, b = r.randint(-9, 0), r.randint(1, 9)
    return (
        rf"(-\infty, {a}] \cup ({b}, \infty)",
        f"({b}, ∞) ∪ (-∞, {a}]",  # noqa: RUF001
        rf"(-\infty, {a}) \cup ({b}, \infty)",
    )


def triples(r: random.Random) -> Triple:
    a, b, c = r.sample(range(-20, 20), 3)
    return f"({a}, {b}, {c})", rf"\left( {a},{b},{c} \right)", f"({b}, {a}, {c})"


def sets(r: random.Random) -> Triple:
    a, b, c = r.sample(range(-20, 20), 3)
    return rf"\{{{a}, {b}, {c}\}}", rf"{c}, {a}, {b}", rf"\{{{a}, {b}\}}"


def matrices(r: random.Random) -> Triple:
    a, b, c, d = r.sample(range(-9, 10), 4)
    return (
        rf"\begin{{pmatrix}} {a} & {b} \\ {c} & {d} \end{{pmatrix}}",
        rf"\begin{{bmatrix}}{a}&{b}\\{c}&{d}\end{{bmatrix}}",
        rf"\begin{{pmatrix}} {a} & {c} \\ {b} & {d} \end{{pmatrix}}",
    )


def polynomials(r: random.Random) -> Triple:
    a, b = r.randint(1, 9), r.randint(1, 9)
    return f"x^2 + {a + b}x + {a * b}", f"(x+{b})(x+{a})", f"x^2 + {a + b}x + {a * b + 1}"


def units(r: random.Random) -> Triple:
    n, unit = r.randint(2, 99), r.choice(["cm", "m^2", "hours", "km"])
    return rf"{n} \text{{ {unit}}}", str(n), rf"{n + 1} \text{{ {unit}}}"


def percentages(r: random.Random) -> Triple:
    n = r.randint(2, 99)
    return rf"{n}\%", f"{n}", rf"{n + 1}\%"


def lines(r: random.Random) -> Triple:
    a, b = r.randint(2, 9), r.randint(1, 9)
    return f"y = {a}x + {b}", f"{b} + {a}x", f"y = {a}x - {b}"


def inequalities(r: random.Random) -> Triple:
    a = r.randint(-9, 9)
    return f"x > {a}", rf"({a}, \infty)", rf"x \ge {a}"


def powers(r: random.Random) -> Triple:
    a, n = r.randint(2, 9), r.randint(5, 9)
    return f"{a}^{{{n}}}", f"{a**n:,}", f"{a}^{{{n + 1}}}"


def tiny_and_large(r: random.Random) -> Triple:
    a, n = r.randint(11, 99), r.choice([-24, -19, -9, 9, 23])
    return (
        rf"{a / 10} \times 10^{{{n}}}",
        rf"{a} \cdot 10^{{{n - 1}}}",
        rf"{a / 5} \cdot 10^{{{n}}}",
    )


def functions(r: random.Random) -> Triple:
    n = r.randint(2, 9)
    return rf"\log_2 {2**n} + \sin x", f"sin(x) + {n}", rf"\log_2 {2**n} + \cos x"


def bases(r: random.Random) -> Triple:
    n = r.randint(20, 99)
    return f"{n:b}_2", f"{n:b}_{{2}}", f"{n:b}_3"


def words(r: random.Random) -> Triple:
    a, b = r.sample(["Monday", "Tuesday", "even", "odd", "listen", "silent", "no solution"], 2)
    return rf"\text{{{a}}}", a.upper(), b


KINDS: list[Callable[[random.Random], Triple]] = [
    integers, decimals, fractions, mixed, surds, pi_multiples, intervals, rays, triples, sets,
    matrices, polynomials, units, percentages, lines, inequalities, powers, tiny_and_large,
    functions, bases, words,
]  # fmt: skip


@pytest.fixture(scope="module")
def table() -> list[Triple]:
    return [k(random.Random(f"{k.__name__}/{i}")) for k in KINDS for i in range(EACH)]


def verdicts(pairs: list[tuple[str, str]]) -> list[Feedback]:
    """Verdicts of (said, answer), said in a box."""
    return check_mathematics_all([box(said) for said, _ in pairs], [gold for _, gold in pairs])


def test_every_gold_answer_of_mathematics_gets_full_marks(table: list[Triple]) -> None:
    assert len(table) == EACH * len(KINDS) > 250
    pairs = [(gold, gold) for gold, _, _ in table]
    assert [v for v in verdicts(pairs) if (v.reward, v.text) != (1.0, None)] == []
    pairs = [(rf"\displaystyle {gold}\,", gold) for gold, _, _ in table]
    failed = [p for p, v in zip(pairs, verdicts(pairs), strict=True) if v.reward != 1]
    assert failed == []


def test_the_same_value_in_another_form_gets_full_marks(table: list[Triple]) -> None:
    pairs = [(other, gold) for gold, other, _ in table]
    failed = [p for p, v in zip(pairs, verdicts(pairs), strict=True) if v.reward != 1]
    assert failed == []


def test_a_near_miss_gets_nothing_and_is_told_what_was_read(table: list[Triple]) -> None:
    pairs = [(miss, gold) for gold, _, miss in table]
    for pair, verdict in zip(pairs, verdicts(pairs), strict=True):
        assert verdict.reward == 0, pair
        assert verdict.text.startswith(f"The answer was read as {pair[0]!r}. It "), verdict


# ---------------------------------------------------------------- one by one


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("5.", "5"), ("\uff15", "5"), ("\u20135", "-5"), ("½", r"\frac12"), ("1 234", "1234"),
        (r"1\,234", "1,234"), ("1{,}234", "1234"), ("2^{0.5}", r"\sqrt2"), ("√2", r"\sqrt2"),
        ("sqrt(2)/2", r"\frac{\sqrt2}{2}"), (r"\varnothing", r"\emptyset"), ("$5$", "5"),
        ("5", "$5$"), (r"\$5", "5"), (r"\text{5}", "5"), (r"\boxed{5}", "5"), ("5", r"\boxed{5}"),
        ("2*x**10 + 1", "2x^{10} + 1"), ("x**(3/2)", r"x^{\frac32}"), ("**5**", "5"),
        ("4.5e-10", r"4.5 \times 10^{-10}"), ("x = 5", "5"), ("5", "x = 5"), ("05", "5"),
        (r"\pm 3", "3, -3"), ("36°", r"36^\circ"),
        ("0.333333", r"\frac13"), (r"\text{(B)}", "B"), (r"x \in [1, 2]", "[1, 2]"),
    ],
)  # fmt: skip
def test_forms_that_count_as_the_same(said: str, gold: str) -> None:
    assert maths(box(said), gold).reward == 1


@pytest.mark.parametrize(
    "said",
    [
        "5 or 6", "5, 6", r"\{5, 6\}", r"5 \text{ and } 6", r"\text{5 or 6}", r"5 \pm 1", "[4, 6]",
        r"0 \le x \le 10", r"x \in \mathbb{R}", r"\mathbb{R}", "x", "5x", r"\frac00", r"\infty",
        "5; 6", r"5 \\ 6", r"\boxed{5}, \boxed{6}", "1 = 2 = 3 = 4 = 5 = 6", "nan", r"\emptyset",
        "x = 5, x = 6", "<|im_end|>", "((((", "\0", r"\text{}", "__import__('os')",
    ],
)  # fmt: skip
def test_listing_answers_or_naming_none_gets_nothing(said: str) -> None:
    assert maths(box(said), "5").reward == 0


@pytest.mark.parametrize(
    ("completion", "read"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed{4} or rather \boxed{ 5 }", "5"),
        (r"\boxed{5} or \boxed{4}", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{5}", "5"),
        (r"\boxed{4} and \boxed{5", "4"),
        (r"\boxed{a \boxed{5}", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{5", None),
        ("5", None),
    ],
)
def test_the_last_closed_box_is_the_answer(completion: str, read: str | None) -> None:
    assert last_box(completion) == read


@pytest.mark.parametrize(
    ("completion", "reward", "text"),
    [
        ("The answer is 5.", 1, None),
        ("It is $x = 5$", 1, None),
        ("4, 5", 1, None),  # without a box, math-verify's choice: the last number
        ("5 or 6", 0, "The answer was read as '6'. It is wrong."),
        ("", 0, answers.ABSENT),
        ("I do not know", 0, answers.ABSENT),
        (r"\boxed{}", 0, answers.EMPTY_BOX),
        (r"\boxed{5", 0, answers.OPEN_BOX),
        ("<think>\\boxed{5}</think> 6", 0, "The answer was read as '6'. It is wrong."),
        ("<think>\\boxed{5}", 0, answers.ABSENT),
        (r"\boxed{5\\6}", 0, r"The answer was read as '5\\\\6'. It can't be read as mathematics."),
        (r"<|im_start|>\boxed{5}<|im_end|>", 1, None),
    ],
)
def test_what_is_read_and_what_is_said(completion: str, reward: float, text: str | None) -> None:
    assert maths(completion, "5") == Feedback(
        reward, text, r"The final answer is \boxed{5}.", "mathematics"
    )


def test_a_difference_in_rounding_or_order_alone_is_told() -> None:
    assert maths(box("3.14"), r"\pi").text == f"The answer was read as '3.14'. {answers.ROUNDED}"
    assert maths(box("(2, 1)"), "(1, 2)").text.endswith(answers.REORDERED)
    assert maths(box("[1, 2]"), "(1, 2)").text.endswith(answers.REORDERED)


def test_the_right_answer_is_named_only_where_asked_and_the_solution_only_as_demonstration() -> (
    None
):
    told = maths(box("6"), "5", reveal=True, solution="Count them.")
    assert told.text == "The answer was read as '6'. It is wrong. The right answer is '5'."
    assert told.demonstration == "Count them."
    assert maths("", "5", reveal=True).text == f"{answers.ABSENT} The right answer is '5'."
    assert "5" not in str(maths(box("6"), "5", solution="Count them.").text)


@pytest.mark.parametrize(
    "said",
    ["9^{9^{9^9}}", "(10^7)!", r"\prod_{k=1}^{10^8} k", "(" * 1900, "{" * 900 + "}" * 900],
)
def test_no_expression_hangs_the_check(said: str) -> None:
    verdict = maths(box(said), "5", cpu_s=0.5)
    assert verdict.reward == 0
    assert verdict.text.endswith(answers.TOO_MUCH.format(what="time"))


def test_a_long_answer_is_refused_unread_and_shown_short() -> None:
    text = str(maths(box("1+" * MAX_ANSWER), "5").text)
    assert text.endswith(
        f"It has {2 * MAX_ANSWER} characters, and no answer here has more than 2000."
    )
    assert len(text) < 350


def test_answers_are_counted_by_their_box_else_their_last_line() -> None:
    assert read_mathematics("a\n\\boxed{5} b\nc") == "5"
    assert read_mathematics("<think>1</think>a\nb\n") == "b"
    assert read_mathematics("") is None
