"""Which GPU each of the runs that are compared trains on: one, the least used.

Left out: which process gets which GPU within one run, which is accelerate's.
"""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"


def count() -> int:
    """How many torch sees, asked in a process of its own: nothing here loads torch."""
    asked = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    return int(subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout)


def visible() -> list[str]:
    """The names of those that runs may train on."""
    return named(count())


def named(number: int) -> list[str]:
    """So many names as CUDA_VISIBLE_DEVICES has them: numbers, or identifiers if it is set so."""
    given = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return (given or list(map(str, range(number))))[:number]


class SharedGpus:
    """Gives each run one GPU: that with the fewest of them. Nothing where there is none."""

    def __init__(self, names: list[str]) -> None:
        """names: as CUDA_VISIBLE_DEVICES takes them."""
        self._runs = Counter(dict.fromkeys(names, 0))
        self._guard = threading.Lock()

    @contextmanager
    def lent(self) -> Iterator[dict[str, str]]:
        """What a run's environment needs beside this process's own."""
        if not self._runs:
            yield {}
            return
        with self._guard:
            name = min(self._runs, key=self._runs.__getitem__)
            self._runs[name] += 1
        try:
            yield {VISIBLE: name}
        finally:
            with self._guard:
                self._runs[name] -= 1
