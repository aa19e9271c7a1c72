"""SandboxPool: programs run by a broker process of its own, a few at a time.

    with SandboxPool() as pool:
        report = pool.run(Job("print(input())", (StdioTest("a", "a"),)))

The broker is started by exec, never forked from this process (whose accelerator, threads and
secrets it must not share), with an environment that holds nothing of ours.
"""

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from distil.errors import SandboxUnavailable
from distil.sandbox.jobjson import job_to_json, report_from_json
from distil.sandbox.jobs import Job, Report, Verdict

KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "TMPDIR")
CLOSE_S = 5.0
RESTARTS = 1
"""Times that a job survives the broker's death; after that it's an INFRA_ERROR."""


class SandboxPool:
    """Runs jobs in jails. Safe to use from several threads; close it, or use it as a context.

    workers: runs at a time. level: auto (the best that holds), strong, standard, or unsafe.
    preload: packages that programs may import beside the standard library. allow_unsafe: go on
    without protection where no level holds. Raises SandboxUnavailable at the first job, or in
    `start`, if no level (or not the one asked for) passes its self-test.
    """

    def __init__(
        self,
        workers: int | None = None,
        level: str = "auto",
        preload: Sequence[str] = (),
        *,
        allow_unsafe: bool = False,
    ) -> None:
        self._set_up = {
            "workers": workers or os.cpu_count() or 1, "level": level, "preload": list(preload),
            "allow_unsafe": allow_unsafe,
        }  # fmt: skip
        self._lock = threading.Lock()
        self._broker: _Broker | None = None
        self._facts: dict[str, Any] = {}
        self._closed = False

    def start(self) -> dict[str, Any]:
        """Starts the broker if it isn't there; its level and facts about it."""
        with self._lock:
            if self._closed:
                raise RuntimeError("This SandboxPool is closed.")
            if self._broker is not None and not self._broker.alive:
                self._broker.close()
                self._broker = None
            if self._broker is None:
                self._broker = _Broker(self._set_up)
                weakref.finalize(self, self._broker.close)  # nobody closed it: so does the end
                self._facts = self._broker.facts
            return self._facts

    @property
    def pid(self) -> int:
        """The broker's process."""
        self.start()
        assert self._broker is not None
        return self._broker.process.pid

    def submit(self, job: Job) -> "Future[Report]":
        """A job's report, some day. (In asyncio: `asyncio.wrap_future`.)"""
        result: Future[Report] = Future()
        self._send(job_to_json(job), len(job.tests), result, RESTARTS)
        return result

    def run(self, job: Job) -> Report:
        """One job's report."""
        return self.submit(job).result()

    def map(self, jobs: Iterable[Job]) -> list[Report]:
        """Reports in the jobs' order. Equal jobs run once."""
        futures: dict[str, Future[Report]] = {}
        keys = []
        for job in jobs:
            key = json.dumps(job_to_json(job), sort_keys=True)
            if key not in futures:
                futures[key] = self.submit(job)
            keys.append(key)
        return [futures[key].result() for key in keys]

    def close(self) -> None:
        """Ends the broker and all that it runs."""
        with self._lock:
            self._closed = True
            if self._broker is not None:
                self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, job: dict[str, Any], tests: int, result: "Future[Report]", left: int) -> None:
        try:
            self.start()
        except SandboxUnavailable:
            if left == RESTARTS:
                raise
            result.set_result(_lost(tests))
            return
        assert self._broker is not None

        def ended(answer: dict[str, Any] | None) -> None:
            if answer is not None and "bug" in answer:
                result.set_exception(RuntimeError(f"A bug in the sandbox:\n{answer['bug']}"))
            elif answer is not None:
                result.set_result(report_from_json(answer["report"]))
            elif left and not self._closed:
                self._send(job, tests, result, left - 1)
            else:
                result.set_result(_lost(tests))

        self._broker.send(job, ended)


def _lost(tests: int) -> Report:
    return Report(Verdict.INFRA_ERROR, 0, tests, (), "standard", "the broker died twice")


class _Broker:
    """The broker's process and a thread that reads its answers."""

    def __init__(self, set_up: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "distil.sandbox.broker"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=_environment(), close_fds=True,
        )  # fmt: skip
        self._waiting: dict[int, Any] = {}
        self._count = 0
        self._lock = threading.Lock()
        """Of `_waiting`. Never held while a frame is written: a broker that waits for its answers
        to be taken reads no jobs, and answers are taken under this lock."""
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None
        self.alive = True
        self._write(set_up)
        answer = self._read()
        if answer is None or "refused" in answer:
            self.close()
            why = "its process ended at the start" if answer is None else answer["refused"]
            raise SandboxUnavailable(why)
        self.facts: dict[str, Any] = {"level": answer["level"], **answer["facts"]}
        if answer["level"] == "unsafe":
            warnings.warn(
                "Untrusted programs run WITHOUT a sandbox (resource limits only): they can read "
                "your files and use your network.",
                RuntimeWarning,
                stacklevel=5,
            )
        self._thread = threading.Thread(target=self._listen, name="distil-sandbox", daemon=True)
        self._thread.start()

    def send(self, job: dict[str, Any], ended: Any) -> None:
        """Hands over a job; `ended` gets the answer, or None if the broker died."""
        with self._lock:
            self._count += 1
            number = self._count
            self._waiting[number] = ended
            lost = not self.alive
        if not lost:
            try:
                with self._sending:
                    self._write({"number": number, "job": job})
            except (BrokenPipeError, ValueError):
                lost = True
        if lost:
            with self._lock:
                untold = self._waiting.pop(number, None)
            if untold is not None:  # else the reading thread has told it
                ended(None)

    def close(self) -> None:
        """Ends the process; jobs that wait are lost."""
        self.alive = False
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _listen(self) -> None:
        while (answer := self._read()) is not None:
            with self._lock:
                ended = self._waiting.pop(answer["number"])
            ended(answer)
        with self._lock:
            self.alive = False
            waiting, self._waiting = list(self._waiting.values()), {}
        for ended in waiting:
            ended(None)

    def _write(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode("ascii")
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack(">I", len(data)) + data)
        self.process.stdin.flush()

    def _read(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        head = self.process.stdout.read(4)
        if len(head) < 4:
            return None
        data = self.process.stdout.read(struct.unpack(">I", head)[0])
        try:
            return json.loads(data)
        except ValueError:  # it died in the middle of a frame
            return None


def _environment() -> dict[str, str]:
    """What the broker needs to find Python, this package and libseccomp; nothing else of ours."""
    kept = {k: os.environ[k] for k in KEPT_ENVIRONMENT if k in os.environ}
    return {**kept, "PYTHONPATH": _search_path()}


def _search_path() -> str:
    """Where this package is, and pyseccomp and whatever may be preloaded."""
    own = str(Path(__file__).parents[2])
    return os.pathsep.join([own, *(p for p in sys.path if p and p != own)])
