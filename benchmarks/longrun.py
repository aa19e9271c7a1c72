"""Two thousand steps of an organism: does anything grow that shouldn't, does anything slow down?

    python benchmarks/longrun.py
    python benchmarks/longrun.py --steps 200 --organism organism-sums

Trains a model organism by its recipe (recipes/organisms/), and notes after every tenth step: the
process's resident memory, its open files, the run folder's bytes, and the seconds of a step. Prints
each one's mean over the second and over the last quarter, and the slope a thousand steps of a
least-squares line over the second half, with its standard error. Checkpoints come every 50 steps,
two are kept; rollouts may take `--rollouts-mb`. Reads /proc, so it runs on Linux only.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from distil.commands.setup import make_trainer
from distil.config import Recipe
from distil.models import load_model
from distil.recipe.recipefile import load_recipe
from distil.tasks import load_task
from measuring import MIB, cpu_name, resident, table

EVERY = 10
RECIPES = Path(__file__).parent.parent / "recipes" / "organisms"


class Notes(TrainerCallback):
    """(step, resident MiB, open files, folder MiB, seconds a step) after every tenth."""

    def __init__(self, folder: Path) -> None:
        self.rows: list[tuple[float, ...]] = []
        self._folder, self._last = folder, time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % EVERY:
            return
        now = time.perf_counter()
        size = sum(f.stat().st_size for f in self._folder.rglob("*") if f.is_file())
        self.rows.append(
            (
                state.global_step,
                resident("VmRSS") / MIB,
                len(list(Path("/proc/self/fd").iterdir())),
                size / MIB,
                (now - self._last) / EVERY,
            )
        )
        self._last = now


def slope(x: list[float], y: list[float]) -> tuple[float, float]:
    """Least squares: y's rise a unit of x, and its standard error (of independent deviations)."""
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    left = [b - mean_y - rise * (a - mean_x) for a, b in zip(x, y, strict=True)]
    error = (sum(r * r for r in left) / max(len(x) - 2, 1) / spread) ** 0.5
    return rise, error


def told(rows: list[tuple[float, ...]]) -> str:
    quarter = len(rows) // 4
    names = ("resident MiB", "open files", "run folder MiB", "seconds a step")
    lines = []
    for place, name in enumerate(names, 1):
        values = [row[place] for row in rows]
        half = rows[len(rows) // 2 :]
        rise, error = slope([row[0] for row in half], [row[place] for row in half])
        second, last = values[quarter : 2 * quarter], values[-quarter:]
        lines.append(
            [
                name,
                f"{statistics.fmean(second):.4g}",
                f"{statistics.fmean(last):.4g}",
                f"{1000 * rise:+.3g} ± {1000 * error:.2g}",
            ]
        )
    return table(["", "second quarter", "last quarter", "slope, 1,000 steps"], lines)


def long_recipe(args: argparse.Namespace, folder: Path) -> Recipe:
    recipe = load_recipe(RECIPES / f"{args.organism.removeprefix('organism-')}.yaml")
    train = replace(
        recipe.train, steps=args.steps, save_every=50, keep_checkpoints=1, seed=0,
        output_dir=str(folder), rollouts_mb=args.rollouts_mb,
    )  # fmt: skip
    return replace(recipe, train=train, model=replace(recipe.model, name=args.organism))


def main() -> None:
    parser = argparse.ArgumentParser(description="A long run of an organism.")
    parser.add_argument("--organism", default="organism-cipher")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rollouts-mb", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        recipe = long_recipe(args, folder)
        model, tokenizer = load_model(recipe.model.name, recipe.model.dtype)
        trainer = make_trainer(recipe, model, tokenizer, load_task(recipe.task))
        notes = Notes(folder)
        trainer.add_callback(notes)
        trainer.remove_callback(PrinterCallback)
        began = time.perf_counter()
        trainer.train()
        took = time.perf_counter() - began
    print(
        f"{cpu_name()}, {args.threads} threads, torch {torch.__version__}; {args.organism}, "
        f"{args.steps:,} steps in {took / 60:.0f} min, rollouts within {args.rollouts_mb:g} MB\n"
    )
    print(told(notes.rows))


if __name__ == "__main__":
    main()
