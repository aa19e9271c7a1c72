"""The broker's slots where zygotes can't be had, and the trainer's talk with it; no jail."""

import asyncio
import subprocess
import sys
import threading
from typing import Any, cast

import pytest

from distil.errors import SandboxUnavailable
from distil.sandbox import Job, Limits, StdioTest, TestResult, Verdict, broker, pool
from distil.sandbox.cells import Cell
from distil.sandbox.zygotes import Zygote

CELL = Cell("standard", (), {}, {})
JOB = Job("while True: pass", (StdioTest("", "ok"),), Limits(cpu_s=1.0))


class Calm:
    """A zygote that lives and is never worn."""

    worn = False


class Lacking:
    """Starts zygotes, but for the slot that is `missing`."""

    def __init__(self, missing: int | None) -> None:
        self.missing = missing

    async def __call__(self, cell: Cell, slot: int) -> Zygote:
        if slot == self.missing:
            raise SandboxUnavailable("no room for a process")
        return cast(Zygote, Calm())


def test_slots_held_for_a_lone_run_are_free_again_where_one_can_not_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Lacking(missing=1)
    monkeypatch.setattr(broker, "start_zygote", start)

    async def lone(zygote: Zygote) -> TestResult:
        return TestResult(0, Verdict.PASS)

    async def try_it() -> TestResult:
        slots = broker.Slots(CELL, 2)
        with pytest.raises(SandboxUnavailable):
            await slots.alone(lone)
        start.missing = None
        async with asyncio.timeout(20):  # a slot that is lost is waited for without end
            return await slots.alone(lone)

    assert asyncio.run(try_it()).verdict is Verdict.PASS


@pytest.mark.parametrize("error", [SandboxUnavailable("no room"), OSError(24, "too many files")])
def test_where_a_repetition_can_not_be_had_the_first_result_stands(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first = TestResult(0, Verdict.TIME_LIMIT, cpu_s=1.1)
    answers: list[Any] = [first, error]

    async def try_test(zygote: Zygote, job: Job, index: int) -> TestResult:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast(TestResult, answer)

    monkeypatch.setattr(broker, "start_zygote", Lacking(missing=None))
    monkeypatch.setattr(broker, "try_test", try_test)

    async def try_it() -> Any:
        return await broker.run_job(broker.Slots(CELL, 1), JOB)

    report = asyncio.run(try_it())
    assert (report.verdict, report.results) == (Verdict.TIME_LIMIT, (first,))
    assert answers == []


# Takes two jobs, then reads no more until both answers are out, the second larger than any pipe.
BUSY_BROKER = """
import json, struct, sys
def read():
    size = struct.unpack(">I", sys.stdin.buffer.read(4))[0]
    return json.loads(sys.stdin.buffer.read(size))
def write(message):
    data = json.dumps(message).encode()
    sys.stdout.buffer.write(struct.pack(">I", len(data)) + data)
    sys.stdout.buffer.flush()
read()
write({"level": "standard", "facts": {}})
read(), read()
size = struct.unpack(">I", sys.stdin.buffer.read(4))[0]    # the third job is under way
write({"number": 1, "report": ""})
write({"number": 2, "report": "x" * 1_000_000})
sys.stdin.buffer.read(size)
write({"number": 3, "report": ""})
sys.stdin.buffer.read()
"""


def test_answers_are_taken_while_a_large_job_is_being_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        return start([sys.executable, "-c", BUSY_BROKER], **options)

    monkeypatch.setattr(pool.subprocess, "Popen", popen)
    made = pool._Broker({})
    answered: list[int] = []
    all_there = threading.Event()

    def ended(answer: dict[str, Any] | None) -> None:
        if answer is not None:
            answered.append(answer["number"])
        if len(answered) == 3:
            all_there.set()

    def send() -> None:
        for size in (1, 1, 1_000_000):
            made.send({"source": "x" * size}, ended)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    in_time = all_there.wait(20)
    made.process.kill()
    sender.join()
    made.close()
    assert (in_time, answered) == (True, [1, 2, 3])
