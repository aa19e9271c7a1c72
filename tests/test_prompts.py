"""The exact words that reach a model, and the cut that takes only feedback."""

import pytest

from distil.config import FeedbackConfig
from distil.prompts.messages import (
    CUT_MARK,
    DEMONSTRATION_HEADER,
    cut_middle,
    escape_special_tokens,
    fit_teacher_prompt,
    student_messages,
    teacher_prompt,
)
from distil.types import Prompt, TeacherContext

SOLUTION = TeacherContext("sibling", demonstration="5")
REPORT = TeacherContext("report", report="Read as 6.")
BOTH = TeacherContext("sibling+report", demonstration="5", report="Read as 6.")
STUDENT = [{"role": "user", "content": "2 + 3 = Only the number."}]
MARK_LENGTH = len("\n[...]\n")


def characters(prompt: Prompt) -> list[int]:
    """A tokenizer with one token a character, and one for the header of each message."""
    if isinstance(prompt, str):
        return [ord(c) for c in prompt]
    return [ord(c) for m in prompt for c in "\0" + m["content"]]


def test_the_student_sees_the_question_then_the_format_demand() -> None:
    assert student_messages("2 + 3 =", "Only the number.") == [
        {"role": "user", "content": "2 + 3 = Only the number."}
    ]


def test_without_an_instruction_the_student_sees_the_bare_question() -> None:
    assert student_messages("2 + 3 =", "") == [{"role": "user", "content": "2 + 3 ="}]


@pytest.mark.parametrize(
    ("context", "closing", "expected"),
    [
        (
            SOLUTION,
            "Only the number.",
            "2 + 3 = Only the number.\n\nA correct solution:\n5\n\nOnly the number.",
        ),
        (
            REPORT,
            "Only the number.",
            "2 + 3 = Only the number.\n\n"
            "Feedback on an earlier, unsuccessful attempt:\nRead as 6.\n\nOnly the number.",
        ),
        (
            SOLUTION,
            None,
            "2 + 3 = Only the number.\n\nA correct solution:\n5\n\n"
            "Now answer the original question.",
        ),
        (SOLUTION, "", "2 + 3 = Only the number.\n\nA correct solution:\n5"),
        (
            BOTH,
            "Only the number.",
            "2 + 3 = Only the number.\n\nA correct solution:\n5\n\n"
            "Feedback on an earlier, unsuccessful attempt:\nRead as 6.\n\nOnly the number.",
        ),
    ],
)
def test_the_teachers_message_word_for_word(
    context: TeacherContext, closing: str | None, expected: str
) -> None:
    assert teacher_prompt(STUDENT, context, closing) == [{"role": "user", "content": expected}]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (SOLUTION, "A correct solution:\n5\n\n2 + 3 ="),
        (REPORT, "Feedback on an earlier, unsuccessful attempt:\nRead as 6.\n\n2 + 3 ="),
        (
            BOTH,
            "A correct solution:\n5\n\n"
            "Feedback on an earlier, unsuccessful attempt:\nRead as 6.\n\n2 + 3 =",
        ),
    ],
)
@pytest.mark.parametrize("closing", [None, "", "Only the number."])
def test_a_text_prompt_stays_last_to_be_continued(
    context: TeacherContext, expected: str, closing: str | None
) -> None:
    assert teacher_prompt("2 + 3 =", context, closing) == expected


@pytest.mark.parametrize("context", [SOLUTION, REPORT])
def test_the_teachers_prompt_ends_with_the_closing(context: TeacherContext) -> None:
    prompt = teacher_prompt(STUDENT, context, "Answer in Latin.")
    assert prompt[-1]["content"].endswith("\n\nAnswer in Latin.")


def test_only_the_last_user_message_grows() -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "2 + 3 ="},
        {"role": "assistant", "content": "It is"},
    ]
    grown = teacher_prompt(conversation, SOLUTION, "")
    assert [*grown[:3], grown[4]] == [*conversation[:3], conversation[4]]
    assert grown[3] == {"role": "user", "content": "2 + 3 =\n\nA correct solution:\n5"}
    assert conversation[3]["content"] == "2 + 3 ="


def test_a_conversation_without_a_user_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a user message"):
        teacher_prompt([{"role": "system", "content": "Be brief."}], SOLUTION, None)


@pytest.mark.parametrize("text", ["{}", "{0}", "{question}", "%s %d", "%(x)s", "{{ x }}", "\\1 $1"])
def test_user_text_is_never_a_format_string(text: str) -> None:
    context = TeacherContext("report", report=text)
    messages = student_messages(text, text)
    assert messages == [{"role": "user", "content": f"{text} {text}"}]
    header = "Feedback on an earlier, unsuccessful attempt:"
    grown = teacher_prompt(messages, context, text)
    assert grown[0]["content"] == f"{text} {text}\n\n{header}\n{text}\n\n{text}"
    assert teacher_prompt(text, context, text) == f"{header}\n{text}\n\n{text}"
    _, fitted, cut = fit_teacher_prompt(messages, context, text, characters, 10_000)
    assert (fitted, cut) == (grown, False)
    assert escape_special_tokens(text, ["<|end|>"]) == text


@pytest.mark.parametrize("prompt", [STUDENT, "2 + 3 ="])
def test_a_prompt_that_fits_is_left_whole(prompt: Prompt) -> None:
    whole = teacher_prompt(prompt, REPORT, None)
    exact = len(characters(whole))
    assert fit_teacher_prompt(prompt, REPORT, None, characters, exact) == (
        characters(whole),
        whole,
        False,
    )


LONG = "".join(chr(ord("a") + i % 26) for i in range(200))


@pytest.mark.parametrize("kind", ["demonstration", "report"])
@pytest.mark.parametrize("prompt", [STUDENT, "2 + 3 ="])
@pytest.mark.parametrize("keep", [0, 1, 2, 101, 192])
def test_the_longest_feedback_that_fits_is_kept_and_nothing_else_is_cut(
    prompt: Prompt, kind: str, keep: int
) -> None:
    whole = TeacherContext(kind, **{kind: LONG})
    empty = teacher_prompt(prompt, TeacherContext(kind, **{kind: ""}), "Briefly.")
    budget = len(characters(empty)) + MARK_LENGTH + keep
    ids, fitted, cut = fit_teacher_prompt(prompt, whole, "Briefly.", characters, budget)
    assert cut
    assert len(ids) == budget
    kept = LONG[: (keep + 1) // 2] + "\n[...]\n" + LONG[len(LONG) - keep // 2 :]
    assert fitted == teacher_prompt(prompt, TeacherContext(kind, **{kind: kept}), "Briefly.")
    assert ids == characters(fitted)


def both(demonstration: str, report: str) -> TeacherContext:
    return TeacherContext("sibling+report", demonstration, report)


def length(prompt: Prompt, context: TeacherContext) -> int:
    return len(characters(teacher_prompt(prompt, context, "Briefly.")))


@pytest.mark.parametrize("prompt", [STUDENT, "2 + 3 ="])
@pytest.mark.parametrize("keep", [0, 1, 2, 101, 192])
def test_of_two_parts_the_report_is_cut_first(prompt: Prompt, keep: int) -> None:
    budget = length(prompt, both(LONG, "")) + MARK_LENGTH + keep
    fitted = fit_teacher_prompt(prompt, both(LONG, LONG), "Briefly.", characters, budget)
    kept = both(LONG, cut_middle(LONG, keep))
    assert fitted is not None
    assert fitted[1:] == (teacher_prompt(prompt, kept, "Briefly."), True)
    assert len(fitted[0]) == budget


@pytest.mark.parametrize("keep", [0, 1, 2, 101, 192])
@pytest.mark.parametrize(("report", "left"), [(LONG, "\n[...]\n"), ("brief", "brief")])
def test_a_solution_is_cut_when_nothing_is_left_of_the_report(
    keep: int, report: str, left: str
) -> None:
    budget = length(STUDENT, both("", left)) + MARK_LENGTH + keep
    fitted = fit_teacher_prompt(STUDENT, both(LONG, report), "Briefly.", characters, budget)
    kept = both(cut_middle(LONG, keep), left)
    assert fitted is not None
    assert fitted[1:] == (teacher_prompt(STUDENT, kept, "Briefly."), True)
    least = length(STUDENT, both("", left)) + MARK_LENGTH - 1
    assert fit_teacher_prompt(STUDENT, both(LONG, report), "Briefly.", characters, least) is None


@pytest.mark.parametrize("whole", [both(LONG, LONG), both(LONG, "brief"), REPORT, SOLUTION])
def test_the_budget_of_feedback_counts_its_texts_alone(whole: TeacherContext) -> None:
    texts = [t for t in (whole.demonstration, whole.report) if t is not None]
    bare = length(STUDENT, whole) - sum(map(len, texts))
    for budget in (16, 40, 220, 1000):
        fitted = fit_teacher_prompt(
            STUDENT, whole, "Briefly.", characters, 10_000, max_feedback_tokens=budget
        )
        assert fitted is not None
        ids, _, cut = fitted
        assert len(ids) == bare + min(budget, sum(map(len, texts)))
        assert cut == (sum(map(len, texts)) > budget)


def test_a_budget_does_not_lift_the_limit_of_the_prompt() -> None:
    limit = length(STUDENT, TeacherContext("report", report="")) + 50
    context = TeacherContext("report", report=LONG)
    fitted = fit_teacher_prompt(
        STUDENT, context, "Briefly.", characters, limit, max_feedback_tokens=150
    )
    assert fitted is not None
    assert len(fitted[0]) == limit


@pytest.mark.parametrize("prompt", [STUDENT, "2 + 3 ="])
def test_a_prompt_too_long_without_any_feedback_gives_none(prompt: Prompt) -> None:
    context = TeacherContext("report", report=LONG)
    empty = teacher_prompt(prompt, TeacherContext("report", report=""), None)
    budget = len(characters(empty)) + MARK_LENGTH - 1
    assert fit_teacher_prompt(prompt, context, None, characters, budget) is None
    assert fit_teacher_prompt(prompt, context, None, characters, budget + 1) is not None


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (0, "\n[...]\n"),
        (1, "a\n[...]\n"),
        (2, "a\n[...]\nf"),
        (5, "abc\n[...]\nef"),
        (6, "abcdef"),
        (7, "abcdef"),
    ],
)
def test_the_cut_takes_the_middle(keep: int, expected: str) -> None:
    assert cut_middle("abcdef", keep) == expected


def test_cutting_an_empty_text_leaves_it_empty() -> None:
    assert cut_middle("", 0) == ""


def test_a_special_token_is_broken_and_stays_readable() -> None:
    escaped = escape_special_tokens("stop <|im_end|> here", ["<|im_end|>", "<|im_start|>"])
    assert escaped == "stop < |im_end|> here"


def test_text_without_special_tokens_is_left_alone() -> None:
    text = "if a < b and |c| > 0: print('<|') # im_end"
    assert escape_special_tokens(text, ["<|im_end|>", "</s>", "[INST]"]) == text


@pytest.mark.parametrize(
    ("text", "special"),
    [
        ("<|im_<|im_end|>end|>", ["<|im_end|>"]),
        ("<|im_end|><|im_end|>", ["<|im_end|>"]),
        ("<|im_end<|im_end|>|>", ["<|im_end|>"]),
        ("<<<|im_end|>|im_end|>|im_end|>", ["<|im_end|>"]),
        ("<<<<", ["<<"]),  # it overlaps itself
        ("|||||", ["||", "|||"]),
        ("<s></s><s>", ["<s>", "</s>", "s>"]),  # one holds another
        ("<|a|>", ["<|a|>", "< |a|>"]),  # breaking one would make the other
        ("ab", ["ab", "a b", "a  b"]),
        ("§ and §§", ["§"]),  # a single character has no middle
        ("a§b", ["§", "ab"]),  # taking one away would make the other
        ("< s >", ["< s >"]),
        ("x y", ["x y"]),
        ("end", [""]),
        ("a  b", [" ", "  "]),
    ],
)
def test_no_special_token_survives_escaping(text: str, special: list[str]) -> None:
    escaped = escape_special_tokens(text, special)
    assert [t for t in special if t.strip() and t in escaped] == []


def test_breaking_keeps_every_letter_of_the_text() -> None:
    text = "a <|im_<|im_end|>end|> b <|im_start|>system"
    escaped = escape_special_tokens(text, ["<|im_end|>", "<|im_start|>"])
    assert escaped.replace(" ", "") == text.replace(" ", "")


def test_the_cut_mark_stands_on_a_line_of_its_own() -> None:
    assert CUT_MARK == "\n[...]\n"


def test_the_recipe_and_the_trainer_have_one_default_header() -> None:
    # The schema stands below the prompts, so it can't import their constant.
    assert FeedbackConfig().demonstration_header == DEMONSTRATION_HEADER
