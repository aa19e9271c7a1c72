"""What is read as an answer: the last number, line or tag; and which words are the completion."""

from typing import Any

import pytest

from distil.feedback.extract import answer_tag, last_line, last_number, whole
from distil.types import completion_text

# ---------------------------------------------------------------- extractors


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        ("5", "5"),
        ("-5", "-5"),
        ("-5 is the answer", "-5"),
        ("The answer is 12.", "12"),
        ("The answer is -12.", "-12"),
        ("The answer is -12.50, I think", "-12.50"),
        ("2 + 3 = 5", "5"),
        ("7-3", "3"),
        ("7 - 3", "3"),
        ("7 -3", "-3"),
        ("7--3", "-3"),
        ("x1", "1"),
        ("x-1", "1"),
        ("(-4)", "-4"),
        ("1,200", "1200"),
        ("-1,234,567.8", "-1234567.8"),
        ("$1,000.", "1000"),
        ("1,2,3", "3"),
        ("(3,-4)", "-4"),
        ("3, 4,", "4"),
        ("1,2345", "2345"),
        ("3.14", "3.14"),
        (".5", ".5"),
        ("-.5", "-.5"),
        ("1.2.3", "3"),
        ("5%", "5"),
        ("007", "007"),
        ("six", None),
        ("", None),
        ("-.,", None),
    ],
)
def test_the_last_number(completion: str, number: str | None) -> None:
    assert last_number(completion) == number


@pytest.mark.parametrize(
    ("completion", "line"),
    [
        ("5", "5"),
        ("working\n\n  It is 5. \n \n", "It is 5."),
        ("a\r\nb", "b"),
        ("", None),
        (" \n\t\n", None),
    ],
)
def test_the_last_line(completion: str, line: str | None) -> None:
    assert last_line(completion) == line


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("<answer>5</answer>", "5"),
        ("<answer>4</answer> no: <answer>\n 5 </answer>.", "5"),
        ("<answer>a\nb</answer>", "a\nb"),
        ("<answer>5", None),
        ("<answer>5</answer> or </answer>", "5"),
        ("<answer>4<answer>5</answer>", "5"),
        ("5</answer>", None),
        ("5", None),
    ],
)
def test_the_last_answer_tag(completion: str, text: str | None) -> None:
    assert answer_tag(completion) == text


@pytest.mark.parametrize(("completion", "text"), [(" a\nb \n", "a\nb"), ("", None), (" \n", None)])
def test_the_whole_completion(completion: str, text: str | None) -> None:
    assert whole(completion) == text


# ---------------------------------------------------------------- words of the assistant


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("5", "5"),
        ([{"role": "assistant", "content": "5"}], "5"),
        ([], ""),
        ([{"role": "assistant", "content": None}], ""),
        (
            [
                {"role": "assistant", "content": "let me see"},
                {"role": "tool", "content": "4"},
                {"role": "assistant", "content": "5"},
            ],
            "let me see\n5",
        ),
    ],
)
def test_only_the_assistants_words_are_the_completion(completion: Any, text: str) -> None:
    assert completion_text(completion) == text
