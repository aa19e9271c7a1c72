"""DeepSpeed's ZeRO-3 over two processes gives the steps that DDP gives, with every teacher.

DeepSpeed isn't installed with the development tools (docs/scale.md): without it nothing here runs.
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import DeepSpeedPlugin
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from conftest import make_model, make_tokenizer, toy_recipe
from distil import Feedback
from distil.cli import main
from distil.distributed.zero3 import in_parts, loading_parts, part
from distil.models import load_model
from distil.runs.checkpoints import fault_of
from distil.teacher.teachers import TEACHER_FILE
from distil.trainer.callbacks import StopAfterStep
from sharded import launch
from test_launch import check_run
from test_processes import canned
from trainertoys import make_trainer

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed isn't installed")

STEPS = 3

CASES: dict[str, dict[str, Any]] = {
    "live": {"teacher": "live", "tied": False},
    "ema": {
        "teacher": "ema",
        "objective": {
            "name": "distil+grpo", "support": "joined", "prompt_weight": "pass_rate",
            "first_error_margin": 1.0,
        },
    },
    "frozen": {"teacher": "frozen", "tied": False},
    "lora_off": {"teacher": "lora_off", "lora": True},
    "lora, ema": {"teacher": "ema", "lora": True},
    "sampled": {"teacher": "ema", "rollout_func": None, "teacher_samples": 1},
    "replay": {
        "teacher": "live", "objective": {"replay_batches": 1}, "gradient_checkpointing": True,
    },
}  # fmt: skip

RESUMED = ("ema", "frozen", "lora, ema")


def only_second(prompts: list[Any], answer: list[str], **columns: Any) -> list[Feedback | None]:
    """Feedback on the second prompt's rollouts, all of which the second process has."""
    return [None if a == "0" else Feedback(demonstration=f"it is {a}") for a in answer]


def a_trainer(folder: Path, case: str) -> Any:
    options = dict(CASES[case])
    rows = [
        {"prompt": [{"role": "user", "content": f"{'long ' * i}{i} ?"}], "answer": str(i)}
        for i in range(2)
    ]
    model = make_model(tied=options.pop("tied", True))
    torch.manual_seed(5)  # for the adapter's factors
    lora = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"])
    settings = {
        "num_generations": 3, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 3,
        "rollout_func": canned, "feedback_funcs": only_second, "feedback_order": ["expert"],
        "peft_config": lora if options.pop("lora", False) else None, "optim": "sgd",
        "learning_rate": 0.05, "max_grad_norm": 1e9, "teacher_ema_rate": 0.3, "max_steps": STEPS,
        "save_strategy": "steps", "save_steps": 2, "shuffle_dataset": False,
    }  # fmt: skip
    return make_trainer(
        folder, model=model, train_dataset=Dataset.from_list(rows), **(settings | options)
    )


def train(folder: Path, *, by_zero3: bool) -> None:
    """Every case's run, and the end of some once more, from a checkpoint."""
    for case in CASES:
        trainer = a_trainer(folder / case, case)
        trainer.train()
        trainer.save_model(str(folder / case / "model"))
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        keep(trainer, folder / case / "result.pt", losses)
        if by_zero3:
            assert trainer.model.get_input_embeddings().weight.numel() == 0  # nobody's
            if case in ("ema", "lora, ema"):
                check_shadow(trainer)
    for case in RESUMED:
        resumed = a_trainer(folder / case, case)
        resumed.train(resume_from_checkpoint=str(folder / case / "checkpoint-2"))
        keep(resumed, folder / case / "resumed.pt", [])


def keep(trainer: Any, file: Path, losses: list[float]) -> None:
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        torch.save((weights, losses), file)


def check_shadow(trainer: Any) -> None:
    """Half of it lies here; the student is bit for bit itself after an exception, too."""
    teacher, model = trainer.teacher, trainer.model
    shadow = {name: v.to_local().clone() for name, v in teacher._shadow.items()}
    assert sum(v.numel() for v in shadow.values()) < 0.6 * sum(
        v.numel() for v in teacher._shadow.values()
    )
    ids = torch.tensor([[1, 5, 9, 14]])

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids).logits

    def failing_pass() -> None:
        with teacher.scoring(model):
            assert not torch.equal(logits(), student)
            raise KeyboardInterrupt

    student = logits()
    before = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    with pytest.raises(KeyboardInterrupt):
        failing_pass()
    assert torch.equal(logits(), student)
    after = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    assert before is None or all(torch.equal(after[n], w) for n, w in before.items())
    assert all(torch.equal(v.to_local(), shadow[n]) for n, v in teacher._shadow.items())


def check_loading(folder: Path) -> None:
    """A model is loaded in parts, of which a tensor's are its rows; a number has none."""
    with loading_parts():
        model, _ = load_model(str(folder))
    assert in_parts(model.parameters())
    assert all(p.numel() == 0 for p in model.parameters())
    rows = torch.arange(15.0).view(5, 3)
    rank = torch.distributed.get_rank()
    assert torch.equal(part(rows).to_local(), rows[3:] if rank else rows[:3])
    assert torch.equal(part(rows).full_tensor(), rows)
    assert part(torch.tensor(2.0)).to_local() == 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the same runs: with copies of the weights, and with parts."""
    folders = tmp_path_factory.mktemp("ddp"), tmp_path_factory.mktemp("zero3")
    make_model().save_pretrained(folders[1] / "toy")
    make_tokenizer().save_pretrained(folders[1] / "toy")
    for settings, folder in zip(("ddp", "zero3"), folders, strict=True):
        run = launch(settings, __file__, settings, str(folder))
        assert run.returncode == 0, run.stderr[-5000:]
    return folders


@pytest.mark.parametrize("case", CASES)
def test_parts_change_nothing(runs: tuple[Path, Path], case: str) -> None:
    (ddp, losses), (zero3, part_losses) = (torch.load(f / case / "result.pt") for f in runs)
    start = make_model(tied=CASES[case].get("tied", True)).state_dict()
    if not CASES[case].get("lora"):
        assert max((ddp[n] - start[n]).abs().max() for n in start) > 1e-3
    assert len(losses) == STEPS
    assert part_losses == pytest.approx(losses, abs=1e-5)
    assert zero3.keys() == ddp.keys()
    for name, weight in ddp.items():
        torch.testing.assert_close(zero3[name], weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_goes_on_as_if_nothing_had_been(runs: tuple[Path, Path], case: str) -> None:
    folder = runs[1] / case
    assert fault_of(folder / "checkpoint-2") is None
    whole, resumed = (torch.load(folder / f"{name}.pt")[0] for name in ("result", "resumed"))
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


@pytest.mark.parametrize("case", ["ema", "lora, ema"])
def test_a_saved_teacher_is_whole(runs: tuple[Path, Path], case: str) -> None:
    ddp, zero3 = (load_file(f / case / f"checkpoint-{STEPS}" / TEACHER_FILE) for f in runs)
    assert zero3.keys() == ddp.keys()
    for name, weight in ddp.items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(zero3[name], weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["live", "ema"])
def test_the_model_at_the_end_is_whole_and_loads(runs: tuple[Path, Path], case: str) -> None:
    ddp, zero3 = (
        AutoModelForCausalLM.from_pretrained(folder / case / "model").state_dict()
        for folder in runs
    )
    for name, weight in ddp.items():
        torch.testing.assert_close(zero3[name], weight, rtol=0, atol=1e-5)


def test_the_adapter_at_the_end_is_whole(runs: tuple[Path, Path]) -> None:
    ddp, zero3 = (
        load_file(folder / "lora_off" / "model" / "adapter_model.safetensors") for folder in runs
    )
    assert zero3.keys() == ddp.keys()
    for name, weight in ddp.items():
        torch.testing.assert_close(zero3[name], weight, rtol=0, atol=1e-5)


def test_a_run_of_a_recipe_stops_and_goes_on(tmp_path: Path) -> None:
    """Loaded in parts, judged at the start, between, and at the end."""
    recipe = toy_recipe(
        tmp_path,
        task={"validation_size": 3},
        teacher={"kind": "ema", "samples": 1},
        train={"steps": 3, "micro_batch": 2, "save_every": 2, "learning_rate": 1e-2},
        eval={"samples": 4, "every": 2, "keep_best": "avg@4"},
    )
    folder = tmp_path / "run"
    stopped = launch("zero3", __file__, "stop", str(recipe), str(folder))
    assert stopped.stdout.count("Stopped after step 1 of 3") == 1, stopped.stderr[-3000:]
    resumed = launch("zero3", __file__, "resume", str(folder))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert resumed.stdout.count("Everything lies in") == 1
    check_run(folder, "validation-000000", "validation-000002", "validation-000003", "best")
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all("teacher/success" in m for m in metrics if "loss" in m)


def shard_small_ones() -> None:
    """From here on ZeRO-3 shards a toy's matrices too: by default, what is small stays whole."""
    read = DeepSpeedPlugin.__post_init__

    def read_and_lower(self: Any) -> None:
        read(self)
        self.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 20

    DeepSpeedPlugin.__post_init__ = read_and_lower


def without_compiling() -> None:
    """From here on DeepSpeed does without a C++ library, whose first use takes minutes."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def interrupt() -> None:
    """From here on runs are told to stop after their first step."""
    begin = StopAfterStep.on_train_begin

    def interrupted(self: StopAfterStep, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.stopped = True

    StopAfterStep.on_train_begin = interrupted


if __name__ == "__main__":
    what, *where = sys.argv[1:]
    if what == "ddp":
        train(Path(where[0]), by_zero3=False)
        sys.exit()
    shard_small_ones()
    without_compiling()
    if what == "zero3":
        train(Path(where[0]), by_zero3=True)
        check_loading(Path(where[0]) / "toy")
    elif what == "resume":
        sys.exit(main(["train", where[0], "--resume"]))
    else:
        interrupt()
        sys.exit(main(["train", where[0], "--train.output-dir", where[1]]))
