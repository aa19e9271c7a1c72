"""How long a stored evaluation takes to recompute: 1,000 problems x 16 samples, without sampling.

    .venv/bin/python benchmarks/evaluation.py [samples a problem]

The attempts are made up (five answers, of problems of every difficulty) and are written to a file
first. Timed is `distil eval FILE.json` in a fresh process, start and reading included, with the
default k, and then the part of it that computes figures and intervals.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distil.evaluate.evalfile import Evaluation, read, store
from distil.figures.estimates import Attempt, _chance_to_win
from distil.figures.tables import result_rows

PROBLEMS = 1_000


def made_up(samples: int) -> list[Attempt]:
    rng = random.Random(0)
    attempts = []
    for problem in range(PROBLEMS):
        ease = rng.random()
        for _ in range(samples):
            right = rng.random() < ease
            answer = "1" if right else rng.choice([None, "2", "3", "4", "5"])
            tokens = rng.randint(1, 4096)
            text = f"So it is {answer}. " * 20
            cut = answer is None
            attempts.append(Attempt(str(problem), text, answer, float(right), tokens, cut))
    return attempts


def main(samples: int) -> None:
    """Prints the two durations."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stored.json"
        store(file, Evaluation(str(file), made_up(samples)))
        began = time.perf_counter()
        command = [sys.executable, "-m", "distil.cli", "eval", str(file)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        whole = time.perf_counter() - began
        attempts = read(file).attempts
        _chance_to_win.cache_clear()  # `store` has filled it
        began = time.perf_counter()
        result_rows({"stored": attempts})
        figures = time.perf_counter() - began
    print(done.stdout, end="")
    print(
        f"{PROBLEMS} problems x {samples} samples: {whole:.2f} s, of which figures {figures:.2f} s"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
