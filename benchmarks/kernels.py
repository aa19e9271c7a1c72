"""The output layer on a GPU: our loss in one pass, its kernels, and Liger's cross-entropy.

    python benchmarks/kernels.py --device cuda
    python benchmarks/kernels.py                  what it needs, and a small check without a GPU

At 8,192 tokens x 4,096 x 151,936 in bfloat16 by default (about 12 GiB). Printed, with its bar:

    loss       time of `fused_distil_loss` and its backward pass with K + 1 targets a token; the
               three big products' operations over all of that time, as a share of the rate of a
               large torch.mm (at least 60%); to Liger's fused linear cross-entropy of one target,
               turn by turn, if liger-kernel is installed (at most 1.15 times); most memory beyond
               inputs and gradients (at most 1 GiB)
    teacher    the top-K pass, apart: one big product
    passes     what the kernels do to one chunk, and the share of a copy's bandwidth they reach
    rounding   error of a bfloat16 weight gradient summed over chunks, over that in one product

The check compares the kernels with plain PyTorch at odd shapes; without a GPU it runs them under
Triton's interpreter. Left out: what the loss's value should be (tests/test_fused.py).
"""

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from distil.vocab import default_chunk, fused_distil_loss, rows, topk_and_gather_logps
from distil.vocab.logits import LogitForm
from measuring import MIB, table, turns

BARS = {"rate": 0.60, "to liger": 1.15, "scratch MiB": 1024}
BATCH = 8


class Inputs:
    """A student's hidden states and weight; a teacher's top-K and sampled ids to learn from."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        make = partial(torch.randn, device=args.device, dtype=torch.bfloat16)
        shape = (BATCH, args.tokens // BATCH)
        self.hidden = make(*shape, args.hidden).requires_grad_()
        self.weight = make(args.vocab, args.hidden).mul_(0.05).requires_grad_()
        self.teacher_hidden = make(args.tokens, args.hidden)
        ids = partial(torch.randint, device=args.device)
        apart = args.vocab // args.k
        self.support = ids(apart, (*shape, args.k))
        self.support += apart * torch.arange(args.k, device=args.device)
        logps = torch.randn(*shape, args.k + 1, device=args.device).log_softmax(-1)
        self.teacher = logps[..., :-1].contiguous()
        self.sampled = ids(args.vocab, shape)
        self.mask = torch.ones(shape, device=args.device)
        self.k = args.k

    def forget(self) -> None:
        self.hidden.grad = self.weight.grad = None


def ours(x: Inputs) -> None:
    fused_distil_loss(x.hidden, x.weight, x.support, x.teacher, x.sampled, x.mask).backward()
    torch.cuda.synchronize()


def liger(x: Inputs) -> None:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss()
    loss(x.weight, x.hidden.flatten(0, 1), x.sampled.flatten()).backward()
    torch.cuda.synchronize()


def teacher(x: Inputs) -> None:
    weight, sampled = x.weight.detach(), x.sampled.view(-1, 1)
    topk_and_gather_logps(x.teacher_hidden, weight, x.k, sampled)
    torch.cuda.synchronize()


def scratch(side: Callable[[], None], x: Inputs) -> float:
    """Most MiB beyond what was there before and the gradients that stay."""
    x.forget()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side()
    kept = [t.grad.nbytes for t in (x.hidden, x.weight) if t.grad is not None]
    return (torch.cuda.max_memory_allocated() - before - sum(kept)) / MIB


def mm_rate() -> float:
    """Operations a second of a large product in bfloat16, synchronised."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)

    def product() -> None:
        torch.mm(a, a)
        torch.cuda.synchronize()

    spent, _ = turns({"mm": product}, 9, lambda: None)
    return 2 * 8192**3 / spent["mm"]


def losses(args: argparse.Namespace, x: Inputs, rate: float) -> list[list[str]]:
    sides: dict[str, Callable[[], None]] = {"ours": partial(ours, x)}
    if importlib.util.find_spec("liger_kernel"):
        sides["Liger's"] = partial(liger, x)
    memory = {name: scratch(side, x) for name, side in sides.items()}
    spent, _ = turns(sides, args.repeats, x.forget)
    operations = 3 * 2 * x.hidden.numel() * args.vocab
    other = spent.get("Liger's", math.nan)
    found = [
        [
            name, f"{1e3 * spent[name]:.1f}", f"{operations / spent[name] / rate:.2f}",
            f"{spent[name] / other:.2f}", f"{memory[name]:,.0f}",
        ]
        for name in sides
    ]  # fmt: skip
    if "Liger's" not in sides:
        found.append(["Liger's: not installed (pip install liger-kernel)", "", "", "", ""])
    bars = [f">= {BARS['rate']}", f"<= {BARS['to liger']}", f"<= {BARS['scratch MiB']:,}"]
    floor = ["floor", f"{1e3 * operations / rate:.1f}", "1.00", "", "0"]
    spent, _ = turns({"teacher": partial(teacher, x)}, args.repeats, x.forget)
    share = operations / 3 / spent["teacher"] / rate
    memory["teacher"] = scratch(partial(teacher, x), x)
    apart = ["teacher's top-K, apart", f"{1e3 * spent['teacher']:.1f}", f"{share:.2f}", "",
             f"{memory['teacher']:,.0f}"]  # fmt: skip
    return [*found, ["bar", "", *bars], floor, apart]


def passes(args: argparse.Namespace) -> list[list[str]]:
    """Each kernel's pass over a chunk; signed_target_ reads and writes it, the others only read."""
    count = default_chunk(args.vocab, torch.bfloat16, torch.device(args.device))
    x = torch.randn(count, args.vocab, device=args.device, dtype=torch.bfloat16)
    ids = torch.randint(args.vocab, (count, args.k + 1), device=args.device)
    grad = torch.randn(ids.shape, device=args.device)
    form = LogitForm.of(1.0, 1.0, None, None)
    lse = rows.row_stats(x, ids, form, with_entropy=False)[0]
    work = x.clone()
    sides = {
        "copy": (2, lambda: work.copy_(x)),
        "row_stats": (1, lambda: rows.row_stats(x, ids, form, with_entropy=False)),
        "row_stats, entropy": (1, lambda: rows.row_stats(x, ids, form, with_entropy=True)),
        "top_k, entropy": (1, lambda: rows.top_k(x, args.k, form, ids, with_entropy=True)),
        "signed_target_": (2, lambda: rows.signed_target_(work, lse, ids, grad, form)),
    }

    def waited(side: Callable[[], object]) -> None:
        side()
        torch.cuda.synchronize()

    calls = {name: partial(waited, side) for name, (_, side) in sides.items()}
    spent, _ = turns(calls, args.repeats, lambda: None)
    rate = {name: sides[name][0] * x.nbytes / spent[name] for name in sides}
    return [
        [name, f"{count} x {args.vocab:,}", f"{1e3 * spent[name]:.2f}", f"{rate[name] / 1e9:,.0f}",
         f"{rate[name] / rate['copy']:.2f}"]
        for name in sides
    ]  # fmt: skip


def rounding(device: str) -> list[list[str]]:
    """4,096 tokens x 128 x 1,024 in bfloat16, gradients of a cross-entropy, against float64."""
    make = torch.Generator().manual_seed(0)
    hidden = torch.randn(4096, 128, generator=make).bfloat16().to(device)
    weight = torch.randn(1024, 128, generator=make).mul_(0.15).bfloat16().to(device)
    ids = torch.randint(1024, (4096, 1), generator=make).to(device)

    def product(dtype: torch.dtype) -> Tensor:
        logits = (hidden.to(dtype) @ weight.to(dtype).T).to(torch.promote_types(dtype, torch.float))
        return logits.softmax(-1).scatter_add_(-1, ids, -torch.ones_like(logits[:, :1]))

    truth = product(torch.float64).T @ hidden.double()
    dy = product(torch.bfloat16).bfloat16()
    plain = (dy.T @ hidden).double().sub(truth).norm()
    found = []
    for chunks in (1, 2, 4, 8, 16, 32):
        pairs = list(zip(dy.chunk(chunks), hidden.chunk(chunks), strict=True))
        narrow, wide = torch.zeros_like(weight), torch.zeros_like(weight, dtype=torch.float32)
        for part, states in pairs:
            narrow.addmm_(part.t(), states)
            wide.add_(part.t() @ states)
        errors = [(total.bfloat16().double() - truth).norm() / plain for total in (narrow, wide)]
        found.append([str(chunks), *(f"{error:.2f}" for error in errors)])
    return found


def check(device: str) -> None:
    """The kernels against plain PyTorch; an assertion fails where they differ."""
    make = torch.Generator().manual_seed(0)
    for width in (65, 4161, 151936) if device == "cuda" else (65, 4161):
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            for form in (LogitForm.of(1, 1, None, None), LogitForm.of(1.3, 2.5, 4.0, None)):
                x = torch.randn(3, width, generator=make).mul_(3).to(device, dtype)
                ids = torch.randint(width, (3, 7), generator=make).to(device)
                ids[:, 1] = ids[:, 0]
                grad = torch.randn(3, 7, generator=make).to(device)
                y = form.forward_(x.to(torch.float32, copy=True))
                every = y.log_softmax(-1)
                lse, logps, _ = rows.row_stats(x, ids, form, with_entropy=True)
                torch.testing.assert_close(logps, every.gather(-1, ids), rtol=1e-5, atol=1e-5)
                values, top, _, _ = rows.top_k(x, 9, form, ids, with_entropy=True)
                assert torch.equal(x.gather(-1, top), x.topk(min(9, width)).values)
                torch.testing.assert_close(values, every.gather(-1, top), rtol=1e-5, atol=1e-5)
                dy = -every.exp() * grad.sum(-1, keepdim=True)
                expected = form.backward_(dy.scatter_add_(-1, ids, grad), y)
                got = rows.signed_target_(x, lse, ids, grad, form).float()
                within = 2.0**-7 if dtype == torch.bfloat16 else 1e-3
                torch.testing.assert_close(got, expected, rtol=within, atol=1e-5)
    print(f"The kernels agree with plain PyTorch ({device}).\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="The output layer on a GPU.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    head = ["chunks", "summed in bfloat16", "parts summed in float32"]
    if args.device == "cpu":
        print("Speed needs an NVIDIA GPU with 16 GiB: add --device cuda. Here, a check of results.")
        os.environ["TRITON_INTERPRET"] = "1"
        assert "triton" not in sys.modules, "triton was imported before the interpreter was on"
        check("cpu")
        print(table(head, rounding("cpu")))
        return
    check("cuda")
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {args.tokens:,} tokens x "
        f"{args.hidden:,} x {args.vocab:,}, bfloat16, K {args.k}, median of {args.repeats}\n"
    )
    rate = mm_rate()
    print(f"torch.mm of 8,192 x 8,192 x 8,192: {rate / 1e12:.0f} TFLOP/s\n")
    columns = ["loss", "ms", "share of that rate", "to Liger's", "MiB of scratch"]
    print(table(columns, losses(args, Inputs(args), rate)), "\n")
    print(table(["pass", "chunk", "ms", "GB/s", "share of a copy's"], passes(args)), "\n")
    print(table(head, rounding("cuda")))


if __name__ == "__main__":
    main()
