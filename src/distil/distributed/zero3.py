"""Weights that DeepSpeed's ZeRO-3 shards: gathered one by one, exchanged, sampled from.

Between passes each process has a part of each parameter, flat, and the parameter itself is empty;
hooks on modules gather theirs as they run, on all processes or on none, and fetch the next ones
ahead. Used here is what DeepSpeed documents, and `ds_id`, by which one tells such parameters. Left
out: the output matrix (`distil.vocab.output_layer`), and everything that ZeRO-3 does by itself.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from accelerate import DeepSpeedPlugin
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

_ENGINES: WeakKeyDictionary[nn.Module, ref[Any]] = WeakKeyDictionary()


def asked_for(args: Any) -> bool:
    """Whether these training arguments are for a run by ZeRO-3."""
    return args.deepspeed_plugin is not None and args.deepspeed_plugin.zero_stage == 3


@contextmanager
def loading_parts() -> Iterator[None]:
    """Inside, transformers loads models in parts, as accelerate's settings say.

    Once there are training arguments, they see to it.
    """
    settings = DeepSpeedPlugin()
    settings.set_mixed_precision(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"))
    settings.set_deepspeed_weakref()  # for as long as they live
    yield
    del settings


def remember(model: nn.Module, engine: Any) -> None:
    """Says which DeepSpeed engine runs this model: `let_go` and `sampled_from` ask it."""
    _ENGINES[model] = ref(engine)


def in_parts(parameters: Iterable[Tensor]) -> bool:
    """Whether ZeRO-3 keeps any of these, gathered as it may be for the moment."""
    return any(hasattr(p, "ds_id") for p in parameters)


def count(parameters: Iterable[Any]) -> int:
    """How many numbers these parameters are, wherever they lie."""
    return sum(p.ds_numel if in_parts([p]) else p.numel() for p in parameters)


def let_go(model: nn.Module) -> None:
    """Frees what is gathered still or on its way: the next pass gathers anew."""
    if engine := _engine(model):
        engine.optimizer.empty_partition_cache()


def entire(parameters: Iterable[Tensor], *, changed: bool = False) -> AbstractContextManager[Any]:
    """Inside, each process holds all of these parameters. A collective call, after `let_go`.

    changed: they may be written to inside; the main process's values count. Without effect on
    parameters that aren't ZeRO-3's.
    """
    found = list(parameters)
    if not in_parts(found):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(found, modifier_rank=0 if changed else None)


def part(whole: Tensor) -> Tensor:
    """This process's rows of a tensor that all processes hold, in storage of their own."""
    rows = Shard(0) if whole.dim() else Replicate()
    return distribute_tensor(
        whole.detach(), _mesh(whole.device.type), [rows], src_data_rank=None
    ).clone()


@contextmanager
def exchanged(
    model: nn.Module, targets: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]
) -> Iterator[None]:
    """Inside, parameters hold `values`; afterwards, bit for bit their own again.

    One after the other is gathered, written to and sharded again, so that no process ever holds
    more than one of them. Each process keeps its rows of the parameters' own content meanwhile.
    """
    kept: dict[str, Tensor] = {}
    try:
        for name, parameter in targets.items():
            kept[name] = _replaced(parameter, values[name])
        yield
    finally:
        let_go(model)
        for name, own in kept.items():
            _replaced(targets[name], own)


@torch.no_grad()
def _replaced(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Writes `value` into a parameter; this process's rows of what it held."""
    with entire([parameter], changed=True):
        own = part(parameter)
        new = value.to(parameter.dtype)
        parameter.data.copy_(new.full_tensor() if isinstance(new, DTensor) else new)
    return own


@contextmanager
def sampled_from(model: nn.Module) -> Iterator[None]:
    """Inside, each process holds all of the weights, and runs the model when and if it likes."""
    engine = _engine(model)
    if engine is None:  # without hooks
        with entire(model.parameters()):
            yield
        return
    import deepspeed

    let_go(model)
    with deepspeed.zero.unwrap_model_for_generation(engine):
        # The model's own hook stays, by which processes compare what they ran, two passes long.
        device = next(model.parameters()).device
        with torch.no_grad():
            for _ in range(2):
                model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device))
        yield


def _engine(model: nn.Module) -> Any:
    """None before training."""
    known = _ENGINES.get(model)
    return known() if known is not None else None


@cache
def _mesh(device: str) -> DeviceMesh:
    return init_device_mesh(device, (distributed.get_world_size(),))
