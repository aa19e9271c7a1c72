"""The facts as a panel of rich, as wide as the terminal is: 60 columns are enough.

Whatever comes from a model, a task or a recipe is put in as `Text`, in which markup means nothing,
once it is harmless (`cells.one_line`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distil.figures.layout import clock
from distil.live import lines
from distil.live.cells import one_line, rows, trend
from distil.live.facts import Facts

LABELS = 13
"""Cells of the widest label."""

MARGINS = 6
"""Cells of the frame, its padding, and the gap behind the labels."""

TEXT_ROWS = 2
"""Rows that a question may take, and an answer."""

ALARMS = 3
"""The last so many alarms are shown."""


@dataclass(frozen=True)
class RunPanel:
    """Draws `facts` as they are at `now`."""

    title: str
    facts: Facts
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The panel; ASCII only where the terminal's encoding has no more."""
        cells = max(options.max_width - LABELS - MARGINS, 8)
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=LABELS, no_wrap=True, style="dim")
        grid.add_column(no_wrap=True, overflow="crop")
        for label, value in self._rows(cells, plain=options.ascii_only):
            grid.add_row(Text(label), value)
        title = Text(one_line(self.title, max(options.max_width - 8, 8)))
        yield Panel(Group(self._progress(options.max_width - 4), grid), title=title)

    def _progress(self, width: int) -> Table:
        facts = self.facts
        line = Table.grid(padding=(0, 1, 0, 0), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        said = f"{lines.left(facts, self.now)} left, {clock(self.now - facts.began)} so far"
        bar = ProgressBar(total=max(facts.total, 1), completed=facts.update)
        line.add_row(Text(lines.where(facts), style="bold"), bar, Text(said))
        return line

    def _rows(self, cells: int, *, plain: bool) -> Iterator[tuple[str, Text]]:
        facts = self.facts
        if not facts.latest:
            yield "", Text("waiting for the first step")
            return
        if facts.rewards:
            reward = f"{facts.rewards[-1]:.2f}"
            about = f"{min(facts.rewards):.2f} to {max(facts.rewards):.2f}"
            bars = trend(facts.rewards, cells - len(reward + about) - 2, plain=plain)
            yield "reward", Text(f"{reward} {bars} {about}" if bars else reward, style="bold")
        if facts.cost is not None:
            yield facts.cost[0], Text(f"{facts.cost[1]:.3f} nats a token")
        if (credit := lines.credit(facts)) is not None:
            yield "future credit", Text(credit)
        if facts.shares:
            yield from _below("teacher saw", wrap(lines.shares(facts), cells))
        if facts.speeds:
            yield from _below("tokens/s", wrap(lines.speeds(facts), cells))
        if facts.rollout is not None:
            said = facts.rollout
            yield from _below("question", rows(said.question, cells, TEXT_ROWS))
            yield from _below("answer", rows(said.answer, cells, TEXT_ROWS))
            yield from _below("verdict", rows(said.verdict, cells, TEXT_ROWS))
        for place, alarm in enumerate(facts.alarms[-ALARMS:]):
            yield "" if place else "alarms", Text(one_line(alarm, cells), style="bold red")


def _below(label: str, texts: list[str]) -> Iterator[tuple[str, Text]]:
    """Rows under one label."""
    for place, row in enumerate(texts):
        yield "" if place else label, Text(row)
