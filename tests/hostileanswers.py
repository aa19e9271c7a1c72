"""Cases of the adversarial suite: honest programs must pass, forged verdicts not.

Left out: numpy, which not every interpreter has.
"""

from distil.sandbox import CallTest, Job, Limits, StdioTest, Verdict
from hostilecase import (
    CRASH,
    FAST,
    IDLE,
    MARKER,
    PASS,
    PROTOCOL,
    STOPPED,
    TIME,
    WRONG,
    Case,
    asserts,
    call,
    script,
)

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
