"""How a step's time and memory grow: with tokens, length, vocabulary, K, group and model size.

    python benchmarks/scaling.py [--device cuda] [--busy]

A whole step of DistIL (teacher's pass, student's, output layer, loss, backward, optimiser; fixed
rollouts, nothing sampled) on random Llamas, one size changed at a time, every part timed by
`distil.profiling.parts`. Per part, seconds = a * size ** exponent is fitted by least squares of
logarithms (R^2 in brackets), and so is the step's peak memory above what lay there before the step.
With tokens, nothing may grow faster than they do but attention (the row `length`, in teacher,
student and backward). An exponent near 0 with a low R^2 says that the size makes no odds.

`--busy`: the processor seconds of all threads, where others use the machine too. Times and memory
come from two processes: the second one's allocator hands each block back at once
(on a CPU), so that its peaks are the step's own, and its times too long.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback

from distil import DistILConfig, DistILTrainer, Feedback
from distil.profiling.parts import peak_meter
from distil.profiling.profiler import ProfileCallback
from measuring import MIB, canned

TEMPLATE = (
    "{% for m in messages %}<|start|> {{ m['role'] }} {{ m['content'] }} <|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|> assistant {% endif %}"
)
SHOWN = ("teacher", "student pre-pass", "student forward", "output layer", "loss", "backward")
GROWTH = 1.1
"""An exponent above this isn't linear any more; what lies between is the fit's noise."""


@dataclass(frozen=True)
class Size:
    """A step's sizes. hidden: of a Llama of 4 layers."""

    rollouts: int = 8
    length: int = 64
    vocab: int = 8192
    k: int = 32
    group: int = 8
    hidden: int = 128


BASE = Size()
WIDE = replace(BASE, vocab=8 * BASE.vocab)


def powers(first: int, count: int) -> list[int]:
    return [first * 2**i for i in range(count)]


def parameters(hidden: int) -> float:
    """Of four layers, attention and a gated MLP three times as wide; and the output matrix."""
    return 4 * (4 + 3 * 3) * hidden**2 + BASE.vocab * hidden


AXES: dict[str, list[tuple[float, Size]]] = {
    "tokens": [(n * BASE.length, replace(BASE, rollouts=n)) for n in powers(8, 3)],
    "tokens, 8 V": [(n * BASE.length, replace(WIDE, rollouts=n)) for n in powers(8, 3)],
    "length": [(n, replace(BASE, length=n)) for n in powers(64, 3)],
    "vocabulary": [(n, replace(BASE, vocab=n)) for n in powers(8192, 4)],
    "K": [(n, replace(BASE, k=n)) for n in powers(16, 3)],
    "group": [(n, replace(BASE, rollouts=16, group=n)) for n in powers(2, 3)],
    "model": [(parameters(n), replace(BASE, hidden=n)) for n in powers(64, 3)],
}
"""What grows, and the steps at which it's measured."""


def make_model(size: Size, device: torch.device) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocab, hidden_size=size.hidden, intermediate_size=3 * size.hidden,
        num_hidden_layers=4, num_attention_heads=size.hidden // 32, tie_word_embeddings=True,
        num_key_value_heads=size.hidden // 32, max_position_embeddings=4096,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.to(device, torch.float32 if device.type == "cpu" else torch.bfloat16)
    canned(model, size.length)
    return model


def make_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    words = ["<unk>", "<|start|>", "<|end|>", "user", "assistant", "why?", "wrong."]
    words += [f"w{i}" for i in range(len(words), vocab)]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<|start|>", eos_token="<|end|>",
        pad_token="<|end|>", chat_template=TEMPLATE, padding_side="left",
    )  # fmt: skip


def spent(size: Size, device: torch.device, steps: int, busy: bool) -> dict[str, float]:
    """Median seconds of each part, and `memory`: the highest peak, in bytes, after a warm-up."""
    model, meter = make_model(size, device), peak_meter(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = DistILTrainer(
            model,
            reward_funcs=lambda completions, **columns: [0.0] * len(completions),
            feedback_funcs=lambda completions, **columns: [Feedback(text="wrong.")] * size.rollouts,
            args=DistILConfig(
                folder, per_device_train_batch_size=size.rollouts, num_generations=size.group,
                max_completion_length=size.length, max_steps=steps, logging_steps=1,
                save_strategy="no", report_to="none", disable_tqdm=True, log_rollouts=-1,
                use_cpu=device.type == "cpu", bf16=device.type != "cpu",
                gradient_checkpointing=False, teacher="ema",
                objective={"name": "distil", "top_k": size.k},
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": [{"role": "user", "content": "why?"}]}] * 256
            ),
            processing_class=make_tokenizer(size.vocab),
        )  # fmt: skip
        profile = ProfileCallback(folder, now=time.process_time if busy else time.perf_counter)
        trainer.add_callback(profile)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    meter()
    left = meter() or 0  # weights, optimiser, shadow: there before a step, and after it
    later = profile.steps[1:]
    found = {n: statistics.median(s[n].seconds for s in later if n in s) for n in later[0]}
    found["whole step"] = statistics.median(sum(s.seconds for s in p.values()) for p in later)
    found["memory"] = max(s.peak or 0 for p in later for s in p.values()) - left
    return found


def fit(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """(exponent, R^2) of values = a * sizes ** exponent, least squares in logarithms."""
    x, y = [math.log(s) for s in sizes], [math.log(v) for v in values]
    slope, intercept = statistics.linear_regression(x, y)
    residual = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
    total = sum((b - statistics.mean(y)) ** 2 for b in y)
    return slope, 1 - residual / total if total else 1.0


def measure_here(device: torch.device, steps: int, busy: bool) -> None:
    """What a fresh process does: a line an axis."""
    spent(BASE, device, 2, busy)  # loads libraries
    for name, points in AXES.items():
        print(
            json.dumps([name, [spent(size, device, steps, busy) for _, size in points]]), flush=True
        )


def measured(what: str, args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Every axis's points, from a fresh process."""
    quick = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            "--device",
            args.device,
            "--here",
            str(args.steps),
            *["--busy"] * args.busy,
        ],
        env={**os.environ, **(quick if what == "memory" else {})},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"Measuring {what} failed:\n{done.stderr}")
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="of a size; the first warms up")
    parser.add_argument("--busy", action="store_true", help="processor seconds, not the clock's")
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        measure_here(torch.device(args.device), args.here, args.busy)
        return
    times = measured("time", args)
    memory = measured("memory", argparse.Namespace(device=args.device, steps=2, busy=False))
    print(f"Base: {BASE}, 4 layers, {args.device}, {torch.get_num_threads()} threads\n")
    print("| grows | from, to | " + " | ".join([*SHOWN, "whole step", "peak memory"]) + " |")
    print("|---" * (len(SHOWN) + 4) + "|")
    above = []
    grown = {name: [value for value, _ in points] for name, points in AXES.items()}
    for name, values in grown.items():
        cells = [name, f"{values[0]:,.0f}, {values[-1]:,.0f}"]
        for column in [*SHOWN, "whole step", "memory"]:
            points = [p.get(column, 0.0) for p in (memory if column == "memory" else times)[name]]
            if min(points) <= 0:
                cells.append("-")
                continue
            slope, r2 = fit(values, points)
            cells.append(f"{slope:.2f} ({r2:.2f})")
            attention = name == "length" and column not in ("output layer", "loss", "memory")
            if name in ("tokens", "tokens, 8 V", "length") and slope > GROWTH and not attention:
                above.append(f"{column} with {name}: {slope:.2f}")
        print("| " + " | ".join(cells) + " |")
    print(f"\nAbove linear in tokens, attention apart: {', '.join(above) or 'nothing'}.")
    for name, size in (("tokens", BASE), ("tokens, 8 V", WIDE)):
        points = [p["memory"] for p in memory[name]]
        slope, _ = statistics.linear_regression(grown[name], points)
        print(
            f"A token adds {slope / 1024:,.1f} KiB to the peak at a vocabulary of {size.vocab:,}, "
            f"of which a row of float32 logits would be {size.vocab * 4 / 1024:,.0f}."
        )
    print("\nSeconds and MiB of a whole step:")
    for name, values in grown.items():
        each = zip(values, times[name], memory[name], strict=True)
        line = [f"{v:,.0f}: {t['whole step']:.2f}, {m['memory'] / MIB:.0f}" for v, t, m in each]
        print(f"    {name:12}" + "   ".join(line))


if __name__ == "__main__":
    main()
