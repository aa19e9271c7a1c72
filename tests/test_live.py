"""What a run shows: honest time left, a panel that nothing garbles, plain lines elsewhere."""

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
from distil.callbacks import StopAfterStep
from distil.live import LINE_SECONDS, LiveView, console_of
from distil.live.cells import BARS, one_line, rows, trend
from distil.live.facts import Facts, as_rollout
from distil.live.lines import as_line
from distil.live.panel import RunPanel
from distil.live.timeleft import TimeLeft
from screen import screen

LOGS = {
    "reward": 0.25, "distil/cost": 1.5, "distil/future_credit": 0.125, "distil/future_share": 0.4,
    "feedback/sibling": 0.25, "feedback/expert": 0.5, "feedback/none": 0.25, "feedback/report": 0.0,
    "speed/sampling_tokens_per_second": 1234.4, "speed/teacher_tokens_per_second": 900.0,
    "speed/student_tokens_per_second": 450.0, "kl": None, "loss": float("nan"),
}  # fmt: skip
RECORD = {
    "prompt": [{"role": "system", "content": "be short"}, {"role": "user", "content": "2 + 2?"}],
    "completion": "It is 5.",
    "reward": 0.0,
    "context": "sibling+report",
}
HOSTILE = (
    "a\x1b[2J\x1b]0;title\x07b \x9b31mc\r\n\nd [bold red]e[/] [/nope] :smile: \u202egnp\u202c "
    "\u2028f \ud800 " + "\uff21\uff22\u6f22\u5b57" * 40 + " \x08\x08end"
)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def facts(**more: Any) -> Facts:
    return Facts(update=3, total=10, ends=60.0).with_log(LOGS, RECORD | more, ("step 2: too long",))


def drawn(shown: Facts, width: int, title: str = "runs/a", **options: Any) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=width, **options)
    console.print(RunPanel(title, shown, now=20.0))
    return file.getvalue().splitlines()


# ---------------------------------------------------------------- time left


def test_the_time_left_counts_judgements_to_come() -> None:
    """100 s each; of 7 updates, after 3 and 6 there is one, and one at the end."""
    clock = Clock()
    left = TimeLeft(judge_every=3, judging=lambda during: 100.0 * (during + 1), now=clock)
    assert left.left(0, 7) is None
    found = []
    for done in (2, 3, 4, 7):
        left.begin()
        left.end(done)
        found.append(left.left(done, 7))
    assert found == [300, 300, 200, 100]


def test_a_step_of_several_updates_is_timed_as_one_and_judging_is_no_part_of_it() -> None:
    """Updates of 10 and 1 s, 2 s of saving after each step, 50 s of judging between two steps."""
    clock = Clock()
    left = TimeLeft(updates=2, now=clock)
    for step, judged in enumerate((0.0, 50.0, 0.0)):
        clock.now += judged
        for update, seconds in enumerate((10.0, 1.0), 1):
            left.begin(judged if update == 1 else 0.0)
            clock.now += seconds
            left.end(2 * step + update)
        clock.now += 2.0
    # 5 gaps between 6 updates, of which 2 took 2 s; a step has two updates.
    assert left.left(6, 10) == pytest.approx(2 * (11 + 2 * 4 / 5))


def test_the_median_of_the_last_ten_steps_forgets_the_slow_first_ones() -> None:
    clock = Clock()
    left = TimeLeft(now=clock)
    for done, seconds in enumerate([90.0, 1.0, 1.0, *[2.0] * 10], 1):
        left.begin()
        clock.now += seconds
        left.end(done)
    assert left.left(13, 20) == pytest.approx(7 * 2)


# ---------------------------------------------------------------- facts


def test_facts_keep_what_a_log_leaves_out_and_forget_what_is_no_number() -> None:
    shown = facts().with_log({"reward": 0.75, "distil/cost": None})
    assert shown.rewards == (0.25, 0.75)
    assert shown.cost == ("cost", 1.5)
    assert "loss" not in shown.latest
    assert shown.shares == [("expert", 0.5), ("sibling", 0.25), ("nobody", 0.25)]
    assert shown.rollout == facts().rollout
    assert Facts().with_log({"sft/cross_entropy": 2.0}).cost == ("cross-entropy", 2.0)
    assert Facts().with_log({"reward": 1.0}).cost is None


def test_verdicts_say_success_grading_and_whom_the_teacher_saw() -> None:
    said = [as_rollout(RECORD | {"reward": r, "context": c}).verdict for r, c in VERDICTS]
    assert said == list(VERDICTS.values())
    assert as_rollout(RECORD).question == "2 + 2?"
    assert as_rollout(RECORD | {"prompt": "plain"}).question == "plain"


VERDICTS = {
    (0.0, "sibling"): "reward 0, teacher saw sibling",
    (1.0, None): "reward 1 (a success), no feedback",
    (None, "expert"): "not graded, teacher saw expert",
}


# ---------------------------------------------------------------- text in cells


@pytest.mark.parametrize("cells", [1, 2, 5, 20, 41])
@pytest.mark.parametrize("text", ["", "short", "\u6f22" * 100, "a\u6f22" * 100, HOSTILE])
def test_text_keeps_within_its_cells_and_loses_nothing_else(text: str, cells: int) -> None:
    line = one_line(text, cells)
    assert cell_len(line) <= cells
    assert line.isprintable()
    broken = rows(text, cells, 2)
    assert len(broken) <= 2
    assert all(cell_len(row) <= cells for row in broken)
    if cells >= 20 and len(text) <= 5:
        assert line == "".join(broken) == text


def test_the_middle_is_cut_out_and_what_is_invisible_written_out() -> None:
    assert one_line("the answer\nis  \t 42", 40) == "the answer is 42"
    assert one_line("abcdefghij", 7) == "abc…hij"
    assert one_line("a" * 10_000 + "z", 5) == "aa…az"
    assert one_line("a\x1b[2Jb\u202e", 40) == r"a\x1b[2Jb\u202e"


def test_a_trend_goes_from_its_lowest_to_its_highest() -> None:
    assert trend([0.0, 0.5, 1.0], 10) == "▁▅█"
    assert trend([5.0, 0.0, 1.0], 2) == "▁█"
    assert trend([0.5, 0.5], 9) == BARS[0] * 2
    assert trend([1.0], 9) == trend([1.0, 2.0], 0) == ""
    assert trend([0.0, 1.0], 9, plain=True).isascii()


# ---------------------------------------------------------------- the panel and the line


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_panel_says_everything_in_any_width(width: int) -> None:
    found = drawn(facts(completion="\u6f22\u5b57 " * 200).with_log({"reward": 0.75}), width)
    assert {cell_len(row) for row in found} == {width}
    text = "\n".join(found)
    for word in ("step 3/10", "0:40 left", "0.75", "1.500 nats", "0.125, 40%", "expert 50%",
                 "sampling 1,234", "2 + 2?", "\u6f22\u5b57", "reward 0, teacher saw"):  # fmt: skip
        assert word in text, word
    if width >= 60:
        for word in ("runs/a", "▁█ 0.25 to 0.75", "student 450", "sibling 25%, nobody 25%"):
            assert word in text, word


def test_alarms_stand_in_the_panel() -> None:
    assert any("alarms" in row and "step 2: too long" in row for row in drawn(facts(), 60))
    first = Facts(total=10)
    assert any("waiting for the first step" in row for row in drawn(first, 60))
    assert any("? left" in row for row in drawn(first, 60))


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_models_text_can_neither_draw_nor_move_nor_mark_up(width: int) -> None:
    """Frames stay whole, no control character gets out, markup and emoji codes stay letters."""
    hostile = facts(prompt=HOSTILE, completion=HOSTILE, context="[red]" + HOSTILE)
    found = drawn(hostile, width, title=HOSTILE)
    assert {cell_len(row) for row in found} == {width}
    assert all(row.isprintable() for row in found)
    assert all(row[0] + row[-1] in ("╭╮", "││", "╰╯") for row in found)
    short = drawn(facts(prompt="[bold]x[/] [/nope]", completion=":smile: [link=a]b"), 100)
    assert any("[bold]x[/] [/nope]" in row for row in short)
    assert any(":smile: [link=a]b" in row for row in short)


def test_a_terminal_without_blocks_gets_ascii() -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"

    file = Ascii()
    console = Console(file=file, force_terminal=True, color_system=None, width=60)
    console.print(RunPanel("a", facts().with_log({"reward": 0.5}), now=0.0))
    assert file.getvalue().isascii()


def test_a_line_says_the_same_facts() -> None:
    assert as_line(facts().with_log({"reward": 0.75}, None, ("step 2: too long",)), 20.0) == (
        "step 3/10, 0:40 left, reward 0.75 (0.25 one step before), cost 1.500, "
        "future credit 0.125, 40% of the loss, teacher saw expert 50%, sibling 25%, nobody 25%, "
        "tokens/s sampling 1,234, teacher 900, student 450, alarms: step 2: too long; "
        'last: "2 + 2?" -> "It is 5.": '
        "reward 0, teacher saw sibling+report"
    )
    hostile = as_line(facts(prompt=HOSTILE, completion=HOSTILE), 0.0)
    assert hostile.isprintable()


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
