"""What a step costs at scale, on paper: memory, seconds, bytes. Makes every table of docs/scale.md.

    python benchmarks/scale.py            # prints them
    python benchmarks/scale.py --write    # and puts them into docs/scale.md

Memory is `distil.profiling.memory`'s, as `distil train --dry-run` prints it. Times are bytes over a
stated bandwidth and operations over a stated utilisation: nothing here was measured on a GPU. Texts
are pickled, as they are gathered, and their sizes counted: that much is simulation.
"""

import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from distil.config import LoraSettings, Recipe
from distil.figures.layout import as_markdown
from distil.profiling.memory import GIB, ModelShape, memory_parts, peak
from distil.recipe.checks import check_recipe
from distil.recipe.recipefile import load_recipe
from distil.types import Feedback

PROJECT = Path(__file__).parent.parent
CARDS = {"80 GB": 79.0, "141 GB": 140.0}  # GiB that are there
HBM = {"80 GB": 3.35e12, "141 GB": 4.8e12}  # bytes a second: H100, H200
FLOPS, UTILISATION = 989e12, 0.4  # of both, 16 bits, dense
HBM_SHARE, LINK_SHARE = 0.6, 0.8
LINK = {8: 450e9, 64: 400e9}  # bytes a second into a GPU: NVLink; 8 ports of 400 Gb/s a node
DECODE_S, ALL_REDUCE_S = 2e-3, 10e-6  # of one decoding step beside memory; of one small sum
PROMPT, MEAN, LONGEST = 300, 2048, 8192  # tokens; teacher's prompt: + a sibling + the frame
TEACHER_PROMPT = PROMPT + MEAN + 152
BYTES_A_TOKEN = 4  # of text
QWEN3_8B = Qwen3Config(
    vocab_size=151_936, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36,
    num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=False,
)  # fmt: skip
LLAMA3_70B = LlamaConfig(
    vocab_size=128_256, hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80,
    num_attention_heads=64, num_key_value_heads=8, tie_word_embeddings=False,
)  # fmt: skip
SHAPES: dict[tuple[str, int], ModelShape] = {}


@dataclass(frozen=True)
class Plan:
    """A model, its GPUs, and the recipe: science/distil.yaml with what is said here."""

    name: str
    config: PretrainedConfig
    gpus: int
    recipe: Recipe

    def shape(self, lora: int = 0) -> ModelShape:
        """Of the model, without memory for it; made once."""
        if (self.name, lora) not in SHAPES:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(self.config)
            SHAPES[self.name, lora] = ModelShape.of(model, LoraSettings(rank=lora))
        return SHAPES[self.name, lora]

    @property
    def rollouts(self) -> int:
        """Of a step."""
        return self.recipe.rollout.prompts_per_step * self.recipe.rollout.num_generations


def plans() -> list[Plan]:
    """8B on 8 GPUs as published; 70B on 64, four times the prompts, vLLM over a node's 8 GPUs."""
    small = check_recipe(load_recipe(PROJECT / "recipes/science/distil.yaml"))
    large = replace(
        small,
        rollout=replace(small.rollout, prompts_per_step=128, vllm_tensor_parallel_size=8),
        train=replace(small.train, micro_batch=1),
    )
    return [Plan("8B on 8", QWEN3_8B, 8, small), Plan("70B on 64", LLAMA3_70B, 64, large)]


def memory_table() -> list[list[str]]:
    """The parts of one GPU, GiB, at the longest rollouts."""
    columns = [(p, card) for p in plans() for card in CARDS]
    found = [
        memory_parts(p.recipe, p.shape(), p.gpus, TEACHER_PROMPT, CARDS[card])
        for p, card in columns
    ]
    rows = [["part (GiB a GPU)", *(f"{p.name} x {card}" for p, card in columns)]]
    for same in zip(*found, strict=True):
        rows.append([same[0].name, *(f"{part.bytes / GIB:.1f}" for part in same)])
    rows.append(["peak", *(f"{peak(parts) / GIB:.1f}" for parts in found)])
    left = [CARDS[card] - peak(q) / GIB for (_, card), q in zip(columns, found, strict=True)]
    return [*rows, ["left over", *(f"{gib:.1f}" for gib in left)]]


def teacher_table() -> list[list[str]]:
    """Peak of one 80 GB GPU by teacher, GiB; vLLM beside training, or on a server."""
    rows = [["peak (GiB a GPU, 80 GB)", *(p.name for p in plans()), "vLLM on a server: 8B", "70B"]]
    for kind, lora in (("live", 0), ("ema", 0), ("frozen", 0), ("lora_off", 64), ("ema", 64)):
        cells = []
        for served in (False, True):
            for p in plans():
                rollout = replace(p.recipe.rollout, vllm_mode="server" if served else "colocate")
                model = replace(p.recipe.model, lora=LoraSettings(rank=lora))
                teacher = replace(p.recipe.teacher, kind=kind)
                recipe = replace(p.recipe, rollout=rollout, model=model, teacher=teacher)
                parts = memory_parts(recipe, p.shape(lora), p.gpus, TEACHER_PROMPT, CARDS["80 GB"])
                cells.append(f"{peak(parts) / GIB:.1f}")
        rows.append([f"{kind}, LoRA {lora}" if lora else kind, *cells])
    return rows


def pass_flops(shape: ModelShape, prompt: int, tokens: int) -> float:
    """Of one rollout's forward pass: 2 a parameter and token, and causal attention's products."""
    length = prompt + tokens
    outside = shape.vocab * shape.hidden  # the embedding is looked up, not multiplied
    return 2 * (shape.parameters - outside) * length + 2 * shape.layers * shape.hidden * length**2


def sampling(plan: Plan, card: str) -> tuple[float, float, int]:
    """(seconds, rollouts that an engine's cache holds at once, rollouts that it has to do)."""
    shape, rollout = plan.shape(), plan.recipe.rollout
    split = rollout.vllm_tensor_parallel_size
    share = rollout.vllm_gpu_memory_utilization * CARDS[card] * GIB
    weights, cache = 2 * shape.parameters / split, 2 * shape.cache_per_token / split
    fit = (share - weights) / cache / (PROMPT + MEAN / 2)
    to_do = plan.rollouts * split // plan.gpus
    steps = max(LONGEST, to_do * MEAN / min(fit, to_do))
    read = steps * weights + to_do * MEAN * (PROMPT + MEAN / 2) * cache
    sums = 2 * shape.layers * ALL_REDUCE_S if split > 1 else 0.0
    return read / (HBM[card] * HBM_SHARE) + steps * (DECODE_S + sums), fit, to_do


def traffic(plan: Plan, micro_batch: int) -> dict[str, float]:
    """Bytes into one GPU a step, by what they are for. Weights travel in 16 bits, sums in 32."""
    shape, passes = plan.shape(), plan.rollouts / plan.gpus / micro_batch
    whole = shape.parameters * (plan.gpus - 1) / plan.gpus
    return {
        "teacher's pass: weights gathered": 2 * whole * passes,
        "student's forward and backward: weights gathered": 2 * 2 * whole * passes,
        "gradients summed into shards": 4 * whole * passes,
        "weights gathered for vLLM": 4 * whole,
    }


def time_table() -> list[list[str]]:
    """Seconds of a step's parts."""
    columns = [(p, card) for p in plans() for card in CARDS]
    rows = [["seconds a step", *(f"{p.name} x {card}" for p, card in columns)]]
    drawn = [sampling(p, card) for p, card in columns]
    parts: dict[str, list[float]] = {"sampling (vLLM)": [d[0] for d in drawn]}
    for p, _ in columns:
        per_s, shape = p.gpus * FLOPS * UTILISATION, p.shape()
        teacher = p.rollouts * pass_flops(shape, TEACHER_PROMPT, MEAN) / per_s
        student = 4 * p.rollouts * pass_flops(shape, PROMPT, MEAN) / per_s
        link = LINK[p.gpus] * LINK_SHARE
        moved = {k: v / link for k, v in traffic(p, p.recipe.train.micro_batch).items()}
        for name, seconds in {
            "teacher's pass": teacher,
            "student's pass, its backward and what is recomputed": student,
            **moved,
        }.items():
            parts.setdefault(name, []).append(seconds)
    rows += [[name, *(f"{s:.1f}" for s in values)] for name, values in parts.items()]
    sums = [sum(column) for column in zip(*parts.values(), strict=True)]
    rows.append(["sum, nothing overlapping", *(f"{s:.0f}" for s in sums)])
    rows.append(["rollouts in vLLM's cache / to do", *(f"{fit:.0f} / {n}" for _, fit, n in drawn)])
    return rows


def micro_batch_table() -> list[list[str]]:
    """What fewer and larger micro-batches change."""
    rows = [["micro_batch", "", *(f"{p.name}" for p in plans())]]
    for size in (1, 2, 4):
        activations, seconds = [], []
        for p in plans():
            recipe = replace(p.recipe, train=replace(p.recipe.train, micro_batch=size))
            parts = memory_parts(recipe, p.shape(), p.gpus, TEACHER_PROMPT, 79.0)
            activations.append(sum(q.bytes for q in parts if q.name == "activations") / GIB)
            moved = sum(traffic(p, size).values())
            seconds.append(moved / (LINK[p.gpus] * LINK_SHARE))
        rows.append([str(size), "activations, GiB", *(f"{a:.1f}" for a in activations)])
        rows.append(["", "communication, s", *(f"{s:.1f}" for s in seconds)])
    return rows


def texts(rollouts: int) -> dict[str, int]:
    """Bytes of one process's objects in each gathering of a step, as pickled."""
    said = "x" * (MEAN * BYTES_A_TOKEN)
    asked = [{"role": "user", "content": "x" * (PROMPT * BYTES_A_TOKEN)}]
    shown = [{"role": "user", "content": "x" * (TEACHER_PROMPT * BYTES_A_TOKEN)}]
    feedback = (Feedback(0.0, "x" * 400, None, "choice"),)
    record = {
        "step": 1, "row": 1, "group": 1, "problem": "0" * 64, "prompt": asked, "completion": said,
        "reward": 0.0, "feedback": [vars(f) for f in feedback], "context": "sibling",
        "teacher_prompt": shown,
    }  # fmt: skip
    each = {
        "siblings and feedback (collect)": (said, 0.0, feedback),
        "rollouts.jsonl (trainer)": record,
        "TRL's log of completions and prompts": ([{"role": "assistant", "content": said}], asked),
    }
    one = {name: len(pickle.dumps(value)) for name, value in each.items()}
    return {name: size * rollouts for name, size in one.items()}


def text_table() -> list[list[str]]:
    """MB that arrive at each process, and GB at all of them together, each step."""
    cases = [("8 GPUs, 32 rollouts each", 8, 32), ("64, 16", 64, 16), ("1,000, 16", 1000, 16)]
    rows = [["gathered from all, to all", *(name for name, _, _ in cases)]]
    names = [*texts(1), "credit for the baseline (tensors, longest)"]
    total = [0.0] * len(cases)
    for name in names:
        cells = []
        for i, (_, gpus, rollouts) in enumerate(cases):
            tensors = rollouts * LONGEST * (4 + 8)  # float32 credits and a mask of 64-bit numbers
            mine = texts(rollouts).get(name, tensors)
            total[i] += gpus * mine
            cells.append(f"{gpus * mine / 1e6:,.1f} MB")
        rows.append([name, *cells])
    rows.append(["a process, together", *(f"{t / 1e6:,.1f} MB" for t in total)])
    everywhere = [t * gpus / 1e9 for t, (_, gpus, _) in zip(total, cases, strict=True)]
    return [*rows, ["all processes", *(f"{t:,.1f} GB" for t in everywhere)]]


def host_table() -> list[list[str]]:
    """What the main process's computer must hold; and, on GPUs, what `sum_in_shards` avoids."""
    sizes = [f"{4 * p.shape().parameters / GIB:.0f}" for p in plans()]
    return [
        ["whole (GiB)", *(p.name for p in plans())],
        ["EMA shadow, float32, on the main process, at each checkpoint", *sizes],
        ["model/ at the end, the same, float32 before it's written", *sizes],
        ["gradients on every GPU, were they not summed at each micro-batch", *sizes],
    ]


TABLES = {
    "memory": memory_table,
    "teachers": teacher_table,
    "time": time_table,
    "micro-batch": micro_batch_table,
    "texts": text_table,
    "host": host_table,
}


def filled(document: str, names: Iterable[str] = TABLES) -> str:
    """The document with each table between its markers, <!-- NAME --> and <!-- /NAME -->."""
    for name in names:
        before, _, rest = document.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        assert end, f"docs/scale.md has no place for {name}"
        table = as_markdown(TABLES[name]())
        document = f"{before}<!-- {name} -->\n{table}\n{end}{after}"
    return document


def main() -> None:
    """Prints the tables; with --write, fills the document."""
    for name, table in TABLES.items():
        print(f"{name}\n{as_markdown(table())}\n")
    if "--write" in sys.argv[1:]:
        file = PROJECT / "docs/scale.md"
        file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
