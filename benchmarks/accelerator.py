"""Every check and figure that docs/speed.md owes on a GPU, in one command and a limited time.

    python benchmarks/accelerator.py FOLDER [--minutes 10] [--tokenizer ANOTHER] [--only PART ...]
    python benchmarks/accelerator.py FOLDER --device cpu      # the same, small: tries the script

Parts run one after the other, each in a process of its own with a limit, the most wanted first;
what a part prints goes into FOLDER/PART.txt as it comes, so that nothing is lost if time is up,
and, once it has ended, into FOLDER/all.txt behind the others'.
A part that fails is told and doesn't stop the others. It needs pytest and liger-kernel beside
distil. Nothing is downloaded: the model is of Qwen3-0.6B's shape with random weights (`shapes.py`),
its tokenizer the embedded model's, or that of the folder which is named.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).parent
SHAPE = "qwen3-0.6b"


@dataclass(frozen=True)
class Part:
    """One command, of Python's arguments, and its share of the time that is left."""

    name: str
    arguments: tuple[str, ...]
    share: float


def tests(*names: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-rs", *(str(HERE.parent / f"tests/test_{name}.py") for name in names))


def parts(device: str, model: str, tokenizer: str | None) -> list[Part]:
    """In their order; on a CPU so small that they only show that they run."""

    here = ("--device", device)

    def script(name: str, *flags: str) -> tuple[str, ...]:
        return (str(HERE / f"{name}.py"), *flags)

    def step(*flags: str) -> tuple[str, ...]:
        size = ("--rollouts", "64", "--micro-batch", "8", "--steps", "6")
        if device == "cpu":
            size = ("--rollouts", "2", "--micro-batch", "2", "--tokens", "8", "--steps", "2")
        return script("step", *here, "--model", model, *size, *flags)

    made = script("shapes", SHAPE, model, *(("--tokenizer", tokenizer) if tokenizer else ()))
    return [
        Part("tests", tests("accelerator", "kernels"), 0.3),
        Part("kernels", script("kernels", *here), 0.4),
        Part("model", made, 0.3),
        Part("step-unequal", step("--unequal"), 0.4),
        Part("step-canned", step("--canned"), 0.5),
        Part("step-unequal-padded", step("--unequal", "--padded"), 0.5),
        Part("passcost", script("passcost", *here, "--model", model), 0.3),
        Part("scaling", script("scaling", *here, "--steps", "2"), 0.7),
        Part("more-tests", tests("paddingfree", "fused", "vocab", "teacherpass"), 1.0),
    ]


def run(part: Part, file: Path, seconds: float) -> str:
    """How it ended. What it prints is in `file`."""
    began = time.perf_counter()
    with file.open("w", encoding="utf-8") as out:
        command = [sys.executable, "-u", *part.arguments]
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what it started, too
            process.wait()
            return f"stopped after {seconds:.0f} s, its share of what was left"
    ended = "done" if status == 0 else f"FAILED (exit status {status})"
    return f"{ended} in {time.perf_counter() - began:.0f} s"


def tell(folder: Path, text: str) -> None:
    print(text, flush=True)
    with (folder / "all.txt").open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tokenizer", help="a folder that has one")
    parser.add_argument("--only", nargs="+", metavar="PART")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU. To try the script without one: --device cpu")
    end = time.monotonic() + 60 * args.minutes
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "all.txt").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as model:
        every = parts(args.device, model, args.tokenizer)
        names = [part.name for part in every]
        if wrong := set(args.only or []) - set(names):
            parser.error(f"There is no part {', '.join(sorted(wrong))}. Known: {', '.join(names)}")
        where = torch.cuda.get_device_name() if args.device == "cuda" else "CPU, sizes mean nothing"
        tell(args.folder, f"{where}, torch {torch.__version__}, {args.minutes:g} minutes")
        for part in every:
            if args.only and part.name not in args.only and part.name != "model":
                continue
            left = end - time.monotonic()
            if left < 5:
                tell(args.folder, f"{part.name}: not begun, time is up")
                continue
            file = args.folder / f"{part.name}.txt"
            ended = run(part, file, part.share * left)
            tell(args.folder, f"{part.name}: {ended}\n{file.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
