"""rollouts.jsonl: every rollout of a run, one JSON object a line, some with per-token values.

Fields: step, row, group, problem (what corrections name it by: its problem_id, else a digest of the
prompt), prompt, completion, reward, feedback (a list: who said what, each with source, text,
demonstration), context (the kind of feedback the teacher saw, as in "sibling+report", null if
none), teacher_prompt (the exact messages),
and for a sample of rollouts `tokens`: the token's text, mask, cost (nats), credit (future credit
minus baseline, nats), logp and teacher_logp (the student's and the teacher's, of the sampled token;
null where the teacher gives only samples), student_top and teacher_top (each one's likeliest tokens
with their probabilities, the likeliest first: the student's of all tokens, the teacher's of those
it was compared on).
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from distil.distributed.processes import ended_elsewhere
from distil.errors import FeedbackError
from distil.feedback.correctionfile import problem_key
from distil.runs.folder import OLD_ROLLOUTS_FILE, ROLLOUTS_FILE, append_lines, write_text
from distil.trainer.collect import Collected
from distil.trainer.scoring import CHOICES, StudentScores
from distil.types import Prompt

UNGRADED_FILE = "ungraded.jsonl"


class RolloutLog:
    """Collects a step's records while its micro-batches run, then appends them to the file.

    Both files together stay within about `megabytes`: the file is moved to OLD_ROLLOUTS_FILE, in
    the place of what was moved there before, when it has reached half of that. 0: no bound.
    """

    def __init__(self, folder: str | Path, megabytes: float = 0) -> None:
        self._path, self._old = Path(folder) / ROLLOUTS_FILE, Path(folder) / OLD_ROLLOUTS_FILE
        self._most = megabytes * 1e6 / 2
        self._records: list[dict[str, Any]] = []
        self._detailed: set[int] = set()
        self._micro_batches = 0
        self.newest: dict[str, Any] | None = None
        """The last record that was opened, for whoever shows it (`distil.live`)."""

    def open(
        self, records: list[dict[str, Any]], *, own: int, detailed: int, micro_batches: int
    ) -> None:
        """Starts a step; `detailed` of its rollouts, spread over the groups, get token values.

        Of all processes' records the first `own` are this one's, whose token values it sees, in so
        many micro-batches.
        """
        self._records, self._micro_batches = records, micro_batches
        self.newest = records[-1] if records else self.newest
        active = [r["row"] for r in records[:own] if r["context"] is not None]
        stride = max(1, len(active) // max(detailed, 1))
        self._detailed = set(active[::stride][:detailed])

    def detailed(self, inputs: dict[str, Tensor]) -> list[int]:
        """The places of a micro-batch's rows that get token values."""
        rows = inputs["row"].tolist()
        return [place for place, row in enumerate(rows) if row in self._detailed]

    def fill(
        self, inputs: dict[str, Tensor], student: StudentScores, credit: Tensor, tokenizer: Any
    ) -> None:
        """Adds the token values of this micro-batch's detailed rollouts."""
        for which, place in enumerate(self.detailed(inputs)):
            length = int(inputs["completion_mask"][place].sum())
            ids = inputs["completion_ids"][place, :length].tolist()
            told = inputs["teacher_logps"][place, :length]
            best = told.topk(min(CHOICES, told.shape[-1])).indices
            assert student.choices is not None
            own = student.choices.ids[which, :length], student.choices.logps[which, :length]
            others = inputs["support_ids"][place, :length].gather(-1, best), told.gather(-1, best)
            mask = inputs["active"][place, :length].tolist()
            theirs = inputs.get("teacher_sampled_logps")
            self._records[inputs["row"][place]]["tokens"] = {
                "text": [tokenizer.decode([i]) for i in ids],
                "mask": mask,
                "cost": _rounded(student.cost[place, :length]),
                "credit": _rounded(credit[place, :length]),
                "logp": _rounded(student.sampled_logps[place, :length]),
                "teacher_logp": None if theirs is None else _rounded(theirs[place, :length]),
                "student_top": _choices(*own, mask, tokenizer),
                "teacher_top": _choices(*others, mask, tokenizer),
            }

    def after_micro_batch(self) -> None:
        """Closes the step with its last one."""
        self._micro_batches -= 1
        if self._micro_batches == 0:
            self.close_step()

    def close_step(self) -> None:
        """Appends the step's records; nothing if they were written already."""
        if not self._records:
            return
        if self._most and self._path.exists() and self._path.stat().st_size >= self._most:
            self._path.replace(self._old)
        append_lines(self._path, *self._records)
        self._records, self._detailed = [], set()


def rollout_records(
    collected: Collected, teacher_prompts: Sequence[Prompt | None], *, step: int, first: int = 0
) -> list[dict[str, Any]]:
    """One record a rollout, without token values; `first` is the first one's row."""
    records = []
    rows = zip(
        collected.inputs, collected.prompts, collected.rollouts, collected.contexts,
        teacher_prompts, strict=True,
    )  # fmt: skip
    for row, (columns, prompt, rollout, context, teacher_prompt) in enumerate(rows, first):
        records.append(
            {
                "step": step,
                "row": row,
                "group": rollout.group,
                "problem": problem_key(prompt, columns.get("problem_id")),
                "prompt": prompt,
                "completion": rollout.completion,
                "reward": rollout.reward,
                "feedback": [
                    {"source": f.source, "text": f.text, "demonstration": f.demonstration}
                    for f in rollout.feedback
                ],
                "context": context.kind if context and teacher_prompt is not None else None,
                "teacher_prompt": teacher_prompt,
            }
        )
    return records


@contextmanager
def grading_told(
    folder: str | Path,
    step: int,
    prompts: Sequence[Prompt],
    completions: Sequence[Any],
    process: int,
) -> Iterator[None]:
    """Around TRL's grading of a step's rollouts: what fails there is raised as a FeedbackError."""
    try:
        yield
    except Exception as error:
        if ended_elsewhere(error):
            raise
        raise grading_failed(error, folder, step, prompts, completions, process) from error


def grading_failed(
    error: Exception,
    folder: str | Path,
    step: int,
    prompts: Sequence[Prompt],
    completions: Sequence[Any],
    process: int = 0,
) -> FeedbackError:
    """Keeps a step's rollouts that a broken reward function couldn't grade; returns what to say.

    Each process keeps its own, in a file of its own: they mostly fail together.
    """
    name = f"ungraded-process-{process}.jsonl" if process else UNGRADED_FILE
    file = Path(folder) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pairs = zip(prompts, completions, strict=True)
    lines = [json.dumps({"prompt": p, "completion": c}, ensure_ascii=False) for p, c in pairs]
    write_text(file, "\n".join(lines) + "\n")
    return FeedbackError(
        f"Grading the rollouts of step {step} failed with {type(error).__name__}: {error}. Mend "
        f"the reward function (it must return one number or None a completion; the rollouts are in "
        f"{file}, to try it on) and resume from the last checkpoint."
    )


def _rounded(values: Tensor) -> list[float | None]:
    """To five digits; null for what is no finite number, which JSON has no word for."""
    return [round(v, 5) if math.isfinite(v) else None for v in values.detach().float().tolist()]


def _choices(
    ids: Tensor, logps: Tensor, mask: Sequence[int], tokenizer: Any
) -> list[list[list[Any]]]:
    """[seq, choices] -> for each token its [text, probability]s; none where it isn't active."""
    found: list[list[list[Any]]] = []
    for some, probabilities, active in zip(ids.tolist(), logps.exp(), mask, strict=True):
        pairs = zip(some, _rounded(probabilities), strict=True)
        found.append([[tokenizer.decode([i]), p] for i, p in pairs if p] if active else [])
    return found
