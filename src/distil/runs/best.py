"""RUN/best: the state of a run that was best on its validation problems, kept through kills.

A new best is written beside the old one, best.json last, and then takes its place. A kill in
between leaves one of the two whole under another name; the next `BestState` puts it back.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distil.runs.folder import write_json

BEST = "best"
RECORD = "best.json"


@dataclass(frozen=True)
class Best:
    """After which of `train.steps`, and how good."""

    step: int
    figure: str
    value: float


def _here(act: Callable[[], Any]) -> Any:
    return act()


class BestState:
    """The best state in a run's folder so far, by one figure.

    on_main: calls what handles files, on the one of several processes that does so, and returns on
    all what it returned (`distil.distributed.processes.from_main`).
    """

    def __init__(self, run: Path, figure: str, on_main: Callable[[Any], Any] = _here) -> None:
        self._on_main = on_main
        self.folder, self._figure = run / BEST, figure
        self._new, self._old = run / f".{BEST}.new", run / f".{BEST}.old"
        if not self.folder.exists():
            whole = [f for f in (self._new, self._old) if (f / RECORD).is_file()]
            if whole:
                whole[0].replace(self.folder)
        self._clear()

    def record(self) -> Best | None:
        """None: nothing has been kept yet."""
        file = self.folder / RECORD
        return Best(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def consider(self, step: int, value: float, save: Callable[[Path], None]) -> bool:
        """Keeps the state if it's better than all before it (of equals, the earliest stays).

        `save` writes it into the folder that it's given; every process calls it.
        """
        if not self._on_main(lambda: self._beats(value)):
            return False
        save(self._new)
        self._on_main(lambda: self._keep(step, value))
        return True

    def _beats(self, value: float) -> bool:
        best = self.record()
        return best is None or value > best.value

    def _keep(self, step: int, value: float) -> None:
        write_json(self._new / RECORD, asdict(Best(step, self._figure, value)))
        if self.folder.exists():
            self.folder.replace(self._old)
        self._new.replace(self.folder)
        self._clear()

    def _clear(self) -> None:
        for leftover in (self._new, self._old):
            shutil.rmtree(leftover, ignore_errors=True)
