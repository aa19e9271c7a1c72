"""`accelerate launch` on CPU processes; FSDP2 too, which accelerate takes for accelerators only."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from conftest import environment

SETTINGS = Path(__file__).parent.parent / "recipes" / "accelerate"


def launch(settings: str, *arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Processes under the settings of recipes/accelerate, but in float32."""
    return subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch",
            "--config_file", str(SETTINGS / f"{settings}.yaml"), "--num_processes", str(processes),
            "--mixed_precision", "no", "--main_process_port", "0", *arguments,
        ],
        capture_output=True, text=True, timeout=200,
        env={**environment(), "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"},
    )  # fmt: skip


def shard_on_cpu() -> None:
    """From here on accelerate shards over gloo processes, as it does over GPUs."""
    begin = AcceleratorState.__init__

    def begin_sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        fresh = not AcceleratorState._shared_state
        begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fresh and fsdp_plugin is not None:
            assert self.distributed_type == DistributedType.MULTI_CPU
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = begin_sharded


if __name__ == "__main__":
    from distil.cli import main

    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    shard_on_cpu()
    sys.exit(main())
