"""A whole training step, ours against TRL's `experimental.sdpo` trainer, at equal work.

    python benchmarks/step.py                        # sampling included (minutes)
    python benchmarks/step.py --canned               # fixed rollouts instead of sampled ones
    python benchmarks/step.py --unequal              # fixed rollouts of a quarter to all tokens
    python benchmarks/step.py --canned --no-checkpointing --objective reverse_kl
    python benchmarks/step.py --unequal --padded     # ours with train.padding_free off
    python benchmarks/step.py --busy                 # where others use the machine too
    python benchmarks/step.py --device cuda --rollouts 64 --micro-batch 8 --model Qwen/Qwen3-0.6B

Without a hub: `python benchmarks/shapes.py qwen3-0.6b FOLDER`, then --canned --model FOLDER.

Equal: model, prompt, number and length of rollouts (`min_new_tokens`: no early end), sampler
(transformers' generate), K with a tail, EMA teacher, feedback on every rollout, so that the teacher
reads every row, micro-batches, activation checkpointing (TRL's default), optimiser. TRL's compares
on the student's top-K by reverse KL; ours by `--objective`, whose default looks further: future
credit with a group's baseline. Every process is a fresh one, sides take turns, and each says by its
parts (`distil.profiling.parts`) where time and memory went. `--busy` counts the processor seconds
of all threads instead of the clock's. Memory is the peak above the loaded model: what a step adds,
with gradients, AdamW and the EMA shadow, which are alike on both sides.

Floor: a part's matrix products at the rate that this machine reaches on one large product; for
sampling, the weights read once a token at the bandwidth of reading them; both measured here.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback

from distil import DistILConfig, DistILTrainer, Feedback
from distil.models import load_model
from distil.profiling.parts import peak_meter
from distil.profiling.profiler import ProfileCallback
from measuring import MIB, best, canned
from sdpo import PartsOfSDPO, SDPOConfig, output_layer_of_sdpo

QUESTION = (
    "A shop sells pens at 3 coins each and books at 14 coins each. Anna buys 7 pens and 2 books, "
    "pays with a note of 100 coins, and gives half of her change to her brother. How many coins "
    "does she have left? Explain each step, then give the number on a line of its own."
)
FEEDBACK = (
    "Your answer is wrong: 26 is what her brother is given, but the pens were counted as 6. Seven "
    "pens cost 21 coins, two books cost 28 coins, the change is 51 coins, and half of that is left."
)
ORDER = (
    "sampling", "grading", "feedback", "teacher", "student pre-pass", "student forward",
    "output layer", "loss", "backward", "optimiser", "EMA", "logging", "other",
)  # fmt: skip


def no_reward(completions: list[Any], **columns: Any) -> list[float]:
    return [0.0] * len(completions)


def report(completions: list[Any], **columns: Any) -> list[Feedback]:
    return [Feedback(text=FEEDBACK)] * len(completions)


def settings(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """What both trainers are told."""
    accumulated = args.rollouts // args.micro_batch
    return {
        "output_dir": folder,
        "per_device_train_batch_size": args.micro_batch,
        "gradient_accumulation_steps": accumulated,
        "num_generations": args.rollouts,
        "max_completion_length": args.tokens,
        "max_steps": args.steps,
        "learning_rate": 1e-6,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": args.device == "cpu",
        "bf16": args.device != "cpu",
        "gradient_checkpointing": args.checkpointing,
        "temperature": 1.0,
        "seed": 3,
    }


def make_ours(args: argparse.Namespace, model: Any, tokenizer: Any, folder: str) -> Any:
    rows = [{"prompt": [{"role": "user", "content": QUESTION}]}] * 64
    return DistILTrainer(
        model,
        reward_funcs=no_reward,
        feedback_funcs=report,
        args=DistILConfig(
            **settings(args, folder),
            teacher="ema",
            padding_free=not args.padded,
            objective={"name": args.objective, "top_k": args.k, "tail": True},
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def make_theirs(args: argparse.Namespace, model: Any, tokenizer: Any, folder: str) -> Any:
    prompt = [{"role": "user", "content": QUESTION}]
    trainer = PartsOfSDPO(
        model,
        reward_funcs=no_reward,
        args=SDPOConfig(
            **settings(args, folder),
            teacher_model_kind="ema",
            distillation_mode="topk_logits",
            distillation_topk=args.k,
            distillation_add_tail=True,
            include_environment_feedback=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt, "privileged_context": FEEDBACK}] * 64),
        processing_class=tokenizer,
    )
    output_layer_of_sdpo(trainer)
    return trainer


CLOCKS: dict[bool, Callable[[], float]] = {False: time.perf_counter, True: time.process_time}
SIDES = {"ours": make_ours, "theirs": make_theirs}


def run_here(args: argparse.Namespace) -> None:
    """What a fresh process does: its last line says what each step spent."""
    device = torch.device(args.device)
    model, tokenizer = load_model(args.model)
    model.to(device)
    with torch.no_grad():  # touches every weight: until then they may lie in a file only
        model(torch.arange(8, device=device)[None])
    if args.canned:
        canned(model, args.tokens, tokenizer.eos_token_id if args.unequal else None)
    meter = peak_meter(device)
    meter()
    loaded = meter() or 0
    with tempfile.TemporaryDirectory() as folder:
        trainer = SIDES[args.side](args, model, tokenizer, folder)
        trainer.generation_config.min_new_tokens = args.tokens
        profile = ProfileCallback(folder, now=CLOCKS[args.busy])
        trainer.add_callback(profile)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    steps = [{n: vars(s) for n, s in step.items()} for step in profile.steps]
    decoder = sum(p.numel() for p in model.get_decoder().parameters())
    vocab, hidden = model.get_output_embeddings().weight.shape
    shape = {"decoder": decoder - vocab * hidden, "head": vocab * hidden}
    print(json.dumps({"loaded": loaded, "steps": steps, **shape}))


def run(side: str, argv: list[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, *argv, f"--side={side}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def rates(device: torch.device, now: Callable[[], float]) -> tuple[float, float]:
    """(operations a second of a large product, bytes a second read by a matrix-vector product)."""
    wide = torch.float32 if device.type == "cpu" else torch.bfloat16
    a = torch.randn(2048, 4096, device=device, dtype=wide)
    b = torch.randn(16_384, 4096, device=device, dtype=wide)
    wait = peak_meter(device)

    def waited(work: Callable[[], Tensor]) -> float:
        """Seconds of the work and of waiting for it."""
        return best(lambda: (work(), wait()), now)

    wait()
    product, vector = waited(lambda: a @ b.T), waited(lambda: b @ a[0])
    return 2 * len(a) * b.numel() / product, b.numel() * b.element_size() / vector


def floors(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, float]:
    """Least seconds by part, from the tokens that our side read."""
    operations, bandwidth = rates(torch.device(args.device), CLOCKS[args.busy])
    tokens = {name: spent["tokens"] for name, spent in found["steps"][-1].items()}
    written = tokens["output layer"]
    decoder, head = (2 * found[size] / operations for size in ("decoder", "head"))
    width = 4 if args.device == "cpu" else 2
    read = width * (found["decoder"] + found["head"]) / bandwidth
    return {
        "sampling": 0.0 if args.canned else args.tokens * read,
        "teacher": decoder * tokens["teacher"] + head * written,
        "student forward": decoder * tokens["student forward"],
        "output layer": 3 * head * written,
        "backward": 2 * decoder * tokens["student forward"],
    }


def show(args: argparse.Namespace, found: dict[str, list[dict[str, Any]]]) -> None:
    """The table: medians over all steps but each process's first, peaks above the model."""
    floor = floors(args, found["ours"][0])

    def seconds(side: str, names: tuple[str, ...]) -> float:
        later = [step for once in found[side] for step in once["steps"][1:]]
        return statistics.median(
            sum(step.get(n, {"seconds": 0.0})["seconds"] for n in names) for step in later
        )

    def peak(side: str, names: tuple[str, ...]) -> float:
        above = [
            spent["peak"] - once["loaded"]
            for once in found[side]
            for step in once["steps"]
            for name, spent in step.items()
            if name in names
        ]
        return max(above, default=0) / MIB

    def tokens(side: str, name: str) -> int:
        return found[side][0]["steps"][-1].get(name, {"tokens": 0})["tokens"]

    rows = [(name, (name,)) for name in ORDER]
    rows += [("**whole step**", ORDER), ("**without sampling**", ORDER[1:])]
    print(
        "| part | s ours | s TRL | ratio | s floor | tokens, TRL's | MiB ours | MiB TRL | ratio |"
    )
    print("|---|" + " --: |" * 8)
    for label, names in rows:
        ours, theirs = seconds("ours", names), seconds("theirs", names)
        most = [peak(side, names) for side in SIDES]
        least = sum(floor.get(n, 0.0) for n in names)
        cells = [
            label, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}" if theirs else "-",
            f"{least:.2f}" if least else "-",
            ", ".join(f"{tokens(s, names[0]):,}" for s in SIDES) if len(names) == 1 else "",
            f"{most[0]:,.0f}", f"{most[1]:,.0f}",
            f"{most[0] / most[1]:.2f}" if most[1] > 0 else "-",
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--objective", default="distil")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--steps", type=int, default=3, help="of a process; the first warms up")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each side")
    parser.add_argument("--canned", action="store_true", help="fixed rollouts, none sampled")
    parser.add_argument("--unequal", action="store_true", help="fixed ones of 1/4 to all tokens")
    parser.add_argument("--padded", action="store_true", help="ours runs padded rows, too")
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--busy", action="store_true", help="processor seconds, not the clock's")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.canned |= args.unequal
    if args.side:
        run_here(args)
        return
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            found[side].append(run(side, sys.argv[1:]))
    where = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    print(
        f"{args.model}, {args.rollouts} x {args.tokens} tokens, K {args.k}, {args.objective}, "
        f"micro-batch {args.micro_batch}, {'processor seconds, ' if args.busy else ''}"
        f"{'unequal ' if args.unequal else ''}{'canned rollouts, ' if args.canned else ''}"
        f"{'padded, ' if args.padded else ''}"
        f"{'checkpointing, ' if args.checkpointing else ''}{where}, torch {torch.__version__}\n"
    )
    show(args, found)


if __name__ == "__main__":
    main()
