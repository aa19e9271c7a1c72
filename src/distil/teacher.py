"""Who scores the student's tokens: the same network, with which weights?

live      today's student. Follows the student, wherever it goes.
frozen    the start model. Never moves, so neither does the target.
lora_off  the start model under a LoRA adapter: the adapter is switched off, nothing is copied.
ema       an exponential moving average, w <- (1 - rate) w + rate student, once an optimiser step,
          in a float32 shadow (an average kept in bfloat16 doesn't move) that checkpoints carry.

Each is a context manager around the scoring pass: inside, the model *is* the teacher; outside, the
student again, whatever happened within. Left out: what the teacher is shown (`distil.prompts`),
served teachers, and weights sharded over processes (FSDP2, ZeRO-3: refused for frozen and ema).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distil.errors import RunError, TrainingError

TEACHER_FILE = "teacher.safetensors"


class Teacher(ABC):
    """The weights that score. Only a teacher with weights of its own moves, saves and loads."""

    @abstractmethod
    def scoring(self, model: nn.Module) -> Any:
        """Context manager: inside, `model` has the teacher's weights."""

    def after_step(self, model: nn.Module) -> None:  # noqa: B027
        """Called once after each optimiser step."""

    def save(self, folder: Path) -> None:  # noqa: B027
        """Writes into a checkpoint whatever the model's own files don't hold."""

    def load(self, folder: Path) -> None:  # noqa: B027
        """Reads back what `save` wrote."""


class LiveTeacher(Teacher):
    """The student itself, as it is now."""

    @contextmanager
    def scoring(self, model: nn.Module) -> Iterator[None]:
        """Nothing to change."""
        yield


class LoraOffTeacher(Teacher):
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


class ShadowTeacher(Teacher):
    """A copy of the *effective* weights, moved by `rate` towards the student at each step.

    rate 0 is the frozen start model, kept in the model's own dtype; above 0, the shadow is float32.
    Under LoRA, the effective weight of a layer is W + scale B A: that product is averaged, since
    averaging A and B apart would give another matrix.
    """

    def __init__(self, model: nn.Module, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate}, and must lie in [0, 1]: 0 never moves, 1 is live.")
        self.rate = rate
        self._refuse_shards(model)
        self._shadow = {
            name: weight.clone() if rate == 0 else weight.float().clone()
            for name, weight in _effective_weights(model)
        }

    @contextmanager
    def scoring(self, model: nn.Module) -> Iterator[None]:
        """Points each parameter at the shadow inside, and back at its own storage afterwards."""
        self._refuse_shards(model)  # again: sharding may have come after the shadow was made
        targets = dict(_target_parameters(model))
        own = {name: parameter.data for name, parameter in targets.items()}
        try:
            for name, parameter in targets.items():
                parameter.data = self._shadow[name].to(parameter.device, parameter.dtype)
            if isinstance(model, PeftModel):
                with model.disable_adapter():
                    yield
            else:
                yield
        finally:
            for name, parameter in targets.items():
                parameter.data = own[name]

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """w <- (1 - rate) w + rate student, in float32; nothing for rate 0."""
        if self.rate == 0:
            return
        for name, weight in _effective_weights(model):
            self._shadow[name].lerp_(weight.to(self._shadow[name]), self.rate)

    def save(self, folder: Path) -> None:
        """The moving shadow, in float32. A frozen one is the start model: not written again."""
        if self.rate > 0:
            save_file({k: v.contiguous() for k, v in self._shadow.items()}, folder / TEACHER_FILE)

    def load(self, folder: Path) -> None:
        """Raises RunError if the checkpoint has no shadow, or another model's."""
        if self.rate == 0:
            return
        file = folder / TEACHER_FILE
        if not file.is_file():
            raise RunError(
                f"{folder} holds no {TEACHER_FILE}, so the EMA teacher can't go on from there. "
                "It was saved by a run with another teacher: resume with that one."
            )
        saved = load_file(file)
        if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in self._shadow.items()}:
            raise RunError(f"{file} was saved for another model: names or shapes differ.")
        for name, weight in saved.items():
            self._shadow[name].copy_(weight)

    @staticmethod
    def _refuse_shards(model: nn.Module) -> None:
        if any(isinstance(p, DTensor) or p.numel() == 0 for p in model.parameters()):
            raise TrainingError(
                "The frozen and ema teachers copy whole weights, and this model's are sharded. "
                "Use the live teacher, or LoRA with lora_off."
            )


def make_teacher(kind: str, model: nn.Module, ema_rate: float) -> Teacher:
    """The teacher that a recipe names. Copies weights for frozen and ema."""
    if kind == "live":
        return LiveTeacher()
    if kind == "lora_off":
        return LoraOffTeacher()
    if kind == "frozen":
        return LoraOffTeacher() if _is_fresh_lora(model) else ShadowTeacher(model, 0.0)
    if kind == "ema":
        return ShadowTeacher(model, ema_rate)
    raise ValueError(f"Unknown teacher {kind!r}. Known: live, frozen, lora_off, ema.")


def _is_fresh_lora(model: nn.Module) -> bool:
    """Whether the adapters still add nothing, so that switching them off *is* the start model."""
    layers = list(_lora_layers(model))
    return bool(layers) and all(not _lora_delta(layer).any() for _, layer in layers)


def _lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, layer) of every layer with a LoRA adapter."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _lora_delta(layer: Any) -> Tensor:
    """scale B A, summed over the active adapters, in the base weight's shape."""
    delta: Tensor = sum(
        (layer.get_delta_weight(a).detach() for a in layer.active_adapters if a in layer.lora_A),
        torch.zeros((), device=layer.base_layer.weight.device),
    )
    return delta


def _target_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, parameter) whose data the shadow stands in for: all that training changes.

    Under LoRA: the adapted layers' base weights, and trainable parameters that are no factors.
    """
    adapted = list(_lora_layers(model))
    for name, layer in adapted:
        yield f"{name}.base_layer.weight", layer.base_layer.weight
    inside = tuple(f"{name}.lora_" for name, _ in adapted)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith(inside):
            yield name, parameter


@torch.no_grad()
def _effective_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) for each target: the parameter, plus its adapter's product under LoRA."""
    deltas = {f"{name}.base_layer.weight": layer for name, layer in _lora_layers(model)}
    for name, parameter in _target_parameters(model):
        weight = parameter.detach()
        if name in deltas:
            weight = weight.float() + _lora_delta(deltas[name]).float()
        yield name, weight
