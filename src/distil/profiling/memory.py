"""What a training step needs of one device's memory, part by part, before anything is loaded.

Arithmetic on a model's shape and a recipe; the parts follow from what the code keeps, and the
activations from Korthikanti et al. 2022 (arXiv 2205.05198): 34 bytes per token, layer and hidden
unit in 16 bits, without the attention matrix, which flash attention never makes. Worst case: every
rollout as long as it may be. Left out: fragmentation, buffers of libraries and of communication.

What is trained is kept in float32, gradients and AdamW's moments with it; a GPU computes with
copies in bfloat16 (autocast's; on several, FSDP2's, which shards the rest and the teacher's), and
a model under LoRA is bfloat16. Each micro-batch's gradients are summed into FSDP2's shards
(`distil.distributed.shards.sum_in_shards`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from distil.config import LoraSettings, Recipe
from distil.recipe.algorithms import algorithm
from distil.vocab import CHUNK_BYTES, CHUNK_TOKENS

_WHEN = Literal["always", "training", "sampling"]
GIB = 2**30
ACTIVATION_BYTES = 34
"""Per token, layer and hidden unit in 16 bits (Korthikanti et al., equation 2, first term)."""


@dataclass(frozen=True)
class ModelShape:
    """Numbers of a transformers model. `trained`: parameters that get gradients.

    `adapted`: weights that a LoRA changes (0 without one); `largest`: the largest unit that FSDP2
    gathers at a time, a layer or the embedding.
    """

    parameters: int
    trained: int
    adapted: int
    largest: int
    vocab: int
    hidden: int
    layers: int
    cache_per_token: int
    """Numbers that the key-value cache holds of one token."""

    @classmethod
    def of(cls, model: Any, lora: LoraSettings) -> "ModelShape":
        """Of a transformers model, which may lie on the meta device."""
        config = model.config.get_text_config()
        parameters = sum(p.numel() for p in model.parameters())
        head = model.get_output_embeddings().weight
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        linear = [
            m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.weight is not head
        ]
        targets = linear if lora.rank else []
        factors = sum(lora.rank * (m.in_features + m.out_features) for m in targets)
        outside = sum(p.numel() for p in {head, model.get_input_embeddings().weight})
        layer = (parameters - outside) // config.num_hidden_layers
        return cls(
            parameters=parameters,
            trained=factors if lora.rank else parameters,
            adapted=sum(m.weight.numel() for m in targets),
            largest=max(layer, head.numel()),
            vocab=head.shape[0],
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            cache_per_token=2 * config.num_hidden_layers * heads * width,
        )


@dataclass(frozen=True)
class Part:
    """One part: its bytes on one device, what they are made of, and when they are needed."""

    name: str
    bytes: float
    why: str
    when: _WHEN = "always"


def memory_parts(
    recipe: Recipe, shape: ModelShape, devices: int, prompt_tokens: int, device_gib: float
) -> list[Part]:
    """The parts. devices: GPUs (0: the CPU). device_gib: of one GPU, of which vLLM takes a share.

    prompt_tokens: of the longest prompt, teacher's or student's, that is expected.
    """
    sharded, width = devices > 1, 4 if devices == 0 else 2
    shards = max(devices, 1)
    frozen = shape.parameters if recipe.model.lora.rank else 0
    own = 2 if devices == 1 and recipe.model.dtype == "bfloat16" and not frozen else 4
    tokens = recipe.train.micro_batch * (prompt_tokens + recipe.rollout.max_completion_length)
    parts = [
        Part(
            "weights",
            (own * shape.trained + width * frozen) / shards,
            f"{in_words(shape.trained)} trained"
            + (f", {in_words(frozen)} under LoRA" if frozen else ""),
        ),
        Part("gradients", own * shape.trained / shards, "one a trained parameter", "training"),
        Part("optimiser", 2 * own * shape.trained / shards, "AdamW: two a trained parameter"),
        _teacher(recipe, shape, own, devices),
        _activations(recipe, shape, tokens, width, between=width if sharded or frozen else own),
        _output_layer(shape, devices, width, trained=not frozen),
        _kept(recipe, shards),
        _sampling(recipe, shape, shards, prompt_tokens, width, device_gib),
    ]
    if devices == 1 and own > width:
        why = "what a GPU computes with, of trained parameters"
        parts.insert(1, Part("16-bit copies", width * shape.trained, why))
    if sharded:
        units = width * 2 * (shape.largest + shape.vocab * shape.hidden)
        units += own * min(shape.largest, shape.trained)
        why = "FSDP2's units in use and ahead, a unit's gradient, the output matrix and its own"
        parts.insert(3, Part("gathered", units, why, "training"))
    return parts


def peak(parts: Sequence[Part]) -> float:
    """Bytes at the dearest moment: what is always there, and training or sampling, not both."""
    needs = {when: sum(p.bytes for p in parts if p.when == when) for when in get_args(_WHEN)}
    return needs["always"] + max(needs["training"], needs["sampling"])


def _teacher(recipe: Recipe, shape: ModelShape, width: int, devices: int) -> Part:
    """Weights that the teacher has of its own. width: bytes of a number that is trained."""
    kind, lora = recipe.teacher.kind, recipe.model.lora.rank > 0
    if algorithm(recipe.objective.name).cost is None:
        return Part("teacher", 0, f"{recipe.objective.name} has none")
    own = (shape.adapted if lora else shape.parameters) / max(devices, 1)
    if recipe.teacher.shadow_device == "cpu" and devices and (kind == "ema" or not lora):
        return Part("teacher", 0, f"{kind}: kept in the computer's memory")
    if kind == "ema":
        return Part("teacher", 4 * own, "EMA, a float32 shadow")
    if kind == "frozen" and not lora:
        return Part("teacher", width * own, "the start model")
    return Part("teacher", 0, f"{kind}: no weights of its own")


def _activations(
    recipe: Recipe, shape: ModelShape, tokens: int, width: int, *, between: int
) -> Part:
    """What the backward pass needs of one micro-batch. between: bytes of a number between layers,
    float32 where an embedding is and autocast adds to it."""
    one_layer = ACTIVATION_BYTES * width / 2 * tokens * shape.hidden
    if recipe.train.gradient_checkpointing:
        inputs = between * tokens * shape.hidden * shape.layers
        return Part(
            "activations", inputs + one_layer, f"{tokens:,} tokens, layers' inputs kept", "training"
        )
    return Part(
        "activations",
        one_layer * shape.layers,
        f"{tokens:,} tokens, every layer's kept",
        "training",
    )


def _output_layer(shape: ModelShape, devices: int, width: int, *, trained: bool) -> Part:
    """A chunk of logits, and the output matrix's gradient, made before the others' begin."""
    chunk = CHUNK_BYTES["cpu" if devices == 0 else "cuda"]
    logits = max(chunk, CHUNK_TOKENS * shape.vocab * width)
    gradient = width * shape.vocab * shape.hidden if trained else 0
    why = "a chunk of logits at a time" + (", its matrix's gradient" if trained else "")
    return Part("output layer", logits + gradient, why, "training")


def _kept(recipe: Recipe, shards: int) -> Part:
    """The teacher's ids and log-probabilities at every token of a step's rollouts."""
    if algorithm(recipe.objective.name).cost is None:
        return Part("teacher's top-K", 0, f"{recipe.objective.name} asks no teacher", "training")
    rollouts = recipe.rollout.prompts_per_step * recipe.rollout.num_generations // shards
    sides = 2 if recipe.objective.support == "joined" else 1
    support = recipe.objective.top_k * sides
    length = recipe.rollout.max_completion_length
    why = f"{rollouts} rollouts x {length:,} tokens x {support}, for a whole step"
    return Part("teacher's top-K", rollouts * length * support * (8 + 4), why, "training")


def _sampling(
    recipe: Recipe, shape: ModelShape, shards: int, prompt: int, width: int, device_gib: float
) -> Part:
    """vLLM's share of the device, or the key-value cache of transformers' generate."""
    vllm = recipe.rollout
    if vllm.use_vllm and vllm.vllm_mode == "server":
        return Part("sampling", 0, "vLLM's server has devices of its own")
    if vllm.use_vllm:
        share, weights = vllm.vllm_gpu_memory_utilization, width * shape.parameters / GIB
        each = weights / vllm.vllm_tensor_parallel_size
        why = f"vLLM: {share:.0%} of {device_gib:g} GiB, weights {each:.1f} GiB of it"
        return Part("sampling", share * device_gib * GIB, why)
    rollouts = recipe.rollout.prompts_per_step * recipe.rollout.num_generations // shards
    tokens = rollouts * (prompt + recipe.rollout.max_completion_length)
    cache, why = tokens * shape.cache_per_token * width, f"key-value cache of {rollouts} rollouts"
    if shards > 1:  # all are gathered first (`shards.gathered`), or each token would gather anew
        whole = width * shape.parameters
        return Part("sampling", cache + whole, f"all weights, and the {why}", "sampling")
    return Part("sampling", cache, f"{why} at once", "sampling")


def in_words(count: int) -> str:
    """8190735360 -> 8.19B."""
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"
