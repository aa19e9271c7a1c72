"""What distillation adds to TRL's generation batch: supports, teacher, weights, baselines, replay.

Everything is computed once a generation batch, without gradient, a micro-batch of rows at a time;
TRL then shuffles and splits the rows. The keys are those that `distil.trainer.assembly` reads. Left
out: the loss, and who is shown which feedback (`distil.trainer.collect`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from distil import objectives
from distil.config import ObjectiveConfig
from distil.objectives.costs import Cost
from distil.profiling import parts
from distil.teacher.teacherpass import TeacherScores, TeacherWork
from distil.teacher.teachers import Teacher
from distil.trainer.assembly import Assembled, assemble, credit_of
from distil.trainer.onepass import one_pass_loss, takes_one_pass
from distil.trainer.scoring import StudentScores, score_student, student_topk
from distil.vocab.hidden import base_model

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class BatchBuilder:
    """Adds the teacher's part to batches. `rows_at_once`: how many rollouts one pass takes."""

    objective: ObjectiveConfig
    cost: Cost
    teacher: Teacher
    accelerator: Accelerator
    temperature: float
    rows_at_once: int
    stop_ids: Sequence[int]

    @torch.no_grad()
    def add_teacher(
        self,
        model: Any,
        batch: Batch,
        prompt_ids: Sequence[list[int] | None],
        sampled: Tensor,
        succeeded: Sequence[bool],
        group_size: int,
        *,
        stale: bool,
        whole: bool = False,
        row_weight: Tensor | None = None,
    ) -> TeacherWork:
        """Adds every key that `assemble` reads; returns what the teacher read, and didn't.

        prompt_ids: each row's teacher prompt, None where it has no context. sampled: 1 at tokens
        that the student sampled. stale: whether an update may see these rollouts after another.
        whole: whether an update's micro-batch is all of this batch, whose groups it then sees.
        row_weight: one more weight on each row's costs.
        """
        has_context = torch.tensor([ids is not None for ids in prompt_ids], device=sampled.device)
        active = sampled * has_context[:, None]
        batch["active"] = active
        batch["scored"] = self._scored(sampled, active)
        also = self._student_support(model, batch)
        k = 0 if self.objective.support == "student" else self.objective.top_k
        with self.accelerator.autocast():
            scores = self.teacher.score(
                model, base_model(model), prompt_ids, batch["completion_ids"],
                batch["scored"] * has_context[:, None], k=k, also=also,
                temperature=self.temperature, batch_size=self.rows_at_once,
            )  # fmt: skip
        if scores.work.failed:  # as if these rows had no context
            active = active.index_fill(0, torch.tensor(scores.work.failed, device=active.device), 0)
            batch["active"] = active
            batch["scored"] = self._scored(sampled, active)
        batch |= _told(scores)
        batch |= {
            "active_count": self.accelerator.gather(active.sum()).sum(),
            "sampled_count": self.accelerator.gather(batch["scored"].sum()).sum(),
            "row_count": torch.tensor(
                len(active) * self.accelerator.num_processes, device=active.device
            ),
        }
        if not self.objective.credit_end:
            batch["score_weight"] = objectives.not_an_end(
                batch["completion_ids"], sampled, self.stop_ids
            )
        here = whole and not stale and not self.objective.replay_batches
        if here and self._with_baseline and len(active) % group_size == 0:
            batch["group"] = torch.arange(len(active), device=active.device) // group_size
        gates = self._row_gates(succeeded, group_size, row_weight)
        self._add_weights(model, batch, gates, group_size, stale=stale)
        return scores.work

    def _scored(self, sampled: Tensor, active: Tensor) -> Tensor:
        """Tokens that are looked up: for an advantage all sampled ones, else the active ones."""
        if self.objective.name == "as_released_math":  # padding enters its sums
            return torch.ones_like(active) * (active.sum(1, keepdim=True) > 0)
        return sampled if self.objective.advantage_weight else active

    def _student_support(self, model: Any, batch: Batch) -> Tensor | None:
        if self.objective.support == "teacher":
            return None

        def score(part: Batch) -> tuple[Tensor]:
            found = student_topk(
                model, base_model(model), part,
                k=self.objective.top_k, temperature=self.temperature,
            )  # fmt: skip
            return (found,)

        return self._by_rows(model, batch, score)[0]

    def _add_weights(
        self, model: Any, batch: Batch, row_gates: Tensor, group_size: int, *, stale: bool
    ) -> None:
        """Gates, the older policy's log-probabilities, and the group's baseline."""
        wants, active = self.objective, batch["active"]
        with_baseline = self._with_baseline and "group" not in batch
        cost = logps = None
        if "old_per_token_logps" in batch:  # TRL's, where it has them
            logps = batch["old_per_token_logps"]
        need_logps = wants.first_error_margin is not None or stale or wants.replay_batches > 0
        if with_baseline or (need_logps and logps is None):
            cost, own_logps = self._by_rows(model, batch, lambda part: self._costs(model, part))
            logps = own_logps if logps is None else logps
        batch["weight"] = self._weight(batch, row_gates, logps)
        if stale or wants.replay_batches:
            assert logps is not None
            batch["old_logps"] = logps
        if with_baseline:
            assert cost is not None
            credit = credit_of(wants, cost * batch["weight"], active)
            batch["baseline"] = self._over_groups(credit, active, group_size)

    @property
    def _with_baseline(self) -> bool:
        return self.objective.baseline and self.objective.future != "none"

    def _row_gates(
        self, succeeded: Sequence[bool], group_size: int, row_weight: Tensor | None
    ) -> Tensor:
        """[B] the product of the gates that weigh whole rollouts; a collective call."""
        device = self.accelerator.device
        gates = torch.ones(len(succeeded), device=device)
        if row_weight is not None:
            gates = gates * row_weight
        if self.objective.prompt_weight == "pass_rate":
            mine = torch.tensor(list(succeeded), dtype=gates.dtype, device=device)
            everyone = objectives.pass_rate_weight(self.accelerator.gather(mine), group_size)
            first = self.accelerator.process_index * len(mine)
            gates = gates * everyone[first : first + len(mine)]
        return gates

    def _weight(self, batch: Batch, row_gates: Tensor, logps: Tensor | None) -> Tensor:
        """[B, T] the product of the gates that the recipe asks for; ones without any."""
        wants, active = self.objective, batch["active"]
        weight = torch.ones_like(batch["teacher_entropy"]) * row_gates[:, None]
        if wants.max_teacher_entropy is not None:
            gate = objectives.confident_teacher(batch["teacher_entropy"], wants.max_teacher_entropy)
            weight = weight * gate
        if wants.first_error_margin is not None:
            assert logps is not None
            gates = {"from": objectives.from_first_error, "until": objectives.until_first_error}
            weight = weight * gates[wants.first_error](
                logps.to(weight.dtype), batch["teacher_sampled_logps"], active,
                wants.first_error_margin,
            )  # fmt: skip
        return weight

    def _costs(self, model: Any, part: Batch) -> tuple[Tensor, Tensor]:
        scores = self.score_student(model, part)
        return scores.cost, scores.sampled_logps

    def score_student(self, model: Any, batch: Batch, look: Sequence[int] = ()) -> StudentScores:
        """The student's log-probabilities at the support and the sampled tokens, and the cost."""
        return score_student(
            model, base_model(self.accelerator.unwrap_model(model)), batch,
            cost=self.cost, tail=self.objective.tail, temperature=self.temperature, look=look,
        )  # fmt: skip

    def loss(
        self, model: Any, batch: Batch, share: float, look: Sequence[int] = ()
    ) -> tuple[StudentScores, Assembled]:
        """A micro-batch's scores and loss, in one pass over the output layer where that's exact.

        look: places of rows whose likeliest tokens are wanted too.
        """
        if not takes_one_pass(self.objective, batch):
            student = self.score_student(model, batch, look)
            return student, assemble(self.objective, student, batch, share=share)
        return one_pass_loss(
            model, base_model(self.accelerator.unwrap_model(model)), batch,
            self.objective, self.cost, temperature=self.temperature, share=share, look=look,
        )  # fmt: skip

    @parts.part("student pre-pass", whole=True)
    def _by_rows(
        self, model: Any, batch: Batch, score: Callable[[Batch], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """`score` of a few rows at a time, put together again; in evaluation mode, no gradient."""
        rows, training = len(batch["completion_ids"]), model.training
        model.eval()  # no activation checkpointing where nothing is kept for a backward pass
        whole = {k: v for k, v in batch.items() if v.dim() > 0 and len(v) == rows}
        parts = []
        with torch.no_grad(), self.accelerator.autocast():  # as the loss will run
            for start in range(0, rows, self.rows_at_once):
                chunk = slice(start, start + self.rows_at_once)
                parts.append(score({k: v[chunk] for k, v in whole.items()}))
        model.train(training)
        return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))

    def _over_groups(self, credit: Tensor, active: Tensor, group_size: int) -> Tensor:
        """Leave-one-out mean of the credit over whole groups, which may span processes."""
        gather = self.accelerator.gather
        length = gather(torch.tensor([credit.shape[1]], device=credit.device)).max()
        padding = (0, int(length) - credit.shape[1])
        everyone = gather(torch.nn.functional.pad(credit, padding))
        all_active = gather(torch.nn.functional.pad(active, padding))
        baseline = objectives.leave_one_out(everyone, all_active, group_size)
        first = self.accelerator.process_index * len(credit)
        return baseline[first : first + len(credit), : credit.shape[1]]


def _told(scores: TeacherScores) -> Batch:
    """What the teacher said; its samples don't tell its log-probability of the student's token."""
    told = {
        "support_ids": scores.ids,
        "teacher_logps": scores.logps,
        "teacher_entropy": scores.entropy,
    }
    if scores.samples:
        return told | {"teacher_draws": torch.tensor(scores.samples, device=scores.ids.device)}
    return told | {"teacher_sampled_logps": scores.sampled_logps}
