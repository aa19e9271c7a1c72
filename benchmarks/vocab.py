"""Memory and time of the chunked log-probabilities against the plain way, on one CPU.

    python benchmarks/vocab.py
    python benchmarks/vocab.py --vocab 49152 --tokens 4096 --threads 4 --repeats 9

The work is one step's share of the vocabulary: the teacher's K likeliest ids of every token, the
student's log-probabilities at those ids and at one sampled id, and the gradients of hidden states
and weight, all in float32. The plain way makes both [tokens, vocab] matrices; it is written to be
frugal (each matrix is freed as soon as it can be).

Memory: each side in a process of its own, highest resident memory less that before the work
(inputs excluded, the gradients included). Time: the sides take turns in one process; medians.
The floor is no side's: the bytes of the outputs, and four matrix products (logits of teacher and
student, two gradients) at the rate measured for a product of that kind; the chunked side needs a
fifth to compute the student's logits again.

Targets: at 49,152 ids at most 1/4 of the plain memory, at 151,936 at most 1/5; at most 1.25 times
the plain time. Reads /proc, so it runs on Linux only.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from distil.vocab import default_chunk, gather_logps, topk_logps
from measuring import MIB, cpu_name, product_rate, resident, said_by, turns


@dataclass(frozen=True)
class Inputs:
    """A teacher and a student near it, one sampled id a token, and the gradient that arrives."""

    teacher_hidden: Tensor
    teacher_weight: Tensor
    hidden: Tensor
    weight: Tensor
    sampled: Tensor
    grad: Tensor
    k: int

    @staticmethod
    def make(tokens: int, hidden: int, vocab: int, k: int) -> "Inputs":
        torch.manual_seed(0)
        return Inputs(
            torch.randn(tokens, hidden),
            torch.randn(vocab, hidden).mul_(0.05),
            torch.randn(tokens, hidden).requires_grad_(),
            torch.randn(vocab, hidden).mul_(0.05).requires_grad_(),
            torch.randint(vocab, (tokens, 1)),
            torch.randn(tokens, k + 1),
            k,
        )


def plain(x: Inputs) -> Tensor:
    """Both whole matrices of logits."""

    def teacher() -> Tensor:
        with torch.no_grad():
            return torch.log_softmax(x.teacher_hidden @ x.teacher_weight.T, -1).topk(x.k).indices

    ids = torch.cat([teacher(), x.sampled], -1)
    logps = torch.log_softmax(x.hidden @ x.weight.T, -1).gather(-1, ids)
    logps.backward(x.grad)
    return logps.detach()


def chunked(x: Inputs) -> Tensor:
    """The same, a chunk of tokens at a time."""
    _, top = topk_logps(x.teacher_hidden, x.teacher_weight, x.k)
    logps = gather_logps(x.hidden, x.weight, torch.cat([top, x.sampled], -1))
    logps.backward(x.grad)
    return logps.detach()


SIDES: dict[str, Callable[[Inputs], Tensor]] = {"plain": plain, "chunked": chunked}


def peak_memory(side: str, args: argparse.Namespace, vocab: int) -> int:
    """Bytes that a side needs beside its inputs, measured in a fresh process."""
    sizes = {"tokens": args.tokens, "hidden": args.hidden, "k": args.k, "threads": args.threads}
    flags = [f"--{name}={value}" for name, value in sizes.items()]
    return int(said_by(__file__, [*flags, f"--vocab={vocab}", f"--side={side}"]))


def measure_here(side: str, args: argparse.Namespace) -> None:
    """What the fresh process does; a tiny run first, so that loading libraries isn't counted."""
    SIDES[side](Inputs.make(64, 32, 256, args.k))
    inputs = Inputs.make(args.tokens, args.hidden, args.vocab[0], args.k)
    before = resident("VmRSS")
    SIDES[side](inputs)
    print(json.dumps(resident("VmHWM") - before))


def row(args: argparse.Namespace, vocab: int) -> str:
    memory = {side: peak_memory(side, args, vocab) / MIB for side in SIDES}
    inputs = Inputs.make(args.tokens, args.hidden, vocab, args.k)
    rate = product_rate(inputs.teacher_hidden, inputs.teacher_weight[:16384].T)

    def forget() -> None:
        inputs.hidden.grad = inputs.weight.grad = None

    sides = {name: partial(side, inputs) for name, side in SIDES.items()}
    spent, results = turns(sides, args.repeats, forget)
    torch.testing.assert_close(results["chunked"], results["plain"], rtol=1e-4, atol=1e-4)
    least = 12 * args.tokens * args.k + 4 * inputs.grad.numel()
    least += 4 * (inputs.hidden.numel() + inputs.weight.numel())
    fastest = 4 * 2 * inputs.hidden.numel() * vocab / rate
    cells = [
        f"{vocab:,}",
        f"{min(args.tokens, default_chunk(vocab, torch.float32, torch.device('cpu')))}",
        *(f"{memory[side]:,.0f}" for side in SIDES),
        f"{least / MIB:,.0f}",
        f"{memory['chunked'] / memory['plain']:.3f}",
        *(f"{spent[side]:.2f}" for side in SIDES),
        f"{fastest:.2f}",
        f"{spent['chunked'] / spent['plain']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Chunked log-probabilities against the plain way.")
    parser.add_argument("--vocab", type=int, nargs="+", default=[49152, 151936])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.side:
        measure_here(args.side, args)
        return
    print(
        f"{cpu_name()}, {args.threads} threads, torch {torch.__version__}; {args.tokens} tokens, "
        f"hidden {args.hidden}, K {args.k}, float32, median of {args.repeats}\n"
    )
    memory, time_ = "MiB plain | MiB chunked | MiB floor", "s plain | s chunked | s floor"
    print(f"| vocab | chunk at most | {memory} | memory ratio | {time_} | time ratio |")
    print("|" + " --: |" * 10)
    for vocab in args.vocab:
        print(row(args, vocab), flush=True)


if __name__ == "__main__":
    main()
