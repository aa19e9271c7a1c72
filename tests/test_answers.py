"""Choices, texts and numbers as answers, and what every check has in common."""

import signal
from typing import Any

import pytest

from distil.errors import TaskError
from distil.feedback import answers
from distil.feedback.choice import check_choice
from distil.feedback.deadline import Outcome
from distil.feedback.mathematics import check_mathematics
from distil.feedback.strings import check_exact, check_tolerant, same

# ---------------------------------------------------------------- every check


@pytest.mark.parametrize(
    "completion",
    [
        "5 " * 500_000, "{" * 1_000_000, r"\boxed{" * 150_000, "</think>" + "<think>" * 140_000,
        "<answer>" * 125_000, "$" * 1_000_000, r"\boxed{" + "9" * 1_000_000 + "}",
        "Answer: " * 120_000,
        "(A) " * 250_000, "1," * 500_000,
    ],
)  # fmt: skip
def test_a_megabyte_of_anything_is_judged_in_seconds(completion: str) -> None:
    def too_slow(*_: Any) -> None:
        raise TimeoutError("20 s for one completion")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(20)
    try:
        assert check_mathematics(completion, "17", cpu_s=1).reward == 0
        assert check_choice(completion, "B", 4).reward == 0
        assert check_exact(completion, "17").reward == 0
        for extract in ("whole", "answer_tag", "last_line", "last_number"):
            assert check_tolerant(completion, "17", extract=extract).reward == 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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
