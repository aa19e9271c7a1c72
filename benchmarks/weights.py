"""The hybrid by the weight of GRPO's advantage, against both of its parts, from stored runs.

    python benchmarks/weights.py

Two suites with the same seeds, problems, budget and learning rate of the hybrid: `results/smollm2`
(GRPO, `mean`, the hybrid at weight 1) and `results/smollm2-weights`. 95% t-intervals over seeds,
differences paired by seed. Left out: training; `distil compare` does that.
"""

from pathlib import Path

from distil.compare.results import gather
from distil.compare.stats import paired, t_interval
from distil.compare.suite import load_suite

SUITES = Path(__file__).parent.parent / "suites"
FIGURES = ("avg@8", "pass@8")
PARTS = {"grpo": "grpo", "mean": "distil-mean"}


def main() -> None:
    """Prints the table."""
    rivals, hybrids = (
        gather(load_suite(SUITES / f"{name}.yaml")).contenders
        for name in ("smollm2", "smollm2-weights")
    )
    rows = {1: rivals["hybrid-until"]}
    rows |= {weight: hybrids[f"weight-{weight}"] for weight in (2, 4, 8)}
    less = " | ".join(f"- {part}" for part in PARTS)
    print("| weight | " + " | ".join(f"{figure} | {less}" for figure in FIGURES) + " |")
    print("|--:" + "|---" * (1 + len(PARTS)) * len(FIGURES) + "|")
    for weight, hybrid in rows.items():
        cells = []
        for figure in FIGURES:
            own = hybrid.finals(figure)
            cells.append(t_interval(list(own.values())).text())
            for part in PARTS.values():
                difference = paired(own, rivals[part].finals(figure))
                cells.append(difference.text(signed=True) if difference else "")
        print(f"| {weight} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
