"""DAgger's aggregation: earlier batches' states, kept with their teacher's distributions.

Sampling is the dearest part of a step, and the regret bound is about losses aggregated over rounds:
so the states of the last N batches can be trained on again, locally, with the teacher's support and
log-probabilities as they were. Rows are drawn evenly from what is kept, by a stream that the seed
and the step decide, so that a resumed run draws the same. Left out: the loss
(`distil.trainer.assembly`).
"""

import random
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distil.errors import RunError

PROMPT_KEYS = ("prompt_ids", "prompt_mask")  # padded on the left
COMPLETION_KEYS = (  # padded on the right
    "completion_ids", "completion_mask", "active", "weight", "support_ids", "teacher_logps",
    "old_logps", "baseline", "score_weight",
)  # fmt: skip

PREFIX = "replay_"
"""Of the keys that earlier rows have in a later batch."""


class ReplayBuffer:
    """The last `batches` generation batches of one process, on the CPU."""

    def __init__(self, batches: int) -> None:
        self._batches: deque[dict[str, Tensor]] = deque(maxlen=batches)

    def push(self, batch: Mapping[str, Tensor]) -> None:
        """Keeps a generation batch; the oldest one goes. Ids are kept in 32 bits."""
        keys = [k for k in (*PROMPT_KEYS, *COMPLETION_KEYS) if k in batch]  # baseline: not always
        kept = {key: batch[key].detach().cpu() for key in keys}
        self._batches.append({k: v.int() if v.dtype == torch.int64 else v for k, v in kept.items()})

    def draw(self, rows: int, seed: str) -> dict[str, Tensor]:
        """So many distinct rows of what is kept (fewer if there are fewer; {} if nothing is).

        Padded to one length; what pads hold is masked.
        """
        if not self._batches:
            return {}
        places = [(b, row) for b in self._batches for row in range(len(b["active"]))]
        chosen = random.Random(seed).sample(places, min(rows, len(places)))
        return {
            key: _stacked([batch[key][row] for batch, row in chosen], left=key in PROMPT_KEYS)
            for key in self._batches[0]
        }

    def save(self, folder: Path, process: int) -> None:
        """Writes what is kept into a checkpoint, a file a process."""
        flat = {f"{i}/{k}": v for i, batch in enumerate(self._batches) for k, v in batch.items()}
        save_file({k: v.contiguous() for k, v in flat.items()}, _file(folder, process))

    def load(self, folder: Path, process: int) -> None:
        """Reads back what `save` wrote. Raises RunError if there is no such file."""
        file = _file(folder, process)
        if not file.is_file():
            raise RunError(
                f"{folder} holds no {file.name}, so aggregation can't go on from there: it was "
                "saved without objective.replay_batches, or by fewer processes. Resume as it was."
            )
        flat = load_file(file)
        self._batches.clear()
        for i in range(1 + max((int(k.split("/")[0]) for k in flat), default=-1)):
            head = f"{i}/"
            batch = {k.removeprefix(head): v for k, v in flat.items() if k.startswith(head)}
            self._batches.append(batch)


def add_earlier(
    batch: dict[str, Tensor], buffer: ReplayBuffer, rows: int, seed: str, accelerator: Any
) -> None:
    """Adds `rows` earlier rows to a generation batch, then keeps the batch itself for later ones.

    A collective call once anything is kept: their active tokens are counted over all processes.
    """
    earlier, device = buffer.draw(rows, seed), batch["active"].device
    buffer.push(batch)
    batch |= {PREFIX + key: value.to(device) for key, value in earlier.items()}
    if earlier:
        batch[f"{PREFIX}active_count"] = accelerator.gather(batch[f"{PREFIX}active"].sum()).sum()


def earlier_rows(batch: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """What `add_earlier` added, under its own keys; None where there was nothing to add."""
    if f"{PREFIX}active" not in batch:
        return None
    earlier = {k.removeprefix(PREFIX): v for k, v in batch.items() if k.startswith(PREFIX)}
    return {**earlier, "scored": earlier["active"]}


def _stacked(rows: list[Tensor], *, left: bool) -> Tensor:
    """Rows of different lengths as one tensor, zeros where they end; ids in 64 bits again."""
    longest = max(len(row) for row in rows)
    out = rows[0].new_zeros(len(rows), longest, *rows[0].shape[1:])
    for i, row in enumerate(rows):
        part = slice(longest - len(row), longest) if left else slice(0, len(row))
        out[i, part] = row
    return out.long() if out.dtype == torch.int32 else out


def _file(folder: Path, process: int) -> Path:
    return folder / f"replay-{process}.safetensors"
