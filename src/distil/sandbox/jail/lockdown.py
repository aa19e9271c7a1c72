"""Locking a process in: resource limits, Landlock, seccomp, another user. Linux, standard library.

Each function is one system call's worth of work, irreversible where it can be, and raises OSError
where the kernel refuses. What is allowed: `distil.sandbox.filters` (calls), the zygote (files).
"""

import ctypes
import os
import resource
import struct
from collections.abc import Iterable

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 1, 4, 38, 24
SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_MODE_FILTER = 1
CAPSET = {"x86_64": 126, "aarch64": 91}
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_VERSION, LANDLOCK_PATH_BENEATH = 1, 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3
FILE_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of access rights to files that an ABI knows (5 and later: 16)."""
NET_RIGHTS = 0b11
SCOPES = 0b11
PID_PLACEHOLDER = 0x5EC0DE05
"""Stands in the filter where the process's own number has to."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int) -> None:
    """prctl(option, value, 0, 0, 0)."""
    arguments = [ctypes.c_ulong(v) for v in (value, 0, 0, 0)]
    _check(_libc.prctl(option, *arguments), f"prctl {option}")


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 without it."""
    null = ctypes.c_void_p(None)
    found = _libc.syscall(
        LANDLOCK_CREATE_RULESET, null, ctypes.c_size_t(0), ctypes.c_uint(LANDLOCK_VERSION)
    )
    return max(0, int(found))


def landlock_ruleset(readable: Iterable[str], listable: Iterable[str] = ()) -> int:
    """A descriptor of rules under which only `readable` files and trees can be read.

    In `listable` folders names can be read too. Nothing can be written or run; from ABI 4 on no TCP
    port can be used, from ABI 6 on no process outside be signalled and no abstract socket be
    reached. Paths that don't exist are left out.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(0, "this kernel has no Landlock")
    handled = (1 << FILE_RIGHTS_BY_ABI.get(abi, 16)) - 1
    # struct landlock_ruleset_attr, as much of it as the ABI knows
    fields = [handled, *([NET_RIGHTS] if abi >= 4 else []), *([SCOPES] if abi >= 6 else [])]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _check(
        _libc.syscall(
            LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)
        ),
        "landlock_create_ruleset",
    )
    os.set_inheritable(ruleset, False)
    for path in readable:
        _allow(ruleset, path, READ_FILE | READ_DIR)
    for path in listable:
        _allow(ruleset, path, READ_DIR)
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= READ_FILE
        rule = struct.pack("=Qi", rights, place)  # struct landlock_path_beneath_attr, packed
        _check(
            _libc.syscall(
                LANDLOCK_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(LANDLOCK_PATH_BENEATH), rule,
                ctypes.c_uint(0),
            ),
            f"landlock_add_rule {path}",
        )  # fmt: skip
    finally:
        os.close(place)


def landlock_restrict(ruleset: int) -> None:
    """Puts this process under the rules, for good; needs no_new_privs."""
    _check(
        _libc.syscall(LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0)),
        "landlock_restrict_self",
    )


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install_filter(bpf: bytes) -> None:
    """Puts this process under a seccomp filter, its own number in it; needs no_new_privs."""
    own = bpf.replace(struct.pack("=I", PID_PLACEHOLDER), struct.pack("=I", os.getpid()))
    program = _Program(len(own) // 8, own)
    _check(
        _libc.syscall(
            SECCOMP[os.uname().machine], ctypes.c_uint(SET_MODE_FILTER), ctypes.c_uint(0),
            ctypes.byref(program),
        ),
        "seccomp",
    )  # fmt: skip


def drop_capabilities() -> None:
    """Gives up every capability, also those that an exec could bring back."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # not one that this kernel knows, or no right to drop: then none is held
            break
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(_libc.syscall(CAPSET[os.uname().machine], header, bytes(24)), "capset")


def become(uid: int) -> None:
    """Another user and group for good, without further groups."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def limit(kind: int, soft: int, hard: int | None = None) -> None:
    """setrlimit, never above the hard limit there is."""
    _, most = resource.getrlimit(kind)
    wanted = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        soft, wanted = min(soft, most), min(wanted, most)
    resource.setrlimit(kind, (soft, wanted))
