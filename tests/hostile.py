"""The adversarial suite: programs, what must become of each, and a script that runs them all.

    python tests/hostile.py LEVEL     prints {case: {verdict, got, ...}, "after": {...}} as JSON

Stands by itself (standard library and distil.sandbox), so that `test_sandbox_hostile.py` can run it
as another user, or without any namespaces. Markers are built at run time, backwards: a program must
not find one in its own source. Left out: numpy, which not every interpreter has.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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

MARKER = "TERCES-WVX-31415"[::-1]
FAST = Limits(cpu_s=0.6, idle_s=0.6, wall_factor=60, mem_mb=256, out_kb=256)
PASS, WRONG = {Verdict.PASS}, {Verdict.WRONG_ANSWER}
CRASH = {Verdict.RUNTIME_ERROR}
STOPPED = {Verdict.RUNTIME_ERROR, Verdict.WRONG_ANSWER}
TIME, IDLE = {Verdict.TIME_LIMIT}, {Verdict.IDLE_LIMIT}
MEMORY, OUTPUT = {Verdict.MEMORY_LIMIT}, {Verdict.OUTPUT_LIMIT}
PROTOCOL = {Verdict.PROTOCOL, Verdict.WRONG_ANSWER}


@dataclass(frozen=True)
class Case:
    """A program and the verdicts that it may get. `clean`: the marker may not be in its output."""

    job: Job
    allowed: set[Verdict]
    clean: bool = True


@dataclass(frozen=True)
class Traps:
    """What programs try to reach: files, a folder that all may write, ports, our process."""

    folder: str
    secret: str
    port: int
    udp_port: int
    abstract: str
    pid: int


def script(
    source: str, allowed: set[Verdict], stdin: str = "", expected: str = "ok\n", **more: Any
) -> Case:
    return Case(
        Job(source, (StdioTest(stdin, expected),), more.pop("limits", FAST), **more), allowed
    )


def call(
    source: str, allowed: set[Verdict], expected: Any = 42, args: tuple[Any, ...] = (1,)
) -> Case:
    return Case(Job(source, (CallTest("f", args, expected),), FAST), allowed)


def asserts(source: str, allowed: set[Verdict], code: str, entry: str | None = None) -> Case:
    return Case(Job(source, (AssertTest(code, entry),), FAST), allowed)


def attempt(body: str, imports: str = "os") -> str:
    """Tries something; prints OUT if it went through, and always "ok" at last."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"import {imports}\ntry:\n{lines}\n    print('OUT')\nexcept OSError:\n    pass\nprint('ok')\n"


def blocked(body: str, imports: str = "os") -> Case:
    """The attempt fails with an OSError: the program goes on, prints "ok", and so passes."""
    return script(attempt(body, imports), PASS)


# ---------------------------------------------------------------- benign: must pass

DEEP = """
import sys, threading
sys.setrecursionlimit(200000)
threading.stack_size(128 * 1024 * 1024)
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
def main(): print("ok" if depth(50000) == 50000 else "no")
t = threading.Thread(target=main); t.start(); t.join()
"""
IMPORTS_18 = """
import sys, os, math, re, json, random, string, itertools, functools, collections, heapq, bisect
import datetime, decimal, fractions, statistics, operator, copy
print("ok")
"""
HUMANEVAL = """
METADATA = {}
def check(candidate):
    assert candidate([1, 2]) == 3
    assert abs(candidate([.5, .25]) - .75) < 1e-9
    try:
        candidate("x")
        assert False, "no exception"
    except TypeError:
        pass
"""
BENIGN = {
    "ok_sum": script("print(sum(map(int, input().split())))", PASS, "1 2\n", "3"),
    "ok_threads_recursion": script(DEEP, PASS, limits=Limits(4, 2, mem_mb=512)),
    "ok_sysexit0_after_answer": script("import sys; print('ok'); sys.exit(0)", PASS),
    "ok_asyncio": script(
        "import asyncio\nasync def f():\n    await asyncio.sleep(.01)\n    return 'ok'\n"
        "print(asyncio.run(f()))", PASS,
    ),
    "ok_os_read0": script("import os; os.write(1, os.read(0, 100))", PASS, "ok\n"),
    "ok_threads_20": script(
        "import threading, time\nts = [threading.Thread(target=time.sleep, args=(.05,)) for _ in "
        "range(20)]\n[t.start() for t in ts]; [t.join() for t in ts]; print('ok')", PASS,
    ),
    "never_read_big_stdin": script("print('ok')", PASS, "x" * 600_000),
    "read_big_stdin": script("import sys; print(len(sys.stdin.read()))", PASS, "x" * 600_000, "600000"),
    "imports_18": script(IMPORTS_18, PASS),
    "lazy_import": script("import zoneinfo, csv, difflib, ssl; print('ok')", PASS),
    "mbpp_asserts": asserts(
        "def add(a, b):\n    return a + b\n", PASS, "assert add(1, 2) == 3\nassert add((1,), (2,)) == (1, 2)"
    ),
    "mbpp_class_goes_back": asserts(
        "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\n"
        "def top(ps): return max(p.b for p in ps)\n", PASS, "assert top([Pair(1, 2), Pair(3, 9)]) == 9",
    ),
    "humaneval_check": asserts(
        "def total(xs):\n    if isinstance(xs, str): raise TypeError('list')\n    return sum(xs)\n",
        PASS, HUMANEVAL, "total",
    ),
    "solution_class": Case(
        Job("class Solution:\n    def f(self, x):\n        return [x, x + 1]\n", (CallTest("f", (1,), [1, 2]),), FAST),
        PASS,
    ),
    "catching_and_super": script(
        "class A:\n    def go(self): return divmod(7, 2)\nclass B(A):\n    def go(self): return super().go()\n"
        "try:\n    int('x')\nexcept ValueError:\n    print('ok' if B().go() == (3, 1) else 'no')", PASS,
    ),
    "big_numbers_printed": script("print(len(str(10 ** 20000)))", PASS, "", "20001"),
    "dataclass_pickle_copy": script(
        "import copy, pickle\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1\n"
        "print('ok' if pickle.loads(pickle.dumps(copy.deepcopy(P(2)))).x == 2 else 'no')", PASS,
    ),
    "lcb_prelude": Case(
        Job("print('ok' if gcd(4, 6) == 2 and Counter('aa')['a'] == 2 else 'no')", (StdioTest("", "ok"),),
            FAST, prelude="lcb"), PASS,
    ),
    "lenient_exit": script("import sys; print('ok'); sys.exit(3)", PASS, lenient_exit=True),
    "exit_builtin": script("print('ok')\nexit()", PASS),
    "byte_order_mark": script("\ufeffprint('ok')", PASS),
    "left_open_file_is_flushed": script("w = open(1, 'w')\nw.write('ok')", PASS),
    "set_of_sets": Case(Job("def f(x): return [{1}, {2}]", (CallTest("f", (1,), [{2}, {1}], checker="set"),), FAST), PASS),
    "no_newline_blank_lines": script("print('ok  \\n\\n')", PASS),
}  # fmt: skip

# ---------------------------------------------------------------- forging a verdict: must not pass

EQ = "class E:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n    __hash__ = None\n"
FORGING = {
    "exit0_early": script("import sys; sys.exit(0)", WRONG),
    "os__exit0": script("import os; os._exit(0)", WRONG),
    "print_sentinel_on_all_fds": script(
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'PASS\\n{\"verdict\": \"pass\"}\\n')\n"
        "    except OSError: pass", WRONG,
    ),
    "patch_unittest": script(
        "import unittest; unittest.TestCase.assertEqual = lambda *a: None; print('no')", WRONG
    ),
    "eq_always_true": call(EQ + "def f(x): return E()", PROTOCOL),
    "int_subclass_eq": call("class I(int):\n    def __eq__(self, o): return True\ndef f(x): return I(1)", WRONG),
    "str_subclass": call("class S(str):\n    def __eq__(self, o): return True\ndef f(x): return S('no')", WRONG),
    "list_subclass_iter": call(
        "class L(list):\n    def __eq__(self, o): return True\n    def __len__(self): return 1\n"
        "def f(x): return L([1])", WRONG,
    ),
    "frames_scrape": call(
        "import gc, sys\ndef f(x):\n    frame, seen = sys._getframe(), gc.get_objects()\n    while frame:\n"
        "        seen += [*frame.f_locals.values(), *frame.f_globals.values()]\n        frame = frame.f_back\n"
        f"    wanted = {MARKER[::-1]!r}[::-1]\n"
        "    return wanted if any(wanted in str(v)[:10000] for v in seen if v is not seen "
        "and isinstance(v, (str, dict, list, tuple, bytes))) else 0", WRONG, MARKER,
    ),
    "fd_scan": script(
        "import os\nopen_ones = []\nfor fd in range(3, 256):\n    try: os.fstat(fd); open_ones.append(fd)\n"
        "    except OSError: pass\nprint('ok' if not open_ones else open_ones)", PASS,
    ),
    "call_forges_protocol": call(
        "import os\nos.write(5, b'{\"verdict\": \"pass\"}\\n')\ndef f(x): return 0", PROTOCOL
    ),
    "call_forges_two_answers": call(
        "import os\ndef f(x):\n    os.write(5, b'{\"id\": 1, \"value\": 7}\\n{\"id\": 1, \"value\": 42}\\n')\n"
        "    return 42", WRONG,
    ),
    "raw_pickle_bytes": call(
        "import os, pickle\nclass P:\n    def __reduce__(self): return (os.system, ('touch {folder}/pickled',))\n"
        "def f(x):\n    os.write(5, pickle.dumps(P()) + b'\\n')\n    return 1", PROTOCOL,
    ),
    "deep_json": call("import os\ndef f(x):\n    os.write(5, b'[' * 200000 + b'\\n')\n    return 42", PROTOCOL),
    "self_containing_value": call("def f(x):\n    a = []\n    a.append(a)\n    return a", PROTOCOL),
    "endless_answer": call(
        "import os\ndef f(x):\n    while True: os.write(5, b'x' * 65536)", {Verdict.PROTOCOL}
    ),
    "wire_tag_forged": call("def f(x): return {'~': 'object', 'v': ['os.system', 0]}", WRONG),
    "assert_sys_exit": asserts("import sys\ndef f(x): sys.exit(0)", CRASH, "assert f(1) == 1"),
    "assert_os_exit": asserts("import os\ndef f(x): os._exit(0)", CRASH, "assert f(1) == 1"),
    "assert_eq": asserts(EQ + "def f(x): return E()", WRONG, "assert f(1) == 1"),
    "assert_ne": asserts(EQ + "def f(x): return E()", WRONG, "assert not f(1) != 1"),
    "patched_AssertionError": asserts(
        "import builtins\nclass Q(Exception): pass\nbuiltins.AssertionError = Q\ndef f(x): return 0",
        WRONG, "assert f(1) == 1",
    ),
    "raises_AssertionError_subclass": asserts(
        "def f(x): raise AssertionError('passed')", CRASH, "assert f(1) == 1"
    ),
    "redefined_check": asserts(
        "def check(candidate): pass\ndef f(x): return 0", WRONG,
        "def check(candidate):\n    assert candidate(1) == 1\n", "f",
    ),
    "redefined_builtins": asserts(
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.len = lambda x: 1\ndef f(x): return [1, 2]",
        STOPPED, "assert len(f(1)) == 1",
    ),
    "assert_answers_ahead": asserts(
        "import os\nfor i in range(1, 9): os.write(5, b'{\"id\": %d, \"value\": 1}\\n' % i)\ndef f(x): return 0",
        {Verdict.PROTOCOL, Verdict.WRONG_ANSWER}, "assert f(1) == 1",
    ),
    "stop_iteration_ends_the_tests_loop": asserts(
        "def f(x): raise StopIteration", CRASH, "assert all(map(lambda x: f(x) == 3, [1, 2]))"
    ),
    "tests_cannot_use_an_endless_value": asserts(
        "def f(x): return 10 ** 18", TIME | IDLE, "for i in range(f(1)): pass"
    ),
    "tests_cannot_write_a_giant_number": asserts(
        "def f(x): return 1 << 3000000", TIME | IDLE | STOPPED | PROTOCOL, "assert str(f(1)) == '1'"
    ),
    "complex_overflow": call(
        "import os\ndef f(x): os.write(5, b'{\"id\": 1, \"value\": {\"~\": \"complex\", \"v\": [1' + b'0' * 400"
        " + b', 0]}}\\n')", PROTOCOL,
    ),
    "infinite_line_number": call(
        "import os\nos.write(5, b'{\"load\": {\"type\": \"A\", \"message\": \"\", \"frames\": [[1e999, \"a\", \"b\"]]}}"
        "\\n')", {Verdict.PROTOCOL},
    ),
    "opaque_in_a_set_test": Case(
        Job("def f(x): return [object()]", (CallTest("f", (1,), [1], checker="set"),), FAST), PROTOCOL
    ),
    "giant_number": call("def f(x): return 1 << 3900000", PROTOCOL),
    "giant_json_number": call(
        "import os\ndef f(x): os.write(5, b'{\"id\": 1, \"value\": ' + b'9' * 1000000 + b'}\\n')", PROTOCOL
    ),
    "colliding_set": Case(
        Job("def f(x): return {i * (2 ** 61 - 1) for i in range(1, 6000)}", (CallTest("f", (1,), 42),),
            Limits(cpu_s=8, idle_s=4)), WRONG,
    ),
    "surrogate_message": call("def f(x): raise ValueError('\\ud800')", CRASH),
    "forged_verdict_fd": script(
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'{\"ended\": 1, \"status\": 0}')\n"
        "    except OSError: pass\nprint('no')", WRONG,
    ),
    "first_line_only": script("print('a')", WRONG, "", "a\nb\nc\n"),
    "extra_lines": script("print('a\\nb')", WRONG, "", "a\n"),
    "stdout_close": script("import os; os.close(1); print('ok')", CRASH),
    "excepthook_prints": script(
        "import sys\nsys.excepthook = lambda *a: print('ok')\nraise ValueError", CRASH
    ),
    "atexit_prints_another": script("import atexit; atexit.register(print, 'other')", WRONG),
    "exit3_with_right_answer": script("import sys; print('ok'); sys.exit(3)", CRASH),
    "empty_program": script("  \n", {Verdict.NO_CODE}),
    "syntax_error": script("print('ok'", CRASH),
    "nul_byte": script("print('ok')\0", CRASH),
    "kills_itself": script("import os, signal\nprint('ok', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)", CRASH),
}  # fmt: skip

# ---------------------------------------------------------------- secrets, network, files

LOOK = """
import os
found = []
def look(read):
    try: text = read()
    except Exception: return
    if isinstance(text, bytes): text = text.decode('latin-1')
    if '{backwards}'[::-1] in text: found.append(1)
"""
SECRETS = {
    "env_secret": script(LOOK + "look(lambda: str(dict(os.environ)))\nprint('OUT' if found else 'ok')", PASS),
    "proc_environ": script(
        LOOK + "pids = ['self', str(os.getppid()), '{pid}', *map(str, range(1, 400))]\n"
        "for p in pids:\n    look(lambda: open(f'/proc/{{p}}/environ', 'rb').read())\n"
        "print('OUT' if found else 'ok')", PASS,
    ),
    "proc_mem": blocked("open('/proc/%d/mem' % os.getppid(), 'rb')"),
    "proc_self_mem": blocked("open('/proc/self/mem', 'rb')"),
    "proc_maps": blocked("open('/proc/{pid}/maps').read()"),
    "process_vm_readv": blocked(
        "c = ctypes.CDLL(None, use_errno=True)\nbuf = ctypes.create_string_buffer(8)\n"
        "class V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
        "a, b = V(ctypes.addressof(buf), 8), V(id(0), 8)\n"
        "if c.process_vm_readv(os.getppid(), ctypes.byref(a), 1, ctypes.byref(b), 1, 0) < 0: raise OSError",
        "os, ctypes",
    ),
    "ptrace_parent": blocked(
        "c = ctypes.CDLL(None)\nif c.ptrace(16, os.getppid(), 0, 0) < 0: raise OSError", "os, ctypes"
    ),
    "read_shadow": blocked("open('/etc/shadow').read()"),
    "read_passwd": blocked("open('/etc/passwd').read()"),
    "read_home_secret": blocked("open('{secret}').read()"),
    "list_home": blocked("os.listdir('{folder}')"),
    "list_root": blocked("os.listdir('/root')\nos.listdir('/home')"),
    "read_by_openat": blocked("d = os.open('/', os.O_RDONLY)\nos.open('{secret}'[1:], os.O_RDONLY, dir_fd=d)"),
    "read_through_symlink": blocked("os.symlink('{secret}', '/tmp/l')\nopen('/tmp/l').read()"),
    "own_package_sources": script(
        "try:\n    import distil.sandbox.judge\n    print('OUT')\nexcept ImportError:\n    print('ok')", PASS
    ),
    "prior_job_heap_scan": script(
        LOOK + "import gc\nfor o in gc.get_objects():\n    if isinstance(o, (dict, list, tuple)):\n"
        "        look(lambda: str(o)[:10000])\nprint('OUT' if found else 'ok')", PASS,
        limits=Limits(8, 4, mem_mb=512),
    ),
}  # fmt: skip
NETWORK = {
    "tcp_connect": blocked("socket.create_connection(('127.0.0.1', {port}), 2)", "os, socket"),
    "udp_send": blocked(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('127.0.0.1', {udp_port}))",
        "os, socket",
    ),
    "dns": blocked("socket.getaddrinfo('example.com', 80)", "os, socket"),
    "abstract_unix": blocked(
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\ns.connect('\\0{abstract}')",
        "os, socket",
    ),
    "socketpair_to_address": blocked(
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', '\\0{abstract}')",
        "os, socket",
    ),
    "socketpair_connect": blocked(
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.connect('\\0{abstract}')",
        "os, socket",
    ),
    "af_netlink": blocked("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "os, socket"),
    "af_vsock": blocked("socket.socket(40, socket.SOCK_STREAM)", "os, socket"),
}
FILES = {
    "write_outside": blocked("open('{folder}/canary', 'w')"),
    "write_tmp": blocked("open('/tmp/distil-hostile-canary', 'w')"),
    "write_devshm": blocked("open('/dev/shm/distil-hostile-canary', 'w')"),
    "open_tmpfile": blocked("os.open('{folder}', os.O_TMPFILE | os.O_RDWR)"),
    "chmod_canary": blocked("os.chmod('{secret}', 0o777)"),
    "truncate_canary": blocked("os.truncate('{secret}', 0)"),
    "utime_canary": blocked("os.utime('{secret}', (0, 0))"),
    "fill_disk": blocked("f = open('{folder}/fill', 'wb')\nwhile True: f.write(b'x' * (1 << 20))"),
    "mkdir": blocked("os.mkdir('{folder}/d')"),
    "symlink_canary": blocked("os.symlink('{secret}', '{folder}/link')"),
    "rename_canary": blocked("os.rename('{secret}', '{secret}2')"),
    "unlink_canary": blocked("os.unlink('{secret}')"),
    "write_dev_null_is_refused_too": blocked("open('/dev/null', 'w')"),
}

# ---------------------------------------------------------------- processes

PROCESSES = {
    "fork_bomb": blocked("while True: os.fork()"),
    "daemonize": blocked(
        "if os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(1)\n"
        "    open('{folder}/late', 'w').write('x')"
    ),
    "subprocess_sh": blocked("subprocess.run(['/bin/sh', '-c', 'echo x > {folder}/sh'])", "os, subprocess"),
    "posix_spawn": blocked("os.posix_spawn('/bin/true', ['true'], {{}})"),
    "os_system": script("import os\nr = os.system('true')\nprint('OUT' if r == 0 else 'ok')", PASS),
    "exec_python": blocked("os.execv(sys.executable or '/usr/bin/python3', ['python3', '-c', '1'])", "os, sys"),
    "multiprocessing": blocked(
        "p = multiprocessing.get_context('fork').Process(target=print)\np.start()", "os, multiprocessing"
    ),
    "thread_bomb": script(
        "import threading, time\nn = 0\nthreading.stack_size(1 << 16)\ntry:\n    while n < 3000:\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); n += 1\n"
        "except RuntimeError: pass\nprint('ok' if n <= 64 else 'OUT')", PASS | CRASH,
    ),
    "kill_parent": blocked("os.kill(os.getppid(), 9)"),
    "kill_broker": blocked("os.kill({pid}, 9)"),
    "kill_all": blocked("os.kill(-1, 9)"),
    "kill_group": blocked("os.killpg(0, 9)"),
    "tgkill_parent": blocked(
        "c = ctypes.CDLL(None)\nif c.tgkill(os.getppid(), os.getppid(), 9) < 0: raise OSError", "os, ctypes"
    ),
    "pidfd_parent": blocked("f = os.pidfd_open(os.getppid())\nsignal.pidfd_send_signal(f, 9)", "os, signal"),
    "prlimit_parent": blocked(
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))", "os, resource"
    ),
    "sched_parent": blocked("os.sched_setaffinity(os.getppid(), {{0}})"),
    "renice_parent": blocked("os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)"),
    "sigio_parent": blocked("fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())", "os, fcntl"),
    "raise_rlimit": script(
        "import resource\ntry:\n    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "    print('OUT')\nexcept (ValueError, OSError): print('ok')", PASS,
    ),
}  # fmt: skip

# ---------------------------------------------------------------- resources

HEAVY = Limits(cpu_s=2.0, idle_s=1.5, wall_factor=30, mem_mb=200, out_kb=256)
RESOURCES = {
    "mem_10gb": script("x = bytearray(10 << 30)\nprint('ok')", MEMORY, limits=HEAVY),
    "mem_grow": script("x = []\nwhile True: x.append(bytearray(1 << 20))", MEMORY, limits=HEAVY),
    "mem_memfd": blocked("os.memfd_create('x')"),
    "mem_mmap": script("import mmap\nx = mmap.mmap(-1, 4 << 30)\nprint('ok')", STOPPED | MEMORY, limits=HEAVY),
    "big_int": script("x = 7\nwhile True: x = x * x", TIME | MEMORY),
    "regex_bomb": script("import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')", TIME),
    "inf_loop": script("while True: pass", TIME),
    "inf_loop_sigs": script(
        "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except OSError: pass\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass", TIME,
    ),
    "inf_loop_threads": script(
        "import threading\ndef f():\n    while True: pass\n"
        "[threading.Thread(target=f).start() for _ in range(4)]",
        TIME | IDLE,  # threads that pass a lock on look idle where others take the processors
    ),
    "call_inf_loop": call("def f(x):\n    while True: pass", TIME),
    "assert_inf_loop": asserts("def f(x):\n    while True: pass", TIME, "assert f(1) == 1"),
    "import_inf_loop": call("while True: pass\ndef f(x): return 42", TIME),
    "sleep_forever": script("import time; time.sleep(1000)", IDLE),
    "deadlocked_lock": script("import threading\nl = threading.Lock()\nl.acquire(); l.acquire()", IDLE),
    "call_sleeps": call("import time\ndef f(x): time.sleep(1000)", IDLE),
    "thread_never_ends": script(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nprint('ok')", IDLE
    ),
    "stops_itself": script("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", IDLE),
    "real_time_signal": script("import os; os.kill(os.getpid(), 40)", CRASH),
    "main_thread_exits_alone": script(
        "import ctypes, os, threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n"
        "ctypes.CDLL(None).syscall(93 if os.uname().machine == 'aarch64' else 60, 0)", IDLE,
    ),
    # Our failure is masked, never scored 0: so no program may look like one.
    "hides_its_sleep_behind_threads": script(
        "import hashlib, threading, time\nb = bytes(100000)\ndef g():\n"
        "    while time.process_time() < .5: hashlib.sha256(b).digest()\n    time.sleep(99)\n"
        "[threading.Thread(target=g).start() for _ in range(40)]\ntime.sleep(99)", IDLE | TIME,
        limits=Limits(cpu_s=.7, idle_s=1, wall_factor=30, mem_mb=512),
    ),
    "byte_by_byte": script("import os\nwhile True: os.write(1, b'x')", OUTPUT | TIME),
    "inf_output": script("while True: print('x' * 1000)", OUTPUT),
    "inf_stderr": script("import sys\nwhile True: sys.stderr.write('x' * 1000)", OUTPUT),
    "deep_recursion": script("def f(): f()\nf()", CRASH),
    "deep_c_recursion": script(
        "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)", CRASH | TIME | MEMORY
    ),
    "segv": script("import ctypes; ctypes.string_at(0)", CRASH),
    "abort": script("import os; os.abort()", CRASH),
}  # fmt: skip


def syscall(number_x86: int, number_arm: int, arguments: str = "0, 0, 0, 0, 0") -> Case:
    """A raw system call: refused, or unknown to the kernel."""
    return blocked(
        "c = ctypes.CDLL(None, use_errno=True)\n"
        f"n = {number_arm} if os.uname().machine == 'aarch64' else {number_x86}\n"
        f"if c.syscall(n, {arguments}) == -1: raise OSError(ctypes.get_errno(), 'refused')",
        "os, ctypes",
    )


KERNEL = {
    "mount": syscall(165, 40),
    "unshare_userns": syscall(272, 97, "0x10000000"),
    "setns": syscall(308, 268),
    "io_uring": syscall(425, 425, "8, ctypes.create_string_buffer(256)"),
    "bpf": syscall(321, 280),
    "keyctl": syscall(250, 219),
    "perf_event_open": syscall(298, 241, "ctypes.create_string_buffer(128), 0, -1, -1, 0"),
    "userfaultfd": syscall(323, 282, "1"),
    "seccomp_again": syscall(317, 277, "0, 0, 0"),
    "personality": syscall(135, 92, "0x0040000"),
    "shmget": syscall(29, 194, "0, 4096, 0o1600"),
    "clone_new_process": syscall(56, 220, "17, 0, 0, 0, 0"),
    "prctl_dumpable": syscall(157, 167, "4, 1, 0, 0, 0"),
    "prctl_pdeathsig": syscall(157, 167, "1, 0, 0, 0, 0"),
}
X32 = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39); print('OUT')"
if os.uname().machine == "x86_64":
    KERNEL["x32"] = script(X32, {Verdict.SECURITY})
    # mov eax, 20; int 0x80; ret: getpid of the 32-bit mode
    INT80 = (
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
        "a = ctypes.addressof(ctypes.c_char.from_buffer(m))\nctypes.CFUNCTYPE(ctypes.c_int)(a)()\nprint('OUT')"
    )
    KERNEL["int80"] = script(INT80, {Verdict.SECURITY, Verdict.RUNTIME_ERROR})

GROUPS = {
    "benign": BENIGN, "forging": FORGING, "secrets": SECRETS, "network": NETWORK, "files": FILES,
    "processes": PROCESSES, "resources": RESOURCES, "kernel": KERNEL,
}  # fmt: skip
CASES: dict[str, Case] = {name: case for group in GROUPS.values() for name, case in group.items()}
WITH_PLACES = {*SECRETS, *NETWORK, *FILES, *PROCESSES, "raw_pickle_bytes"}


def filled(name: str, traps: Traps) -> Job:
    """A case's job with the traps' places in its source."""
    job = CASES[name].job
    if name not in WITH_PLACES or "{" not in job.source:
        return job
    source = job.source
    for key, value in {**asdict(traps), "backwards": MARKER[::-1]}.items():
        source = source.replace("{" + key + "}", str(value))
    source = source.replace("{{", "{").replace("}}", "}")
    return Job(**{**vars(job), "source": source})


@contextlib.contextmanager
def set_traps(pid: int) -> Iterator[tuple[Traps, Callable[[], list[str]]]]:
    """The traps, and a function that says what was sprung."""
    folder = tempfile.mkdtemp(prefix="distil-hostile-", dir="/tmp")
    os.chmod(folder, 0o777)
    secret = Path(folder, "secret")
    secret.write_text(MARKER)
    secret.chmod(0o666)
    abstract = f"distil-hostile-{os.getpid()}"
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    unix.bind(f"\0{abstract}")
    traps = Traps(
        folder, str(secret), listening.getsockname()[1], udp.getsockname()[1], abstract, pid
    )

    def sprung() -> list[str]:
        said = []
        if sorted(os.listdir(folder)) != ["secret"] or secret.read_text() != MARKER:
            said.append(f"files: {os.listdir(folder)}")
        if secret.stat().st_mode & 0o777 != 0o666:
            said.append("mode")
        said += [
            p
            for p in ("/tmp/distil-hostile-canary", "/dev/shm/distil-hostile-canary")
            if os.path.exists(p)
        ]
        for name, trap in (("tcp", listening), ("udp", udp), ("unix", unix)):
            trap.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                trap.accept() if name == "tcp" else trap.recv(10)
                said.append(name)
        return said

    try:
        yield traps, sprung
    finally:
        for trap in (listening, udp, unix):
            trap.close()
        secret.unlink(missing_ok=True)
        os.rmdir(folder)


def descendants(pid: int) -> dict[int, str]:
    """pid -> state of every process below `pid`."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                parents[int(entry)] = (int(fields[1]), fields[0])
    found: dict[int, str] = {}
    layer = {pid}
    while layer := {p for p, (parent, _) in parents.items() if parent in layer}:
        found |= {p: parents[p][1] for p in layer}
    return found


def run_all(level: str) -> dict[str, Any]:
    """Every case at a level, and what is left afterwards."""
    if not os.environ.get("DISTIL_HOSTILE"):  # it has to be in the environment at the exec
        os.environ["DISTIL_HOSTILE"] = MARKER
        os.execv(sys.executable, [sys.executable, *sys.argv])
    with SandboxPool(2, level) as pool:
        facts = pool.start()
        broker = pool.pid
        # The marker goes through every jail before anything looks for it.
        sources = [f"import time\ntime.sleep(.3)\nprint({MARKER!r}) # {i}" for i in range(4)]
        pool.map([Job(source, (StdioTest(MARKER, MARKER),), FAST) for source in sources])
        before = descendants(broker)
        with set_traps(broker) as (traps, sprung):
            reports: list[Report] = pool.map([filled(name, traps) for name in CASES])
            time.sleep(1.2)  # a daemon would write by now
            said = sprung()
        after = descendants(broker)
        told = {name: _told(report) for name, report in zip(CASES, reports, strict=True)}
        told["after"] = {
            "level": facts["level"], "uid": facts["uid"], "sprung": said,
            "same_broker": pool.pid == broker, "gone": sorted(set(before) - set(after)),
            "new": sorted(set(after) - set(before)),
            "zombies": [p for p, state in after.items() if state == "Z"],
        }  # fmt: skip
    return told


def _told(report: Report) -> dict[str, Any]:
    result = report.results[0] if report.results else None
    said = "" if result is None else f"{result.got}{result.printed}{result.detail}"
    return {
        "verdict": report.verdict, "said": said[:300], "marked": MARKER in said,
        "stderr": "" if result is None else result.stderr[-300:], "note": report.note,
        "cpu_s": 0 if result is None else result.cpu_s,
    }  # fmt: skip


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(json.dumps(run_all(sys.argv[1])))
