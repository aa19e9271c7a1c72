"""Two processes give the step that one process gives on the same rollouts, groups across ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import gather_object
from datasets import Dataset

from conftest import environment
from distil.distributed.processes import together
from distil.feedback import corrections
from trainertoys import make_trainer

# TRL calls `rollout_func` experimental; only this test, which needs fixed rollouts, uses it.
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"


OBJECTIVES: list[dict[str, Any]] = [
    {"name": "distil"},
    {"name": "distil+grpo", "support": "joined", "prompt_weight": "pass_rate"},
    {"name": "reverse_kl", "future": "mean", "reduction": "sequences"},
    {"name": "sft"},
    {"name": "grpo"},
]


SIBLINGS = (1, 2, 3)
"""Numbers of processes that divide 30 rollouts."""


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
    """One optimiser step over 2 prompts x 6 rollouts; rank 0 saves the weights."""
    rows = [
        {"prompt": [{"role": "user", "content": f"{'long ' * i}{i} ?"}], "answer": str(i)}
        for i in range(2)
    ]
    trainer = make_trainer(
        folder, train_dataset=Dataset.from_list(rows), max_steps=1, num_generations=6,
        per_device_train_batch_size=12 // processes // accumulation,
        gradient_accumulation_steps=accumulation,
        shuffle_dataset=False, rollout_func=canned, optim="sgd", max_grad_norm=1e9,
        objective=OBJECTIVES[objective],
    )  # fmt: skip
    trainer.train()
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    if trainer.accelerator.is_main_process:
        torch.save(weights, folder / f"weights-{objective}.pt")
    return weights


def steps_in_processes(folder: Path, count: int) -> Path:
    """The folder of the steps, one for each objective, that so many processes made together."""
    folder.mkdir()
    run = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={count}", __file__, str(folder), str(count),
        ],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps_in_processes(tmp_path_factory.mktemp("processes") / "1", 1)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_change_nothing(tmp_path: Path, alone: Path, processes: int) -> None:
    together = steps_in_processes(tmp_path / str(processes), processes)
    start = {n: p for n, p in make_trainer(tmp_path / "start").model.state_dict().items()}
    for objective in range(len(OBJECTIVES)):
        file = f"weights-{objective}.pt"
        one, many = (torch.load(folder / file) for folder in (alone, together))
        assert max((one[n] - start[n]).abs().max() for n in one) > 1e-4, OBJECTIVES[objective]
        for name, weight in one.items():
            torch.testing.assert_close(many[name], weight, rtol=0, atol=1e-6)
    if processes in SIBLINGS:
        check_siblings(alone, together, processes)


def test_micro_batches_of_the_whole_training_loop_give_one_step(tmp_path: Path) -> None:
    for accumulation in (1, 2, 3, 6):
        (tmp_path / str(accumulation)).mkdir()
    whole = one_step(tmp_path / "1", 1)
    for accumulation in (2, 3, 6):
        parts = one_step(tmp_path / str(accumulation), 1, accumulation)
        for name, weight in whole.items():
            torch.testing.assert_close(parts[name], weight, rtol=0, atol=1e-6)


def siblings_and_corrections(folder: Path, processes: int) -> None:
    """What each of 5 x 6 rollouts' teachers are shown, in order; rank 0 saves it.

    Groups of 6 lie across processes: of 15 rollouts on each of 2, or 10 on each of 3. Each process
    has a file of corrections of its own, as if their folders were on different machines.
    """
    rank = int(os.environ["RANK"])
    file = folder / f"corrections-{rank}.jsonl"
    words = {"prompt": "4 ?", "correction": f"corrected by {rank}"}
    file.write_text(json.dumps(words) + "\n")
    rows = [{"prompt": [{"role": "user", "content": f"{i} ?"}], "answer": ""} for i in range(5)]
    shown = {}
    for choice in ("shortest", "random", "first"):
        trainer = make_trainer(
            folder / choice, train_dataset=Dataset.from_list(rows), max_steps=1, num_generations=6,
            per_device_train_batch_size=30 // processes, gradient_accumulation_steps=1,
            shuffle_dataset=False, rollout_func=canned, feedback_funcs=corrections(file),
            feedback_order=["sibling", "correction"], feedback_combine="first",
            sibling_choice=choice,
            reward_funcs=lambda prompts, completions, **c: [
                float(len(t[0]["content"]) % 2 and p[0]["content"] != "4 ?")
                for p, t in zip(prompts, completions, strict=True)
            ],
        )  # fmt: skip
        trainer.train()
        collected = trainer._collected
        mine = [
            (r.group, r.completion, r.reward, c and c.kind, c and c.demonstration)
            for r, c in zip(collected.rollouts, collected.contexts, strict=True)
        ]
        shown[choice] = gather_object(mine)
    if rank == 0:
        (folder / "shown.json").write_text(json.dumps(shown))


def check_siblings(one: Path, many: Path, processes: int) -> None:
    """Both runs showed the same, and what they showed are siblings, of other ranks too."""
    shown = json.loads((one / "shown.json").read_text())
    assert json.loads((many / "shown.json").read_text()) == shown
    assert len({str(rows) for rows in shown.values()}) == 3  # the three choices differ
    from_elsewhere = 0
    for rows in shown.values():
        for place, (group, _, _, kind, words) in enumerate(rows):
            if group == 4:
                assert (kind, words) == ("correction", "corrected by 0")
                continue
            successes = [
                i for i, (g, text, reward, _, _) in enumerate(rows)
                if g == group and i != place and reward == 1 and text.strip() == words
            ]  # fmt: skip
            assert kind == "sibling"
            assert successes
            rank = place * processes // 30
            from_elsewhere += all(i * processes // 30 != rank for i in successes)
    assert from_elsewhere > 0


if __name__ == "__main__":
    with together():  # gloo's threads may outlive the interpreter otherwise
        if int(sys.argv[2]) in SIBLINGS:
            siblings_and_corrections(Path(sys.argv[1]), int(sys.argv[2]))
        for place in range(len(OBJECTIVES)):
            one_step(Path(sys.argv[1]), int(sys.argv[2]), objective=place)
