"""DistIL: reinforcement learning from rich feedback by distributional DAgger (arXiv 2606.05152).

    from distil import DistILConfig, DistILTrainer, Feedback

Names are looked up when they're used, so that `import distil` and `distil --help` don't wait for
torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil.errors import DistILError
    from distil.trainer.trainer import DistILTrainer
    from distil.trainer.training_args import DistILConfig
    from distil.types import Feedback, Problem, Rollout, TeacherContext

_HOMES = {
    "DistILConfig": "distil.trainer.training_args",
    "DistILError": "distil.errors",
    "DistILTrainer": "distil.trainer.trainer",
    "Feedback": "distil.types",
    "Problem": "distil.types",
    "Rollout": "distil.types",
    "TeacherContext": "distil.types",
}

__all__ = [
    "DistILConfig",
    "DistILError",
    "DistILTrainer",
    "Feedback",
    "Problem",
    "Rollout",
    "TeacherContext",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'distil' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
