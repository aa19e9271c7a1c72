"""From graded completions to teacher prompts: feedback, contexts, tokens.

Feedback functions are called here, on each process's own rollouts; groups are put together over
all processes before siblings are looked for. Left out: model calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from distil.config import Combine
from distil.distributed.metrics import MetricSums
from distil.errors import FeedbackError
from distil.feedback import SOURCES, choose_contexts
from distil.feedback.correction import CorrectionFile, FromMain
from distil.feedback.critics import Critic, Critiques
from distil.feedback.said import first_demonstration
from distil.feedback.tools import transcript
from distil.prompts.markers import Markers
from distil.prompts.messages import (
    escape_special_tokens,
    fit_teacher_prompt,
    teacher_prompt,
    without_texts,
)
from distil.types import Feedback, Prompt, Rollout, TeacherContext, without_halves

FeedbackFunc = Callable[..., Sequence[Feedback | str | None]]

FEEDBACK_FIELDS = (
    ("text", str | None, "a string or None"),
    ("demonstration", str | None, "a string or None"),
    ("source", str, "a string"),
    ("reward", Real | None, "a number or None"),
    ("progress", Real | None, "a number or None"),
)
"""Field, its types, and these in words."""


@dataclass(frozen=True)
class Collected:
    """This process's part of a generation batch, row by row."""

    inputs: Sequence[dict[str, Any]]
    prompts: Sequence[Prompt]
    closings: Sequence[str | None]
    rollouts: Sequence[Rollout]
    contexts: Sequence[TeacherContext | None]
    critiques: Critiques | None = None

    def add_metrics(
        self, sums: MetricSums, *, cut: Sequence[bool], active: Sequence[bool] | None
    ) -> None:
        """Shares of rollouts: by the kind of feedback, without any, ungraded, cut, left out.

        Also the mean share of tests that programs passed, where programs are judged.

        A teacher shown two kinds counts in both, so that the shares of kinds may sum to above 1.
        `active` is None for objectives without a teacher.
        """
        rows = len(self.rollouts)
        for kind in SOURCES:
            having = sum(c is not None and kind in c.kinds for c in self.contexts)
            sums.ratio(f"feedback/{kind}", having, rows)
        sums.ratio("feedback/none", sum(c is None for c in self.contexts), rows)
        sums.ratio("feedback/ungraded", sum(r.reward is None for r in self.rollouts), rows)
        sums.ratio("feedback/cut", sum(cut), rows)
        progress = [f.progress for r in self.rollouts for f in r.feedback if f.progress is not None]
        sums.ratio("feedback/tests_passed", sum(progress), len(progress))
        if self.critiques is not None:
            for name, (amount, count) in self.critiques.metrics(rows).items():
                sums.ratio(name, amount, count)
        if active is not None:
            sums.ratio("distil/active_rollouts", sum(active), rows)


def collect_feedback(
    inputs: Sequence[dict[str, Any]],
    prompts: Sequence[Prompt],
    completions: Sequence[Any],
    completion_ids: Sequence[list[int]],
    *,
    rewards: Sequence[float],
    feedback_funcs: Sequence[FeedbackFunc],
    order: Sequence[str],
    combine: Combine,
    sibling_choice: Any,
    seed: str,
    group_size: int,
    gather: Callable[[list[Any]], list[Any]],
    first: int,
    environments: Sequence[Any] | None = None,
    critic: Critic | None = None,
    unfinite: str = "",
) -> Collected:
    """Asks the feedback functions, gathers the groups, and chooses each rollout's context.

    rewards: this process's, NaN for ungraded. gather: concatenates lists over processes, in order.
    first: the place of this process's first rollout in that order. environments: TRL's, one a
    rollout, handed to feedback functions as to reward functions. critic: who writes critiques, if
    anybody does. unfinite: which reward function returned what that is no finite number, in words.
    Raises FeedbackError where a feedback function raises, or returns a wrong length or type.
    """
    columns = {
        key: [row[key] for row in inputs]
        for key in inputs[0]
        if key not in ("prompt", "completion", "completion_ids")
    }
    if environments is not None:
        columns["environments"] = list(environments)
    graded = [None if reward != reward else reward for reward in rewards]
    feedback: list[tuple[Feedback, ...]] = [()] * len(prompts)
    for function in feedback_funcs:
        answers = _ask(function, prompts, completions, completion_ids, graded, columns)
        feedback = [
            said if answer is None else (*said, answer)
            for said, answer in zip(feedback, answers, strict=True)
        ]
    texts = [transcript(c) for c in completions]
    everyone = gather(list(zip(texts, graded, feedback, strict=True)))
    rollouts = [
        Rollout(place // group_size, text, reward, said)
        for place, (text, reward, said) in enumerate(everyone)
    ]
    choosing = {"combine": combine, "sibling_choice": sibling_choice, "seed": seed}
    critiques = None
    if critic is not None:
        rollouts, critiques = critic.run(rollouts, prompts, first, gather, order, **choosing)
    contexts = choose_contexts(rollouts, order, **choosing)
    mine = slice(first, first + len(prompts))
    everyones = [] if critiques is None else gather([critiques])
    _check_not_all_failed([r.reward for r in rollouts], everyones, unfinite)
    closings = [row.get("instruction") for row in inputs]
    return Collected(inputs, list(prompts), closings, rollouts[mine], contexts[mine], critiques)


def _check_not_all_failed(
    rewards: Sequence[float | None], critiques: Sequence[Critiques], unfinite: str
) -> None:
    """Raises FeedbackError where a source failed on every rollout: that teaches nothing, and costs.

    Both are all processes'; critiques has none where nobody writes any.
    """
    ungraded = bool(rewards) and all(reward is None for reward in rewards)
    if ungraded and unfinite:
        raise FeedbackError(
            f"Not one of this step's {len(rewards)} rollouts could be graded: the reward function "
            f"{unfinite}, which is no finite number. Mend it (a division by 0, the mean of "
            "nothing?), or return None where an answer can't be judged, and resume from the last "
            "checkpoint."
        )
    if ungraded:
        raise FeedbackError(
            f"Not one of this step's {len(rewards)} rollouts could be graded: every reward "
            "function returned None for all of them. So no success is known, and a judge or a "
            "sandbox is likely to be down (`distil doctor` tells of the sandbox). Mend it and "
            "resume from the last checkpoint; where nothing is ever to be graded, return 0.0 "
            "instead of None."
        )
    asked = sum(counts.asked for counts in critiques)
    if asked and not any(counts.answered for counts in critiques):
        raise FeedbackError(
            f"Not one of this step's {asked} requests for a critique was answered. Mend "
            "the judge's endpoint (feedback.critique) and resume from the last checkpoint."
        )


def refresh_corrections(
    feedback_funcs: Sequence[FeedbackFunc], from_main: FromMain, sums: MetricSums
) -> None:
    """Files of corrections as they are now, the same on every process (a collective call)."""
    for function in feedback_funcs:
        if isinstance(function, CorrectionFile):
            function.refresh(from_main)
            sums.ratio("corrections/problems", function.problems, 1)
            sums.ratio("corrections/unread_lines", function.unread, 1)


@dataclass(frozen=True)
class TeacherPrompts:
    """Row by row: the prompt as ids and as words, None where the teacher has none; whether its
    feedback was cut; whether it was refused, since it would have changed who says what."""

    ids: list[list[int] | None]
    words: list[Prompt | None]
    cut: list[bool]
    refused: list[bool]


def encode_teacher_prompts(
    collected: Collected,
    encode: Callable[[Prompt], list[int]],
    markers: Markers,
    max_length: int,
    demonstration_header: str,
    max_feedback_tokens: int,
) -> TeacherPrompts:
    """Each rollout's teacher prompt: none where there is no context, or where even a prompt without
    any feedback text is too long.

    Markers in feedback are broken first. Should a prompt still hold more or fewer of their tokens
    than with bare headers (a tokenizer may read other letters as one of them), it is refused.
    """
    rows: list[tuple[list[int] | None, Prompt | None, bool, bool]] = []
    given = zip(collected.prompts, collected.contexts, collected.closings, strict=True)
    for prompt, context, closing in given:
        if context is None:
            rows.append((None, None, False, False))
            continue
        fitted = fit_teacher_prompt(
            prompt, _escaped(context, markers.texts), closing, encode, max_length,
            demonstration_header, max_feedback_tokens,
        )  # fmt: skip
        if fitted is None:
            rows.append((None, None, True, False))
            continue
        ids, words, cut = fitted
        bare = teacher_prompt(prompt, without_texts(context), closing, demonstration_header)
        intact = markers.count(ids) == markers.count(encode(bare))
        rows.append((ids, words, cut, False) if intact else (None, None, cut, True))
    return TeacherPrompts(
        ids=[row[0] for row in rows],
        words=[row[1] for row in rows],
        cut=[row[2] for row in rows],
        refused=[row[3] for row in rows],
    )


def encode_demonstrations(
    collected: Collected, tokenizer: Any, markers: Markers
) -> list[list[int]]:
    """Each rollout's demonstration and the end-of-text token, as ids; empty where there is none.

    The one that its teacher would be shown (a sibling's, say), else the expert's.
    """
    ids: list[list[int]] = []
    for rollout, context in zip(collected.rollouts, collected.contexts, strict=True):
        text = context.demonstration if context else None
        text = first_demonstration(rollout) if text is None else text
        if not text:
            ids.append([])
            continue
        escaped = escape_special_tokens(text, markers.texts)
        encoded = tokenizer(text=escaped, add_special_tokens=False)["input_ids"]
        ids.append([*encoded, tokenizer.eos_token_id])
    return ids


def _ask(
    function: FeedbackFunc,
    prompts: Sequence[Prompt],
    completions: Sequence[Any],
    completion_ids: Sequence[list[int]],
    rewards: Sequence[float | None],
    columns: dict[str, list[Any]],
) -> list[Feedback | None]:
    """One feedback function's answers, checked."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        answers = function(
            prompts=prompts, completions=completions, completion_ids=completion_ids,
            rewards=rewards, **columns,
        )  # fmt: skip
        answers = list(answers)
    except Exception as error:
        raise FeedbackError(
            f"The feedback function {name!r} raised {type(error).__name__}: {error}. It must "
            "return one Feedback, string or None a completion; mend it, then resume from the last "
            "checkpoint."
        ) from error
    if len(answers) != len(prompts):
        raise FeedbackError(
            f"The feedback function {name!r} returned {len(answers)} answers for {len(prompts)} "
            "completions. Return one Feedback, string or None for each, in order."
        )
    for row, answer in enumerate(answers):
        if not isinstance(answer, Feedback | str | None):
            raise FeedbackError(
                f"The feedback function {name!r} returned a {type(answer).__name__} for completion "
                f"{row}. Return a Feedback, a string (the report's text) or None."
            )
        if isinstance(answer, Feedback):
            _check_fields(name, row, answer)
    given = [Feedback(text=a, source=name) if isinstance(a, str) else a for a in answers]
    return [None if f is None else _whole(f) for f in given]


def _whole(feedback: Feedback) -> Feedback:
    """With texts that every tokenizer takes."""
    text, demonstration = (
        None if t is None else without_halves(t) for t in (feedback.text, feedback.demonstration)
    )
    return replace(feedback, text=text, demonstration=demonstration)


def _check_fields(name: str, row: int, answer: Feedback) -> None:
    """Raises FeedbackError for a Feedback with a field of another type than its own."""
    for field, kinds, said in FEEDBACK_FIELDS:
        value = getattr(answer, field)
        if not isinstance(value, kinds):
            raise FeedbackError(
                f"The feedback function {name!r} returned a Feedback whose {field} is a "
                f"{type(value).__name__} ({str(value)[:60]}), for completion {row} (the first is "
                f"0). Give {said}."
            )


def _escaped(context: TeacherContext, markers: Sequence[str]) -> TeacherContext:
    def escaped(text: str | None) -> str | None:
        return None if text is None else escape_special_tokens(text, markers)

    return TeacherContext(context.kind, escaped(context.demonstration), escaped(context.report))
