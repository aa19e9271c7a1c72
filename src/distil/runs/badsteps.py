"""Steps whose loss or gradient is no number: skipped, recorded with their batch, and counted.

Checked once an update, after the backward pass and before the optimiser: weights, moments and the
teacher's average stay as they are, the schedule goes on. Three in a row end the run. What is kept
of a bad step lies in the run's folder:

    bad-steps.jsonl                 a line each: step, process, losses, parameters, file
    bad-steps/step-N-process-P.safetensors   the micro-batches' tensors, named MICRO_BATCH/KEY

Left out: DeepSpeed, which owns its gradients: there the first bad step ends the run.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from distil.distributed.processes import any_of_them
from distil.errors import TrainingError
from distil.runs.folder import BAD_STEPS_FILE, append_lines

RECORDS = "bad-steps"
IN_A_ROW = 3
"""So many bad steps one after the other end the run."""

KEPT = 10
"""The newest so many bad steps keep their batch."""

NAMED = 10
"""At most so many parameters of a bad step are named; the line says how many there were."""


class BadSteps(TrainerCallback):
    """Tell it each micro-batch's loss with `saw`; it decides as the update is about to be made.

    told: called with every update's verdict, True if it was skipped. Raises TrainingError after
    `IN_A_ROW` bad ones.
    """

    def __init__(
        self, folder: str | Path, accelerator: Accelerator, told: Callable[[bool], None]
    ) -> None:
        self.skipped = False
        self._folder, self._accelerator, self._told = Path(folder), accelerator, told
        self._seen: list[tuple[Tensor, Mapping[str, Tensor]]] = []
        self._in_a_row = 0

    def saw(self, loss: Tensor, batch: Mapping[str, Any]) -> None:
        """A micro-batch of the update to come. Nothing is computed, and no device waited for."""
        tensors = {k: v for k, v in batch.items() if isinstance(v, Tensor)}
        self._seen.append((loss.detach(), tensors))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the gradients away if this update is bad on any process."""
        model, step = kwargs["model"], state.global_step + 1
        seen, self._seen = self._seen, []
        losses, found = [loss for loss, _ in seen], gradients(model)
        bad = bool(_not_finite([*losses, *found.values()], self._accelerator.device))
        self.skipped = any_of_them(bad)
        self._told(self.skipped)
        self._in_a_row = self._in_a_row + 1 if self.skipped else 0
        if not self.skipped:
            return
        record = self._record(step, seen, found) if bad else None
        deepspeed = self._accelerator.distributed_type == DistributedType.DEEPSPEED
        if self._in_a_row >= IN_A_ROW or deepspeed:
            raise TrainingError(self._message(step, record))
        for parameter in model.parameters():
            parameter.grad = None  # so the optimiser leaves parameter and moments alone

    def _message(self, step: int, record: Path | None) -> str:
        where = record or f"{self._folder / RECORDS} (another process's part)"
        which = f"Step {step}"
        if self._in_a_row > 1:
            which = f"{self._in_a_row} steps in a row, the last of them step {step},"
        return (
            f"{which} had a loss or a gradient that is no finite number, and nothing of that was "
            f"applied. What it happened on lies in {where}. Lower the "
            f"learning rate or train.max_grad_norm, and resume from the last checkpoint in "
            f"{self._folder}; or mend the model if its weights aren't finite."
        )

    def _record(
        self,
        step: int,
        seen: list[tuple[Tensor, Mapping[str, Tensor]]],
        found: Mapping[str, Tensor],
    ) -> Path:
        """Writes the micro-batches with a bad loss (all, if only the gradient is), and a line."""
        losses = [float(loss) for loss, _ in seen]
        at_fault = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
        tensors = {
            f"{i}/{key}": value.detach().cpu().clone().contiguous()
            for i in at_fault or range(len(seen))
            for key, value in seen[i][1].items()
        }
        process = self._accelerator.process_index
        folder = self._folder / RECORDS
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"step-{step:08d}-process-{process}.safetensors"
        save_file(tensors, file)
        for old in sorted(folder.glob(f"step-*-process-{process}.safetensors"))[:-KEPT]:
            old.unlink()
        names = [name for name, total in found.items() if not torch.isfinite(total)]
        line = {
            "step": step,
            "process": process,
            "losses": [str(loss) for loss in losses],
            "parameters": names[:NAMED],
            "parameters_in_all": len(names),
            "file": str(file.relative_to(self._folder)),
        }
        append_lines(self._folder / BAD_STEPS_FILE, line)
        return file


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """name -> the sum of its gradient's numbers (of this process's shard): finite if they all are.

    Summed in float32, so that a sum overflows only where the gradient is beyond use too.
    """
    return {
        name: _local(p.grad).sum(dtype=torch.float32)
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def _not_finite(values: list[Tensor], device: torch.device) -> Tensor:
    """Whether any of these scalars is infinite or no number; on the device, nothing waited for."""
    if not values:
        return torch.tensor(False, device=device)
    return ~torch.isfinite(torch.stack([v.float().to(device) for v in values])).all()


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient
