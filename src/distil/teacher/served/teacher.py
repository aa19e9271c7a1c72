"""ServedTeacher: a model behind a server scores the student's tokens.

It is sent what a teacher in memory would read, the teacher's prompt and the rollout as token ids,
and fills the same TeacherScores. Two ways to ask:

    log-probabilities   its top_k at each scored token, and that of the token itself (temperature 1)
    samples             M next tokens a_1..a_M at each scored token's state; the support is what was
                        drawn, with the shares drawn, so that the forward cross-entropy is
                        -(1/M) sum_m log pi(a_m): its mean over draws is the exact one

Each process asks for its own rows. A row whose request fails in the end is left out of the batch;
where nobody's rows are answered, the run stops. Ids that the student doesn't have are left to the
support's tail. The entropy is that of the support and its tail as one bucket: at most the true one.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distil.config import ServedConfig
from distil.distributed.processes import any_of_them
from distil.endpoint import Failure
from distil.errors import FeedbackError, TrainingError
from distil.objectives import append_tail
from distil.objectives.costs import NO_PROBABILITY
from distil.teacher.served.answers import Scored, read_samples, read_scores
from distil.teacher.served.asking import ask_all
from distil.teacher.teacherpass import TeacherScores, TeacherWork, check_one_each
from distil.teacher.teachers import Teacher
from distil.vocab.output_layer import output_module

PREFIXES = 16
"""States in one request for samples: fewer requests, each of so many prompts."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Row:
    """A rollout to ask about: its place in the batch, its scored tokens, and what stands before."""

    place: int
    prompt: list[int]
    completion: list[int]
    tokens: list[int]

    @property
    def ids(self) -> list[int]:
        """Prompt and completion, up to and with the last scored token."""
        return [*self.prompt, *self.completion[: self.tokens[-1] + 1]]


class ServedTeacher(Teacher):
    """The model of a `ServedConfig`. It never moves, and a checkpoint needs nothing of it."""

    def __init__(self, settings: ServedConfig) -> None:
        self._settings = settings

    def score(
        self,
        model: Any,
        base: Any,
        prompt_ids: Sequence[list[int] | None],
        completion_ids: Tensor,
        scored: Tensor,
        *,
        k: int,
        temperature: float,
        batch_size: int,
        also: Tensor | None = None,
    ) -> TeacherScores:
        """As `Teacher.score`; `work.failed` are rows without an answer, whose scores are zeros.

        A collective call. Raises FeedbackError if rows were asked about and none was answered, on
        any process; TrainingError if a support of the student's (`also`) is asked for.
        """
        if also is not None:
            raise TrainingError(
                "A served teacher was asked about the student's likeliest tokens, which a server "
                "doesn't tell. Set objective.support: teacher."
            )
        rows = _rows(prompt_ids, completion_ids, scored)
        vocabulary = output_module(base).out_features
        k = min(k, vocabulary)
        if self._settings.samples:
            answers = self._ask_samples(rows, temperature)
        else:
            answers = self._ask_scores(rows, k)
        failed = [a for a in answers if isinstance(a, Failure)]
        self._complain(failed, len(rows))
        logps = torch.full((*scored.shape, self._settings.samples or k), 0.0)
        found = logps, torch.zeros_like(logps, dtype=torch.long), logps[..., 0].clone()
        for row, answer in zip(rows, answers, strict=True):
            if not isinstance(answer, Failure):
                _fill(found, row, answer, vocabulary)
        device = completion_ids.device
        asked = [r.place for r, a in zip(rows, answers, strict=True) if isinstance(a, Failure)]
        read = sum(len(r.ids) for r in rows if r.place not in asked)
        entropy = _entropy(logps) * scored.cpu().index_fill(0, torch.tensor(asked).long(), 0)
        return TeacherScores(
            found[1].to(device), logps.to(device), found[2].to(device), entropy.to(device),
            TeacherWork(read, read, 0, tuple(asked), len(rows)), self._settings.samples,
        )  # fmt: skip

    def _ask_scores(self, rows: Sequence[_Row], k: int) -> list[list[Scored] | Failure]:
        """One request a row."""

        def body(place: int) -> dict[str, Any]:
            return {
                "prompt": rows[place].ids, "max_tokens": 1, "temperature": 1.0,
                "prompt_logprobs": k,
            }  # fmt: skip

        def read(place: int, answer: Any) -> list[Scored] | Failure:
            row = rows[place]
            places = [len(row.prompt) + token for token in row.tokens]
            return read_scores(answer, row.ids, places, k)

        return ask_all(self._settings, len(rows), body, read)

    def _ask_samples(
        self, rows: Sequence[_Row], temperature: float
    ) -> list[list[Scored] | Failure]:
        """`PREFIXES` states a request; a row fails where one of its requests does."""
        samples = self._settings.samples
        parts = [
            (row, row.tokens[first : first + PREFIXES])
            for row in rows
            for first in range(0, len(row.tokens), PREFIXES)
        ]

        def body(place: int) -> dict[str, Any]:
            row, tokens = parts[place]
            prompts = [[*row.prompt, *row.completion[:token]] for token in tokens]
            return {"prompt": prompts, **sampled(samples, temperature)}

        def read(place: int, answer: Any) -> list[Scored] | Failure:
            drawn = read_samples(answer, len(parts[place][1]), samples)
            return drawn if isinstance(drawn, Failure) else [_shares(ids) for ids in drawn]

        found: dict[int, list[Scored] | Failure] = {row.place: [] for row in rows}
        answers = ask_all(self._settings, len(parts), body, read)
        for (row, _), answer in zip(parts, answers, strict=True):
            before = found[row.place]
            if isinstance(before, Failure) or isinstance(answer, Failure):
                found[row.place] = before if isinstance(before, Failure) else answer
            else:
                found[row.place] = before + answer
        return list(found.values())

    def _complain(self, failed: Sequence[Failure], rows: int) -> None:
        """Warns of failures; raises FeedbackError where nobody was answered."""
        reasons = ", ".join(f"{n} x {why}" for why, n in Counter(map(str, failed)).most_common())
        where = f"The served teacher {self._settings.model!r} at {self._settings.base_url}"
        asked, answered = any_of_them(rows > 0), any_of_them(rows > len(failed))
        if asked and not answered:
            said = next((f.said for f in failed if f.said), "")
            raise FeedbackError(
                f"{where} answered for not one of this step's rollouts ({reasons}{said}). Mend or "
                "start it, and resume from the last checkpoint; a slow one needs a longer "
                "teacher.served.timeout and deadline."
            )
        if failed:
            _log.warning(
                "%s gave no answer for %d of %d rollouts: %s. They are left out of this step.",
                where, len(failed), rows, reasons,
            )  # fmt: skip


def sampled(samples: int, temperature: float) -> dict[str, Any]:
    """A request's fields for draws from the whole distribution at this temperature.

    All are said, since a server takes what is left out from its model's generation config.
    """
    return {
        "max_tokens": 1, "n": samples, "temperature": temperature, "top_p": 1.0, "top_k": 0,
        "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
        "frequency_penalty": 0.0, "skip_special_tokens": False, "return_token_ids": True,
    }  # fmt: skip


def _rows(
    prompt_ids: Sequence[list[int] | None], completion_ids: Tensor, scored: Tensor
) -> list[_Row]:
    """Rows with a prompt and a scored token."""
    check_one_each(prompt_ids, completion_ids)
    completions, masks = completion_ids.tolist(), (scored > 0).tolist()
    return [
        _Row(place, prompt, completion, [t for t, wanted in enumerate(mask) if wanted])
        for place, (prompt, completion, mask) in enumerate(
            zip(prompt_ids, completions, masks, strict=True)
        )
        if prompt is not None and any(mask)
    ]


def _shares(drawn: Sequence[int]) -> Scored:
    """What was drawn, once each with its share's log, filled up to its length with no one's."""
    shares = Counter(drawn)
    spare = len(drawn) - len(shares)
    logs = torch.tensor([*shares.values()], dtype=torch.float64).div(len(drawn)).log().tolist()
    return Scored([*shares, *[0] * spare], [*logs, *[NO_PROBABILITY] * spare], 0.0)


def _fill(
    found: tuple[Tensor, Tensor, Tensor], row: _Row, answer: Sequence[Scored], vocabulary: int
) -> None:
    """Puts a row's answer where it belongs in (logps, ids, own log-probabilities)."""
    logps, ids, own = found
    at = torch.tensor(row.tokens)
    tokens = torch.tensor([a.ids for a in answer])
    values = torch.tensor([a.logps for a in answer], dtype=logps.dtype)
    unknown = tokens >= vocabulary  # a larger model's padding, or tokens added to it
    logps[row.place, at] = values.masked_fill(unknown, NO_PROBABILITY)
    ids[row.place, at] = tokens.masked_fill(unknown, 0)
    own[row.place, at] = torch.tensor([a.own for a in answer], dtype=own.dtype)


def _entropy(logps: Tensor) -> Tensor:
    """[B, T] of the support with everything else as one bucket: at most the whole one's, nats."""
    closed = append_tail(logps)
    return -(closed.exp() * closed).sum(-1)
