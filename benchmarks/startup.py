"""Start-up: seconds until `distil --help` is printed, and until `distil train` samples a token.

    python benchmarks/startup.py [--recipe recipes/demo.yaml] [--repeats 5] [--imports]

Each figure is the median over fresh processes, from before the process is started; files are in the
page cache after the first, untimed one. Beside it, the processor seconds of all its threads, which
others on the machine make little odds to. A run's first sampled token belongs to the evaluation
before training: what comes before it is imports, the task's problems, the model, a prompt's pass.
`--imports` lists the imports of `distil.commands.train` that take longest by themselves.

Bars: 0.5 s and 15 s (SmolLM2-135M, two cores).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("imports", "task", "model", "first token")
HELP_BAR, TRAIN_BAR = 0.5, 15.0

TRAIN = """
import json, os, sys, time
import torch
import distil.commands.setup as setup
import distil.commands.train as command
from distil.cli import main
def now():
    return [time.time(), time.process_time()]

marks = {"imports": now()}

def marked(name, function):
    def run(*arguments, **options):
        result = function(*arguments, **options)
        marks[name] = now()
        return result
    return run

def first_token(*arguments, **options):
    marks["first token"] = now()
    print("MARKS" + json.dumps(marks), flush=True)
    os._exit(0)

command.load_task = marked("task", command.load_task)
setup.load_model = marked("model", setup.load_model)
torch.multinomial = first_token
sys.exit(main(sys.argv[1:]))
"""


Spent = tuple[float, float]
"""(seconds, processor seconds)."""


def help_seconds(*words: str) -> Spent:
    start, before = time.time(), os.times()
    command = [sys.executable, "-m", "distil.cli", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    processor = after.children_user - before.children_user
    return time.time() - start, processor + after.children_system - before.children_system


def train_seconds(recipe: str) -> dict[str, Spent]:
    """What each stage of a run takes that ends with its first sampled token."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TRAIN, "train", recipe, "--train.output-dir", folder]
        start = time.time()
        done = subprocess.run(command, capture_output=True, text=True)
    marks = [line for line in done.stdout.splitlines() if line.startswith("MARKS")]
    if not marks:
        sys.exit(f"The run ended before a token was sampled:\n{done.stdout}{done.stderr}")
    at = json.loads(marks[0].removeprefix("MARKS"))
    spent, before = {}, [start, 0.0]
    for stage in STAGES:
        spent[stage], before = (at[stage][0] - before[0], at[stage][1] - before[1]), at[stage]
    return spent


def slowest_imports(count: int = 15) -> list[tuple[float, str]]:
    """(seconds by itself, module), the slowest first."""
    command = [sys.executable, "-X", "importtime", "-c", "import distil.commands.train"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = []
    for line in done.stderr.splitlines():
        cells = line.removeprefix("import time:").split("|")
        if len(cells) == 3 and cells[0].strip().isdigit():
            found.append((int(cells[0]) / 1e6, cells[2].strip()))
    return sorted(found, reverse=True)[:count]


def line(what: str, spent: list[Spent], bar: float | None = None) -> str:
    seconds, processor = zip(*spent, strict=True)
    spread = f"{statistics.median(seconds):6.2f} s   ({min(seconds):.2f} to {max(seconds):.2f})"
    own = f"   processor {statistics.median(processor):6.2f} s"
    return f"{what:34}{spread}{own}" + (f"   bar {bar:g} s" if bar else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default=str(Path(__file__).parent.parent / "recipes/demo.yaml"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--imports", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for words, bar in ((("--help",), HELP_BAR), (("train", args.recipe, "--help"), None)):
        spent = [help_seconds(*words) for _ in range(args.repeats + 1)][1:]
        shown = " ".join(Path(w).name for w in words)
        print(line(f"distil {shown}", spent, bar), flush=True)
    runs = [train_seconds(args.recipe) for _ in range(args.repeats + 1)][1:]
    total = [(sum(s for s, _ in r.values()), sum(p for _, p in r.values())) for r in runs]
    print(line(f"distil train {Path(args.recipe).name}", total, TRAIN_BAR))
    for stage in STAGES:
        print(line(f"    {stage}", [run[stage] for run in runs]))
    if args.imports:
        for seconds, module in slowest_imports():
            print(f"    {seconds:6.2f} s   {module}")


if __name__ == "__main__":
    main()
