"""The broker: a process between trainer and jails that holds tests and computes verdicts.

    python -m distil.sandbox.broker

reads frames (4 bytes of length, then JSON) from stdin and answers on stdout. The first says level,
workers and packages to preload; it's answered by the level that holds, or by why none does. Then
jobs, each answered by its report, in the order in which they end. It ends with its stdin.

A lost run is tried once more, then reported as INFRA_ERROR. A run that took between its limit and
KILL_FACTOR times as much is repeated with nothing beside it, and the smaller time counts, so that a
busy machine doesn't fail a right program. Left out: what runs in a jail (`jail`), one test's talk
(`trials`).
"""

import asyncio
import json
import os
import resource
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from distil.errors import SandboxUnavailable
from distil.sandbox.cells import Cell
from distil.sandbox.endings import KILL_FACTOR
from distil.sandbox.jail.lockdown import PR_SET_DUMPABLE, prctl
from distil.sandbox.jobjson import job_from_json, report_to_json
from distil.sandbox.jobs import Job, Report, TestResult, Verdict
from distil.sandbox.selftest import choose_cell
from distil.sandbox.trials import try_test
from distil.sandbox.zygotes import Zygote, ZygoteDied, start_zygote

STACK_BYTES = 256 << 20
TRIES = 2
SETTLE_S = 0.1
"""Before another try: what killed one zygote may have killed all, which takes a moment to hear."""


class Slots:
    """As many zygotes as there may be runs at a time; worn and dead ones are replaced."""

    def __init__(self, cell: Cell, count: int) -> None:
        self.cell, self.count = cell, count
        self._free: asyncio.Queue[tuple[int, Zygote | None]] = asyncio.Queue()
        for slot in range(count):
            self._free.put_nowait((slot, None))
        self._alone = asyncio.Lock()
        self._zygotes: dict[int, Zygote] = {}

    async def take(self) -> tuple[int, Zygote]:
        """A slot with a living zygote. Raises SandboxUnavailable or OSError if none can be had."""
        slot, zygote = await self._free.get()
        try:
            if zygote is None or zygote.worn:
                if zygote is not None:
                    zygote.close()
                zygote = await start_zygote(self.cell, slot)
                self._zygotes[slot] = zygote
        except BaseException:
            self._free.put_nowait((slot, None))
            raise
        return slot, zygote

    def give_back(self, slot: int, zygote: Zygote) -> None:
        """Frees a slot."""
        self._free.put_nowait((slot, zygote))

    def close(self) -> None:
        """Ends every zygote and, with it, its runs."""
        for zygote in self._zygotes.values():
            zygote.close()

    async def alone(self, task: Callable[[Zygote], Awaitable[TestResult]]) -> TestResult:
        """Does a task when nothing else runs; nothing starts meanwhile."""
        async with self._alone:
            held: list[tuple[int, Zygote]] = []
            try:
                while len(held) < self.count:
                    held.append(await self.take())
                return await task(held[0][1])
            finally:
                for slot, zygote in held:
                    self.give_back(slot, zygote)


async def run_job(slots: Slots, job: Job) -> Report:
    """Every test in order, until one fails if the job says so."""
    level, total = slots.cell.level, len(job.tests)
    if not job.source.strip():
        return Report(Verdict.NO_CODE, 0, total, (), level)
    results: list[TestResult] = []
    note = ""
    for index in range(total):
        result, lost = await _try_safely(slots, job, index)
        results.append(result)
        note = note or lost
        if result.verdict is not Verdict.PASS and job.stop == "first_fail":
            break
    bad = [r.verdict for r in results if r.verdict is not Verdict.PASS]
    # A test that couldn't be run says nothing about the others' failures, which stand.
    told = [v for v in bad if v is not Verdict.INFRA_ERROR] or bad
    passed = sum(r.verdict is Verdict.PASS for r in results)
    verdict = told[0] if told else Verdict.PASS
    return Report(verdict, passed, total, tuple(results), level, note)


async def _try_safely(slots: Slots, job: Job, index: int) -> tuple[TestResult, str]:
    """The result, and what failed on our side if it couldn't be had."""
    why = ""
    for _ in range(TRIES):
        try:
            result = await _try_once(slots, job, index)
        except (ZygoteDied, SandboxUnavailable, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            await asyncio.sleep(SETTLE_S)
            continue
        if result.verdict is Verdict.INFRA_ERROR:
            why = "the machine granted it no processor time"
            continue
        if result.verdict is Verdict.TIME_LIMIT and result.cpu_s < KILL_FACTOR * job.limits.cpu_s:
            result = await _repeat_alone(slots, job, index, result)
        return result, ""
    return TestResult(index, Verdict.INFRA_ERROR), why


async def _try_once(slots: Slots, job: Job, index: int) -> TestResult:
    slot, zygote = await slots.take()
    try:
        return await try_test(zygote, job, index)
    finally:
        slots.give_back(slot, zygote)


async def _repeat_alone(slots: Slots, job: Job, index: int, first: TestResult) -> TestResult:
    try:
        again = await slots.alone(lambda zygote: try_test(zygote, job, index))
    except (ZygoteDied, SandboxUnavailable, OSError):  # what is known stands
        return first
    return again if again.cpu_s < first.cpu_s else first


# ---------------------------------------------------------------- the process


async def main() -> None:
    """Serves until stdin ends."""
    prctl(PR_SET_DUMPABLE, 0)  # no other process may read the tests out of this one
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    stack = STACK_BYTES if most == resource.RLIM_INFINITY else min(STACK_BYTES, most)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, most))  # the zygotes' deep recursions
    reader = asyncio.StreamReader(limit=1 << 30)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    set_up = await read_frame(reader)
    if set_up is None:
        return
    try:
        cell, facts = await choose_cell(
            set_up["level"], set_up["preload"], allow_unsafe=set_up["allow_unsafe"]
        )
    except SandboxUnavailable as error:
        write_frame({"refused": str(error)})
        return
    write_frame({"level": cell.level, "facts": facts})
    slots = Slots(cell, set_up["workers"])
    tasks: set[asyncio.Task[None]] = set()
    while (frame := await read_frame(reader)) is not None:
        task = asyncio.create_task(_answer(slots, frame))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()
    slots.close()


async def _answer(slots: Slots, frame: dict[str, Any]) -> None:
    try:
        report = await run_job(slots, job_from_json(frame["job"]))
    except Exception:  # a bug of ours: told to whoever waits, who'd wait for ever else
        write_frame({"number": frame["number"], "bug": traceback.format_exc()})
        return
    write_frame({"number": frame["number"], "report": report_to_json(report)})


async def read_frame(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next frame; None at the end."""
    try:
        size = struct.unpack(">I", await reader.readexactly(4))[0]
        return json.loads(await reader.readexactly(size))
    except asyncio.IncompleteReadError:
        return None


def write_frame(message: dict[str, Any]) -> None:
    """Blocks only while the trainer's reading thread is behind."""
    data = json.dumps(message).encode("ascii")
    view = memoryview(struct.pack(">I", len(data)) + data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    asyncio.run(main())
