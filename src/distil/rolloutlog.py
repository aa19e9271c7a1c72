"""rollouts.jsonl: every rollout of a run, one JSON object a line, some with per-token values.

Fields: step, row, group, problem (what corrections name it by: its problem_id, else a digest of the
prompt), prompt, completion, reward, feedback (a list: who said what, each with source, text,
demonstration), context (the kind of feedback the teacher saw, as in "sibling+report", null if
none), teacher_prompt (the exact messages),
and for a sample of rollouts `tokens`: the token's text, mask, cost (nats), credit (future credit
minus baseline, nats), logp (the student's, of the sampled token), teacher_top and teacher_top_p
(the teacher's likeliest token and its probability).
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from distil.collect import Collected
from distil.errors import FeedbackError
from distil.feedback.correctionfile import problem_key
from distil.runs import OLD_ROLLOUTS_FILE, ROLLOUTS_FILE, append_lines, write_text
from distil.scoring import StudentScores
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

    def fill(
        self, inputs: dict[str, Tensor], student: StudentScores, credit: Tensor, tokenizer: Any
    ) -> None:
        """Adds the token values of this micro-batch's detailed rollouts."""
        for place, row in enumerate(inputs["row"].tolist()):
            if row not in self._detailed:
                continue
            length = int(inputs["completion_mask"][place].sum())
            ids = inputs["completion_ids"][place, :length].tolist()
            top_p, best = inputs["teacher_logps"][place, :length].max(-1)
            top = inputs["support_ids"][place, :length].gather(-1, best[:, None])[:, 0].tolist()
            self._records[row]["tokens"] = {
                "text": [tokenizer.decode([i]) for i in ids],
                "mask": inputs["active"][place, :length].tolist(),
                "cost": _rounded(student.cost[place, :length]),
                "credit": _rounded(credit[place, :length]),
                "logp": _rounded(student.sampled_logps[place, :length]),
                "teacher_top": [tokenizer.decode([i]) for i in top],
                "teacher_top_p": _rounded(top_p.exp()),
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


def grading_failed(
    error: Exception,
    folder: str | Path,
    step: int,
    prompts: Sequence[Prompt],
    completions: Sequence[Any],
) -> FeedbackError:
    """Keeps a step's rollouts that a broken reward function couldn't grade; returns what to say."""
    file = Path(folder) / UNGRADED_FILE
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
