"""A step's parts: they add up by hand arithmetic, nest, turn and count; a run writes them down."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import toy_recipe, train
from distil.cli import main
from distil.profiling import parts
from distil.profiling.account import JUDGING, PARTS, Spent, summary, whole
from distil.profiling.parts import Clock, at_gradient, count, part, turn
from distil.profiling.profiler import table


class Hand:
    """A clock and a memory that move by hand. Memory: the most since it was last asked."""

    def __init__(self) -> None:
        self.now, self.used = 0.0, 0

    def peak(self) -> int:
        self.used, peak = 0, self.used
        return peak

    def spend(self, seconds: float, memory: int) -> None:
        self.now += seconds
        self.used = max(self.used, memory)


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def clock(hand: Hand) -> Iterator[Clock]:
    running = Clock(hand.peak, lambda: hand.now)
    parts.start(running)
    yield running
    parts.stop()


# ---------------------------------------------------------------- the clock


def test_an_inner_part_is_subtracted_and_all_add_up(clock: Clock, hand: Hand) -> None:
    hand.spend(1, 10)
    with part("teacher"):
        hand.spend(2, 20)
        with part("student forward"):
            hand.spend(4, 50)
        hand.spend(8, 30)
    hand.spend(16, 15)
    spent = clock.take()
    assert spent["teacher"] == Spent(10.0, 30)
    assert spent["student forward"] == Spent(4.0, 50)
    assert spent["other"] == Spent(17.0, 15)
    assert sum(s.seconds for s in spent.values()) == hand.now == 31
    hand.spend(1, 5)
    assert clock.take() == {"other": Spent(1.0, 5)}


def test_a_whole_part_takes_what_is_inside(clock: Clock, hand: Hand) -> None:
    with part("student pre-pass", whole=True):
        with part("student forward"):
            hand.spend(3, 1)
            count(torch.tensor([1, 1, 0]))
            count(5, "output layer")  # tokens that the pass has counted already
            turn("loss")
        hand.spend(1, 1)
    with part("student forward"):
        hand.spend(7, 1)
    spent = clock.take()
    assert spent["student pre-pass"] == Spent(4.0, 1, tokens=2)
    assert spent["student forward"] == Spent(7.0, 1)
    assert {name for name, s in spent.items() if s.seconds} == {
        "student pre-pass", "student forward",
    }  # fmt: skip


def test_a_turn_renames_the_innermost_part_from_there_on(clock: Clock, hand: Hand) -> None:
    turn("optimiser")
    hand.spend(1, 1)
    turn("other")
    with part("backward"):
        hand.spend(2, 1)
        turn("output layer")
        hand.spend(4, 1)
    hand.spend(8, 1)
    seconds = {name: s.seconds for name, s in clock.take().items() if s.seconds}
    assert seconds == {"optimiser": 1, "backward": 2, "output layer": 4, "other": 8}


def test_the_backward_pass_turns_where_a_gradient_arrives(clock: Clock, hand: Hand) -> None:
    class Spends(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, seconds: float) -> torch.Tensor:
            ctx.seconds = seconds
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
            hand.spend(ctx.seconds, 1)
            return grad, None

    weight = torch.ones(2, requires_grad=True)
    hidden = Spends.apply(weight, 4.0)
    logps = Spends.apply(hidden, 2.0)
    at_gradient(logps, "output layer")
    at_gradient(hidden, "backward")
    with part("backward"):
        Spends.apply(logps, 1.0).sum().backward()
    seconds = {name: s.seconds for name, s in clock.take().items() if s.seconds}
    assert seconds == {"backward": 1 + 4, "output layer": 2}
    at_gradient(torch.ones(1), "backward")  # no gradient will arrive: nothing to turn at


def test_without_a_clock_parts_do_nothing_and_an_error_passes(clock: Clock, hand: Hand) -> None:
    parts.stop()

    @part("logging")
    def log() -> int:
        hand.spend(1, 1)
        count(3)
        turn("loss")
        return 7

    assert log() == 7
    assert clock.take() == {"other": Spent(1.0, 1)}
    parts.start(clock)
    with pytest.raises(KeyError), part("logging"):
        raise KeyError
    hand.spend(2, 1)
    assert clock.take()["other"] == Spent(2.0, 1)


@pytest.mark.parametrize("use", [part, turn])
def test_an_unknown_part_is_refused(use: Any, clock: Clock) -> None:
    with pytest.raises(ValueError, match=r"no part 'teachr'\. Known: sampling"):
        use("teachr")


def test_resident_memory_peaks_where_it_is_used() -> None:
    meter = parts.peak_meter(torch.device("cpu"))
    meter()
    before = meter()
    torch.ones(64 * 2**20 // 4)
    during, after = meter(), meter()
    assert before is not None
    assert during is not None
    assert after is not None
    assert during - before > 60 * 2**20
    assert during - after > 60 * 2**20


# ---------------------------------------------------------------- the table


def test_the_tables_means_add_up_to_the_whole_step() -> None:
    steps = [
        {"sampling": Spent(3.0, 8, 30), "other": Spent(1.0, 2)},
        {"sampling": Spent(5.0, 6, 10), "checkpoint": Spent(2.0, 9), "other": Spent(0.5, 1)},
    ]
    rows = summary(steps)
    assert [(r.name, r.mean, r.tokens, r.peak) for r in rows] == [
        ("sampling", 4.0, 20, 8), ("checkpoint", 1.0, 0, 9), ("other", 0.75, 0, 2),
    ]  # fmt: skip
    assert [r.rate for r in rows] == [5.0, None, None]
    assert whole(steps).mean == sum(r.mean for r in rows) == (4.0 + 7.5) / 2
    assert whole(steps).peak == 9
    printed = table({"sampling": Spent(9.0)}, steps)
    assert printed[1] == ["sampling", "9.000", "4.000", "69.6%", "4.000", "20", "5", "0"]
    assert printed[2][:3] == ["checkpoint", "0.000", "1.000"]
    assert printed[-1][:4] == ["whole step", "9.000", "5.750", "100.0%"]


# ---------------------------------------------------------------- a run


def profile_of(folder: Path, *flags: str, **groups: Any) -> list[dict[str, Any]]:
    file = toy_recipe(folder, **groups)
    assert train(file, folder / "run", "--profile", *flags) == 0
    stored = json.loads((folder / "run/profile.json").read_text())
    assert stored["parts"] == PARTS
    return stored["steps"]


def test_a_run_writes_and_prints_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = profile_of(
        tmp_path,
        train={"steps": 4, "micro_batch": 2, "save_every": 2, "log_rollouts": 2},
        objective={"top_k": 5, "credit_end": True, "baseline": True},
        feedback={"order": ["sibling", "report", "expert"]},
        eval={"samples": 1, "every": 3},
    )
    always = {
        "sampling", "grading", "feedback", "teacher", "student pre-pass", "student forward",
        "output layer", "loss", "backward", "optimiser", "EMA", "logging", "other",
    }  # fmt: skip
    assert len(steps) == 4
    for number, step in enumerate(steps, 1):
        found = {name for name, spent in step.items() if spent["seconds"] > 0}
        assert found == always | ({"checkpoint"} if number % 2 == 0 else set())
        assert JUDGING not in step
        assert all(spent["peak"] > 0 for spent in step.values())
        rollouts = step["sampling"]["tokens"]
        assert 4 <= rollouts <= 4 * 5
        assert step["grading"]["tokens"] == step["feedback"]["tokens"] == rollouts
        assert step["output layer"]["tokens"] <= rollouts
        assert step["student forward"]["tokens"] == step["backward"]["tokens"] > rollouts
        # Siblings lie together before the update, and share a prompt; TRL shuffles them after.
        assert rollouts < step["student pre-pass"]["tokens"] <= step["student forward"]["tokens"]
        assert step["teacher"]["tokens"] > step["student forward"]["tokens"]
    printed = capsys.readouterr().out
    assert "whole step" in printed
    assert "Means of the 3 steps after the first." in printed


def test_a_step_of_two_updates_is_one_step_and_grpo_has_no_teacher(tmp_path: Path) -> None:
    steps = profile_of(
        tmp_path,
        objective={"name": "grpo"},
        train={"steps": 2, "micro_batch": 2, "updates_per_batch": 2},
        eval={"samples": 1},
    )
    assert len(steps) == 2
    for step in steps:
        assert step["student forward"]["seconds"] > 0
        assert not {"teacher", "output layer", "student pre-pass"} & set(step)


def test_a_dry_run_has_nothing_to_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = toy_recipe(tmp_path, train={"micro_batch": 2})
    assert main(["train", str(file), "--dry-run", "--profile"]) == 2
    assert "Leave one out" in capsys.readouterr().err
