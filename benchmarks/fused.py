"""DistIL's loss in one pass over the output layer, against cross-entropy and the other ways.

    python benchmarks/fused.py
    python benchmarks/fused.py --vocab 49152 --tokens 4096 --threads 4 --repeats 9

Loss and gradients of hidden states and weight, float32, on one CPU; the teacher's log-probabilities
at K ids are given. The sides:

    cross-entropy   torch's, of one id a token, with the whole [tokens, vocab] logits
    plain           DistIL's loss with the whole logits, kept until the backward pass
    recomputing     DistIL's through gather_logps, which makes each chunk's logits twice
    one pass        fused_distil_loss

Memory: each side in a process of its own, highest resident memory less that before the work (inputs
excluded, the gradients included). Time: the sides take turns in one process; medians. The floor is
three products (logits, two gradients) at the rate measured for one of that kind, and the gradients'
bytes. Targets: one pass at most 1.15 times the time of cross-entropy, at a quarter of its memory.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from distil.objectives import (
    append_tail,
    distil_token_loss,
    forward_cross_entropy,
    masked_mean,
)
from distil.vocab import fused_distil_loss, gather_logps
from measuring import MIB, cpu_name, product_rate, resident, said_by, table, turns

GROUP = 4


@dataclass(frozen=True)
class Inputs:
    hidden: Tensor
    weight: Tensor
    support: Tensor
    teacher: Tensor
    sampled: Tensor
    mask: Tensor

    @staticmethod
    def make(rows: int, length: int, hidden: int, vocab: int, k: int) -> "Inputs":
        torch.manual_seed(0)
        teacher = torch.randn(rows, length, k + 1).log_softmax(-1)[..., :k].contiguous()
        return Inputs(
            torch.randn(rows, length, hidden).requires_grad_(),
            torch.randn(vocab, hidden).mul_(0.05).requires_grad_(),
            torch.randint(vocab // k, (rows, length, k)) + vocab // k * torch.arange(k),
            teacher,
            torch.randint(vocab, (rows, length)),
            torch.ones(rows, length),
        )

    def forget(self) -> None:
        self.hidden.grad = self.weight.grad = None


def cross_entropy(x: Inputs) -> Tensor:
    logits = (x.hidden @ x.weight.T).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, x.sampled.flatten())
    loss.backward()
    return loss.detach()


def one_pass(x: Inputs) -> Tensor:
    loss = fused_distil_loss(
        x.hidden, x.weight, x.support, x.teacher, x.sampled, x.mask, group_size=GROUP
    )
    loss.backward()
    return loss.detach()


def recomputing(x: Inputs) -> Tensor:
    ids = torch.cat([x.support, x.sampled[..., None]], -1)
    logps = gather_logps(x.hidden.flatten(0, 1), x.weight, ids.flatten(0, 1)).view(ids.shape)
    return composed(x, logps)


def plain(x: Inputs) -> Tensor:
    ids = torch.cat([x.support, x.sampled[..., None]], -1)
    return composed(x, torch.log_softmax(x.hidden @ x.weight.T, -1).gather(-1, ids))


def composed(x: Inputs, logps: Tensor) -> Tensor:
    cost = forward_cross_entropy(append_tail(logps[..., :-1]), append_tail(x.teacher))
    per_token = distil_token_loss(cost, logps[..., -1], x.mask, group_size=GROUP)
    loss = masked_mean(per_token, x.mask)
    loss.backward()
    return loss.detach()


SIDES: dict[str, Callable[[Inputs], Tensor]] = {
    "cross-entropy": cross_entropy,
    "plain": plain,
    "recomputing": recomputing,
    "one pass": one_pass,
}


def made(args: argparse.Namespace, vocab: int) -> Inputs:
    return Inputs.make(args.rows, args.tokens // args.rows, args.hidden, vocab, args.k)


def measure_here(side: str, args: argparse.Namespace) -> None:
    """What the fresh process does; a tiny run first, so that loading libraries isn't counted."""
    SIDES[side](Inputs.make(GROUP, 8, 32, 256, args.k))
    inputs = made(args, args.vocab[0])
    before = resident("VmRSS")
    SIDES[side](inputs)
    print(json.dumps(resident("VmHWM") - before))


def peak(side: str, args: argparse.Namespace, vocab: int) -> float:
    names = ("tokens", "rows", "hidden", "k", "threads")
    flags = [f"--{name}={getattr(args, name)}" for name in names]
    return said_by(__file__, [*flags, f"--vocab={vocab}", f"--side={side}"]) / MIB


def rows_of(args: argparse.Namespace, vocab: int) -> list[list[str]]:
    inputs = made(args, vocab)
    rate = product_rate(inputs.hidden.detach().flatten(0, 1), inputs.weight.detach()[:16384].T)
    sides = {name: partial(side, inputs) for name, side in SIDES.items()}
    spent, results = turns(sides, args.repeats, inputs.forget)
    for name in ("plain", "recomputing"):
        torch.testing.assert_close(results["one pass"], results[name], rtol=1e-4, atol=1e-4)
    memory = {side: peak(side, args, vocab) for side in SIDES}
    first = "cross-entropy"
    found = [
        [
            f"{vocab:,}", side, f"{spent[side]:.2f}", f"{spent[side] / spent[first]:.2f}",
            f"{memory[side]:,.0f}", f"{memory[side] / memory[first]:.3f}",
        ]
        for side in SIDES
    ]  # fmt: skip
    fastest = 3 * 2 * inputs.hidden.numel() * vocab / rate
    least = 4 * (inputs.hidden.numel() + inputs.weight.numel()) / MIB
    floor = [f"{fastest:.2f}", f"{fastest / spent[first]:.2f}", f"{least:,.0f}", ""]
    return [*found, [f"{vocab:,}", "floor", *floor]]


def main() -> None:
    parser = argparse.ArgumentParser(description="DistIL's loss in one pass.")
    parser.add_argument("--vocab", type=int, nargs="+", default=[49152, 151936])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=8, help="rollouts that the tokens belong to")
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.side:
        measure_here(args.side, args)
        return
    print(
        f"{cpu_name()}, {args.threads} threads, torch {torch.__version__}; {args.rows} rollouts of "
        f"{args.tokens // args.rows} tokens, hidden {args.hidden}, K {args.k}, groups of {GROUP}, "
        f"float32, median of {args.repeats}\n"
    )
    head = ["vocab", "side", "s", "to cross-entropy", "MiB", "to cross-entropy"]
    print(table(head, [row for vocab in args.vocab for row in rows_of(args, vocab)]))


if __name__ == "__main__":
    main()
