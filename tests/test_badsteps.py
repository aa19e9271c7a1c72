"""Bad steps are skipped whole, recorded with their batch, and end the run when they don't end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distil.errors import TrainingError
from distil.runs.badsteps import IN_A_ROW, KEPT, NAMED, BadSteps
from trainertoys import lines, make_trainer


class Poisoned:
    """A trainer whose loss, or gradient, is no number at the given updates."""

    def __init__(
        self,
        folder: Path,
        *,
        losses: set[int] = frozenset(),
        gradients: set[int] = frozenset(),
        **options: Any,
    ) -> None:  # type: ignore[assignment]
        self.trainer = make_trainer(folder, **options)
        self.states: list[tuple[Any, ...]] = []
        original = self.trainer._distillation_loss

        def loss(*args: Any) -> Any:
            update = self.trainer.state.global_step + 1
            return original(*args) * (float("nan") if update in losses else 1.0)

        self.trainer._distillation_loss = loss  # type: ignore[method-assign]
        first = next(self.trainer.model.parameters())
        first.register_hook(
            lambda g: g * float("inf") if self.trainer.state.global_step + 1 in gradients else g
        )
        self.trainer.add_callback(Watch(self))

    def state(self) -> tuple[Any, ...]:
        """Weights, AdamW's moments, the teacher's average: copies."""
        weights = [p.detach().clone() for p in self.trainer.model.parameters()]
        optimiser = self.trainer.optimizer.state.values()  # type: ignore[union-attr]
        moments = [s["exp_avg_sq"].clone() for s in optimiser]
        steps = [s["step"].clone() for s in optimiser]
        shadow = [v.clone() for v in self.trainer.teacher._shadow.values()]  # type: ignore[union-attr]
        return weights, moments, steps, shadow


class Watch(BadSteps):
    """Keeps the state after each step; last among the callbacks."""

    def __init__(self, run: Poisoned) -> None:
        self.run = run

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pass

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.states.append(self.run.state())


@pytest.mark.parametrize("kind", ["losses", "gradients"])
def test_a_bad_step_changes_nothing_and_is_recorded(tmp_path: Path, kind: str) -> None:
    run = Poisoned(tmp_path, **{kind: {2}}, max_steps=3, max_grad_norm=0.0)  # type: ignore[arg-type]
    run.trainer.train()
    first, second, third = run.states
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    for before, after in zip(second[0], third[0], strict=True):
        assert torch.isfinite(after).all()
        assert not torch.equal(before, after)
    (record,) = lines(tmp_path / "bad-steps.jsonl")
    assert record["step"] == 2
    assert record["losses"] == ["nan", "nan"] if kind == "losses" else "nan" not in record["losses"]
    names = [name for name, _ in run.trainer.model.named_parameters()]
    assert record["parameters"] == names[:NAMED] if kind == "losses" else [names[0]]
    kept = load_file(tmp_path / record["file"])
    rollouts = [line for line in lines(tmp_path / "rollouts.jsonl") if line["step"] == 2]
    assert {key.split("/")[0] for key in kept} == {"0", "1"}
    assert len(kept["0/completion_ids"]) + len(kept["1/completion_ids"]) == len(rollouts) == 8
    skipped = [log["steps/skipped"] for log in run.trainer.state.log_history if "loss" in log]
    assert skipped == [0, 1, 0]


def test_only_the_micro_batch_at_fault_is_kept(tmp_path: Path) -> None:
    run = Poisoned(tmp_path, max_steps=1)
    seen: list[int] = []
    original = run.trainer._distillation_loss

    def second_is_infinite(*args: Any) -> Any:
        seen.append(1)
        return original(*args) * (float("inf") if len(seen) == 2 else 1.0)

    run.trainer._distillation_loss = second_is_infinite  # type: ignore[method-assign]
    run.trainer.train()
    (record,) = lines(tmp_path / "bad-steps.jsonl")
    assert record["losses"][1] in ("inf", "-inf")
    assert {key.split("/")[0] for key in load_file(tmp_path / record["file"])} == {"1"}


def test_three_in_a_row_end_the_run_and_two_do_not(tmp_path: Path) -> None:
    bad = {1, 2, *range(4, 4 + IN_A_ROW)}
    run = Poisoned(tmp_path, losses=bad, max_steps=20)
    with pytest.raises(
        TrainingError, match=r"3 steps in a row, the last of them step 6.*step-0+6-p"
    ):
        run.trainer.train()
    assert [r["step"] for r in lines(tmp_path / "bad-steps.jsonl")] == sorted(bad)
    torch.testing.assert_close(run.state()[0], run.states[-1][0], rtol=0, atol=0)


def test_old_batches_go_and_the_lines_stay(tmp_path: Path) -> None:
    run = Poisoned(tmp_path, max_steps=1)
    batch = {"completion_ids": torch.ones(2, 3, dtype=torch.long), "advantage": 1}
    for step in range(1, KEPT + 4):
        run.trainer.bad_steps._in_a_row = 0
        run.trainer.state.global_step = step - 1
        run.trainer.bad_steps.saw(torch.tensor(float("nan")), batch)
        run.trainer.bad_steps.on_pre_optimizer_step(
            run.trainer.args, run.trainer.state, None, model=run.trainer.model
        )
    assert len(lines(tmp_path / "bad-steps.jsonl")) == KEPT + 3
    files = sorted(f.name for f in (tmp_path / "bad-steps").iterdir())
    assert files[0].startswith("step-00000004")
    assert len(files) == KEPT


def test_logs_of_a_bad_step_are_strict_json(tmp_path: Path) -> None:
    def strict(text: str) -> Any:
        raise ValueError(f"{text} is no JSON")

    run = Poisoned(tmp_path, losses={1}, max_steps=1)
    run.trainer.train()
    for name in ("metrics.jsonl", "rollouts.jsonl", "bad-steps.jsonl"):
        for line in (tmp_path / name).read_text(encoding="utf-8").splitlines():
            json.loads(line, parse_constant=strict)
