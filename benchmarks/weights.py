"""The hybrid by the weight of GRPO's advantage, against both of its parts, from stored runs.

    python benchmarks/weights.py

Two suites with the same seeds, problems, budget and learning rate of the hybrid: `results/smollm2`
(GRPO, `mean`, the hybrid at weight 1) and `results/smollm2-weights`. 95% t-intervals over seeds,
differences paired by seed. Left out: training; `distil compare` does that.
"""

import json
from pathlib import Path

from distil.compare.stats import paired, t_interval

RESULTS = Path(__file__).parent.parent / "results"
FIGURES = ("avg@8", "pass@8")
PARTS = {"grpo": "grpo", "mean": "distil-mean"}


def scores(suite: str, contender: str, figure: str) -> dict[int, float]:
    """seed -> what the run ended with."""
    return {
        run["seed"]: run["curve"]["figures"][figure][-1]
        for run in json.loads((RESULTS / suite / "results.json").read_text())["runs"]
        if run["contender"] == contender and not run["tuning"] and run["status"] == "finished"
    }


def main() -> None:
    """Prints the table."""
    rows = {1: ("smollm2", "hybrid-until")}
    rows |= {weight: ("smollm2-weights", f"weight-{weight}") for weight in (2, 4, 8)}
    less = " | ".join(f"- {part}" for part in PARTS)
    print("| weight | " + " | ".join(f"{figure} | {less}" for figure in FIGURES) + " |")
    print("|--:" + "|---" * (1 + len(PARTS)) * len(FIGURES) + "|")
    for weight, (suite, contender) in rows.items():
        cells = []
        for figure in FIGURES:
            own = scores(suite, contender, figure)
            cells.append(t_interval(list(own.values())).text())
            for part in PARTS.values():
                difference = paired(own, scores("smollm2", part, figure))
                cells.append(difference.text(signed=True) if difference else "")
        print(f"| {weight} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
