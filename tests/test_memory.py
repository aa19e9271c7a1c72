"""The memory estimate: a model's shape counted on the meta device, and each part by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen3Config

from conftest import make_model
from distil.config import LoraSettings, Recipe
from distil.profiling.memory import GIB, ModelShape, Part, memory_parts, peak
from distil.recipe.checks import check_recipe
from distil.recipe.recipefile import load_recipe

ROOT = Path(__file__).parent.parent / "recipes"
# Qwen3-8B's published config.
QWEN3_8B = Qwen3Config(
    vocab_size=151_936, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36,
    num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=False,
)  # fmt: skip


def shape(lora: int = 0) -> ModelShape:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(QWEN3_8B)
    return ModelShape.of(model, LoraSettings(rank=lora))


def parts(recipe: Recipe, of: ModelShape, devices: int, prompt: int = 1000) -> dict[str, Part]:
    return {p.name: p for p in memory_parts(recipe, of, devices, prompt, 80.0)}


def science() -> Recipe:
    return check_recipe(load_recipe(ROOT / "science/distil.yaml"))


def test_the_shape_of_qwen3_8b() -> None:
    # Its card says 8.2B parameters, 6.95B of them outside the embeddings.
    per_layer = (
        4096 * (32 + 8 + 8) * 128 + 32 * 128 * 4096  # attention
        + 3 * 4096 * 12_288 + 2 * 4096 + 2 * 128  # gated MLP, norms
    )  # fmt: skip
    counted = 36 * per_layer + 2 * 151_936 * 4096 + 4096
    found = shape()
    assert found.parameters == found.trained == counted == 8_190_735_360
    assert found.largest == 151_936 * 4096
    assert (found.layers, found.hidden, found.vocab) == (36, 4096, 151_936)
    assert found.cache_per_token == 2 * 36 * 8 * 128
    assert found.adapted == 0


def test_loras_parameters_are_those_that_peft_makes() -> None:
    model = make_model()
    found = ModelShape.of(model, LoraSettings(rank=3))
    wrapped: Any = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear"))
    assert found.trained == sum(p.numel() for p in wrapped.parameters() if p.requires_grad)


def test_one_gpu_keeps_float32_and_computes_in_bfloat16() -> None:
    p = 8_190_735_360
    found = parts(science(), shape(), 1)
    assert found["weights"].bytes == found["gradients"].bytes == 4 * p
    assert found["16-bit copies"].bytes == 2 * p
    assert found["optimiser"].bytes == 8 * p
    assert found["teacher"].bytes == 4 * p  # EMA: float32
    tokens = 2 * (1000 + 8192)
    assert found["activations"].bytes == 4 * tokens * 4096 * 36 + 34 * tokens * 4096
    assert found["teacher's top-K"].bytes == 256 * 8192 * 100 * 12
    assert found["sampling"].bytes == pytest.approx(0.3 * 80 * GIB)
    assert "gathered" not in found
    everything = [part.bytes for part in found.values()]
    assert peak(list(found.values())) == pytest.approx(sum(everything))


def test_one_gpu_may_be_told_to_keep_bfloat16() -> None:
    p, recipe = 8_190_735_360, science()
    found = parts(replace(recipe, model=replace(recipe.model, dtype="bfloat16")), shape(), 1)
    assert found["weights"].bytes == found["gradients"].bytes == 2 * p
    assert found["optimiser"].bytes == 4 * p
    assert "16-bit copies" not in found


def test_four_gpus_share_what_fsdp_shards() -> None:
    p = 8_190_735_360
    found = parts(science(), shape(), 4)
    assert found["weights"].bytes == found["gradients"].bytes == p  # 4 bytes over 4 GPUs
    assert found["optimiser"].bytes == 2 * p
    matrix = 151_936 * 4096
    assert found["gathered"].bytes == 2 * 2 * (matrix + matrix) + 4 * matrix
    assert found["teacher's top-K"].bytes == 64 * 8192 * 100 * 12
    assert found["teacher"].bytes == p
    frozen = replace(science(), teacher=replace(science().teacher, kind="frozen"))
    assert parts(frozen, shape(), 4)["teacher"].bytes == p  # of weights that are float32 by then
    assert parts(frozen, shape(), 1)["teacher"].bytes == 4 * p
    away = replace(science(), teacher=replace(science().teacher, shadow_device="cpu"))
    assert [parts(away, shape(), n)["teacher"].bytes for n in (0, 1)] == [4 * p, 0]


def test_lora_trains_little_and_its_teacher_is_free() -> None:
    recipe = check_recipe(load_recipe(ROOT / "math/distil.yaml"))
    of = shape(lora=64)
    found = parts(recipe, of, 1)
    assert 0.1e9 < of.trained < 0.2e9
    assert found["weights"].bytes == 2 * 8_190_735_360 + 4 * of.trained
    assert found["gradients"].bytes == 4 * of.trained
    tokens = recipe.train.micro_batch * (1000 + recipe.rollout.max_completion_length)
    assert recipe.train.gradient_checkpointing
    assert found["activations"].bytes == 2 * tokens * 4096 * 36 + 34 * tokens * 4096
    assert found["teacher"].bytes == 0
    ema = replace(recipe, teacher=replace(recipe.teacher, kind="ema"))
    assert parts(ema, of, 1)["teacher"].bytes == 4 * of.adapted


def test_a_rival_without_a_teacher_keeps_nothing_of_one() -> None:
    found = parts(check_recipe(load_recipe(ROOT / "science/grpo.yaml")), shape(), 1)
    assert found["teacher"].bytes == found["teacher's top-K"].bytes == 0


def test_transformers_samples_before_training_and_not_beside_it() -> None:
    recipe = science()
    recipe = replace(recipe, rollout=replace(recipe.rollout, use_vllm=False))
    found = parts(recipe, shape(), 1)
    cache = 256 * (1000 + 8192) * 2 * 36 * 8 * 128 * 2
    assert found["sampling"].bytes == cache
    assert parts(recipe, shape(), 4)["sampling"].bytes == cache / 4 + 2 * shape().parameters
    always = sum(p.bytes for p in found.values() if p.when == "always")
    assert peak(list(found.values())) == always + cache  # more than all that training needs


def test_checkpointing_keeps_less() -> None:
    recipe = science()
    without = replace(recipe, train=replace(recipe.train, gradient_checkpointing=False))
    small, large = (parts(r, shape(), 1)["activations"].bytes for r in (recipe, without))
    assert large == 36 * 34 * 2 * (1000 + 8192) * 4096
    assert small < large / 6
