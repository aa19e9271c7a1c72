"""The process that runs are forked from: warm, clean, locked in from its start.

One message from the broker (with the run's descriptors) starts a run: a child is forked, locks
itself down further and does it (`run`). The zygote sees to time: it kills what has used its
processor time, slept too long or made too many threads, reaps it, and reports. No program, test or
answer ever enters it; all that it reads is orders.

    broker -> {"run": n, "mode": ..., limits}  + descriptors      {"kill": n}
    broker <- {"ended": n, "status": ..., "cpu_s": ..., "peak_kb": ..., "why": ...}

Left out: the rules themselves (the broker's), and what a program prints (its pipes').
"""

import _sitebuiltins
import array  # noqa: F401  (socket.recv_fds imports it lazily, and could not once locked in)
import builtins
import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from distil.sandbox.jail import lockdown
from distil.sandbox.jail.run import run

MESSAGE_BYTES = 1 << 16
POLL_S = 0.01
PAGE = os.sysconf("SC_PAGE_SIZE")
STACK_BYTES = 8 << 20
"""Of each thread, unless the program says otherwise; virtual, so it counts against its memory."""
DESCRIPTORS = 64


@dataclass
class Child:
    """A run that goes on. Times in seconds."""

    number: int
    pid: int
    pidfd: int
    started: float
    kill_cpu_s: float
    idle_s: float
    wall_s: float
    threads: int
    why: str = ""

    def cpu(self) -> float:
        """Processor time so far, user and system, all threads."""
        return time.clock_gettime(((~self.pid) << 3) | 2)

    def kill(self, why: str) -> None:
        """Ends it; the first reason stands."""
        self.why = self.why or why
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


@dataclass
class Lock:
    """What a child locks itself down with. ruleset: Landlock's, None without it."""

    ruleset: int | None
    bpf: bytes | None
    virtual_bytes: int


def main() -> None:
    """Reads the set-up, locks itself down, then serves until the broker closes the socket."""
    control = socket.socket(fileno=int(sys.argv[2]))
    set_up = json.loads(control.recv(MESSAGE_BYTES))
    lockdown.prctl(lockdown.PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.path.extend(set_up["packages_path"])
    for name in set_up["preload"]:
        importlib.import_module(name)
    _forget_ourselves(set_up)
    _give_exit()
    lock = _lock_down(set_up)
    control.send(json.dumps({"ready": _state()}).encode())
    gc.collect()
    gc.freeze()  # no collection in a child touches, and so copies, what is shared
    _serve(control, lock)


def _give_exit() -> None:
    """`exit` and `quit`, which the module site brings elsewhere, and programs use."""
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D")


def _forget_ourselves(set_up: dict[str, Any]) -> None:
    """Paths that are not granted leave sys.path; whatever isn't imported by now isn't there."""
    for path in set_up["packages_path"]:
        sys.path.remove(path)
    for name in [n for n in sys.modules if n.split(".")[0] == "distil"]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    sys.set_int_max_str_digits(0)  # processor time bounds it
    threading.stack_size(STACK_BYTES)


def _lock_down(set_up: dict[str, Any]) -> Lock:
    """Another user, no capabilities, Landlock; what the children add to it."""
    if set_up["uid"] is not None:
        lockdown.become(set_up["uid"])
        lockdown.prctl(lockdown.PR_SET_PDEATHSIG, signal.SIGKILL)  # a new user clears it
    lockdown.drop_capabilities()
    lockdown.prctl(lockdown.PR_SET_NO_NEW_PRIVS, 1)
    ruleset = None
    if set_up["landlock"]:
        ruleset = lockdown.landlock_ruleset(set_up["readable"], set_up["listable"])
        own = lockdown.landlock_ruleset([*set_up["readable"], "/proc"], set_up["listable"])
        lockdown.landlock_restrict(own)
        os.close(own)
        # Out of the way of a run's own descriptors.
        ruleset = fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, 200)
    bpf = bytes.fromhex(set_up["bpf"]) if set_up["bpf"] else None
    with open("/proc/self/statm") as file:
        virtual = int(file.read().split()[0]) * PAGE
    return Lock(ruleset, bpf, virtual)


def _state() -> dict[str, Any]:
    return {"uid": os.getuid(), "pid": os.getpid(), "landlock_abi": lockdown.landlock_abi()}


def _serve(control: socket.socket, lock: Lock) -> None:
    """Starts, watches and reaps runs."""
    children: dict[int, Child] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        ready = poll.poll(POLL_S * 1000 if children else None)
        for descriptor, _ in ready:
            if descriptor == control.fileno():
                if not _take_order(control, lock, children, poll):
                    os._exit(0)  # the broker has gone; PDEATHSIG ends the children
            elif descriptor in children:
                poll.unregister(descriptor)
                control.send(json.dumps(_reap(children.pop(descriptor))).encode())
        now = time.monotonic()
        for child in children.values():
            _watch(child, now)


def _take_order(
    control: socket.socket, lock: Lock, children: dict[int, Child], poll: select.poll
) -> bool:
    """One message from the broker; False once it has gone."""
    message, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 8)
    if not message:
        return False
    order = json.loads(message)
    if "kill" in order:
        for child in children.values():
            if child.number == order["kill"]:
                child.kill("killed")
        return True
    pid = os.fork()
    if pid == 0:
        _child(order, fds, lock)
    for descriptor in fds:
        os.close(descriptor)
    pidfd = os.pidfd_open(pid)
    children[pidfd] = Child(
        order["run"], pid, pidfd, time.monotonic(),
        order["kill_cpu_s"], order["idle_s"], order["wall_s"], order["threads"],
    )  # fmt: skip
    poll.register(pidfd, select.POLLIN)
    return True


def _watch(child: Child, now: float) -> None:
    """Kills a run that has had enough of something."""
    try:
        cpu = child.cpu()
    except OSError:  # it has just ended: reaped in the next turn
        return
    waited = now - child.started - cpu
    if cpu > child.kill_cpu_s:
        child.kill("cpu")
    elif waited > child.idle_s and now - child.started - _awake(child.pid) > child.idle_s:
        child.kill("idle")
    elif now - child.started > child.wall_s:
        child.kill("starved")
    elif _threads(child.pid) > child.threads:
        child.kill("threads")


def _awake(pid: int) -> float:
    """Seconds that its most awake thread ran, or was ready to run while no processor was free.

    Of the most awake one, not of all together: threads that wait for one another's processor would
    add up to more than the time that passed, and hide that all of them sleep since.
    """
    most = 0
    with contextlib.suppress(OSError):  # a thread, or all of them, may end while this looks
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                ran, waited, _ = map(int, file.read().split())
            most = max(most, ran + waited)
    return most / 1e9


def _threads(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[17])
    except OSError:
        return 0


def _reap(child: Child) -> dict[str, Any]:
    """The child's end, as a message."""
    _, status, usage = os.wait4(child.pid, 0)
    os.close(child.pidfd)
    return {
        "ended": child.number,
        "status": status,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_kb": usage.ru_maxrss,
        # It may have ended by itself before the kill reached it.
        "why": child.why
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        else "",
    }


def _child(order: dict[str, Any], fds: Sequence[int], lock: Lock) -> NoReturn:
    """Locks itself in and does the run. Nothing of the zygote's code runs after it."""
    code = 1
    try:
        _place(fds)
        _restrict(order, lock)
        run(order["mode"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        os._exit(code or 1)


def _place(fds: Sequence[int]) -> None:
    """The run's descriptors at 0, 1, 2, ... and no other one."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place)


def _restrict(order: dict[str, Any], lock: Lock) -> None:
    """Limits, then Landlock, then seccomp: each needs what the next forbids."""
    memory = lock.virtual_bytes + order["mem_mb"] * (1 << 20)
    lockdown.limit(resource.RLIMIT_AS, memory)
    lockdown.limit(resource.RLIMIT_CPU, int(order["kill_cpu_s"]) + 2)
    lockdown.limit(resource.RLIMIT_FSIZE, 0)
    lockdown.limit(resource.RLIMIT_CORE, 0)
    lockdown.limit(resource.RLIMIT_MEMLOCK, 0)
    lockdown.limit(resource.RLIMIT_MSGQUEUE, 0)
    if order["own_user"]:
        lockdown.limit(resource.RLIMIT_NPROC, order["threads"] + 1)  # the zygote is one of them
    lockdown.prctl(lockdown.PR_SET_PDEATHSIG, signal.SIGKILL)
    lockdown.prctl(lockdown.PR_SET_DUMPABLE, 0)
    if lock.ruleset is not None:
        lockdown.landlock_restrict(lock.ruleset)
    os.closerange(order["descriptors"], 4096)
    lockdown.limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
    if lock.bpf is not None:
        lockdown.install_filter(lock.bpf)
