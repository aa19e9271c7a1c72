"""Weights sharded over processes: gathered to sample, exchanged for a teacher's, sliced.

FSDP2 keeps each parameter as a DTensor, gathers a unit (a layer) from its parameters' own storage
as it runs, and frees it again, but for the last unit, which stays gathered after a pass that isn't
differentiated. A unit runs on all processes or on none. What DeepSpeed's ZeRO-3 shards is handed on
to `distil.distributed.zero3`. Left out: FSDP1.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from distil.distributed import zero3
from distil.errors import TrainingError


def set_up_sharding(plugin: Any) -> None:
    """Changes accelerate's settings: gradients are summed over processes in float32, not 16 bits.

    Raises TrainingError for FSDP1.
    """
    if plugin.fsdp_version != 2:
        raise TrainingError(
            "FSDP1 flattens weights into one another, and the scoring passes need them apart. Set "
            "fsdp_version: 2, as recipes/accelerate/fsdp2.yaml does."
        )
    if plugin.mixed_precision_policy is not None:
        policy = replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)
        plugin.mixed_precision_policy = policy


def sum_in_shards(accelerator: Any) -> None:
    """Gradients of each micro-batch are summed over processes at once, into sharded ones.

    By default transformers waits for the step's last micro-batch, and FSDP2 keeps until then a
    whole float32 gradient on each device: 4 bytes a trained parameter, 30 GiB for 8 billion.
    """
    accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True


def is_sharded(model: nn.Module) -> bool:
    """Whether the model is sharded (gathered as it may be for the moment)."""
    return by_fsdp2(model) or _by_zero3(model)


def by_fsdp2(model: nn.Module) -> bool:
    """Whether it is FSDP2 that has sharded it."""
    return any(True for _ in _units(model))


def reshard(model: nn.Module) -> None:
    """Frees what is gathered still: the next pass reads the parameters anew."""
    for unit in _units(model):
        unit.reshard()
    zero3.let_go(model)


def most(model: nn.Module, count: int) -> int:
    """The largest count of all processes if the model is sharded, else this one's."""
    if not is_sharded(model):
        return count
    device = next(model.parameters()).device
    largest = torch.tensor([count], device=device)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest.item())


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside, each process holds all of the weights, and runs the model when and if it likes.

    For sampling, whose passes differ in number from process to process. A collective call; without
    effect on a model that isn't sharded. Weights mustn't change inside.
    """
    if _by_zero3(model):
        with zero3.sampled_from(model):
            yield
        return
    units = list(_units(model))
    states = [unit._get_fsdp_state() for unit in units]  # the setting is told nowhere else
    if states:
        states[0]._lazy_init()  # decides the root's
    # One a unit, as accelerate makes them; the newest torch can have several.
    groups = [group for state in states if (group := state._fsdp_param_group) is not None]
    before = [group.post_forward_mesh_info for group in groups]
    try:
        for group in groups:
            group.post_forward_mesh_info = None  # stays gathered after a pass
        for unit in units:
            unit.unshard()
        yield
    finally:
        for group, setting in zip(groups, before, strict=True):
            group.post_forward_mesh_info = setting
        reshard(model)


@contextmanager
def exchanged(
    model: nn.Module, targets: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]
) -> Iterator[None]:
    """Inside, sharded parameters hold `values`; afterwards, bit for bit their own again.

    `targets` as they are after `reshard`. It happens in the parameters' own storage; where dtypes
    are the same, `values` keep the parameters' content meanwhile, so that no third copy is held.
    """
    if _by_zero3(model):
        with zero3.exchanged(model, targets, values):
            yield
        return
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for name, parameter in targets.items():
                here, there = _local(parameter), _local(values[name])
                own = here.clone()
                here.copy_(there)
                if there.dtype == here.dtype:
                    there.copy_(own)
                    own = there
                kept.append((here, there, own))
        yield
    finally:
        reshard(model)
        with torch.no_grad():
            for here, there, own in kept:
                value = here.clone()
                here.copy_(own)
                if own is there:
                    there.copy_(value)


def whole(value: Tensor) -> Tensor:
    """All of a tensor, on every process. A collective call for a sharded one."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def in_dtype(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What was trained in float32 shards, as it is written; whole numbers as they are."""
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}


def fill(value: Tensor, content: Tensor) -> None:
    """Copies a whole tensor, or this process's part of it, into `value`."""
    if isinstance(value, DTensor):
        on_device = content.to(value.device)
        content = distribute_tensor(
            on_device, value.device_mesh, value.placements, src_data_rank=None
        )
    value.copy_(content)


def _units(model: nn.Module) -> Iterator[Any]:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return (module for module in modules if isinstance(module, FSDPModule))


def _by_zero3(model: nn.Module) -> bool:
    return isinstance(model, nn.Module) and zero3.in_parts(model.parameters())


def _local(value: Tensor) -> Tensor:
    """This process's part, in the tensor's own storage (under no_grad)."""
    return value.to_local() if isinstance(value, DTensor) else value.data
