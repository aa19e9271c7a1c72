"""What a sandboxed run costs, and whether anything grows: python benchmarks/sandbox.py [--runs N]

Prints, for each level that holds here: CPU milliseconds a run of a program that imports 18 standard
modules (everything counted: broker, zygotes, children; start-up apart), against a cold Python and
against bubblewrap around one; runs a second; descriptors, processes and memory before and after
many runs, one in ten of them hostile; and correct programs beside four burners. Turn by turn in one
process. Needs Linux.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

from distil.errors import SandboxUnavailable
from distil.figures.layout import as_markdown
from distil.sandbox import Job, Limits, SandboxPool, StdioTest, Verdict
from distil.sandbox.cells import bubblewrap_around

IMPORTS = (
    "import sys, os, math, re, json, random, string, itertools, functools, collections, heapq\n"
    "import bisect, datetime, decimal, fractions, statistics, operator, copy\nprint('ok')"
)
HOSTILE = (
    "while True: print('x' * 1000)",
    "import os\nwhile True: os.fork()",
    "import socket; socket.create_connection(('127.0.0.1', 80))",
    "x = bytearray(1 << 40)",
    "import os; os.kill(os.getppid(), 9)",
    "import ctypes; ctypes.string_at(0)",
    "open('/tmp/x', 'w')",
    "import sys; sys.exit(0)",
)
BUSY = "t = 0\nfor i in range({n}): t += i\nprint('ok')"
OK = (StdioTest("", "ok"),)


def pooled(level: str, sources: list[str]) -> tuple[float, float]:
    """(CPU ms a run without start-up, runs a second) of programs that all print ok."""
    with SandboxPool(level=level) as pool:
        pool.map([Job(f"print('ok')#{i}", OK) for i in range(8)])
        before, started = cpu_of_family(pool.pid), time.perf_counter()
        reports = pool.map([Job(source, OK) for source in sources])
        rate = len(sources) / (time.perf_counter() - started)
        cost = 1000 * (cpu_of_family(pool.pid) - before) / len(sources)
    assert all(r.verdict is Verdict.PASS for r in reports)
    return cost, rate


def cpu_of_family(pid: int) -> float:
    """CPU seconds of a process, all below it, and all that those have reaped."""
    ticks = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def cold(prefix: list[str], count: int) -> float:
    """CPU ms a run of a new Python for each program.

    Python's own comes from itself: what bubblewrap's inner process reaps is counted nowhere.
    """
    program = f"{IMPORTS}\nimport time; print(time.process_time())"
    command = [*prefix, os.path.realpath(sys.executable), "-I", "-S", "-c", program]
    before, inner = resource.getrusage(resource.RUSAGE_CHILDREN), 0.0
    for _ in range(count):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        inner += float(done.stdout.split()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    outer = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * (outer + inner if prefix else outer) / count


def family(pid: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    members, layer = {pid}, {pid}
    while layer := {p for p, parent in parents.items() if parent in layer}:
        members |= layer
    return members


def holdings(pid: int) -> tuple[int, int, float]:
    """(processes, descriptors, resident MiB) of a process and all below it."""
    members = family(pid)
    descriptors = sum(len(os.listdir(f"/proc/{p}/fd")) for p in members)
    pages = sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in members)
    return len(members), descriptors, pages * resource.getpagesize() / 2**20


def growth(level: str, runs: int) -> list[list[str]]:
    """What is held after a tenth of the runs, and after all of them; wrong verdicts."""
    wrong = 0
    shown = []
    limits = Limits(cpu_s=1.0, idle_s=1.0, mem_mb=256, out_kb=64)
    with SandboxPool(level=level) as pool:
        for start in range(0, runs, 500):
            jobs = [
                Job(f"{HOSTILE[i // 10 % len(HOSTILE)]}\n#{i}", OK, limits)
                if i % 10 == 0
                else Job(f"print('ok')#{i}", OK, limits)
                for i in range(start, min(start + 500, runs))
            ]
            for job, report in zip(jobs, pool.map(jobs), strict=True):
                good = job.source.startswith("print")
                wrong += (report.verdict is Verdict.PASS) != good
            if start + 500 in (max(500, runs // 10 // 500 * 500), runs // 500 * 500):
                shown.append([start + 500, *holdings(pool.pid)])
    return [
        [level, str(n), str(processes), str(fds), f"{mib:.0f}", str(wrong)]
        for n, processes, fds, mib in shown
    ]


def beside_burners(level: str, programs: int = 24) -> tuple[int, float, float]:
    """(how many of `programs` passed, their largest CPU s, the CPU limit) with 4 busy processes."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        with SandboxPool(level=level) as pool:
            alone = pool.run(Job(BUSY.format(n=5_000_000), OK)).results[0].cpu_s
            limit = 2 * alone
            jobs = [
                Job(f"{BUSY.format(n=5_000_000)}#{i}", OK, Limits(cpu_s=limit, idle_s=2))
                for i in range(programs)
            ]
            reports = pool.map(jobs)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    most = max(r.results[0].cpu_s for r in reports)
    return sum(r.verdict is Verdict.PASS for r in reports), most, limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    runs = parser.parse_args().runs
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Linux "
          f"{platform.release()}, Python {platform.python_version()}\n")  # fmt: skip
    programs = [f"{IMPORTS}#{i}" for i in range(400)]
    rows = [["way", "CPU ms a run", "runs a second", "ratio to cold Python"]]
    base = cold([], 40)
    rows.append(["cold Python, nothing around it", f"{base:.1f}", "", "1.00"])
    levels = []
    for level in ("strong", "standard"):
        try:
            cost, rate = pooled(level, programs)
        except SandboxUnavailable as error:
            print(f"{level} NOT TESTED: {error}\n")
            continue
        levels.append(level)
        rows.append([f"SandboxPool, {level}", f"{cost:.1f}", f"{rate:.0f}", f"{cost / base:.2f}"])
    if "strong" in levels:
        wrapped = cold(bubblewrap_around(), 40)
        rows.append(["bubblewrap, cold Python", f"{wrapped:.1f}", "", f"{wrapped / base:.2f}"])
    print(as_markdown(rows), "\n")
    table = [["level", "runs", "processes", "descriptors", "resident MiB", "wrong verdicts"]]
    for level in levels:
        table += growth(level, runs)
    print(as_markdown(table), "\n")
    for level in levels:
        passed, most, limit = beside_burners(level)
        print(f"{level}, four burners beside: {passed} of 24 correct programs passed "
              f"(most CPU {most:.2f} s of {limit:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
