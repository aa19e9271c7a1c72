"""Runs training processes, a few at a time, so that a stop at any moment loses nothing.

A run that began is resumed; a run that ended is not repeated. Each process has a session of its
own, so Ctrl-C reaches it from here only, once: it saves and stops. After a SIGKILL here, processes
may live on; a log file's lock (which the process holds, for POSIX) tells the next start to wait.
A run that fails after it was judged once is data: recorded, not retried. One that fails earlier
failed by its setup, not by its objective: everything stops and nothing is recorded.
"""

import fcntl
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Protocol

from distil.compare.curves import read_curve
from distil.compare.plan import Outcome, Run
from distil.distributed.gpus import SharedGpus
from distil.errors import RunError, SuiteError
from distil.runs.folder import make_writable

STOPPED = 130
SIGNALS_OF_A_STOP = {-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP}
LOCK_FILE = ".lock"


class Launcher(Protocol):
    """What runs one run to its end; the tests put a function in place of processes."""

    def __call__(self, run: Run, resume: bool) -> int:
        """Trains; returns the exit status."""

    def interrupt(self) -> None:
        """Asks whatever is training to save and stop."""


class Processes:
    """`distil train` in processes of their own."""

    def __init__(self, threads: int | None) -> None:
        """`threads`: of each process; None leaves it to torch."""
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if threads is not None:
            self._environment["OMP_NUM_THREADS"] = str(threads)
        self._gpus = SharedGpus()
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()
        self._stopping = False

    def __call__(self, run: Run, resume: bool) -> int:
        """Runs `distil train` on one GPU, if there are any; its output is appended to the log."""
        command = [sys.executable, "-m", "distil.cli", "train", str(run.recipe_file)]
        command += ["--train.output-dir", str(run.folder)]
        with run.log.open("ab") as log:
            if not self._claim(log, run):
                return STOPPED
            if resume or run.begun:  # a process of an earlier start may have begun it meanwhile
                command.append("--resume")
            with self._gpus.lent() as gpu:
                process = self._begin(command, log, gpu)
                if process is None:
                    return STOPPED
                status = process.wait()
        with self._guard:
            self._alive.discard(process)
        return STOPPED if self._stopping and status else status

    def _begin(
        self, command: Sequence[str], log: IO[bytes], gpu: Mapping[str, str]
    ) -> subprocess.Popen[bytes] | None:
        """Starts it; None after interrupt() has gone round."""
        with self._guard:
            if self._stopping:
                return None
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**self._environment, **gpu}, start_new_session=True,
            )  # fmt: skip
            self._alive.add(process)
            return process

    def interrupt(self) -> None:
        """Ctrl-C for each process: the first saves and stops it, a second stops it at once."""
        with self._guard:
            self._stopping = True
            for process in self._alive:
                process.send_signal(signal.SIGINT)

    def _claim(self, log: IO[bytes], run: Run) -> bool:
        """Locks the log; waits while a process of an earlier start holds it. False: stopping."""
        told = False
        while not self._stopping:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    print(f"{run.name} still runs since an earlier start; waiting for it.")
                told = True
                time.sleep(0.5)
            else:
                return True
        return False


@contextmanager
def only_one(output_dir: Path) -> Any:
    """Holds the suite's folder. Raises SuiteError if another `distil compare` works in it.

    Raises RunError if it can't be written.
    """
    make_writable(output_dir, "--output-dir")
    (output_dir / "runs").mkdir(exist_ok=True)
    with (output_dir / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SuiteError(
                f"Another distil compare works in {output_dir}. Wait for it, or stop it."
            ) from error
        yield


def run_all(
    runs: Sequence[Run],
    *,
    launch: Launcher,
    jobs: int,
    keep_models: bool,
    done: Callable[[Run, Outcome, dict[str, float]], None],
) -> None:
    """Brings every run to its end; `done(run, outcome, started)` is called as each one gets there.

    `started`: name -> time.monotonic() of the runs under way. Raises KeyboardInterrupt on Ctrl-C
    (also if a run was stopped by its own), RunError if a run's setup failed; in both cases when all
    processes have stopped.
    """
    started: dict[str, float] = {}
    with ThreadPoolExecutor(jobs) as pool:
        futures: dict[Future[Outcome], Run] = {}
        try:
            for run in runs:
                futures[pool.submit(_bring_to_end, run, launch, keep_models, started)] = run
            for future in as_completed(futures):
                done(futures[future], future.result(), started)
        except BaseException:
            _stop(pool, launch, list(futures))
            raise


def time_left(
    past: Sequence[float], running: Sequence[float], waiting: int, jobs: int
) -> float | None:
    """Seconds until all is done: the median of past runs' for each waiting run, and what is left of
    it for those under way (`running`: seconds so far), over `jobs`. None without a past.
    """
    if not past:
        return None
    median = statistics.median(past)
    work = waiting * median + sum(max(0.0, median - r) for r in running)
    return work / max(1, min(jobs, waiting + len(running)))


def _bring_to_end(
    run: Run, launch: Launcher, keep_models: bool, started: dict[str, float]
) -> Outcome:
    began = time.monotonic()
    started[run.name] = began
    resume = run.begun
    run.write_recipe()
    status = launch(run, resume)
    if status == STOPPED or status in SIGNALS_OF_A_STOP:
        raise KeyboardInterrupt
    finished = status == 0 and (run.folder / "after.json").is_file()
    lines = () if finished else _last_lines(run.log)
    if not finished and not (run.folder / "before.json").is_file():
        raise RunError(
            f"The run {run.name} failed before its model was judged once (exit status {status}), "
            "so its setup is wrong and the suite stops. Mend it and start again. The end of "
            f"{run.log}:\n" + "\n".join(lines)
        )
    seconds = time.monotonic() - began
    curve = read_curve(run)
    outcome = Outcome(
        "finished" if finished else "failed", status, seconds, resume, lines,
        None if curve is None else asdict(curve),
    )  # fmt: skip
    run.end(outcome)
    if not keep_models and status >= 0:  # one that was killed may go on from its checkpoint
        run.remove_weights()
    del started[run.name]
    return outcome


def _stop(pool: ThreadPoolExecutor, launch: Launcher, futures: list[Future[Outcome]]) -> None:
    """Waits until all that is under way has stopped; each Ctrl-C is passed on."""
    pool.shutdown(wait=False, cancel_futures=True)
    while True:
        try:
            launch.interrupt()
            # A cancelled future that no thread has seen would never count as done.
            wait([f for f in futures if not f.cancelled()])
            return
        except KeyboardInterrupt:
            continue


def _last_lines(log: Path, count: int = 5) -> tuple[str, ...]:
    """The last lines of a log that aren't blank (progress bars end theirs with \\r)."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(line[:500] for line in lines[-count:])
