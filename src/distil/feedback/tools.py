"""Tool traces: what the tools of a multi-turn attempt were asked, and what they answered.

The student has read each output too, but one by one, after it had chosen to call. The teacher is
shown all of them before the first token, so that it scores the early turns (which tool, with which
arguments) knowing what came of them.

Messages are TRL's: an assistant's has `tool_calls`, a tool's `name` and `content`; a tool that
raised has the content "{'error': '...'}". Left out: running tools (TRL does), images in outputs.
"""

import ast
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distil.feedback.extract import without_thinking
from distil.feedback.said import first_text
from distil.feedback.sibling import SiblingChoice
from distil.prompts.messages import CUT_MARK, TOOL_FAILED, TOOL_NOT_RUN, TOOL_OUTPUT, cut_middle
from distil.types import Completion, Feedback, Rollout, TeacherContext, completion_text

TRACE_CHARACTERS = 4000
OUTPUT_CHARACTERS = 1000
ARGUMENT_CHARACTERS = 400


@dataclass(frozen=True)
class ToolCall:
    """One call as text, bounded. `output` is None if it wasn't run (the rollout ended there)."""

    call: str
    output: str | None
    failed: bool

    def __str__(self) -> str:
        if self.output is None:
            return f"{self.call} {TOOL_NOT_RUN}"
        return f"{self.call} {TOOL_FAILED if self.failed else TOOL_OUTPUT} {self.output}"


def tools(
    index: int, group: Sequence[Rollout], choice: SiblingChoice, rng: random.Random
) -> TeacherContext | None:
    """The trace of a rollout that called tools and didn't succeed; else None."""
    text = None if group[index].succeeded else first_text(group[index], "tools")
    return None if text is None else TeacherContext("tools", report=text)


def tool_traces(completions: Sequence[Any], **columns: Any) -> list[Feedback | None]:
    """A feedback function: each completion's trace as Feedback of the source "tools"; else None."""
    traces = [trace_text(tool_calls(c)) for c in completions]
    return [None if text is None else Feedback(text=text, source="tools") for text in traces]


def trace_text(calls: Sequence[ToolCall], limit: int = TRACE_CHARACTERS) -> str | None:
    """The calls, a line each and in order, within `limit` characters; None without any.

    Where they don't all fit, failed calls are kept before others, and later ones before earlier;
    CUT_MARK stands where calls were left out.
    """
    if not calls:
        return None
    lines = [cut_middle(str(call), limit - len(CUT_MARK)) for call in calls]
    order = sorted(range(len(calls)), key=lambda i: (not calls[i].failed, -i))
    kept: set[int] = set()
    room = limit
    for place in order:
        if len(lines[place]) > room:
            break
        kept.add(place)
        room -= len(lines[place]) + 1
    shown = [lines[i] if i in kept else None for i in range(len(lines))]
    parts = [text for i, text in enumerate(shown) if text is not None or i == 0 or shown[i - 1]]
    return "\n".join(CUT_MARK.strip() if text is None else text for text in parts)


def transcript(completion: Completion) -> str:
    """A completion as one text: as `completion_text`, and for multi-turn ones with the tools' part.

    Then the words of each turn stand without their thinking, each followed by its calls and their
    outputs: a sibling's transcript shows which calls led to its answer.
    """
    if isinstance(completion, str) or not any(m.get("tool_calls") for m in completion):
        return completion_text(completion)
    parts: list[str] = []
    for words, calls in _turns(completion):
        parts += [p for p in (without_thinking(words), *map(str, calls)) if p]
    return "\n".join(parts)


def tool_calls(completion: Completion) -> list[ToolCall]:
    """Every call of a completion, in order; none for plain text."""
    if isinstance(completion, str):
        return []
    return [call for _, calls in _turns(completion) for call in calls]


def _turns(completion: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[ToolCall]]]:
    """Each assistant message's words, and its calls with what the tools then answered."""
    starts = [i for i, m in enumerate(completion) if m["role"] == "assistant"]
    for start, end in zip(starts, [*starts[1:], len(completion)], strict=True):
        message = completion[start]
        answers = [m for m in completion[start + 1 : end] if m["role"] == "tool"]
        called = [_named(call) for call in message.get("tool_calls") or []]
        yield message.get("content") or "", _paired(called, answers)


def _paired(called: Sequence[tuple[str, str]], answers: list[dict[str, Any]]) -> list[ToolCall]:
    """Each (name, call) with the first answer under its name that no earlier call took.

    TRL puts the answers of asynchronous tools after the others', so places don't tell.
    """
    left = list(answers)
    pairs: list[ToolCall] = []
    for name, call in called:
        answer = next((m for m in left if m.get("name") == name), None)
        if answer is None:
            pairs.append(ToolCall(call, None, failed=False))
            continue
        left.remove(answer)
        text, failed = _output(answer["content"])
        pairs.append(ToolCall(call, cut_middle(text, OUTPUT_CHARACTERS), failed))
    return pairs


def _named(call: dict[str, Any]) -> tuple[str, str]:
    """(name, "name(key=value)"), the arguments bounded."""
    function = call.get("function") or call
    name = str(function.get("name", "unknown"))
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        arguments = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return name, f"{name}({cut_middle(str(arguments or ''), ARGUMENT_CHARACTERS)})"


def _output(content: Any) -> tuple[str, bool]:
    """A tool message's text, and whether it is an error: one entry, {"error": ...}."""
    if isinstance(content, list):
        texts = (p.get("text", "") for p in content if isinstance(p, dict))
        return "\n".join(t for t in texts if t), False
    text = str(content)
    like_an_error = text.startswith(("{'error'", '{"error"'))
    if not like_an_error or len(text) > 10 * OUTPUT_CHARACTERS:  # too long to be read as a literal
        return text, like_an_error
    for read in (ast.literal_eval, json.loads):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # a tool's own text that only begins like an error; shown as it is
        if isinstance(found, dict) and list(found) == ["error"]:
            return str(found["error"]), True
    return text, False
