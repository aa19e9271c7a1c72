"""Cases of the adversarial suite: what a program reaches for, spawns, uses up, asks the kernel for.

Names in braces are the places of `hostile.Traps`, which `hostile.filled` writes there.
"""

import os

from distil.sandbox import Limits, Verdict
from hostilecase import (
    CRASH,
    IDLE,
    MEMORY,
    OUTPUT,
    PASS,
    STOPPED,
    TIME,
    Case,
    asserts,
    blocked,
    call,
    script,
)

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


# ---------------------------------------------------------------- kernel


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
