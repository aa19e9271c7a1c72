"""The frozen vocabulary that every room shares: what is asked, answered, and said about it.

No torch, no transformers: tasks, feedback and reports import this without waiting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, str]
"""One chat message, {"role": ..., "content": ...}."""

Prompt: TypeAlias = str | list[Message]
"""TRL's two kinds of prompt: plain text, or a conversation."""

Completion: TypeAlias = str | list[dict[str, Any]]
"""TRL's two kinds of completion: plain text, or messages, which may hold tool calls too."""

SUCCESS_REWARD = 0.5
"""A rollout succeeds if its reward is at least this (as in the paper, arXiv 2606.05152)."""


def succeeds(reward: float | None) -> bool:
    """Whether a reward is a number and at least SUCCESS_REWARD (NaN and None are not)."""
    return reward is not None and reward >= SUCCESS_REWARD


@dataclass(frozen=True)
class Problem:
    """One thing to be solved.

    `answer` is the expert's answer or solution as text (None if there is none); `data` is whatever
    the task needs to grade an attempt, and must survive JSON.
    """

    id: str
    question: str
    answer: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Feedback:
    """What the world said about one rollout.

    reward: the number for it, None if it couldn't be graded (masked and counted, never read as 0)
    text: a report on this attempt (an error, a trace, a critique), None if there is nothing to say
    demonstration: an expert's solution to the same problem, None if there is none
    source: who says so ("reasoning_gym", "pytest", ...); the names in `distil.feedback.NAMED` have
        a context source of their own
    progress: the share of a program's tests that passed, where all were run; logged, never trained
        on (feedback/tests_passed in metrics.jsonl)
    """

    reward: float | None = None
    text: str | None = None
    demonstration: str | None = None
    source: str = ""
    progress: float | None = None


@dataclass(frozen=True)
class Rollout:
    """One completion of one prompt. `group` numbers the prompts of a generation batch.

    `feedback` holds what each feedback function said about it, in the order of the functions; who
    had nothing to say isn't in it.
    """

    group: int
    completion: str
    reward: float | None
    feedback: tuple[Feedback, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether its reward `succeeds`."""
        return succeeds(self.reward)


@dataclass(frozen=True)
class TeacherContext:
    """What the teacher is shown beside the question, for one rollout.

    `kind` is the kind of feedback it came from (a name in `distil.feedback.SOURCES`, or several as
    in "sibling+report"); at least one of `demonstration` and `report` is set.
    """

    kind: str
    demonstration: str | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        if self.demonstration is None and self.report is None:
            raise ValueError(
                "A TeacherContext holds a demonstration, a report, or both: got neither."
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The sources it came from: "sibling+report" -> ("sibling", "report")."""
        return tuple(self.kind.split("+"))


@dataclass(frozen=True)
class RunInfo:
    """Where and with what a run was made; written to `environment.json`."""

    started: str
    seed: int
    git: str | None
    versions: Mapping[str, str]
    machine: Mapping[str, Any]


def without_halves(text: str) -> str:
    r"""Half of a character (a lone surrogate) is written out, as in "\ud83d".

    JSON and Python hold it; no tokenizer takes it, and no file in UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def completion_text(completion: Completion) -> str:
    """The assistant's words of a completion, in TRL's plain or conversational form."""
    if isinstance(completion, str):
        return completion
    return "\n".join(m.get("content") or "" for m in completion if m["role"] == "assistant")
