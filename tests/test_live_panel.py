"""What is shown of a run: honest time left, facts, text in cells, the panel, the plain line."""

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from distil.live.cells import BARS, one_line, rows, trend
from distil.live.facts import Facts, as_rollout
from distil.live.lines import as_line
from distil.live.panel import RunPanel
from distil.live.timeleft import TimeLeft

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
