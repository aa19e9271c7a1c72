"""The top-K of rows of a vocabulary by the maxima of groups, against torch.topk, on one CPU.

    python benchmarks/topk.py
    python benchmarks/topk.py --vocab 49152 --k 20 --threads 4

Milliseconds of processor time a row in float32, so that other work on the machine counts little;
the ways take turns, the least of the repeats counts. Both must find the same entries.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from distil.vocab.rows import ids_of_largest
from measuring import cpu_name, table

ROWS, BLOCK = 64, 16


def spent(x: Tensor, ids_of: Callable[[Tensor], Tensor]) -> float:
    start = time.process_time()
    for block in x.split(BLOCK):
        ids_of(block)
    return 1e3 * (time.process_time() - start) / len(x)


def row(vocab: int, k: int, repeats: int) -> list[str]:
    torch.manual_seed(0)
    x = torch.randn(ROWS, vocab)
    assert torch.equal(x.gather(-1, ids_of_largest(x, k)), x.topk(k).values)
    ways = (lambda part: part.topk(k).indices, lambda part: ids_of_largest(part, k))
    turns = [[spent(x, way) for way in ways] for _ in range(repeats)]
    plain, groups = (min(times) for times in zip(*turns, strict=True))
    return [f"{vocab:,}", str(k), f"{plain:.3f}", f"{groups:.3f}", f"{groups / plain:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description="The top-K by the maxima of groups.")
    parser.add_argument("--vocab", type=int, nargs="+", default=[49152, 151936])
    parser.add_argument("--k", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{cpu_name()}, {args.threads} threads, torch {torch.__version__}, float32\n")
    rows = [row(vocab, k, args.repeats) for vocab in args.vocab for k in args.k]
    print(table(["vocab", "K", "ms a row, torch.topk", "ms, groups", "ratio"], rows))


if __name__ == "__main__":
    main()
