"""Two processes give the step that one process gives on the same rollouts, groups across ranks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from test_trainer import make_trainer

# TRL calls `rollout_func` experimental; only this test, which needs fixed rollouts, uses it.
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"


OBJECTIVES: list[dict[str, Any]] = [
    {"name": "distil"},
    {"name": "distil+grpo", "support": "joined", "prompt_weight": "pass_rate"},
    {"name": "reverse_kl", "future": "mean", "reduction": "sequences"},
    {"name": "sft"},
    {"name": "grpo"},
]


def canned(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Completions that depend on the prompt and on the rollout's place in the whole batch only.

    Lengths differ from 1 to 6, so that the processes' paddings differ.
    """
    first = trainer.accelerator.process_index * len(prompts)
    encode = trainer.processing_class.apply_chat_template
    ids = [encode(p, add_generation_prompt=True, return_dict=True)["input_ids"] for p in prompts]
    completions = []
    for place in range(first, first + len(prompts)):
        length = 1 + (place * 5) % 6
        completions.append([13 + (place * 7 + 3 * t) % 40 for t in range(length)])
    logps = [[0.0] * len(c) for c in completions]
    return {"prompt_ids": ids, "completion_ids": completions, "logprobs": logps}


def one_step(
    folder: Path, processes: int, accumulation: int = 1, objective: int = 0
) -> dict[str, torch.Tensor]:
    """One optimiser step over 2 prompts x 3 rollouts; rank 0 saves the weights."""
    rows = [
        {"prompt": [{"role": "user", "content": f"{'long ' * i}{i} ?"}], "answer": str(i)}
        for i in range(2)
    ]
    trainer = make_trainer(
        folder, train_dataset=Dataset.from_list(rows), max_steps=1, num_generations=3,
        per_device_train_batch_size=6 // processes // accumulation,
        gradient_accumulation_steps=accumulation,
        shuffle_dataset=False, rollout_func=canned, optim="sgd", max_grad_norm=1e9,
        objective=OBJECTIVES[objective],
    )  # fmt: skip
    trainer.train()
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    if trainer.accelerator.is_main_process:
        torch.save(weights, folder / f"weights-{objective}.pt")
    return weights


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_change_nothing(tmp_path: Path, processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    for count in (1, processes):
        folder = tmp_path / str(count)
        folder.mkdir()
        run = subprocess.run(
            [*command, f"--nproc-per-node={count}", __file__, str(folder), str(count)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
        )
        assert run.returncode == 0, run.stderr[-3000:]
    start = {n: p for n, p in make_trainer(tmp_path / "start").model.state_dict().items()}
    for objective in range(len(OBJECTIVES)):
        file = f"weights-{objective}.pt"
        one, many = (torch.load(tmp_path / str(n) / file) for n in (1, processes))
        assert max((one[n] - start[n]).abs().max() for n in one) > 1e-4, OBJECTIVES[objective]
        for name, weight in one.items():
            torch.testing.assert_close(many[name], weight, rtol=0, atol=1e-6)


def test_micro_batches_of_the_whole_training_loop_give_one_step(tmp_path: Path) -> None:
    for accumulation in (1, 2, 3, 6):
        (tmp_path / str(accumulation)).mkdir()
    whole = one_step(tmp_path / "1", 1)
    for accumulation in (2, 3, 6):
        parts = one_step(tmp_path / str(accumulation), 1, accumulation)
        for name, weight in whole.items():
            torch.testing.assert_close(parts[name], weight, rtol=0, atol=1e-6)


if __name__ == "__main__":
    for place in range(len(OBJECTIVES)):
        one_step(Path(sys.argv[1]), int(sys.argv[2]), objective=place)
