"""What a GPU must give: the numbers of a CPU, where passes, losses, averages and rollouts are made.

Each test runs on the CPU too, so that it is tried where there is no GPU. Left out: the kernels
(test_kernels.py runs itself again on a GPU) and speed (benchmarks/).
"""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import make_model
from distil.trainer.paddingfree import flat_hidden, padded_hidden, prepare, works
from test_paddingfree import laid_out, micro_batch
from test_sharedprompts import trls_draws
from trainertoys import (
    generation_batch,
    gradient,
    make_trainer,
    plain_gradient,
    rows_of,
    teacher_texts,
)

__all__ = ["trls_draws"]  # a fixture

GPU = pytest.mark.skipif(torch.cuda.device_count() != 1, reason="it takes one GPU, no more")
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])


def trainer_on(device: str, folder: Path, **options: Any) -> Any:
    return make_trainer(folder, use_cpu=device == "cpu", **options)


def weights(trainer: Any) -> list[Tensor]:
    return [p.detach().cpu().clone() for p in trainer.model.parameters()]


def near(mine: Tensor, theirs: Tensor, share: float) -> bool:
    return bool((mine.double() - theirs.double()).norm() <= share * theirs.double().norm())


def assert_same_weights(mine: list[Tensor], theirs: list[Tensor], device: str) -> None:
    """To the bit on a CPU. A GPU adds up in no fixed order, and Adam's first steps are of a
    gradient's sign alone: a few weights may take another one."""
    if device == "cpu":
        assert all(torch.equal(*pair) for pair in zip(mine, theirs, strict=True))
    joined = (torch.cat([w.flatten() for w in side]) for side in (mine, theirs))
    assert near(*joined, 5e-3)


@on_each_device
@pytest.mark.parametrize("kind", ["mixed", "alike"])
def test_a_pass_without_padding_is_the_padded_one(device: str, kind: str) -> None:
    model: Any = make_model().train().to(device)
    batch = {name: rows.to(device) for name, rows in micro_batch(kind).items()}
    prepare(model)
    assert works(model, model)
    scored = batch["scored"] > 0
    found = []
    for hidden in (flat_hidden(model, model, laid_out(batch)), padded_hidden(model, model, batch)):
        model.zero_grad()
        (hidden[scored].cumsum(0).sin()).sum().backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append([hidden[scored].detach(), *grads])
    assert all(near(*pair, 1e-5) for pair in zip(*found, strict=True))


@on_each_device
def test_in_16_bits_it_errs_as_padded_rows_do(device: str) -> None:
    exact: Any = make_model().double().to(device)
    batch = {name: rows.to(device) for name, rows in micro_batch().items()}
    model = copy.deepcopy(exact).bfloat16()
    prepare(model)
    assert works(model, model)
    scored = batch["scored"] > 0
    truth = padded_hidden(exact, exact, batch)[scored]
    padded = padded_hidden(model, model, batch)[scored].double()
    flat = flat_hidden(model, model, laid_out(batch))[scored].double()
    assert (flat - truth).norm() <= 1.3 * (padded - truth).norm()


@on_each_device
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradient_equals_the_plain_computation_on_a_cpu(
    tmp_path: Path, device: str, temperature: float
) -> None:
    trainer = trainer_on(
        device, tmp_path, feedback_order=["expert"], temperature=temperature,
        objective={"credit_end": True},
    )  # fmt: skip
    batch, texts = generation_batch(trainer), teacher_texts(trainer)
    assert batch["completion_ids"].device.type == device
    halves = [rows_of(batch, [0, 2, 4, 6]), rows_of(batch, [1, 3, 5, 7])]
    ours = gradient(trainer, halves).cpu()
    home: Any = SimpleNamespace(
        model=make_model(),  # the seed's, as the trainer's is
        processing_class=trainer.processing_class,
        temperature=trainer.temperature,
        objective=trainer.objective,
    )
    plain = plain_gradient(home, {name: value.cpu() for name, value in batch.items()}, texts)
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)
    assert ours.abs().max() > 1e-3


@on_each_device
@pytest.mark.usefixtures("trls_draws")
def test_rollouts_of_shared_prompts_are_those_of_trls_own_path(tmp_path: Path, device: str) -> None:
    plain, shared = (
        generation_batch(trainer_on(device, tmp_path / str(share), share_prompts=share))
        for share in (False, True)
    )
    assert torch.equal(shared["completion_ids"], plain["completion_ids"])
    torch.testing.assert_close(shared["teacher_logps"], plain["teacher_logps"])


@on_each_device
def test_an_average_in_the_computers_memory_is_the_same(tmp_path: Path, device: str) -> None:
    found = []
    for where in ("same", "cpu"):
        trainer = trainer_on(
            device, tmp_path / where, teacher="ema", teacher_ema_rate=0.5,
            teacher_shadow_device=where,
        )  # fmt: skip
        trainer.train()
        found.append(weights(trainer))
    assert_same_weights(*found, device)


@on_each_device
def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path, device: str) -> None:
    options: dict[str, Any] = {
        "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "teacher": "ema",
        "teacher_ema_rate": 0.3,
    }  # fmt: skip
    whole = trainer_on(device, tmp_path / "run", **options)
    whole.train()
    again = trainer_on(device, tmp_path / "run", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-2"))
    assert again.state.global_step == 4
    assert_same_weights(weights(again), weights(whole), device)


OBJECTIVES = ["distil", "reverse_kl", "jensen_shannon", "distil+grpo", "sft"]


@on_each_device
@pytest.mark.parametrize("name", OBJECTIVES)
def test_in_bfloat16_the_gradient_is_near_that_in_float32(
    tmp_path: Path, device: str, name: str
) -> None:
    """Of float32 weights, computed with in bfloat16; the first pass of all is like the second."""
    found = []
    for half in (False, True):
        trainer = trainer_on(device, tmp_path / str(half), bf16=half, objective={"name": name})
        made = generation_batch(trainer)
        batch = made if not half else batch  # noqa: F821
        parts = [rows_of(batch, [0, 2, 4, 6]), rows_of(batch, [1, 3, 5, 7])]
        with trainer.compute_loss_context_manager():
            found.append(gradient(trainer, parts).clone())
        with trainer.compute_loss_context_manager():
            assert near(gradient(trainer, parts), found[-1], 1e-5)
    assert near(found[1], found[0], 0.05)


@on_each_device
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*OBJECTIVES, "grpo"])
def test_every_objective_trains_in_bfloat16(
    tmp_path: Path, device: str, name: str, kept: torch.dtype
) -> None:
    trainer = trainer_on(
        device, tmp_path, model=make_model().to(kept), bf16=True, gradient_checkpointing=True,
        objective={"name": name}, teacher="ema", teacher_ema_rate=0.5,
    )  # fmt: skip
    before = weights(trainer)
    trainer.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))
    assert all(value.isfinite().all() for value in weights(trainer))
