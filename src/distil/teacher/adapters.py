"""The weights that a LoRA makes of a model: which ones it changes, and to what.

A teacher with a copy of the weights copies these, and scores with the adapters off. That is the
same network as long as the adapters do no more than add scale B A to a weight, which
`check_adapter` sees to. Left out: the copies (`distil.teacher.teachers`).
"""

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel, PeftType
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distil.distributed import zero3
from distil.errors import TrainingError


def check_adapter(model: nn.Module) -> None:
    """Raises TrainingError where the weights W + scale B A wouldn't be all that an adapter does.

    What else there may be (another kind than LoRA, DoRA, whole modules or tokens trained beside,
    biases of its own) is gone once the adapter is off. An adapted embedding may be tied to the
    output matrix, which then isn't adapted. A model without adapters passes.
    """
    if not isinstance(model, PeftModel):
        return
    beside = [_beside_products(config) for config in model.peft_config.values()]
    found = [name for names in beside for name in names]
    for _, layer in _lora_layers(model):
        found += ["a variant such as DoRA"] if layer.lora_variant else []
        found += ["an adapted embedding"] if layer.lora_embedding_A else []
    if found:
        raise TrainingError(
            f"The frozen and ema teachers copy W + scale B A of each adapted layer, and this "
            f"adapter has more: {', '.join(dict.fromkeys(found))}. Take it out of the peft_config, "
            "or use the live or the lora_off teacher."
        )


def _beside_products(config: Any) -> list[str]:
    """What an adapter's config asks for beside products B A that are added to weights."""
    if config.peft_type != PeftType.LORA:
        return [f"the kind {config.peft_type.value}"]
    asked = {
        "modules_to_save": config.modules_to_save,
        "trainable_token_indices": config.trainable_token_indices,
        "lora_bias": config.lora_bias,
    }
    return [name for name, value in asked.items() if value]


def is_fresh_lora(model: nn.Module) -> bool:
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
    own = [*layer.lora_A, *layer.lora_embedding_A]
    products = [layer.get_delta_weight(a).detach() for a in layer.active_adapters if a in own]
    weight = layer.base_layer.weight.detach()
    delta = sum(products[1:], products[0]) if products else torch.zeros_like(weight)
    if isinstance(delta, DTensor):  # sharded as the weight that it's added to
        delta = delta.redistribute(weight.device_mesh, weight.placements)
    return delta


def target_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
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
def effective_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) for each target: the parameter, plus its adapter's product under LoRA.

    Sharded where the parameter is: a collective call then, after `reshard`.
    """
    deltas = {f"{name}.base_layer.weight": layer for name, layer in _lora_layers(model)}
    for name, parameter in target_parameters(model):
        together = [*deltas[name].parameters()] if name in deltas else [parameter]
        with zero3.entire(together):
            weight = parameter.detach()
            if name in deltas:
                weight = weight.float() + _lora_delta(deltas[name]).float()
            if zero3.in_parts([parameter]):
                weight = zero3.part(weight)
        yield name, weight
