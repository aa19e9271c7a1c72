"""Peak memory of one training step: measured in a process of its own, beside the estimate.

    python benchmarks/memory.py recipes/demo.yaml [--flags as of distil train]

Measured: the process's largest resident set, less that of a process that only imports (torch and
the rest). Estimated: `distil.profiling.memory`, as `distil train --dry-run` prints it. The run has
one step and judges nothing.
"""

import subprocess
import sys
import tempfile

IMPORTS = "import distil.commands.train"
SCRIPT = """
import sys
from distil.cli import main
sys.exit(main(sys.argv[1:]))
"""


def peak_gib(*command: str) -> float:
    """The largest resident set of a child that runs `command`, GiB."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "assert done.returncode == 0, done\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, *command],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return int(done.stdout) * 1024 / 2**30


def main() -> None:
    """Prints estimate, measurement and their ratio."""
    recipe, *flags = sys.argv[1:] or ["recipes/demo.yaml"]
    bare = peak_gib("-c", IMPORTS)
    with tempfile.TemporaryDirectory() as folder:
        given = [
            "train", recipe, *flags, "--train.output-dir", f"{folder}/run", "--train.steps", "1",
            "--task.eval-size", "0", "--eval.teacher-samples", "0",
        ]  # fmt: skip
        measured = peak_gib("-c", SCRIPT, *given) - bare
        told = subprocess.run(
            [sys.executable, "-c", SCRIPT, *given, "--dry-run"],
            check=True, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip
    estimated = float(next(line.split()[1] for line in told.splitlines() if line[:5] == "peak "))
    print(f"{recipe} {' '.join(flags)}: estimated {estimated:.2f} GiB, measured {measured:.2f} GiB")
    print(f"(beside {bare:.2f} GiB of imports): ratio {estimated / measured:.2f}")


if __name__ == "__main__":
    main()
