"""LiveView: what a run learns while it learns it; a panel on a terminal, plain lines elsewhere.

A terminal gets one panel at its lower end, drawn anew once a second; whatever is printed meanwhile
(alarms, Ctrl-C's answer, warnings, logs) appears above it. Without one (a pipe, CI, TERM=dumb) a
line says the same, at most one every LINE_SECONDS. Of several processes only the main one shows
anything. Left out: output of compiled code, which doesn't go through Python's streams.

    facts      what there is to show            panel, lines   how: a panel; one plain line
    timeleft   how long it will take            cells          text in so many cells, harmless
"""

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from transformers import TrainerCallback

from distil.distributed.processes import is_main
from distil.live.facts import Facts, start
from distil.live.lines import as_line
from distil.live.panel import RunPanel
from distil.live.timeleft import TimeLeft

LINE_SECONDS = 10.0
"""Without a terminal, a step's line is left out if the last one is younger than this."""


class LiveView(TrainerCallback, AbstractContextManager["LiveView"]):
    """Shows a run from its first step on. `with view: trainer.train()` closes it whatever happens.

    title: the panel's. rollout: the newest rollout (a record of `distil.trainer.rolloutlog`), None
    if there is none. alarms: what has sounded so far; read anew each time. Add it behind callbacks
    whose work isn't a step's, such as judging, and let that run in `paused()`.
    """

    def __init__(
        self,
        title: str,
        time_left: TimeLeft,
        updates: int = 1,
        *,
        rollout: Callable[[], Mapping[str, Any] | None] = lambda: None,
        alarms: Sequence[str] = (),
        console: Console | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._title, self._updates, self._time_left = title, updates, time_left
        self._rollout, self._alarms, self._now = rollout, alarms, now
        self._console = console
        self._facts = Facts()
        self._live: Live | None = None
        self._handlers: list[tuple[Any, TextIO]] = []
        self._last_line = -LINE_SECONDS
        self._away = 0.0

    # ------------------------------------------------------------------ what the trainer tells

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts where a resumed run is, with what it logged before."""
        if not is_main():
            return
        if self._console is None:
            self._console = console_of(sys.stdout, os.environ)
        self._facts = start(
            state.global_step, state.max_steps, self._updates, self._now(), state.log_history
        )
        self._open()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An update lasts from here on: judging between two of them belongs to neither."""
        away, self._away = self._away, 0.0
        self._time_left.begin(away)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advances, and estimates anew."""
        self._time_left.end(state.global_step)
        left = self._time_left.left(state.global_step, state.max_steps)
        ends = None if left is None else self._now() + left
        self._facts = replace(self._facts, update=state.global_step, ends=ends)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The step's figures, its last rollout, and the alarms that it set off."""
        if not is_main() or not logs or "train_runtime" in logs:  # the last one sums a run up
            return
        self._facts = self._facts.with_log(logs, self._rollout(), tuple(self._alarms))
        if self._live is not None:
            self._live.refresh()
        elif self._due(state):
            self._last_line = self._now()
            print(as_line(self._facts, self._now()), flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leaves the last panel where it is."""
        self.close()

    # ------------------------------------------------------------------ the terminal

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, the terminal belongs to somebody else, such as another progress bar."""
        began, showing = self._now(), self._live is not None
        self.close(keep=False)
        try:
            yield
        finally:
            self._away += self._now() - began
        if showing:
            self._open()

    def close(self, *, keep: bool = True) -> None:
        """Gives the terminal back; `keep` leaves the panel's last state in it."""
        live, self._live = self._live, None
        if live is None:
            return
        live.transient = not keep
        live.stop()
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers = []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Starts the panel, where there is a terminal for it."""
        console = self._console
        assert console is not None
        if not console.is_interactive:
            return
        before = sys.stdout, sys.stderr
        self._live = Live(
            get_renderable=lambda: RunPanel(self._title, self._facts, self._now()),
            console=console,
            refresh_per_second=1,
            redirect_stderr=sys.stderr.isatty(),  # a file gets what it was to get
        )
        self._live.start(refresh=True)
        self._handlers = list(_redirected(before, (sys.stdout, sys.stderr)))

    def _due(self, state: Any) -> bool:
        """Whether a line is to be printed: at the first step, the last, and now and then."""
        last = state.global_step >= state.max_steps
        return last or self._now() - self._last_line >= LINE_SECONDS


def console_of(stream: TextIO, environ: Mapping[str, str]) -> Console:
    """A console that is interactive only where a person looks at a terminal that can move up.

    rich's own rules (TERM, TTY_INTERACTIVE, NO_COLOR), but FORCE_COLOR doesn't make a terminal of a
    pipe, and CI is none. What a terminal's encoding has no character for is written out.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    person = stream.isatty() and not environ.get("CI")
    return Console(
        force_terminal=None if person else False,
        force_interactive=None if person else False,
        markup=False, emoji=False, highlight=False,
    )  # fmt: skip


def _redirected(
    before: tuple[TextIO, TextIO], after: tuple[TextIO, TextIO]
) -> Iterator[tuple[Any, TextIO]]:
    """Sends loggers that hold on to the streams as they were to what they are; (handler, was)."""
    named = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    for handler in {h for logger in [logging.root, *named] for h in logger.handlers}:
        if isinstance(handler, logging.StreamHandler) and handler.stream in before:
            was = handler.setStream(after[before.index(handler.stream)])
            if was is not None:
                yield handler, was
