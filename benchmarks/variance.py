"""How noisy each estimator of the gradient is, on the same rollouts of a model organism.

    python benchmarks/variance.py [organism-sums | organism-programs | organism-cipher] [BATCHES]

At the start model, BATCHES generation batches (8 prompts x 8 rollouts) are sampled and scored once;
each estimator's gradient is taken on each of them. With g_i the gradient of batch i, m their mean:

    noise    sqrt(sum_i |g_i - m|^2 / (n - 1))                 the size of one batch's error
    signal   sqrt(max(|m|^2 - noise^2 / n, 0))                 the size of the expected gradient
    cosine   of one half's mean with the other half's mean of the exact estimator (sum + baseline),
             which unlike the cosine of means over the same batches isn't flattered by shared noise

Left out: other training stages; Adam, which rescales all of this.
"""

import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distil.commands.setup import make_trainer, rows
from distil.models import load_model
from distil.objectives import distil_token_loss, masked_mean
from distil.recipe.recipefile import load_recipe
from distil.tasks import load_task

RECIPES = Path(__file__).parent.parent / "recipes" / "organisms"
ESTIMATORS = {
    "local only": {"future": "none"},
    "sum": {"future": "sum"},
    "sum + baseline": {"future": "sum", "group_size": 8},
    "mean": {"future": "mean"},
    "mean + baseline": {"future": "mean", "group_size": 8},
    "discount .9 + baseline": {"future": "sum", "group_size": 8, "discount": 0.9},
}
EXACT = "sum + baseline"


def gradients(organism: str, batches: int) -> dict[str, Tensor]:
    """[batches, parameters] for each estimator."""
    recipe = load_recipe(RECIPES / f"{organism.removeprefix('organism-')}.yaml")
    task = load_task(recipe.task)
    model, tokenizer = load_model(organism)
    found: dict[str, list[Tensor]] = {name: [] for name in ESTIMATORS}
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(recipe, train=replace(recipe.train, output_dir=folder))
        trainer = make_trainer(recipe, model, tokenizer, task)
        trainer.model.train()
        data = rows(task, task.train)
        generator = torch.Generator().manual_seed(0)
        for _ in range(batches):
            picked = torch.randint(len(data), (8,), generator=generator).tolist()
            inputs = [data[i] for i in picked for _ in range(8)]
            batch = trainer._generate_and_score_completions(inputs)
            student = trainer.builder.score_student(trainer.model, batch)
            for name, options in ESTIMATORS.items():
                loss = masked_mean(
                    distil_token_loss(
                        student.cost, student.sampled_logps, batch["active"], **options
                    ),
                    batch["active"],
                )
                parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
                found[name].append(torch.cat([p.flatten() for p in parts]))
    return {name: torch.stack(g) for name, g in found.items()}


def main() -> None:
    """Prints the table."""
    organism = sys.argv[1] if len(sys.argv) > 1 else "organism-sums"
    batches = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    warnings.simplefilter("ignore")
    found = gradients(organism, batches)
    first, second = slice(0, batches // 2), slice(batches // 2, None)
    print(f"{organism}, {batches} batches of 64 rollouts, start model\n")
    print("| estimator | noise | signal | noise / signal | cosine with the exact one |")
    print("|---|--:|--:|--:|--:|")
    for name, g in found.items():
        mean = g.mean(0)
        noise = ((g - mean).square().sum() / (batches - 1)).sqrt()
        signal = (mean.square().sum() - noise.square() / batches).clamp(min=0).sqrt()
        cosines = [
            torch.cosine_similarity(g[a].mean(0), found[EXACT][b].mean(0), dim=0)
            for a, b in ((first, second), (second, first))
        ]
        print(
            f"| {name} | {noise:.3f} | {signal:.3f} | {noise / signal:.2f} | "
            f"{sum(cosines) / 2:.3f} |"
        )


if __name__ == "__main__":
    main()
