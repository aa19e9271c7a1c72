"""What starting a pass costs, in tokens: the number that cuts the teacher's rows into passes.

    python benchmarks/passcost.py [--device cuda] [--model FOLDER]

The decoder alone, without a gradient, over one row of 1 to `--longest` tokens; lengths take turns,
medians. seconds = start + tokens * each, by least squares weighted so that every length
counts alike; start / each is the cost, beside what `distil.teacher.teacherpass` reckons with.
Left out: shards, which are gathered for each pass.
"""

import argparse
from functools import partial
from typing import Any

import torch

from distil.models import computing, load_model
from distil.profiling.parts import peak_meter
from distil.teacher import teacherpass
from distil.vocab.hidden import base_model
from measuring import table, turns


def lengths(longest: int) -> list[int]:
    """1, then by fours up to `longest`."""
    return [1] + [n for n in (4**i for i in range(1, 10)) if n <= longest]


def fit(took: dict[int, float]) -> tuple[float, float]:
    """(start, each) of seconds = start + tokens * each, relative errors weighing alike."""
    design = torch.tensor([[1 / s, n / s] for n, s in took.items()], dtype=torch.float64)
    start, each = torch.linalg.lstsq(design, torch.ones(len(took), 1).double()).solution[:, 0]
    return float(start), float(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--longest", type=int, help="tokens; 256 on a CPU, 4,096 on a GPU")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    device = torch.device(args.device)
    model: Any = load_model(args.model)[0].to(device).eval()
    base = base_model(model)
    longest = args.longest or (256 if args.device == "cpu" else 4_096)
    wait = peak_meter(device)

    def one(ids: torch.Tensor) -> None:
        base(ids, use_cache=False)
        wait()

    rows = {n: torch.randint(1000, (1, n), device=device) for n in lengths(longest)}
    with torch.no_grad(), computing(model):
        passes = {str(n): partial(one, ids) for n, ids in rows.items()}
        took = {int(n): s for n, s in turns(passes, args.repeats, wait)[0].items()}
    print(table(["tokens", "ms"], [[f"{n:,}", f"{1e3 * s:.2f}"] for n, s in took.items()]))
    start, each = fit(took)
    parameters = sum(p.numel() for p in model.parameters())
    reckoned = (
        teacherpass.CPU_PASS_TOKENS
        if args.device == "cpu"
        else teacherpass.PASS_PARAMETER_TOKENS / parameters
    )
    print(
        f"\n{args.model}, {parameters:,} parameters, {args.device}: a pass starts in "
        f"{1e3 * start:.2f} ms, a token takes {1e3 * each:.4f} ms: it costs {start / each:,.0f} "
        f"tokens; {reckoned:,.0f} are reckoned with."
    )


if __name__ == "__main__":
    main()
