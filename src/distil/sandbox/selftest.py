"""Which level holds on this machine: canaries that try to break out, run before any real program.

A level is used only if every canary is kept in and a harmless program passes. Nothing is taken on
trust: not the kernel's version, not a container's promises.
"""

import asyncio
import contextlib
import os
import platform
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distil.errors import SandboxUnavailable
from distil.sandbox.cells import Cell, cell
from distil.sandbox.jail.lockdown import landlock_abi
from distil.sandbox.jobs import Job, Level, Limits, StdioTest, Verdict
from distil.sandbox.trials import try_test
from distil.sandbox.zygotes import Zygote, ZygoteDied, start_zygote

LEVELS: tuple[Level, ...] = ("strong", "standard")
LIMITS = Limits(cpu_s=5.0, idle_s=3.0, mem_mb=256)

# Each prints OUT where it got out; {} are a secret's file, a folder, a port, and the broker's pid.
CANARIES = {
    "read a file": "print(open({secret!r}).read())",
    "read another process": "print('OUT' if open('/proc/{pid}/environ','rb').read() else '')",
    "write a file": "open({folder!r} + '/canary', 'w').write('OUT'); print('OUT')",
    "write to /tmp": "open('/tmp/distil-canary-{pid}', 'w').write('OUT'); print('OUT')",
    "change a mode": "import os; os.chmod({secret!r}, 0o777); print('OUT')",
    "fork": "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nprint('OUT')",
    "start a program": "import subprocess; print(subprocess.run(['/bin/true']) and 'OUT')",
    "connect by TCP": (
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('OUT')"
    ),
    "make a socket": (
        "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); print('OUT')"
    ),
    "signal the parent": "import os; os.kill(os.getppid(), 0); print('OUT')",
    "signal everybody": "import os; os.kill(-1, 0); print('OUT')",
    "limit the parent": (
        "import os, resource as r; r.prlimit(os.getppid(), r.RLIMIT_CPU, (1, 1)); print('OUT')"
    ),
    "memory file": "import os; os.memfd_create('x'); print('OUT')",
    "trace the parent": (
        "import ctypes, os; c = ctypes.CDLL(None)\n"
        "print('OUT' if c.ptrace(0x4206, os.getppid(), 0, 0) == 0 else '')"
    ),
    "raise a limit": (
        "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (1 << 20, 1 << 20)); print('OUT')"
    ),
}
BENIGN = """
import sys, threading, collections, asyncio
async def one(): return 1
box = []
worker = threading.Thread(target=lambda: box.append(asyncio.run(one())))
worker.start(); worker.join()
print(sum(map(int, sys.stdin.read().split())) + len(box) - 1)
"""


@dataclass(frozen=True)
class Traps:
    """What the canaries try to reach."""

    secret: str
    folder: str
    port: int
    listener: socket.socket


async def choose_cell(
    level: str, preload: Sequence[str], *, allow_unsafe: bool
) -> tuple[Cell, dict[str, Any]]:
    """The best level that holds, and facts about it. Raises SandboxUnavailable with every reason.

    level: auto, or the one that it has to be.
    """
    wanted: tuple[Any, ...] = LEVELS if level == "auto" else (level,)
    if level == "auto" and allow_unsafe:
        wanted = (*wanted, "unsafe")
    if level == "unsafe" and not allow_unsafe:
        raise SandboxUnavailable(
            "The level unsafe runs programs with resource limits only: they could read your files "
            "and use your network. If you mean that, set allow_unsafe: true."
        )
    reasons: dict[str, str] = {}
    for name in wanted:
        try:
            made = cell(name, preload)
            state = await holds(made)
        except SandboxUnavailable as error:
            reasons[name] = str(error)
            continue
        return made, {**state, "refused": reasons, "kernel": platform.release()}
    told = "\n".join(f"  {name}: {why}" for name, why in reasons.items())
    raise SandboxUnavailable(
        f"No level of the sandbox holds on this machine:\n{told}\nPrograms can be graded on "
        "another machine, or without any protection with task.sandbox.allow_unsafe: true (distil "
        "run-code: --allow-unsafe)."
    )


async def holds(made: Cell) -> dict[str, Any]:
    """Facts about a level, once it has kept every canary in. Raises SandboxUnavailable if not."""
    zygote = await start_zygote(made, slot=0)
    try:
        with _traps() as traps:
            await _try_all(made, zygote, traps)
        return {k: v for k, v in zygote.state.items() if k != "pid"} | {"abi": landlock_abi()}
    except ZygoteDied as error:
        raise SandboxUnavailable(f"its process died under the self-test ({error})") from error
    finally:
        zygote.close()


async def _try_all(made: Cell, zygote: Zygote, traps: Traps) -> None:
    job = Job(BENIGN, (StdioTest("1 2\n", "3"),), LIMITS)
    result = await try_test(zygote, job, 0)
    if result.verdict is not Verdict.PASS:
        raise SandboxUnavailable(
            f"a harmless program ended with {result.verdict}: {result.stderr[-300:].strip()}"
        )
    if made.level == "unsafe":
        return
    for name, template in CANARIES.items():
        source = _filled(template, traps)
        job = Job(source, (StdioTest("", "OUT"),), replace(LIMITS, idle_s=2.0))
        result = await try_test(zygote, job, 0)
        if "OUT" in result.got or _side_effect(traps):
            raise SandboxUnavailable(f"a program could {name}")


def _filled(template: str, traps: Traps) -> str:
    return template.format(
        secret=traps.secret, folder=traps.folder, port=traps.port, pid=os.getpid()
    )


def _side_effect(traps: Traps) -> bool:
    """Whether a canary left something, whatever it printed."""
    if list(Path(traps.folder).iterdir()) != [Path(traps.secret)]:
        return True
    if Path(f"/tmp/distil-canary-{os.getpid()}").exists():
        return True
    if Path(traps.secret).stat().st_mode & 0o777 != 0o644:
        return True
    with contextlib.suppress(BlockingIOError):
        traps.listener.accept()
        return True
    return False


@contextlib.contextmanager
def _traps() -> Iterator[Traps]:
    """A folder that anybody may write into, a secret that anybody may read, a listening port."""
    with (
        tempfile.TemporaryDirectory(prefix="distil-selftest-") as folder,
        socket.socket() as listener,
    ):
        os.chmod(folder, 0o777)
        secret = Path(folder, "secret")
        secret.write_text("OUT\n")
        secret.chmod(0o644)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        yield Traps(str(secret), folder, listener.getsockname()[1], listener)


def doctor_lines(preload: Sequence[str] = ()) -> list[str]:
    """One line a level: holds, or why not. Takes about a second."""

    async def look() -> list[str]:
        lines = []
        for level in LEVELS:
            try:
                state = await holds(cell(level, preload))
                lines.append(f"{level} holds (user {state['uid']}, Landlock ABI {state['abi']})")
            except SandboxUnavailable as error:
                lines.append(f"{level} doesn't: {error}")
        return lines

    return asyncio.run(look())
