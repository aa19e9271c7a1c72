"""The teacher's pass: padding, tokens that are run, and time, before and after, turn by turn.

    python benchmarks/teacher.py                   # all mixes, on SmolLM2-135M
    python benchmarks/teacher.py demo math --repeats 3
    python benchmarks/teacher.py --plan            # no model: a step of 32 prompts x 8, plans only
    python benchmarks/teacher.py --update          # the average's update, and a 16-bit copy

before    rows in the order they come, 16 at a time (the demo's micro-batch), prompts padded on the
          left to the longest, completions on the right; every sibling reads its own prompt
apart     `distil.teacher.teacherpass` without sharing: rows of like length together
after     `distil.teacher.teacherpass`: what rows begin with alike is read once, where that pays

Ids are random, lengths and what siblings share are as in the mixes below; the output layer (top 20
and the sampled token at every completion token) is in all three. The largest difference of a
log-probability from `before` is printed. Times are medians over turns. CPU seconds with one thread
hold on a busy machine too. The floor: the tokens that `after` runs, at the rate of one pass over
512 tokens.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from distil.models import load_model
from distil.teacher import teacherpass
from distil.teacher.passplan import Row, make_plan
from distil.teacher.teachers import ShadowTeacher
from distil.vocab import topk_and_gather_logps
from distil.vocab.hidden import completion_hidden
from distil.vocab.output_layer import output_layer

K = 20
AT_ONCE = 16


@dataclass(frozen=True)
class Mix:
    """Lengths, in tokens, lowest and highest; log-uniform between.

    own: what a sibling alone is shown; alone: siblings of a group that see their own and not the
    group's demonstration.
    """

    prompts: int
    siblings: int
    question: tuple[int, int]
    demonstration: tuple[int, int]
    completion: tuple[int, int]
    alone: int
    why: str


MIXES = {
    "demo": Mix(8, 4, (45, 60), (6, 14), (4, 24), 1, "one-digit sums; the shortest sibling"),
    "science": Mix(3, 8, (120, 400), (80, 700), (60, 400), 1, "the shortest sibling's answer"),
    "math": Mix(3, 8, (60, 160), (120, 600), (100, 400), 0, "the expert's solution first"),
    "coding": Mix(3, 8, (200, 500), (30, 300), (80, 400), 6, "a report of one's own, mostly"),
    "unequal": Mix(32, 1, (30, 700), (1, 2), (10, 300), 0, "one rollout a prompt: nothing shared"),
}


def make_rows(mix: Mix, seed: int, vocab: int) -> tuple[list[list[int]], list[list[int]]]:
    """(teacher prompts, completions), sibling by sibling."""
    stream = random.Random(f"teacher/{seed}")

    def ids(bounds: tuple[int, int]) -> list[int]:
        low, high = bounds
        return [
            stream.randrange(3, vocab) for _ in range(round(low * (high / low) ** stream.random()))
        ]

    system, end = ids((20, 20)), ids((8, 8))
    prompts, completions = [], []
    for _ in range(mix.prompts):
        question, shown = ids(mix.question), ids(mix.demonstration)
        for sibling in range(mix.siblings):
            own = shown if sibling >= mix.alone else ids(mix.demonstration)
            prompts.append([*system, *question, *own, *end])
            completions.append(ids(mix.completion))
    return prompts, completions


def as_tensors(completions: list[list[int]]) -> tuple[Tensor, Tensor]:
    """[B, T] ids and the mask of what is scored."""
    longest = max(map(len, completions))
    ids = torch.tensor([c + [0] * (longest - len(c)) for c in completions])
    mask = torch.tensor([[1] * len(c) + [0] * (longest - len(c)) for c in completions])
    return ids, mask


@torch.no_grad()
def before(
    model: Any, prompts: list[list[int]], ids: Tensor, mask: Tensor
) -> tuple[Tensor, int, int]:
    """Sampled tokens' log-probabilities, positions run, tokens among them."""
    found, positions, tokens = torch.zeros(ids.shape), 0, 0
    for start in range(0, len(prompts), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        longest = max(map(len, prompts[part]))
        left = torch.tensor([[0] * (longest - len(p)) + p for p in prompts[part]])
        real = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts[part]])
        attention = torch.cat([real, mask[part]], 1)
        hidden = completion_hidden(
            model, model, torch.cat([left, ids[part]], 1), attention, ids.shape[1]
        )
        here, layer = mask[part] > 0, output_layer(model)
        at = ids[part][here][:, None]
        logps = topk_and_gather_logps(hidden[here], layer.weight, K, at)[2]
        found[part] = found[part].masked_scatter(here, logps[:, 0])
        positions, tokens = positions + attention.numel(), tokens + int(attention.sum())
    return found, positions, tokens


def after(
    model: Any, prompts: list[list[int]], ids: Tensor, mask: Tensor, *, share: bool
) -> tuple[Tensor, int, int]:
    """As `before`, by the trainer's own function."""
    able = teacherpass.can_share
    teacherpass.can_share = able if share else (lambda model, base: False)
    try:
        with torch.no_grad():
            scores = teacherpass.score_teacher(
                model, model, prompts, ids, mask, k=K, temperature=1.0, batch_size=AT_ONCE
            )
    finally:
        teacherpass.can_share = able
    work = scores.work
    return scores.sampled_logps, work.positions, work.positions - work.padding


def timed(act: Callable[[], Any]) -> tuple[float, float, Any]:
    """(seconds, CPU seconds, what it returned)."""
    started, spent = time.perf_counter(), time.process_time()
    result = act()
    return time.perf_counter() - started, time.process_time() - spent, result


def compare(names: list[str], repeats: int) -> None:
    """Prints the table of mixes."""
    model = load_model("smollm2-135m-instruct")[0].eval()
    plain = torch.randint(3, 40_000, (1, 512))
    one = lambda: completion_hidden(model, model, plain, torch.ones_like(plain), 1)  # noqa: E731
    print("| mix | way | positions | padding | seconds | CPU s | of before | largest difference |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name in names:
        prompts, completions = make_rows(MIXES[name], 0, 40_000)
        ids, mask = as_tensors(completions)
        ways = {
            "before": lambda: before(model, prompts, ids, mask),  # noqa: B023
            "apart": lambda: after(model, prompts, ids, mask, share=False),  # noqa: B023
            "after": lambda: after(model, prompts, ids, mask, share=True),  # noqa: B023
        }
        seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in [*ways, "floor"]}
        results = {}
        with torch.no_grad():
            one()
            for _ in range(repeats):
                seconds["floor"].append(timed(one)[:2])
                for way, act in ways.items():
                    *took, results[way] = timed(act)
                    seconds[way].append((took[0], took[1]))
        wall, cpu = (
            {way: statistics.median(t[i] for t in taken) for way, taken in seconds.items()}
            for i in range(2)
        )
        for way, (logps, positions, tokens) in results.items():
            off = (logps - results["before"][0]).abs().max().item()
            print(
                f"| {name} | {way} | {positions:,} | {1 - tokens / positions:.1%} | "
                f"{wall[way]:.2f} | {cpu[way]:.2f} | {cpu[way] / cpu['before']:.2f} | {off:.1e} |"
            )
        share = results["after"][2] / 512
        print(
            f"| {name} | floor | {results['after'][2]:,} | 0.0% | {share * wall['floor']:.2f} | "
            f"{share * cpu['floor']:.2f} | {share * cpu['floor'] / cpu['before']:.2f} | |",
            flush=True,
        )


def plans(seeds: int) -> None:
    """Prints what is planned for whole steps of 32 prompts x 8, on a CPU and on an accelerator."""
    print("| mix | pass costs (tokens) | passes | padding | positions of the tokens | plan, ms |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, mix in MIXES.items():
        for fixed in (teacherpass.CPU_PASS_TOKENS, 250.0, 3300.0):
            counts, padded, positions, tokens, took = 0, 0, 0, 0, 0.0
            for seed in range(seeds):
                whole = Mix(
                    32, min(mix.siblings, 8), mix.question, mix.demonstration, mix.completion,
                    mix.alone, "",
                )  # fmt: skip
                rows = [
                    Row(i, p + c[:-1], len(c))
                    for i, (p, c) in enumerate(zip(*make_rows(whole, seed, 40_000), strict=True))
                ]
                limit = AT_ONCE * max(len(row.ids) for row in rows)
                spent, _, stages = timed(
                    lambda: make_plan(rows, limit=limit, fixed=fixed, share=True)  # noqa: B023
                )
                passes = [lengths for stage in stages for lengths in stage.lengths()]
                run = sum(len(p) * max(p) for p in passes)
                counts, positions, took = counts + len(passes), positions + run, took + spent
                padded += run - sum(map(sum, passes))
                tokens += sum(len(row.ids) for row in rows)
            print(
                f"| {name} | {fixed:.0f} | {counts / seeds:.1f} | {padded / positions:.1%} | "
                f"{positions / tokens:.2f} | {1e3 * took / seeds:.0f} |"
            )


def update(repeats: int) -> None:
    """Prints what one update of the average takes: a loop of lerp_, and one call for all."""
    model = load_model("smollm2-135m-instruct")[0]
    teacher = ShadowTeacher(model, 0.01)
    weights = [p.detach() for p in model.parameters()]
    shadow = [w.clone() for w in weights]
    at_once = get_ema_multi_avg_fn(0.99)
    half = [w.to(torch.bfloat16) for w in weights]

    def loop() -> None:
        for average, weight in zip(shadow, weights, strict=True):
            average.lerp_(weight, 0.01)

    ways = {
        "ShadowTeacher.after_step": lambda: teacher.after_step(model),
        "lerp_, tensor by tensor": loop,
        "one foreach call": lambda: at_once(shadow, weights, None),
        "bfloat16 copy for scoring": lambda: [s.to(torch.bfloat16) for s in shadow],
        "bfloat16 model's update": lambda: [
            s.lerp_(w.to(torch.float32), 0.01) for s, w in zip(shadow, half, strict=True)
        ],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, act in ways.items():
            seconds[way].append(timed(act)[0])
    numbers = sum(w.numel() for w in weights)
    a, b = torch.empty(numbers), torch.empty(numbers)
    rate = 8 * numbers / min(timed(lambda: a.copy_(b))[0] for _ in range(5))
    for way, took in seconds.items():
        print(f"{way}: {1e3 * statistics.median(took):.0f} ms (fastest {1e3 * min(took):.0f})")
    print(f"floor of an update, 12 bytes a number at a copy's rate: {12e3 * numbers / rate:.0f} ms")


def main() -> None:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mixes", nargs="*", default=[], choices=[*MIXES, []])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--update", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.plan:
        plans(5)
    elif given.update:
        update(3 * given.repeats)
    else:
        compare(given.mixes or list(MIXES), given.repeats)


if __name__ == "__main__":
    main()
