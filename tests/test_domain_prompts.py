"""Science, coding, mathematics: every prompt of their recipes, word for word, thinking switched."""

from pathlib import Path
from typing import Any

import pytest

from conftest import make_tokenizer
from distil.config import Thinking
from distil.errors import ModelError
from distil.prompts.encoder import Encoder, check_thinking, template_options
from distil.prompts.messages import student_messages, teacher_prompt
from distil.recipe.recipefile import load_recipe
from distil.types import Message, Prompt, TeacherContext
from test_recipes import THINKING_TEMPLATE

ROOT = Path(__file__).parent.parent / "recipes"


def both(name: str, question: str, context: TeacherContext) -> tuple[str, str, str]:
    """(system message, the student's words, the teacher's)."""
    recipe = load_recipe(ROOT / f"{name}.yaml")
    task = recipe.task
    student: Prompt = student_messages(question, task.instruction, task.system)
    header = recipe.feedback.demonstration_header
    teacher = teacher_prompt(student, context, task.instruction, header)
    assert isinstance(student, list)
    assert isinstance(teacher, list)
    assert teacher[:-1] == student[:-1]  # the system message is kept
    system = student[0]["content"] if student[0]["role"] == "system" else ""
    return system, student[-1]["content"], teacher[-1]["content"]


@pytest.mark.parametrize("method", ["distil", "sdpo", "opsd", "grpo"])
def test_science(method: str) -> None:
    context = TeacherContext("sibling", "Only gold is a metal.\n<answer>B</answer>", None)
    system, student, teacher = both(f"science/{method}", "Which is a metal?\nA. S\nB. Au", context)
    assert system == "You are a careful scientist who checks each step before the next."
    assert student == (
        "Which is a metal?\nA. S\nB. Au\n\n"
        "Reason step by step, then end with the letter of the right choice, in this form: "
        "<answer>X</answer>"
    )
    assert teacher == (
        f"{student}\n\n"
        "A correct solution:\nOnly gold is a metal.\n<answer>B</answer>\n\n"
        "Reason step by step, then end with the letter of the right choice, in this form: "
        "<answer>X</answer>"
    )


def test_coding_with_a_report() -> None:
    report = TeacherContext("report", None, "Test 1: the program raised ZeroDivisionError.")
    system, student, teacher = both("coding/distil", "Divide a by b.", report)
    demand = (
        "Think the problem through, then give the whole Python program in one block that begins "
        "with ```python."
    )
    assert system == "You are a careful programmer."
    assert student == f"Divide a by b. {demand}"
    assert teacher == (
        f"{student}\n\n"
        "Feedback on an earlier, unsuccessful attempt:\n"
        "Test 1: the program raised ZeroDivisionError.\n\n"
        f"{demand}"
    )


def test_mathematics_with_the_reference_solution() -> None:
    context = TeacherContext("expert", "3 pairs of 2 make 6.\n\\boxed{6}", None)
    system, student, teacher = both("math/opsd", "What is $3 \\cdot 2$?", context)
    demand = "Reason step by step, and put your final answer within \\boxed{}."
    assert system == ""
    assert student == f"What is $3 \\cdot 2$? {demand}"
    assert teacher == (
        f"{student}\n\n"
        "A reference solution. Study it until you understand it, then derive the answer in your "
        "own words:\n3 pairs of 2 make 6.\n\\boxed{6}\n\n"
        f"{demand}"
    )


def thinking_tokenizer() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = THINKING_TEMPLATE
    return tokenizer


@pytest.mark.parametrize(
    ("thinking", "opening"),
    [("off", "<think>\n\n</think>\n\n"), ("on", ""), ("template", "")],
)
def test_thinking_is_switched_alike_for_student_and_teacher(
    thinking: Thinking, opening: str
) -> None:
    encoder = Encoder(thinking_tokenizer(), None, template_options(thinking), None)
    student: list[Message] = student_messages("2 + 2?", "short.")
    teacher = teacher_prompt(student, TeacherContext("expert", "4", None), "short.")
    for prompt in (student, teacher):
        text = encoder.tokenizer.decode(encoder.encode(prompt))
        assert text.endswith(f"short.<|end|><|start|>assistant\n{opening}")


def test_a_template_without_the_switch_refuses_it() -> None:
    check_thinking(make_tokenizer(), "template", "toy")
    check_thinking(thinking_tokenizer(), "off", "toy")
    for thinking in ("on", "off"):
        with pytest.raises(ModelError, match="no such switch"):
            check_thinking(make_tokenizer(), thinking, "toy")  # type: ignore[arg-type]


def test_an_earlier_turns_thought_is_cut_by_the_template_and_not_by_ours() -> None:
    encoder = Encoder(thinking_tokenizer(), None, {}, None)
    turns: list[Message] = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
        {"role": "user", "content": "c?"},
    ]
    text = encoder.tokenizer.decode(encoder.encode(turns))
    assert "hm" not in text
    assert "<|start|>assistant\nb<|end|>" in text
    shown = teacher_prompt(turns, TeacherContext("report", None, "no"), None)
    assert shown[1] == turns[1]
