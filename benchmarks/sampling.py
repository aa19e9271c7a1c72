"""Sampling on this machine: TRL's default and what might replace it, turn by turn in one process.

    python benchmarks/sampling.py [--rounds 3] [--threads 2] [--only trl shared] [--ends]

8 prompts x 8 completions x 64 tokens of SmolLM2-135M, float32, temperature 1: tokens a second, the
ratio to TRL's default with the time that new weights take to arrive, processor seconds, and the
floors: weights read once a token step at the measured bandwidth, and the products at the measured
rate. Every completion has 64 tokens, so that the work is equal; with --ends they end where the
model ends them, and what counts is a batch's seconds.

Sides: trl (transformers' generate as GRPOTrainer calls it), shared (the same, but each prompt read
once: distil.trainer.sharedprompts), and ctranslate2 where it is installed (pip install --no-deps
ctranslate2). Asked for by --only: paged (TRL's use_transformers_continuous_batching, here with a
cache of 128 blocks: left to itself it takes half of a machine's memory at once) and static
(generate on a compiled static cache).
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from distil.models import load_model
from distil.trainer.probe import left_padded
from distil.trainer.sharedprompts import complete
from measuring import best, product_rate

MODEL = "smollm2-135m-instruct"
TOKENS = 64
GROUP = 8
QUESTIONS = [
    "What is 12 + 35 - 7?",
    "Sort the letters of the word 'banana'.",
    "Tom has 3 apples and buys 4 more, then gives away 2. How many are left?",
    "Write a Python function that reverses a list.",
    "Which planet is the largest?",
    "Count the vowels in 'extraordinary'.",
    "If x + 3 = 10, what is x?",
    "Name three primary colours and explain why they are called primary.",
]
Side = Callable[[], int]
"""Samples a batch; returns how many tokens."""


def prompts(tokenizer: Any) -> list[list[int]]:
    """Each question's ids, GROUP times in a row."""
    encoded = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in QUESTIONS
    ]
    return [ids for ids in encoded for _ in range(GROUP)]


def count(rows: list[list[int]], stops: list[int]) -> int:
    """Tokens up to and with the first end token of each row."""
    ends = [[i for i, token in enumerate(row) if token in stops] for row in rows]
    return sum(found[0] + 1 if found else len(row) for row, found in zip(rows, ends, strict=True))


def generate(model: Any, rows: list[list[int]], stops: list[int], **more: Any) -> Side:
    """As `GRPOTrainer` calls it: every row padded on the left, one batch to the longest end."""
    ids, mask = left_padded(rows, 0, model.device)
    longest, config = ids.shape[1], settings(stops, **more)

    def side() -> int:
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        return count(output[:, longest:].tolist(), stops)

    return torch.no_grad()(side)


def settings(stops: list[int], **more: Any) -> GenerationConfig:
    least = {} if stops else {"min_new_tokens": TOKENS}
    return GenerationConfig(
        max_new_tokens=TOKENS, do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
        pad_token_id=0, eos_token_id=stops or None, **least, **more,
    )  # fmt: skip


def paged(model: Any, rows: list[list[int]], stops: list[int]) -> Side:
    def side() -> int:
        output = model.generate_batch(
            rows, generation_config=settings(stops or [-1]), progress_bar=False,
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=128),
        )  # fmt: skip
        return sum(len(one.generated_tokens) for one in output.values())

    return torch.no_grad()(side)


def shared(model: Any, rows: list[list[int]], stops: list[int]) -> Side:
    def side() -> int:
        return count(complete(model, rows, settings(stops), 0), stops)

    return side


def ctranslate2(
    model: Any, tokenizer: Any, rows: list[list[int]], stops: list[int], threads: int, folder: Path
) -> tuple[Side, float]:
    """And the least that new weights would take: all bytes written once, and the model loaded.

    (Its own converter takes 10 to 25 s.)
    """
    import ctranslate2 as engine
    from ctranslate2.converters import TransformersConverter

    model.save_pretrained(folder / "hf")
    tokenizer.save_pretrained(folder / "hf")
    TransformersConverter(str(folder / "hf")).convert(str(folder / "ct2"))
    began = time.perf_counter()
    with open(folder / "weights", "wb") as file:
        for parameter in model.parameters():
            file.write(memoryview(parameter.detach().numpy()).cast("B"))
    loaded = engine.Generator(str(folder / "ct2"), intra_threads=threads, compute_type="float32")
    weights = time.perf_counter() - began
    starts = [tokenizer.convert_ids_to_tokens(row) for row in rows[::GROUP]]
    ends: dict[str, Any] = {"end_token": stops} if stops else {"min_length": TOKENS}

    def side() -> int:
        found = loaded.generate_batch(
            starts, num_hypotheses=GROUP, sampling_topk=0, sampling_temperature=1.0,
            include_prompt_in_result=False, max_length=TOKENS, return_end_token=True, **ends,
        )  # fmt: skip
        return sum(len(ids) for one in found for ids in one.sequences_ids)

    return side, weights


def floors(model: Any, rows: int) -> None:
    """Prints what no sampler of this many rows at once can beat in float32."""
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    many, square = torch.randn(2**26), torch.randn(2048, 2048)
    bandwidth = many.nbytes / best(many.sum)
    rate = product_rate(square, square)
    read, multiply = 4 * matrices / bandwidth, 2 * matrices * rows / rate
    print(
        f"floor by bandwidth: {4 * matrices / 1e6:.0f} MB at {bandwidth / 1e9:.1f} GB/s = "
        f"{read * 1e3:.0f} ms a step = {rows / read:.0f} tokens/s\n"
        f"floor by products: {2 * matrices * rows / 1e9:.1f} G at {rate / 1e9:.0f} G/s = "
        f"{multiply * 1e3:.0f} ms a step = {rows / multiply:.0f} tokens/s"
    )


def main() -> None:
    """Prints a line a side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", default=["trl", "shared", "ctranslate2"])
    parser.add_argument("--ends", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model, tokenizer = load_model(MODEL, "float32")
    model.eval()
    stops = [tokenizer.eos_token_id] if given.ends else []
    rows = prompts(tokenizer)
    sides: dict[str, Side] = {
        "trl": generate(model, rows, stops),
        "paged": paged(model, rows, stops),
        "static": generate(model, rows, stops, cache_implementation="static"),
        "shared": shared(model, rows, stops),
    }
    weights = dict.fromkeys(sides, 0.0)  # the model's own: nothing is moved
    with tempfile.TemporaryDirectory() as folder:
        if "ctranslate2" in given.only:
            try:
                sides["ctranslate2"], weights["ctranslate2"] = ctranslate2(
                    model, tokenizer, rows, stops, given.threads, Path(folder)
                )
            except ImportError:
                print("ctranslate2 isn't installed: left out")
        sides = {name: side for name, side in sides.items() if name in given.only}
        floors(model, len(rows))
        wall: dict[str, list[float]] = {name: [] for name in sides}
        busy: dict[str, list[float]] = {name: [] for name in sides}
        tokens = dict.fromkeys(sides, 0)
        for turn in range(given.rounds + 1):  # the first one warms up
            for name, side in sides.items():
                began, used = time.perf_counter(), time.process_time()
                tokens[name] = side()
                seconds, processor = time.perf_counter() - began, time.process_time() - used
                print(
                    f"turn {turn}: {name} {seconds:.2f} s, {processor:.2f} processor s", flush=True
                )
                if turn:
                    wall[name].append(seconds)
                    busy[name].append(processor)
    first = next(iter(sides))
    for name in sides:
        whole = [seconds + weights[name] for seconds in wall[name]]
        ratio = median(a / b for a, b in zip(wall[first], whole, strict=True))
        print(
            f"{name:12} {tokens[name] / median(whole):5.0f} tokens/s  {median(whole):6.2f} s "
            f"({weights[name]:.2f} s of it weights)  {median(busy[name]):6.2f} processor s  "
            f"{ratio:.2f}x {first}"
        )


if __name__ == "__main__":
    main()
