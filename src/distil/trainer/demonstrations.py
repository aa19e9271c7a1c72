"""Supervised fine-tuning on demonstrations: the rival that uses the expert's words and no rollout.

Each rollout's row carries the demonstration that its teacher would have been shown, so that data,
order and budget are those of the other objectives. Left out: choosing and encoding demonstrations
(`distil.trainer.collect`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from distil.objectives import masked_mean
from distil.trainer.scoring import sequence_logps


def add_demonstrations(
    batch: dict[str, Tensor], ids: Sequence[list[int]], accelerator: Accelerator
) -> None:
    """Adds demonstration_ids and _mask [B, longest], padded on the right, and their global count.

    A row without a demonstration has an empty list: its mask is 0.
    """
    device = batch["completion_ids"].device
    shape = (len(ids), max(1, *(len(row) for row in ids)))
    tokens, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, demonstration in enumerate(ids):
        tokens[row, : len(demonstration)] = torch.tensor(demonstration)
        mask[row, : len(demonstration)] = 1
    batch["demonstration_ids"], batch["demonstration_mask"] = tokens.to(device), mask.to(device)
    batch["demonstration_count"] = accelerator.gather(batch["demonstration_mask"].sum()).sum()


def demonstration_loss(
    model: Any, base: Any, batch: dict[str, Tensor], *, temperature: float, share: float
) -> tuple[Tensor, Tensor]:
    """(loss, [B, L] - log pi(demonstration token)); the loss is their mean over the whole batch.

    `share` turns the generation batch's count into one update's. Log-probabilities are at the
    sampler's temperature, as everywhere.
    """
    mask = batch["demonstration_mask"]
    asked = {
        "prompt_ids": batch["prompt_ids"],
        "prompt_mask": batch["prompt_mask"],
        "completion_ids": batch["demonstration_ids"],
        "completion_mask": mask,
        "scored": mask,
    }
    per_token = -sequence_logps(model, base, asked, temperature=temperature)
    return masked_mean(per_token, mask, batch["demonstration_count"] * share), per_token
