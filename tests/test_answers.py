"""The answer checks: gold answers over whole tables, near misses, and texts made to fool them."""

import random
import signal
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from reasoning_gym.factory import DATASETS, create_dataset

from distil.errors import TaskError
from distil.feedback import answers
from distil.feedback.choice import check_choice
from distil.feedback.deadline import Outcome
from distil.feedback.extract import last_box
from distil.feedback.gym import as_json, from_json
from distil.feedback.mathematics import (
    MAX_ANSWER,
    check_mathematics,
    check_mathematics_all,
    read_mathematics,
)
from distil.feedback.reasoning import check_reasoning, check_reasoning_all, judged
from distil.feedback.strings import check_exact, check_tolerant, same
from distil.types import Feedback

Triple = tuple[str, str, str]
"""An answer, another form of it, and a near miss."""

EACH = 14
"""Answers of each kind."""


def box(text: str) -> str:
    return rf"So it is \boxed{{{text}}}."


def maths(completion: str, answer: str, **settings: Any) -> Feedback:
    return check_mathematics(completion, answer, **settings)


# ---------------------------------------------------------------- mathematics, whole tables


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


# ---------------------------------------------------------------- mathematics, one by one


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("5.", "5"), ("\uff15", "5"), ("\u20135", "-5"), ("½", r"\frac12"), ("1 234", "1234"),
        (r"1\,234", "1,234"), ("1{,}234", "1234"), ("2^{0.5}", r"\sqrt2"), ("√2", r"\sqrt2"),
        ("sqrt(2)/2", r"\frac{\sqrt2}{2}"), (r"\varnothing", r"\emptyset"), ("$5$", "5"),
        ("5", "$5$"), (r"\$5", "5"), (r"\text{5}", "5"), (r"\boxed{5}", "5"), ("5", r"\boxed{5}"),
        ("x = 5", "5"), ("5", "x = 5"), (r"\pm 3", "3, -3"), ("36°", r"36^\circ"), ("05", "5"),
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


@pytest.mark.parametrize(
    "completion",
    [
        "5 " * 500_000, "{" * 1_000_000, r"\boxed{" * 150_000, "</think>" + "<think>" * 140_000,
        "<answer>" * 125_000, "$" * 1_000_000, box("9" * 1_000_000), "Answer: " * 120_000,
        "(A) " * 250_000, "1," * 500_000,
    ],
)  # fmt: skip
def test_a_megabyte_of_anything_is_judged_in_seconds(completion: str) -> None:
    def too_slow(*_: Any) -> None:
        raise TimeoutError("20 s for one completion")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(20)
    try:
        assert maths(completion, "17", cpu_s=1).reward == 0
        assert check_choice(completion, "B", 4).reward == 0
        assert check_exact(completion, "17").reward == 0
        for extract in ("whole", "answer_tag", "last_line", "last_number"):
            assert check_tolerant(completion, "17", extract=extract).reward == 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_long_answer_is_refused_unread_and_shown_short() -> None:
    text = str(maths(box("1+" * MAX_ANSWER), "5").text)
    assert text.endswith(
        f"It has {2 * MAX_ANSWER} characters, and no answer here has more than 2000."
    )
    assert len(text) < 350


def test_infrastructure_failures_mask_the_sample_and_say_so() -> None:
    for outcome, said in (
        (Outcome(fault="died", note="exit status -9"), "process died twice (exit status -9)"),
        (Outcome(fault="waited"), "gave no verdict, and wasn't computing one"),
        (Outcome(fault="raised", note="KeyError: 0"), "couldn't judge it (KeyError: 0)"),
    ):
        verdict = answers.unjudged("mathematics", "demo", "6", outcome)
        assert verdict.reward is None
        assert str(verdict.text).startswith("The answer was read as '6'. The verifier")
        assert str(verdict.text).endswith(f"{said}: ungraded.")
        assert (verdict.demonstration, verdict.source) == ("demo", "mathematics")
    big = answers.unjudged("mathematics", None, "6", Outcome(fault="memory"))
    assert (big.reward, big.text) == (
        0.0, f"The answer was read as '6'. {answers.TOO_MUCH.format(what='memory')}"
    )  # fmt: skip


def test_answers_are_counted_by_their_box_else_their_last_line() -> None:
    assert read_mathematics("a\n\\boxed{5} b\nc") == "5"
    assert read_mathematics("<think>1</think>a\nb\n") == "b"
    assert read_mathematics("") is None


# ---------------------------------------------------------------- choices

CITIES = ["Paris", "Rome", "Vitamin A", "D. Duck"]


@pytest.mark.parametrize("place", range(4))
def test_every_choice_is_full_marks_to_itself_and_none_to_the_others(place: int) -> None:
    letter = "ABCD"[place]
    forms = [
        f"<answer>{letter}</answer>", f"<answer> {letter.lower()} </answer>",
        rf"\boxed{{{letter}}}",
        rf"\boxed{{\text{{({letter})}}}}", f"Answer: {letter}", f"The answer is ({letter}).",
        f"**Answer: {letter}**", f"({letter})", f"So:\n{letter}.", f"{letter}) {CITIES[place]}",
        f"<answer>{letter}. {CITIES[place]}</answer>", f"The answer is {letter}, since it is.",
    ]  # fmt: skip
    for form in forms:
        for right in "ABCD":
            verdict = check_choice(form, right, CITIES)
            assert verdict.reward == float(letter == right), (form, right)
            assert (verdict.text is None) == (letter == right)


@pytest.mark.parametrize(
    "completion",
    [
        "A or B", "B or A", "Answer: A or B", "Answer: B, C", "The answer is A, B",
        "<answer>AB</answer>",
        "<answer>A B C D</answer>", "<answer>(A) (B)</answer>", r"\boxed{A, B}", r"\boxed{}", "E",
        "<answer></answer>", "<answer>E</answer>", "<answer>Rome</answer>",
        "<answer>B. Paris</answer>",
        "A. B. C. D.", "<answer>B", "I don't know", "Answer: Bob", "The answer is a city", "",
        "<answer>\u0412</answer>", "<answer>B\0</answer>", "<think>Answer: B</think>", "Be careful",
        "<answer>B</answer> no, <answer>C</answer>", "Answer: B\nAnswer: C", "<answer>all</answer>",
    ],
)  # fmt: skip
def test_naming_several_choices_or_none_gets_nothing(completion: str) -> None:
    verdict = check_choice(completion, "B", CITIES)
    assert verdict.reward == 0
    assert verdict.text


def test_a_choices_report_word_for_word() -> None:
    def told(completion: str, **settings: Any) -> str | None:
        return check_choice(completion, "B", CITIES, **settings).text

    assert told("<answer>C</answer>") == "The answer was read as 'C'. It is wrong."
    assert told("<answer>E</answer>") == (
        "The answer was read as 'E'. It isn't one of the choices A to D."
    )
    assert told("<answer>C</answer>", reveal=True) == (
        "The answer was read as 'C'. It is wrong. The right answer is 'B'."
    )
    assert told("hm") == answers.ABSENT
    assert check_choice("", "B", 4).demonstration == "<answer>B</answer>"
    assert check_choice("", "B", 4, solution="Rome is.").demonstration == "Rome is."


@pytest.mark.parametrize(("answer", "choices"), [("E", 4), ("b", 4), ("", 4), ("A", 0), ("A", 27)])
def test_a_right_choice_that_isnt_one_is_refused(answer: str, choices: int) -> None:
    with pytest.raises(ValueError, match="must be one of the letters"):
        check_choice("A", answer, choices)


# ---------------------------------------------------------------- texts and numbers


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        ("The  PARIS!", "Paris"), ("new-york", "New York"), ("5.0", "5"), ("1,000", "1000"),
        ("$5", "5"), ("50%", "50"), ("U.S.A.", "USA"), ("don't", "dont"), (".5", "0.5"),
        ("1e3", "1000"), ("\u22125", "-5"), ("\uff21\uff22", "ab"), ("...", "..."),
        ("The", "the"), ("5.", "5"),
    ],
)  # fmt: skip
def test_texts_that_differ_in_form_only_are_the_same(read: str, answer: str) -> None:
    assert check_tolerant(read, answer).reward == 1
    exact = check_exact(read, answer)
    assert exact.reward == float(read == answer)
    if read != answer:
        assert exact.text == f"The answer was read as {read!r}. {answers.ONLY_FORM}"


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        ("C", "C++"), ("C#", "C"), ("nan", "5"), ("inf", "5"), ("1e999", "5"), ("5 or 6", "5"),
        ("-5", "5"), ("at -5 C", "at 5 C"), ("3.5.1", "35.1"), ("Paris or Rome", "Paris"),
        ("1,2", "12"), (".", "5"), ("e5", "5"), ("", "5"), ("1 000", "1000"), ("\u0665", "5"),
        ("12345678901234567890", "12345678901234567891"), ("Rome", "Paris"), ("9" * 5000, "9"),
    ],
)  # fmt: skip
def test_texts_that_differ_in_more_are_not(read: str, answer: str) -> None:
    assert not same(read, answer)
    verdict = check_tolerant(read, answer)
    assert verdict.reward == 0
    assert verdict.text


def test_a_tolerance_is_absolute_below_one_and_relative_above() -> None:
    assert check_tolerant("0.52", "0.5", tolerance=0.02).reward == 1
    assert check_tolerant("0.53", "0.5", tolerance=0.02).reward == 0
    assert check_tolerant("102", "100", tolerance=0.02).reward == 1
    assert check_tolerant("103", "100", tolerance=0.02).reward == 0
    assert check_tolerant("five", "5", tolerance=9).text == (
        f"The answer was read as 'five'. {answers.NO_NUMBER}"
    )


def test_text_is_read_by_the_extractor_and_the_demonstration_can_be_read_back() -> None:
    for check in (check_exact, check_tolerant):
        for extract in ("whole", "last_line", "last_number", "answer_tag"):
            shown = check("", "12", extract=extract)
            assert (shown.reward, shown.text) == (0, answers.ABSENT)
            assert check(str(shown.demonstration), "12", extract=extract).reward == 1
    assert check_exact("Paris\nRome", "Rome", extract="last_line").reward == 1
    assert check_exact("<think>x</think>Rome", "Rome").reward == 1
    with pytest.raises(TaskError, match=r"no extractor 'last_lin'\. Perhaps you meant 'last_line'"):
        check_exact("a", "a", extract="last_lin")


# ---------------------------------------------------------------- reasoning-gym, every dataset

NO_ANSWERS = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""They know no answer of their own, only how to check one."""

MANY_LINES = {
    "arc_agi", "binary_matrix", "futoshiki", "kakurasu", "manipulate_matrix", "mini_sudoku",
    "modulo_grid", "n_queens", "pool_matrix", "rearc", "rotate_matrix", "sudoku", "survo",
    "tower_of_hanoi",
}  # fmt: skip
"""Their answers have several lines, which the default extractor doesn't read."""

NAMES = sorted(set(DATASETS) - {"composite"})  # a composite has no problems but others'


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # arc_agi's own data file
def test_every_dataset_of_reasoning_gym_gives_its_own_answers_full_marks(name: str) -> None:
    made = create_dataset(name, seed=7, size=2)
    entries = [made[0], made[1]]
    assert [from_json(as_json(e)) for e in entries] == entries
    golds = [e["answer"] for e in entries]
    if name in NO_ANSWERS:
        assert golds == [None, None]
        golds = ["", ""]
        full = (0.0, answers.ABSENT)
    else:
        full = (1.0, None)
    verdicts = check_reasoning_all(golds, name, entries)
    assert [(v.reward, v.text) for v in verdicts] == [full] * 2
    by_line = check_reasoning_all(golds, name, entries, extract="last_line")
    assert (by_line == verdicts) == (name not in MANY_LINES)


def test_a_model_answer_that_is_a_program_isnt_run_in_the_trainer() -> None:
    [entry] = create_dataset("spiral_matrix", seed=1, size=1)
    verdict = check_reasoning("[__import__('os').getpid()]", "spiral_matrix", entry)
    assert verdict.reward < 0.5
    hostile = "[__import__('os').system('true')]"  # the verifier hands lists to eval
    assert check_reasoning(hostile, "spiral_matrix", entry).reward in (None, 0.0)


def test_an_endless_answer_to_a_verifier_that_evaluates_it_is_wrong() -> None:
    [entry] = create_dataset("countdown", seed=1, size=1)
    verdict = check_reasoning("9**9**9**9", "countdown", entry, cpu_s=0.5)
    assert verdict.reward == 0
    assert verdict.text == (
        f"The answer was read as '9**9**9**9'. {answers.TOO_MUCH.format(what='time')}"
    )


def test_partial_marks_stay_below_a_success() -> None:
    def told(score: float) -> tuple[float | None, str | None]:
        verdict = judged("gcd", "6", Outcome(score), "5", reveal=False)
        return verdict.reward, verdict.text

    assert told(1.0) == (1.0, None)
    assert told(0.5) == (0.25, "The answer was read as '6'. It scores 0.50 of 1.")
    assert told(0.01) == (0.005, "The answer was read as '6'. It is wrong.")
    assert told(float("nan"))[0] is None
    assert judged("gcd", "6", Outcome(0.0), "5", reveal=True).text == (
        "The answer was read as '6'. It is wrong. The right answer is '5'."
    )
