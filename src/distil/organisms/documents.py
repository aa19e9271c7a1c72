"""What an organism reads in pre-training: a prompt, the words fed, and the words to be said.

`fed` and `said` have equal length and are aligned: at each place the network has read the prompt
and the words fed so far, and learns the word said there. In a student's document both are the same.
In a teacher's they may differ: a wrong attempt is fed, and what the feedback asks for is to be
said. So the teacher knows what comes next even after a mistake, which is where DistIL asks it.

Prompts come from `distil.prompts.messages`, so training and pre-training can't drift apart.
"""

from dataclasses import dataclass

from distil.prompts.messages import student_messages, teacher_prompt
from distil.types import Message, TeacherContext


@dataclass(frozen=True)
class Document:
    """One example. Raises ValueError where `fed` and `said` aren't equally long."""

    prompt: list[Message]
    fed: tuple[str, ...]
    said: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.fed) != len(self.said):
            raise ValueError(f"{len(self.fed)} words are fed and {len(self.said)} said.")


def student_document(question: str, answer: str) -> Document:
    """The question alone; the answer is fed and said."""
    words = tuple(answer.split())
    return Document(student_messages(question, ""), words, words)


def demonstration_document(question: str, demonstration: str, fed: str) -> Document:
    """Shown a demonstration, says it, whatever was fed (of the same length)."""
    context = TeacherContext("expert", demonstration=demonstration)
    return _teacher_document(question, context, fed, demonstration)


def report_document(question: str, report: str, fed: str, said: str) -> Document:
    """Shown a report on some attempt, says what follows from it, whatever was fed."""
    return _teacher_document(question, TeacherContext("report", report=report), fed, said)


def _teacher_document(question: str, context: TeacherContext, fed: str, said: str) -> Document:
    prompt = teacher_prompt(student_messages(question, ""), context, "")
    assert isinstance(prompt, list)  # messages in, messages out
    return Document(prompt, tuple(fed.split()), tuple(said.split()))
