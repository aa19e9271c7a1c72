"""Who scores the student's tokens: the same network, with which weights?

live      today's student. Follows the student, wherever it goes.
frozen    the start model. Never moves, so neither does the target.
lora_off  the start model under a LoRA adapter: the adapter is switched off, nothing is copied.
ema       an exponential moving average, w <- (1 - rate) w + rate student, once an optimiser step,
          in a float32 shadow (an average kept in bfloat16 doesn't move) that checkpoints carry.

Each has a context manager around the scoring pass: inside, the model *is* the teacher; outside, the
student again, whatever happened within. Sharded weights have a sharded shadow, made once they are
(`distil.distributed.shards`); one that isn't may lie in the computer's memory. Left out: what the
teacher is shown (`distil.prompts.messages`), teachers behind a server (`distil.teacher.served`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distil.config import ShadowDevice
from distil.distributed.processes import is_main
from distil.distributed.shards import exchanged, fill, is_sharded, reshard, whole
from distil.errors import RunError, TrainingError
from distil.teacher.adapters import (
    check_adapter,
    effective_weights,
    is_fresh_lora,
    target_parameters,
)
from distil.teacher.teacherpass import TeacherScores, score_teacher

TEACHER_FILE = "teacher.safetensors"


class Teacher(ABC):
    """Who scores. Only a teacher with weights of its own moves, saves and loads."""

    @abstractmethod
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
        """As `distil.teacher.teacherpass.score_teacher`, by this teacher. A collective call."""

    def begin(self, model: nn.Module) -> None:  # noqa: B027
        """Called before the first step, when the model lies where it will be trained."""

    def after_step(self, model: nn.Module) -> None:  # noqa: B027
        """Called once after each optimiser step."""

    def save(self, folder: Path) -> None:  # noqa: B027
        """Writes into a checkpoint whatever the model's own files don't hold. A collective call."""

    def load(self, folder: Path) -> None:  # noqa: B027
        """Reads back what `save` wrote."""


class WeightsTeacher(Teacher):
    """A teacher whose weights are here, for the student's network to take on."""

    @abstractmethod
    def scoring(self, model: nn.Module) -> Any:
        """Context manager: inside, `model` has the teacher's weights."""

    def score(self, model: Any, base: Any, *rows: Any, **settings: Any) -> TeacherScores:
        """A pass over the rows with the teacher's weights."""
        with self.scoring(model):
            return score_teacher(model, base, *rows, **settings)


class LiveTeacher(WeightsTeacher):
    """The student itself, as it is now."""

    @contextmanager
    def scoring(self, model: nn.Module) -> Iterator[None]:
        """Nothing to change."""
        yield


class LoraOffTeacher(WeightsTeacher):
    """The base model under the student's adapter."""

    @contextmanager
    def scoring(self, model: nn.Module) -> Iterator[None]:
        """Adapters off inside; on again afterwards, also after an exception."""
        if not isinstance(model, PeftModel):
            raise TrainingError(
                "The teacher is lora_off, but the model has no adapter to switch off. Pass a "
                "peft_config, or use the frozen teacher."
            )
        with model.disable_adapter():
            yield


class ShadowTeacher(WeightsTeacher):
    """A copy of the *effective* weights, moved by `rate` towards the student at each step.

    rate 0 is the frozen start model, kept in the model's own dtype; above 0, the shadow is float32.
    Under LoRA, the effective weight of a layer is W + scale B A: that product is averaged, since
    averaging A and B apart would give another matrix (`distil.teacher.adapters`).

    later: the model isn't sharded yet, but will be: the copy is made at `begin`, of the shards.
    device: "cpu" keeps it in the computer's memory, wherever the model lies. Each update then moves
    the student's weights there, one at a time; each scoring pass, the shadow's to the model.
    Raises TrainingError for "cpu" and `later`, and for adapters that do more than add scale B A.
    """

    def __init__(
        self,
        model: nn.Module,
        rate: float,
        *,
        later: bool = False,
        device: ShadowDevice = "same",
    ) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate}, and must lie in [0, 1]: 0 never moves, 1 is live.")
        if device == "cpu" and later:
            raise TrainingError(
                "teacher.shadow_device is cpu, and this model is sharded: its teacher is sharded "
                "with it, a part on each device. Use shadow_device: same, or more devices."
            )
        check_adapter(model)
        self.rate = rate
        self._device = torch.device("cpu") if device == "cpu" else None
        self._checkpoint: Path | None = None
        self._shadow: dict[str, Tensor] | None = None
        if not later:
            self.begin(model)

    @torch.no_grad()
    def begin(self, model: nn.Module) -> None:
        """Copies the weights, once; reads a checkpoint that `load` was given before."""
        if self._shadow is not None:
            return
        reshard(model)
        self._shadow = {
            name: weight.to(
                self._device or weight.device,
                weight.dtype if self.rate == 0 else torch.float32,
                copy=True,
            )
            for name, weight in effective_weights(model)
        }
        if self._checkpoint is not None:
            _read(self._checkpoint, self._shadow)

    @contextmanager
    def scoring(self, model: nn.Module) -> Iterator[None]:
        """The shadow's weights inside, and the model's own, bit for bit, afterwards."""
        self.begin(model)
        assert self._shadow is not None
        reshard(model)  # first: what a unit has gathered are other parameters
        targets = dict(target_parameters(model))
        if is_sharded(model):  # passes gather from the parameters' own storage
            standing_in = exchanged(model, targets, self._shadow)
        else:
            standing_in = _pointed_at(targets, self._shadow)
        adapters_off = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
        torch.clear_autocast_cache()  # it knows a weight by its place, not by what is there
        try:
            with standing_in, adapters_off:
                yield
        finally:
            torch.clear_autocast_cache()

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """w <- (1 - rate) w + rate student, in float32; nothing for rate 0."""
        if self.rate == 0:
            return
        self.begin(model)
        assert self._shadow is not None
        reshard(model)
        for name, weight in effective_weights(model):
            shadow = self._shadow[name]
            shadow.lerp_(weight.to(shadow.device).to(shadow.dtype), self.rate)

    def save(self, folder: Path) -> None:
        """The whole shadow, in one file, whether it is sharded or not.

        A frozen one that isn't sharded is the start model: not written again.
        """
        assert self._shadow is not None
        if self.rate == 0 and not any(isinstance(v, DTensor) for v in self._shadow.values()):
            return
        gathered = {}
        for name, value in self._shadow.items():
            full = whole(value)
            if is_main():
                gathered[name] = full.cpu().contiguous()
        if is_main():
            save_file(gathered, folder / TEACHER_FILE)

    def load(self, folder: Path) -> None:
        """Raises RunError if the checkpoint has no shadow, or another model's."""
        if self.rate == 0 and self._shadow is not None:
            return
        file = folder / TEACHER_FILE
        if not file.is_file():
            raise RunError(
                f"{folder} holds no {TEACHER_FILE}, so its teacher can't go on from there. It was "
                "saved by a run with another teacher, or with another sharding: resume as it was."
            )
        if self._shadow is None:
            self._checkpoint = file
        else:
            _read(file, self._shadow)


@contextmanager
def _pointed_at(
    targets: Mapping[str, nn.Parameter], shadow: Mapping[str, Tensor]
) -> Iterator[None]:
    """Inside, each parameter points at the shadow; at its own storage again afterwards.

    Where dtype or device differ, at a copy: one more model in memory, of the model's own dtype,
    while the teacher scores (gradients and activations aren't there then).
    """
    own = {name: parameter.data for name, parameter in targets.items()}
    try:
        for name, parameter in targets.items():
            # Moved first: the other way round, the slower device would convert.
            parameter.data = shadow[name].to(parameter.device).to(parameter.dtype)
        yield
    finally:
        for name, parameter in targets.items():
            parameter.data = own[name]


@torch.no_grad()
def _read(file: Path, shadow: Mapping[str, Tensor]) -> None:
    """Reads a saved shadow into this one. Raises RunError if it is another model's."""
    with safe_open(file, "pt") as saved:
        shapes = {name: tuple(saved.get_slice(name).get_shape()) for name in saved.keys()}  # noqa: SIM118
        if shapes != {name: tuple(value.shape) for name, value in shadow.items()}:
            raise RunError(f"{file} was saved for another model: names or shapes differ.")
        for name, value in shadow.items():
            fill(value, saved.get_tensor(name))


def make_teacher(
    kind: str,
    model: nn.Module,
    ema_rate: float,
    *,
    later: bool = False,
    device: ShadowDevice = "same",
) -> WeightsTeacher:
    """The teacher that a recipe names. Copies weights for frozen and ema (`later`: at `begin`).

    A served one isn't made here: `distil.teacher.served.teacher.ServedTeacher`.
    """
    if kind == "live":
        return LiveTeacher()
    if kind == "lora_off":
        return LoraOffTeacher()
    if kind == "frozen":
        if is_fresh_lora(model):
            return LoraOffTeacher()
        return ShadowTeacher(model, 0.0, later=later, device=device)
    if kind == "ema":
        return ShadowTeacher(model, ema_rate, later=later, device=device)
    raise ValueError(f"Unknown teacher {kind!r}. Known: live, frozen, lora_off, ema.")
