"""Where a run is shown: a panel that nothing garbles on a terminal, plain lines elsewhere."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from conftest import toy_recipe, train
from distil import live
from distil.live import LINE_SECONDS, LiveView, console_of
from distil.live.timeleft import TimeLeft
from distil.trainer.callbacks import StopAfterStep
from screen import screen
from test_live_panel import LOGS, RECORD, Clock, drawn

# ---------------------------------------------------------------- the view on a terminal


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def state(done: int, total: int = 3) -> Any:
    return SimpleNamespace(global_step=done, max_steps=total, log_history=[])


@contextmanager
def on_a_terminal(**options: Any) -> Iterator[tuple[LiveView, Terminal]]:
    """A view that has begun, on a terminal that is also stdout and stderr, and gets them back."""
    file = Terminal()
    console = Console(file=file, force_terminal=True, color_system=None, width=60, markup=False)
    with redirect_stdout(file), redirect_stderr(file):
        with LiveView("runs/a", TimeLeft(), console=console, **options) as view:
            view.on_train_begin(None, state(0), None)
            assert sys.stdout is not file
            yield view, file
        assert sys.stdout is file
        assert sys.stderr is file


def a_step(view: LiveView, done: int, total: int = 3) -> None:
    view.on_step_begin(None, state(done - 1, total), None)
    view.on_step_end(None, state(done, total), None)
    view.on_log(None, state(done, total), None, logs=LOGS)


def panels(seen: list[str]) -> list[int]:
    """The rows in which a panel begins."""
    return [place for place, row in enumerate(seen) if row.startswith("╭")]


def test_prints_and_warnings_appear_above_one_whole_panel() -> None:
    with on_a_terminal(rollout=lambda: RECORD) as (view, file):
        a_step(view, 1)
        print("Alarm, step 1: \x1b[31mbad")
        print("partial [/nope]", end="", flush=True)
        print(" and its end")
        print("to stderr", file=sys.stderr)
        a_step(view, 2)
        seen = screen(file.getvalue())
        (top,) = panels(seen)
        said = ["Alarm, step 1: bad", "partial [/nope]", "and its end", "to stderr"]
        assert [row.strip() for row in seen[:top]] == said
        assert seen[-1].startswith("╰")
        assert len(seen) - top == len(drawn(view._facts, 60))


def test_a_logger_that_holds_the_terminal_writes_above_the_panel_and_gets_it_back() -> None:
    log, other = logging.getLogger("distil.test_live"), io.StringIO()
    elsewhere = logging.StreamHandler(other)
    file = Terminal()
    handler = logging.StreamHandler(file)
    console = Console(file=file, force_terminal=True, color_system=None, width=60)
    log.addHandler(handler)
    log.addHandler(elsewhere)
    try:
        with (
            redirect_stderr(file),
            LiveView("runs/a", TimeLeft(), console=console) as view,
        ):
            view.on_train_begin(None, state(0), None)
            log.warning("from a library")
        log.warning("afterwards")
    finally:
        log.removeHandler(handler)
        log.removeHandler(elsewhere)
    seen = [row.rstrip() for row in screen(file.getvalue())]
    assert seen.index("from a library") < panels(seen)[0] < seen.index("afterwards")
    assert len(panels(seen)) == 1
    assert handler.stream is file
    assert other.getvalue() == "from a library\nafterwards\n"


def test_while_paused_the_terminal_is_somebody_elses_and_the_time_too() -> None:
    clock = Clock()
    with on_a_terminal(now=clock) as (view, file):
        a_step(view, 1)
        with view.paused():
            assert sys.stdout is file
            assert panels(screen(file.getvalue())) == []
            file.write("judging:  50%\rjudging: 100%\n")
            clock.now += 50.0
        seen = screen(file.getvalue())
        assert seen[0] == "judging: 100%"
        assert len(panels(seen)) == 1
        assert view._away == 50.0


def test_an_exception_gives_the_terminal_back() -> None:
    written: list[Terminal] = []

    def broken() -> None:
        with on_a_terminal() as (_, file):
            written.append(file)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert written[0].getvalue().endswith("\x1b[?25h")  # the cursor is back


# ---------------------------------------------------------------- and without one


@pytest.mark.parametrize(
    ("tty", "environ", "interactive"),
    [
        (True, {"TERM": "xterm-256color"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "CI": "true"}, False),
        (False, {"TERM": "xterm"}, False),
        (False, {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_a_panel_needs_a_terminal_that_a_person_looks_at(
    tty: bool, environ: dict[str, str], interactive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "CI", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if tty else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert console_of(stream, os.environ).is_interactive is interactive


def test_a_terminal_that_lacks_a_character_gets_it_written_out() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console_of(stream, {})
    stream.write("\u6f22")
    stream.flush()
    assert stream.buffer.getvalue() == rb"\u6f22"  # type: ignore[attr-defined]


def test_lines_come_now_and_then_and_at_both_ends(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    view = LiveView("a", TimeLeft(now=clock), console=Console(force_terminal=False), now=clock)
    view.on_train_begin(None, state(0, 9), None)
    for done in range(1, 10):
        clock.now += LINE_SECONDS / 4
        a_step(view, done, 9)
    view.on_log(None, state(9, 9), None, logs={"train_runtime": 3.0})
    view.on_train_end(None, state(9, 9), None)
    printed = capsys.readouterr().out
    assert [row.split(",")[0] for row in printed.splitlines()] == [
        "step 1/9", "step 5/9", "step 9/9"
    ]  # fmt: skip
    assert "\x1b" not in printed


def test_of_several_processes_only_the_main_one_shows_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    file = io.StringIO()
    view = LiveView("a", TimeLeft(), console=Console(file=file, force_terminal=True))
    view.on_train_begin(None, state(0), None)
    a_step(view, 1)
    with view.paused():
        pass
    view.on_train_end(None, state(1), None)
    assert file.getvalue() == "".join(capsys.readouterr()) == ""


# ---------------------------------------------------------------- a run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return toy_recipe(
        tmp_path,
        train={"steps": 3, "micro_batch": 4, "save_every": 9},
        alarms={"patience": 2, "min_student_entropy": 100.0},
        eval={"samples": 2, "every": 2, "teacher_samples": 0},
    )


def test_a_run_on_a_terminal_of_60_columns_leaves_a_readable_screen(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged in its midst, with an alarm, and Ctrl-C pressed in its last step."""
    file = Terminal()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(
        live, "console_of",
        lambda *_: Console(file=file, force_terminal=True, color_system=None, width=60),
    )  # fmt: skip
    after_step = StopAfterStep.on_step_end

    def interrupted(self: Any, args: Any, now: Any, control: Any, **kwargs: Any) -> None:
        if now.global_step == 3:
            self._interrupt(2, None)
        after_step(self, args, now, control, **kwargs)

    monkeypatch.setattr(StopAfterStep, "on_step_end", interrupted)
    assert train(recipe, tmp_path / "run") == 0
    seen = [row.rstrip() for row in screen(file.getvalue())]
    (top,) = panels(seen)
    bottom = next(place for place, row in enumerate(seen) if row.startswith("╰"))
    above, panel = "\n".join(seen[:top]), "\n".join(seen[top : bottom + 1])
    said = [above.index(word) for word in (
        "Run folder:", "Alarm, step 2: student entropy low.",
        "After step 2, on 3 held-out problems", "Stopping after this step",
    )]  # fmt: skip
    assert said == sorted(said)
    assert {cell_len(row) for row in seen[top : bottom + 1]} == {60}
    for word in ("step 3/3", "0:0", "cost", "future credit", "teacher saw", "sampling", "question",
                 "verdict", "step 2: student entropy low"):  # fmt: skip
        assert word in panel, word
    assert "avg@2" in "\n".join(seen[bottom:])
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h")


def test_a_run_in_a_pipe_prints_plain_lines(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(recipe, tmp_path / "run", "--train.updates-per-batch", "2",
                 "--train.micro-batch", "2") == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    steps = [row for row in printed.splitlines() if row.startswith("step ")]
    assert steps[0].startswith("step 0/3 (update 1/6), ? left, reward ")
    assert steps[-1].startswith("step 3/3 (update 6/6), 0:0")
    assert "-> " in steps[-1]
