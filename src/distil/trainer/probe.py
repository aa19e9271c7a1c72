"""The teacher's own answers: sampled, graded like rollouts, compared with the student's.

A teacher that is right no more often than the student has nothing to teach, however confident it
is; and one that is wordier makes the student wordy. Left out: samplers other than transformers'.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from distil.distributed.metrics import MetricSums
from distil.distributed.shards import gathered
from distil.objectives import better_teacher
from distil.teacher.teachers import WeightsTeacher
from distil.trainer.ownpolicy import own_policy
from distil.types import SUCCESS_REWARD


@dataclass(frozen=True)
class TeacherProbe:
    """Samples the teacher on `samples` rows of each prompt; `gate`: weighs rows by the result."""

    teacher: WeightsTeacher
    accelerator: Accelerator
    samples: int
    gate: bool
    max_new_tokens: int
    temperature: float
    pad_token_id: int

    def run(
        self,
        model: Any,
        teacher_ids: Sequence[list[int] | None],
        student_rewards: Sequence[float | None],
        group_size: int,
        grade: Callable[[Sequence[int], list[list[int]]], list[float]],
        sums: MetricSums,
    ) -> Tensor | None:
        """Each row's weight (0: the teacher is no better there), or None without the gate.

        teacher_ids: each row's teacher prompt, None where it has none. grade: rewards of
        completions for some rows, NaN for ungraded; a collective call, so every process makes it
        for equally many rows.
        """
        device = self.accelerator.device
        rows = chosen_rows([bool(ids) for ids in teacher_ids], self.samples, group_size)
        written = self._write(model, {i: ids for i in rows if (ids := teacher_ids[i])})
        graded = grade(rows, [written.get(i, []) for i in rows])
        rewards = torch.full((len(teacher_ids),), torch.nan, device=device)
        for row, reward in zip(rows, graded, strict=True):
            rewards[row] = reward if row in written else torch.nan
        own = [torch.nan if r is None else float(r) for r in student_rewards]
        teachers = self._rates(rewards, group_size)
        students = self._rates(torch.tensor(own, device=device), group_size).nan_to_num(0.0)
        weight = better_teacher(teachers, students)
        known = ~rewards.isnan()
        sums.ratio("teacher/success", (rewards[known] >= SUCCESS_REWARD).sum(), known.sum())
        sums.ratio("teacher/mean_length", sum(map(len, written.values())), len(written))
        sums.ratio("teacher/better", weight.sum(), len(own))
        return weight if self.gate else None

    def _write(self, model: Any, prompts: dict[int, list[int]]) -> dict[int, list[int]]:
        """The teacher's completion for each of these rows' prompts."""
        with self.teacher.scoring(model), sampled_from(self.accelerator, model):
            if not prompts:
                return {}
            written = sample(
                self.accelerator.unwrap_model(model), list(prompts.values()),
                max_new_tokens=self.max_new_tokens, temperature=self.temperature,
                pad_token_id=self.pad_token_id,
            )  # fmt: skip
        return dict(zip(prompts, written, strict=True))

    def _rates(self, rewards: Tensor, group_size: int) -> Tensor:
        """This process's rows' success rates over their whole groups."""
        rates = group_rates(self.accelerator.gather(rewards), SUCCESS_REWARD, group_size)
        first = self.accelerator.process_index * len(rewards)
        return rates[first : first + len(rewards)]


def chosen_rows(prompted: Sequence[bool], samples: int, group_size: int) -> list[int]:
    """`samples` rows of each group, evenly spread over those with a prompt while there are enough.

    As many on each process whatever its rows hold, also where a group spans several.
    """
    rows: list[int] = []
    for start in range(0, len(prompted), group_size):
        group = range(start, min(start + group_size, len(prompted)))
        wanted = sum(i * samples // group_size != (i - 1) * samples // group_size for i in group)
        having = [i for i in group if prompted[i]]
        if len(having) >= wanted:
            rows += [having[math.ceil(n * len(having) / wanted)] for n in range(wanted)]
        else:
            others = [i for i in group if not prompted[i]]
            rows += sorted(having + others[: wanted - len(having)])
    return rows


@contextmanager
def sampled_from(accelerator: Accelerator, model: Any) -> Iterator[None]:
    """Around all that is sampled from a model: its own policy, shards gathered, one autocast.

    Each token's pass would make autocast's 16-bit copies of the weights anew.
    """
    with accelerator.autocast(), gathered(model), own_policy(model):
        yield


@contextmanager
def stream_of_its_own(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers from this seed inside; the process's go on afterwards as if nothing had been.

    Of the CPU and of one device alone: torch would begin work on every GPU of the machine.
    """
    devices = [] if device.type == "cpu" else [device]
    kind = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng(devices, device_type=kind):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def sample(
    model: Any,
    prompt_ids: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    pad_token_id: int,
) -> list[list[int]]:
    """One completion for each prompt, as ids up to and with the token that ends it.

    From the whole distribution at this temperature, as rollouts are drawn; call it inside
    `sampled_from`, and of a teacher inside `teacher.scoring(model)`.
    """
    ids, attention = left_padded(prompt_ids, pad_token_id, model.device)
    training = model.training
    model.eval()
    output = model.generate(
        input_ids=ids, attention_mask=attention, do_sample=True, temperature=temperature,
        top_p=1.0, top_k=0, max_new_tokens=max_new_tokens, pad_token_id=pad_token_id,
        synced_gpus=False,
    )[:, ids.shape[1] :]  # fmt: skip
    model.train(training)
    stops = stop_ids(model)
    return [until_end(row, stops) for row in output.tolist()]


def left_padded(
    rows: Sequence[list[int]], pad_token_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """[rows, longest] ids padded on the left, and 1 where they are real."""
    longest = max(map(len, rows))
    ids = [[pad_token_id] * (longest - len(row)) + row for row in rows]
    real = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(real, device=device)


def stop_ids(model: Any) -> list[int]:
    """The tokens that end a completion: all of the generation config's."""
    ends = model.generation_config.eos_token_id
    return list(ends) if isinstance(ends, list) else [] if ends is None else [ends]


def group_rates(rewards: Tensor, success: float, group_size: int) -> Tensor:
    """[N] each row's group's share of successes among graded rows (NaN: not graded).

    NaN where no row of the group was graded.
    """
    graded = ~rewards.isnan()
    won = (rewards >= success) & graded
    grouped = won.view(-1, group_size).sum(1) / graded.view(-1, group_size).sum(1)
    return grouped.repeat_interleave(group_size)


def until_end(ids: list[int], stops: Sequence[int]) -> list[int]:
    """Up to and with the first end token; all of them if there is none."""
    for place, token in enumerate(ids):
        if token in stops:
            return ids[: place + 1]
    return ids
