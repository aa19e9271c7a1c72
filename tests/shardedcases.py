"""Runs that shards must not change, for FSDP2's tests and ZeRO-3's: a trainer, what is compared.

Two prompts, whose rollouts are fixed, and feedback on the second one's alone.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from conftest import make_model
from distil import Feedback
from distil.teacher.teachers import TEACHER_FILE
from distil.trainer.paddingfree import NAME
from distil.vocab.hidden import base_model
from test_processes import canned
from trainertoys import make_trainer

STEPS = 3
RESUMED = ("ema", "frozen", "lora, ema")
MUCH_ELSE = {
    "name": "distil+grpo", "support": "joined", "prompt_weight": "pass_rate",
    "first_error_margin": 1.0,
}  # fmt: skip
Folders = tuple[Path, Path]
"""Of the same runs, without shards and with them."""


def only_second(prompts: list[Any], answer: list[str], **columns: Any) -> list[Feedback | None]:
    """Feedback on the second prompt's rollouts, all of which the second process has."""
    return [None if a == "0" else Feedback(demonstration=f"it is {a}") for a in answer]


def a_trainer(folder: Path, case: dict[str, Any], *, generations: int, accumulated: int) -> Any:
    """`case`: options of DistILTrainer's, and whether the model is `tied` (yes) or has `lora`."""
    options = dict(case)
    rows = [
        {"prompt": [{"role": "user", "content": f"{'long ' * i}{i} ?"}], "answer": str(i)}
        for i in range(2)
    ]
    model = make_model(tied=options.pop("tied", True))
    torch.manual_seed(5)  # for the adapter's factors
    lora = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"])
    settings = {
        "max_steps": STEPS, "num_generations": generations, "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": accumulated, "shuffle_dataset": False,
        "rollout_func": canned, "feedback_funcs": only_second, "feedback_order": ["expert"],
        "optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 1e9, "teacher_ema_rate": 0.3,
        "save_strategy": "steps", "save_steps": 2,
        "peft_config": lora if options.pop("lora", False) else None,
    }  # fmt: skip
    return make_trainer(
        folder, model=model, train_dataset=Dataset.from_list(rows), **(settings | options)
    )


def keep(trainer: Any, file: Path) -> None:
    """Weights as they are now, and the losses of each step; a collective call."""
    without_padding = base_model(trainer.model).config._attn_implementation == NAME
    assert without_padding == (trainer.objective.name != "grpo")
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        torch.save((weights, losses), file)


def failing_pass(trainer: Any) -> None:
    """A teacher's pass that is another's than the student's, and ends in an exception."""
    ids = torch.tensor([[1, 5, 9, 14]])

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return trainer.model(input_ids=ids).logits

    def interrupted() -> None:
        with trainer.teacher.scoring(trainer.model):
            assert not torch.equal(logits(), student)
            raise KeyboardInterrupt

    student = logits()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(logits(), student)


def check_same_run(folders: Folders, name: str, case: dict[str, Any]) -> None:
    """The losses of each step, and the weights at the end."""
    (one, losses), (two, shard_losses) = (torch.load(f / name / "result.pt") for f in folders)
    start = make_model(tied=case.get("tied", True)).state_dict()
    if not case.get("lora"):
        assert max((one[n] - start[n]).abs().max() for n in start) > 1e-3
    assert len(losses) == STEPS
    assert shard_losses == pytest.approx(losses, abs=1e-5)
    check_same(one, two)


def check_resumed(folder: Path) -> None:
    """What went on from a checkpoint, the last one too, is bit for bit what was never stopped."""
    whole, *others = (
        torch.load(folder / f"{name}.pt")[0] for name in ("result", "resumed", "done")
    )
    for weights in others:
        assert all(torch.equal(weights[name], weight) for name, weight in whole.items())


def check_same_teacher(folders: Folders, name: str) -> None:
    """What a checkpoint has of the teacher."""
    one, two = (load_file(f / name / f"checkpoint-{STEPS}" / TEACHER_FILE) for f in folders)
    assert all(weight.dtype == torch.float32 for weight in one.values())
    check_same(one, two)


def check_same_model(folders: Folders, name: str) -> None:
    """The model at the end, as transformers loads it."""
    one, two = (
        AutoModelForCausalLM.from_pretrained(folder / name / "model").state_dict()
        for folder in folders
    )
    check_same(one, two)


def check_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert two.keys() == one.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-5)
