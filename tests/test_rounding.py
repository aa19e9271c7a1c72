"""Steps that a 16-bit weight can't take: counted, told, and none of them lost by default."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_model, make_tokenizer
from distil.commands.setup import kept_in
from distil.config import LoraSettings, Recipe
from distil.models import computing, load_model
from distil.trainer.rounding import lost_share, warn_of_lost_steps
from trainertoys import make_trainer


@pytest.mark.parametrize("rate", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_share_is_that_of_naive_code(rate: float, dtype: torch.dtype) -> None:
    tensors = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (7, 300)]
    weights = [(0.02 * t).to(dtype) for t in tensors]
    stays = [
        w.double().add(rate).to(dtype) == w and w.double().sub(rate).to(dtype) == w
        for tensor in weights
        for w in tensor
    ]
    assert lost_share(weights, rate) == pytest.approx(sum(map(bool, stays)) / len(stays))


def test_large_tensors_are_read_in_part() -> None:
    weight = torch.full((1000, 1000), 0.02, dtype=torch.bfloat16)
    weight[500:] = 0.0
    assert lost_share([weight], 1e-6) == pytest.approx(0.5, abs=1e-3)
    assert lost_share([], 1e-6) == 0.0


def test_whoever_trains_them_is_told(tmp_path: Path) -> None:
    model = make_model().bfloat16()
    with pytest.warns(UserWarning, match=r"\d+% of the trained weights can't move: .* \(1e-06\)"):
        make_trainer(tmp_path, model=model, bf16=True, learning_rate=1e-6)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*can't move")
        warn_of_lost_steps(model.requires_grad_(False).parameters(), 1e-6)  # under an adapter
        make_trainer(tmp_path, bf16=True, learning_rate=1e-6)
        make_trainer(tmp_path, model=make_model().bfloat16(), bf16=True, learning_rate=1e-2)


@pytest.mark.parametrize(("dtype", "least", "most"), [("float32", 0.9, 1), ("bfloat16", 0, 0.05)])
@pytest.mark.filterwarnings("ignore:.*can't move:UserWarning")
def test_small_steps_move_float32_weights_alone(
    tmp_path: Path, dtype: str, least: float, most: float
) -> None:
    """Both compute in bfloat16."""
    model = make_model().to(getattr(torch, dtype))
    trainer = make_trainer(tmp_path, model=model, bf16=True, learning_rate=1e-6)
    layers = [p for n, p in trainer.model.named_parameters() if "layers" in n and p.ndim == 2]
    before = [p.detach().clone() for p in layers]
    trainer.train()
    moved = [a != b for a, b in zip(before, layers, strict=True)]
    share = sum(int(m.sum()) for m in moved) / sum(m.numel() for m in moved)
    assert least <= share <= most


@pytest.mark.parametrize(
    ("accelerator", "sharded", "rank", "asked", "expected"),
    [
        (False, False, 0, "auto", "float32"),
        (True, False, 0, "auto", "float32"),
        (True, False, 8, "auto", "bfloat16"),  # peft keeps the adapter in float32
        (True, True, 0, "auto", "bfloat16"),  # and accelerate what FSDP2 shards
        (False, False, 8, "auto", "float32"),
        (True, False, 0, "bfloat16", "bfloat16"),
        (True, True, 8, "float32", "float32"),
    ],
)
def test_what_a_recipe_keeps_its_weights_in(
    monkeypatch: pytest.MonkeyPatch,
    accelerator: bool, sharded: bool, rank: int, asked: Any, expected: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    monkeypatch.setattr("distil.commands.setup.sharding", lambda: sharded)
    recipe = Recipe()
    model = replace(recipe.model, dtype=asked, lora=LoraSettings(rank=rank))
    assert kept_in(replace(recipe, model=model)) == expected


def test_a_loaded_model_can_be_trained_and_a_cpu_computes_in_what_it_has(tmp_path: Path) -> None:
    make_model().bfloat16().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model, _ = load_model(str(tmp_path))
    assert model.dtype == torch.float32
    assert load_model(str(tmp_path), "bfloat16")[0].dtype == torch.bfloat16
    with computing(model):
        assert not torch.is_autocast_enabled("cpu")
