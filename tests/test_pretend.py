"""Trainers on an accelerator that isn't there (`pretend`): no tensor of the CPU's meets one of its.

What a GPU would refuse is refused there. The first step's loss is the CPU's to 1e-4 for every kind
of objective and teacher; of what needs several steps, or draws otherwise on a CPU, only that it
runs.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import environment
from pretend import losses

SEVERAL: dict[str, dict[str, Any]] = {
    "prefix": {
        "objective": {"ratio": "prefix", "advantage_weight": 0.5},
        "per_device_train_batch_size": 2,
        "steps_per_generation": 4,
        "num_iterations": 2,
    },
    "replay": {"objective": {"replay_batches": 1}},
    "shared prompts": {"share_prompts": True},
}
FIRST: dict[str, dict[str, Any]] = {
    "default": {},
    "padded": {"padding_free": False},
    "an average in the computer's memory": {"teacher_shadow_device": "cpu"},
    "frozen": {"teacher": "frozen"},
    "the student's support": {"objective": {"support": "student"}, "temperature": 0.8},
    "joined": {"objective": {"name": "jensen_shannon", "support": "joined"}},
    "gates": {
        "objective": {
            "name": "distil+grpo",
            "first_error_margin": 0.01,
            "first_error": "until",
            "prompt_weight": "pass_rate",
            "max_teacher_entropy": 9.0,
            "credit_end": False,
        }
    },
    "sequences": {"objective": {"reduction": "sequences", "policy_space_clip": 2.0}},
    "the teacher's samples": {"teacher_samples": 2, "teacher_gate": True},
    "sft": {"objective": {"name": "sft"}},
    "grpo": {"objective": {"name": "grpo"}},
    "published": {"objective": {"name": "as_released_math"}},
    "critique": {"feedback_order": ["critique", "expert"], "critique": {"by": "policy"}},
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = {name: options | {"max_steps": 1} for name, options in FIRST.items()}
    runs |= {name: options | {"max_steps": 3} for name, options in SEVERAL.items()}
    folder = tmp_path_factory.mktemp("pretended")
    program = Path(__file__).with_name("pretend.py")
    done = subprocess.run(
        [sys.executable, str(program), str(folder), json.dumps(runs)],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_what_a_gpu_refuses_is_refused(told: dict[str, Any]) -> None:
    assert told["on"] == "pretend:0"
    assert told["cpu beside device"] == "a mismatch"


@pytest.mark.parametrize("name", FIRST)
def test_a_step_is_the_cpus(told: dict[str, Any], name: str, tmp_path: Path) -> None:
    (expected,) = losses(tmp_path, FIRST[name] | {"max_steps": 1})
    assert told["losses"][name] == pytest.approx([expected], abs=1e-4)


@pytest.mark.parametrize("name", SEVERAL)
def test_later_steps_run_too(told: dict[str, Any], name: str) -> None:
    assert len(told["losses"][name]) == 3
