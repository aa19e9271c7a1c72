"""The adversarial suite: the traps that programs may spring, and a script that runs every case.

    python tests/hostile.py LEVEL     prints {case: {verdict, got, ...}, "after": {...}} as JSON

The cases are in `hostileanswers` and `hostilesystem`. All `hostile*.py` stand by themselves
(standard library and distil.sandbox), so that `test_sandbox_hostile.py` can run them as another
user, or without any namespaces.
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

from distil.sandbox import Job, Report, SandboxPool, StdioTest
from hostileanswers import BENIGN, FORGING
from hostilecase import FAST, MARKER, Case
from hostilesystem import FILES, KERNEL, NETWORK, PROCESSES, RESOURCES, SECRETS


@dataclass(frozen=True)
class Traps:
    """What programs try to reach: files, a folder that all may write, ports, our process."""

    folder: str
    secret: str
    port: int
    udp_port: int
    abstract: str
    pid: int


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
