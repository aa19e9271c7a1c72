"""The seccomp allow-list: which system calls a locked child may make. Everything else is refused.

Built with libseccomp (through pyseccomp), which knows each processor's numbers; exported as BPF
once, and loaded by every child. Refused calls fail with EPERM, which Python shows as a readable
PermissionError; calls of a foreign processor mode kill the process (verdict SECURITY).

What a thread-using, numpy-using, asyncio-using program needs is here. Not here: starting processes,
sockets to anywhere, writing files, signals to others, whatever changes another process or the
kernel's state.
"""

import errno
import fcntl
import os
import socket
import tempfile
import termios
from typing import Any

from distil.errors import SandboxUnavailable
from distil.sandbox.jail.lockdown import PID_PLACEHOLDER

_PLAIN = """
    read readv pread64 preadv write writev close close_range lseek fstat newfstatat stat lstat statx
    access faccessat faccessat2 readlink readlinkat getcwd getdents64 statfs fstatfs fadvise64
    mmap mprotect munmap mremap madvise brk msync mincore membarrier
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait
    sigaltstack futex futex_waitv set_robust_list get_robust_list set_tid_address rseq arch_prctl
    restart_syscall
    sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max
    sched_get_priority_min getcpu getpriority
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getitimer setitimer
    alarm pause timerfd_create timerfd_settime timerfd_gettime getrusage getrlimit
    getpid gettid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid
    getgroups uname sysinfo getrandom exit exit_group
    pipe pipe2 dup dup2 dup3 poll ppoll select pselect6 epoll_create1 epoll_create epoll_ctl
    epoll_wait epoll_pwait epoll_pwait2 eventfd2
    recvfrom recvmsg shutdown getsockname getpeername getsockopt
""".split()  # noqa: SIM905

# glibc and Python fall back when told that the kernel doesn't know these.
_UNKNOWN = ("clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register")

_WRITING = (
    os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | getattr(os, "O_TMPFILE", 0)
)
_WRITING &= ~getattr(os, "O_DIRECTORY", 0)  # a part of O_TMPFILE, and harmless
_THREAD = 0x00010000 | 0x00000100 | 0x00000800  # CLONE_THREAD | CLONE_VM | CLONE_SIGHAND
_NAMESPACES = 0x7E020080  # every CLONE_NEW*
_FCNTL = (
    fcntl.F_DUPFD, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL,
    fcntl.F_DUPFD_CLOEXEC, 1032,  # F_GETPIPE_SZ
)  # fmt: skip
_IOCTL = (termios.TCGETS, termios.FIONREAD, termios.FIONBIO, termios.FIOCLEX)
_PRCTL = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA (names of memory areas)
_OWN_PID = ("kill", "tgkill")


def filter_bpf(also_allowed: tuple[str, ...] = ()) -> bytes:
    """The filter as BPF, with `lockdown.PID_PLACEHOLDER` where the process's own number belongs.

    also_allowed: further calls, for tests of the self-test that must notice. Raises
    SandboxUnavailable without libseccomp.
    """
    seccomp = _pyseccomp()
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)

    def allow(name: str, *arguments: Any) -> None:
        if seccomp.resolve_syscall(seccomp.system_arch(), name) >= 0:  # not on every processor
            rules.add_rule(seccomp.ALLOW, name, *arguments)

    def equal(place: int, value: int) -> Any:
        return seccomp.Arg(place, seccomp.EQ, value)

    def without(place: int, bits: int, wanted: int = 0) -> Any:
        return seccomp.Arg(place, seccomp.MASKED_EQ, bits, wanted)

    for name in (*_PLAIN, *also_allowed):
        allow(name)
    for name in _UNKNOWN:
        if seccomp.resolve_syscall(seccomp.system_arch(), name) >= 0:
            rules.add_rule(seccomp.ERRNO(errno.ENOSYS), name)
    allow("open", without(1, _WRITING))
    allow("openat", without(2, _WRITING))
    allow("clone", without(0, _THREAD | _NAMESPACES, _THREAD))
    for name in _OWN_PID:
        allow(name, equal(0, PID_PLACEHOLDER))
    for place, name in ((0, "prlimit64"), (0, "sched_setaffinity")):
        allow(name, equal(place, 0))
    for command in _FCNTL:
        allow("fcntl", equal(1, command))
    for request in _IOCTL:
        allow("ioctl", equal(1, request))
    for option in _PRCTL:
        allow("prctl", equal(0, option))
    allow("socketpair", equal(0, socket.AF_UNIX))
    allow("sendto", equal(4, 0))  # to the other end only, to no address
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _pyseccomp() -> Any:
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxUnavailable(
            f"libseccomp can't be used ({error}), and without it system calls can't be refused. "
            "Install it (Debian and Ubuntu: apt-get install libseccomp2) and pyseccomp."
        ) from error
    return pyseccomp
