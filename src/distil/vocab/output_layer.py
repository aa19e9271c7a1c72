"""What turns a model's last hidden state into logits: matrix, bias, scale, softcap.

Read by name from the configs that transformers' models have;
`distil.vocab.hidden.check_output_layer` proves it for the model at hand. Left out: the product
itself (`distil.vocab`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
"""Config fields that multiply the logits (Cohere; Falcon-H1; Muse)."""

DIVISORS = ("logits_scaling",)
"""Config fields that divide them (Granite; MiniCPM3 divides the hidden states, which is equal)."""

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Config fields that hold the softcap (Gemma and others; RecurrentGemma; xLSTM)."""


@dataclass(frozen=True)
class OutputLayer:
    """What turns a hidden state into logits: softcap(logit_scale * (hidden @ weight.T + bias)).

    softcap(x) = softcap * tanh(x / softcap), the identity for None. The order is that of
    transformers' models; a sampling temperature divides last.
    """

    weight: Float[Tensor, "vocab hidden"]
    bias: Float[Tensor, " vocab"] | None = None
    logit_scale: float = 1.0
    softcap: float | None = None

    def form(self, temperature: float) -> dict[str, Any]:
        """The keywords by which `distil.vocab`'s functions take all but the weight."""
        return {
            "bias": self.bias,
            "temperature": temperature,
            "logit_scale": self.logit_scale,
            "softcap": self.softcap,
        }


def output_layer(model: Any) -> OutputLayer:
    """The output layer of a transformers causal language model; gradients reach its parameters.

    Scale and softcap are read by name from the text config, so a model that does something else
    to its logits is not recognised: compare once with the logits that the model itself returns.
    A weight spread over devices is gathered in full, differentiably: a collective call then.

    Raises ValueError as `output_module` does.
    """
    head = output_module(model)
    config = model.config.get_text_config()
    scale, softcap = _scale_and_softcap(config.model_type, config.to_dict())
    if hasattr(head.weight, "ds_id"):  # DeepSpeed's ZeRO-3 keeps it
        weight, bias = _inside(head)
    else:
        weight, bias = _whole(head.weight), None if head.bias is None else _whole(head.bias)
    return OutputLayer(weight, bias, scale, softcap)


def output_module(model: Any) -> torch.nn.Linear:
    """The module before the logits; its `out_features` is the vocabulary's size, shards or not.

    Raises ValueError unless it is a plain `torch.nn.Linear` of floating point numbers.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or not head.weight.is_floating_point():
        raise ValueError(
            f"The output layer of {type(model).__name__} is {type(head).__name__}, and logits can "
            "be computed in chunks only from a torch.nn.Linear of floating point numbers: leave "
            "the output layer out of adapters and of quantization."
        )
    return head


def _inside(head: torch.nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weight and bias as the module's forward sees them, which ZeRO-3 gathers for it.

    Its hooks on the module do so, then and for the backward pass, and add up the gradients: so a
    forward that hands on the parameters stands in for the module's own, once. Their views keep what
    was gathered when the hooks have let go of it.
    """
    methods = vars(head)
    given = methods.get("forward")  # another library's stand-in

    def parameters() -> tuple[Tensor, ...]:
        return tuple(p.view_as(p) for p in (head.weight, head.bias) if p is not None)

    methods["forward"] = parameters
    try:
        found = head()
    finally:
        del methods["forward"]
        if given is not None:
            methods["forward"] = given
    return found[0], found[1] if len(found) > 1 else None


def _scale_and_softcap(kind: str, settings: dict[str, Any]) -> tuple[float, float | None]:
    """(the factor on the logits, the softcap) that a model of this `model_type` applies.

    Two kinds use a field otherwise than the rest: HyperCLOVAX multiplies by `logits_scaling`, and
    MPT's `logit_scale` is not applied.
    """
    scale = 1.0
    for name in MULTIPLIERS:
        if settings.get(name) is not None and kind != "mpt":
            scale *= settings[name]
    for name in DIVISORS:
        if settings.get(name) is not None:
            scale *= settings[name] if kind.startswith("hyperclovax") else 1 / settings[name]
    caps = [settings[name] for name in SOFTCAPS if settings.get(name) is not None]
    return float(scale), float(caps[0]) if caps else None


def _whole(parameter: Tensor) -> Tensor:
    """All of a parameter, gathered from its devices if it is spread over several.

    Each process has tokens of its own, and so a gradient: the mean of them all is the parameter's.
    (FSDP2 does the same, and after a pass it has mostly gathered the parameter itself.)
    """
    if torch.distributed.is_available():
        # Here because it takes a second to import.
        from torch.distributed.tensor import DTensor, Partial

        if isinstance(parameter, DTensor):
            return parameter.full_tensor(
                grad_placements=[Partial("avg")] * parameter.device_mesh.ndim
            )
    return parameter
