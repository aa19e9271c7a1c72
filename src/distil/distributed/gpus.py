"""The GPUs that this process may use, and how several trainings share them.

One process trains on one GPU; `accelerate launch` starts one for each. Where several are visible to
a process that trains alone, transformers would spread every micro-batch over them by torch's
DataParallel: other batches than were asked for, and losses over a whole batch that no replica sees.
Left out: which process gets which GPU within one training, which is accelerate's.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distil.distributed.processes import processes
from distil.errors import TrainingError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus() -> list[str]:
    """Their names, as CUDA_VISIBLE_DEVICES gives them: numbers, or identifiers if it is set so."""
    count = torch.cuda.device_count()
    named = os.environ.get(VISIBLE, "").split(",")
    return named[:count] if len(named) >= count > 0 and named[0] else list(map(str, range(count)))


def check_one_gpu(count: int) -> None:
    """Raises TrainingError if a process that trains alone would use more than one GPU."""
    if processes() == 1 and count > 1:
        raise TrainingError(
            f"{count} GPUs are visible to one process, and transformers would spread each "
            "micro-batch over them (DataParallel), which changes the batch and the losses. Start "
            f"one process a GPU: accelerate launch --multi_gpu --num_processes {count} -m "
            f"distil.cli train RECIPE; or name one GPU: {VISIBLE}={next(iter(gpus()), 0)} distil train RECIPE."
        )


class SharedGpus:
    """Gives each training one GPU: that with the fewest of them. Nothing where there is none."""

    def __init__(self, names: list[str]) -> None:
        """names: as `gpus` has them."""
        self._trainings = Counter(dict.fromkeys(names, 0))
        self._guard = threading.Lock()

    @contextmanager
    def lent(self) -> Iterator[dict[str, str]]:
        """What a training's environment needs beside this process's own."""
        if not self._trainings:
            yield {}
            return
        with self._guard:
            name = min(self._trainings, key=self._trainings.__getitem__)
            self._trainings[name] += 1
        try:
            yield {VISIBLE: name}
        finally:
            with self._guard:
                self._trainings[name] -= 1
