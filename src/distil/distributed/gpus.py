"""The GPUs by name, and one for each of several runs: the least used. Loads without torch.

Left out: which process gets which GPU within one run, which is accelerate's.
"""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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

    def __init__(self, names: Callable[[], Sequence[str]] = visible) -> None:
        """names: as CUDA_VISIBLE_DEVICES takes them; asked when the first run begins."""
        self._names = names
        self._runs: Counter[str] | None = None
        self._guard = threading.Lock()

    @contextmanager
    def lent(self) -> Iterator[dict[str, str]]:
        """What a run's environment needs beside this process's own."""
        with self._guard:
            if self._runs is None:
                self._runs = Counter(dict.fromkeys(self._names(), 0))
            runs = self._runs
            name = min(runs, key=runs.__getitem__, default=None)
            if name is not None:
                runs[name] += 1
        try:
            yield {} if name is None else {VISIBLE: name}
        finally:
            if name is not None:
                with self._guard:
                    runs[name] -= 1
