"""Calls in processes of their own: late, too big, dead, locked in, and no trouble to the rest."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distil.feedback import deadline
from distil.feedback.deadline import Outcome, Workers, shared

EVAL = "builtins:eval"
FOREVER = "__import__('math').factorial(10**9)"  # one call into C code
CPU_S = 0.3


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    made = Workers(EVAL, processes=2)
    yield made
    made.close()


@pytest.fixture
def one() -> Iterator[Workers]:
    made = Workers(EVAL, processes=1)
    yield made
    made.close()


def outcome(workers: Workers, program: str, **settings: Any) -> Outcome:
    [result] = workers.map([(program,)], **{"cpu_s": CPU_S, **settings})
    return result


def test_values_come_back_in_order(workers: Workers) -> None:
    programs = [(f"{i} * 2",) for i in range(300)]
    assert workers.map(programs) == [Outcome(i * 2) for i in range(300)]
    assert workers.map([]) == []


@pytest.mark.parametrize("value", ["\0 \ud800 ü\n", None, [1, {"a": 2.5}], "x" * 1_000_000])
def test_json_crosses_both_ways_unchanged(workers: Workers, value: Any) -> None:
    assert outcome(workers, repr(value)) == Outcome(value)


def test_a_call_that_never_ends_is_ended_even_in_c_code(workers: Workers) -> None:
    assert outcome(workers, FOREVER) == Outcome(fault="late")
    assert outcome(workers, "[0 for _ in iter(int, 1)]").fault == "late"


def test_a_few_endless_calls_hold_up_a_batch_of_256_by_no_more_than_their_limit(
    workers: Workers,
) -> None:
    programs = [(FOREVER if i % 50 == 7 else str(i),) for i in range(256)]
    began = time.monotonic()
    outcomes = workers.map(programs, cpu_s=CPU_S)
    # Six calls over two processes at 0.3 s of CPU time: 1 s, and a start of 0.1 s after each; the
    # rest is for a busy machine.
    assert time.monotonic() - began < 30
    for i, result in enumerate(outcomes):
        assert result == (Outcome(fault="late") if i % 50 == 7 else Outcome(i))


def test_time_asleep_isnt_computing_so_a_busy_machine_makes_nothing_late(one: Workers) -> None:
    assert outcome(one, f"__import__('time').sleep({3 * CPU_S})") == Outcome(None)


def test_a_call_that_neither_computes_nor_ends_is_given_up(
    one: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "WALL_FACTOR", 1.0)
    monkeypatch.setattr(deadline, "WALL_EXTRA_S", 0.2)
    assert outcome(one, "__import__('time').sleep(60)") == Outcome(fault="waited")
    monkeypatch.setattr(deadline, "GRACE_S", 0.2)
    without_timers = "[__import__('signal').setitimer(i, 0) for i in (0, 2)], " + FOREVER
    assert outcome(one, without_timers).fault == "died"


def test_memory_has_a_limit_and_the_next_call_a_fresh_process(one: Workers) -> None:
    before = outcome(one, "__import__('os').getpid()").value
    assert outcome(one, "bytearray(10**10)") == Outcome(fault="memory")
    assert outcome(one, "__import__('os').getpid()").value != before


def test_what_a_function_raises_is_told_and_its_process_goes_on(one: Workers) -> None:
    before = outcome(one, "__import__('os').getpid()").value
    assert outcome(one, "1 / 0") == Outcome(
        fault="raised", note="ZeroDivisionError: division by zero"
    )
    assert outcome(one, "__import__('sys').exit(3)").fault == "raised"
    assert outcome(one, "__import__('os').getpid()").value == before


def test_a_process_that_died_is_replaced_and_its_call_tried_again(one: Workers) -> None:
    before = outcome(one, "__import__('os').getpid()").value
    os.kill(before, signal.SIGKILL)
    after = outcome(one, "__import__('os').getpid()")
    assert after.fault is None
    assert after.value != before


def test_a_call_that_kills_its_process_twice_is_given_up(one: Workers) -> None:
    assert outcome(one, "__import__('os').abort()") == Outcome(fault="died", note="exit status -6")
    assert outcome(one, "2") == Outcome(2)


def test_a_process_that_cant_start_says_why() -> None:
    workers = Workers("no_such_module:eval", processes=1)
    said = outcome(workers, "1")
    assert (said.fault, said.note) == (
        "died", "ModuleNotFoundError: No module named 'no_such_module'"
    )  # fmt: skip


@pytest.mark.parametrize(
    "program",
    [
        "__import__('os').system('true')",
        "__import__('subprocess').run(['true'])",
        "__import__('os').fork()",
        "__import__('os').execv('/bin/true', ['true'])",
        "open('PATH/made', 'w')",
        "open('PATH/there', 'a')",
        "__import__('os').open('PATH/made', 1 | 64)",
        "__import__('os').remove('PATH/there')",
        "__import__('os').rename('PATH/there', 'PATH/made')",
        "__import__('os').mkdir('PATH/made')",
        "__import__('os').kill(1, 0)",
        "__import__('socket').socket()",
        "__import__('ctypes').CDLL(None)",
        "__import__('shutil').rmtree('PATH')",
    ],
)
def test_an_answer_that_is_a_program_may_do_nothing_to_the_machine(
    workers: Workers, tmp_path: Path, program: str
) -> None:
    (tmp_path / "there").write_text("as it was", encoding="utf-8")
    said = outcome(workers, program.replace("PATH", str(tmp_path)))
    assert said.fault == "raised"
    assert said.note.startswith("PermissionError: An answer may not do this: ")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text(encoding="utf-8") == "as it was"


def test_what_a_verifier_prints_is_no_answer(workers: Workers) -> None:
    assert outcome(workers, """print('{"value": 5}')""") == Outcome(None)


def test_secrets_in_the_environment_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    workers = Workers(EVAL, processes=1)
    assert outcome(workers, "__import__('os').environ.get('SOME_TOKEN')") == Outcome(None)
    workers.close()


def test_many_threads_may_ask_at_once(workers: Workers) -> None:
    results: dict[int, list[Outcome]] = {}

    def ask(thread: int) -> None:
        results[thread] = workers.map([(f"{thread} + {i}",) for i in range(50)])

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {t: [Outcome(t + i) for i in range(50)] for t in range(6)}


def test_a_forked_process_asks_workers_of_its_own() -> None:
    mine = shared(EVAL).map([("__import__('os').getppid()",)])[0].value
    assert mine == os.getpid()
    child = os.fork()
    if child == 0:
        said = shared(EVAL).map([("__import__('os').getppid()",)])[0].value
        shared(EVAL).close()
        os._exit(0 if said == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shared(EVAL).map([("3",)]) == [Outcome(3)]


def test_processes_end_with_the_one_that_started_them() -> None:
    program = (
        "import os, sys\n"
        "from distil.feedback.deadline import Workers\n"
        "workers = Workers('builtins:eval', processes=1)\n"
        "print(workers.map([(\"__import__('os').getpid()\",)])[0].value, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    source = str(Path(deadline.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = Path(f"/proc/{int(done.stdout)}/cmdline")
    until = time.monotonic() + 20
    while worker.exists() and b"distil.feedback.worker" in worker.read_bytes():
        assert time.monotonic() < until
        time.sleep(0.05)
