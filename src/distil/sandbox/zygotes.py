"""The broker's side of a zygote: starts it, hands it runs, hears how they ended, replaces it.

A zygote that dies takes its runs with it: they raise ZygoteDied, and whoever asked tries again.
"""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distil.errors import SandboxUnavailable
from distil.sandbox.cells import UIDS, Cell, slot_uid
from distil.sandbox.endings import KILL_FACTOR, Ended
from distil.sandbox.jail.zygote import MESSAGE_BYTES
from distil.sandbox.jobs import Limits
from distil.sandbox.pipes import Drain, Feed, Lines

START_S = 20.0
GRACE_S = 10.0
RUNS_A_ZYGOTE = 5000


class ZygoteDied(Exception):
    """A zygote ended, or stopped answering, while it had runs."""


@dataclass
class Running:
    """A run that was started. `lines` and `requests` are there for functions and tests only."""

    number: int
    zygote: "Zygote"
    limits: Limits
    stdin: Feed
    job: Feed
    stdout: Drain
    stderr: Drain
    lines: Lines | None = None
    requests: Feed | None = None
    over: "asyncio.Future[dict[str, Any]]" = field(default_factory=asyncio.Future)

    def kill(self) -> None:
        """Ends it now."""
        self.zygote.kill(self.number)

    def say(self, message: bytes) -> None:
        """A line to the program's functions, or to the tests."""
        assert self.requests is not None
        self.requests.add(message)

    async def end(self) -> Ended:
        """Waits for its end. Raises ZygoteDied if that can't be heard of."""
        most = self.limits.wall_factor * self.limits.cpu_s + self.limits.idle_s + GRACE_S
        try:
            over = await asyncio.wait_for(asyncio.shield(self.over), most)
            await asyncio.wait_for(asyncio.gather(self.stdout.ended, self.stderr.ended), GRACE_S)
        except TimeoutError as error:
            self.zygote.close()
            raise ZygoteDied("it didn't answer") from error
        finally:
            self.close()
        full = [n for n, d in (("stdout", self.stdout), ("stderr", self.stderr)) if d.overflown]
        return Ended(
            over["status"], over["cpu_s"], over["peak_kb"] / 1024, over["why"], self.stdout.data,
            self.stderr.data, full[0] if full else "",
        )  # fmt: skip

    def close(self) -> None:
        """Closes whatever of its pipes is still open."""
        for pipe in (self.stdin, self.job, self.stdout, self.stderr, self.lines, self.requests):
            if pipe is not None:
                pipe.close()


class Zygote:
    """One zygote process; at most a job's runs at a time."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", control: socket.socket, own_user: bool
    ) -> None:
        self._process, self._control, self._own_user = process, control, own_user
        self._running: dict[int, Running] = {}
        self._count = 0
        self.state: dict[str, Any] = {}
        self.alive = True
        self._last_words = ""
        asyncio.get_running_loop().add_reader(control.fileno(), self._hear)

    @property
    def worn(self) -> bool:
        """Whether it has done its share of runs, or is dead."""
        gone = not self.alive or self._process.poll() is not None
        return gone or self._count >= RUNS_A_ZYGOTE

    @property
    def pid(self) -> int:
        """Of the process that we started (bubblewrap's, where that's around it)."""
        return self._process.pid

    def start(self, mode: str, job: bytes, stdin: bytes, limits: Limits) -> Running:
        """Starts a run. Raises ZygoteDied if the zygote has gone."""
        talks = mode != "script"
        # (ours, the child's) of descriptors 0, 1, 2, 3 and, for those that talk, 4 and 5
        inward = [os.pipe() for _ in range(3 if talks else 2)]
        outward = [os.pipe() for _ in range(3 if talks else 2)]
        theirs = [inward[0][0], outward[0][1], outward[1][1], inward[1][0]]
        theirs += [inward[2][0], outward[2][1]] if talks else []
        self._count += 1
        number = self._count

        def kill() -> None:
            self.kill(number)

        running = Running(
            number, self, limits,
            stdin=Feed(inward[0][1], stdin),
            job=Feed(inward[1][1], job),
            stdout=Drain(outward[0][0], limits.out_kb * 1024, kill),
            stderr=Drain(outward[1][0], limits.err_kb * 1024, kill),
            lines=Lines(outward[2][0], limits.out_kb * 1024) if talks else None,
            requests=Feed(inward[2][1], b"", stay_open=True) if talks else None,
        )  # fmt: skip
        self._running[number] = running
        order = {
            "run": number, "mode": mode, "descriptors": len(theirs), "own_user": self._own_user,
            "kill_cpu_s": KILL_FACTOR * limits.cpu_s, "idle_s": limits.idle_s,
            "wall_s": limits.wall_factor * limits.cpu_s + limits.idle_s,
            "mem_mb": limits.mem_mb, "threads": limits.threads,
        }  # fmt: skip
        try:
            self._send(order, theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return running

    def kill(self, number: int) -> None:
        """Ends a run, if it still goes on."""
        if self.alive and number in self._running:
            self._send({"kill": number}, [])

    def close(self) -> None:
        """Ends the process and, by the death of their parent, its runs."""
        if not self.alive:
            return
        self.alive = False
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self._process.kill()
        _, said = self._process.communicate()
        self._last_words = said[-2000:].decode("utf-8", "replace").strip()
        for running in self._running.values():
            if not running.over.done():
                running.over.set_exception(ZygoteDied("it ended"))
                running.over.exception()  # seen: nobody may be waiting yet
        self._running.clear()

    async def ready(self) -> None:
        """Waits until it has locked itself in. Raises SandboxUnavailable if it can't."""
        for _ in range(int(START_S / 0.005)):
            if self.state:
                return
            if not self.alive:
                break
            await asyncio.sleep(0.005)
        self.close()
        last = self._last_words.splitlines()[-1:]
        raise SandboxUnavailable(f"its process ended at the start: {' '.join(last) or 'no word'}")

    def _send(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], list(descriptors))
        except OSError as error:
            self.close()
            raise ZygoteDied("it ended") from error

    def _hear(self) -> None:
        try:
            message = self._control.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self.close()
            return
        said = json.loads(message)
        if "ready" in said:
            self.state = said["ready"]
            return
        running = self._running.pop(said["ended"], None)
        if running is not None and not running.over.done():
            running.over.set_result(said)


async def start_zygote(cell: Cell, slot: int) -> Zygote:
    """A new zygote, ready. Raises SandboxUnavailable if it can't be had."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    uid = slot_uid(cell.level, slot)
    try:
        process = subprocess.Popen(
            [*cell.command, str(theirs.fileno())], env=cell.environment, cwd="/",
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        ours.close()
        raise SandboxUnavailable(f"{cell.command[0]} can't be started: {error}") from error
    finally:
        theirs.close()
    ours.setblocking(False)
    # Limits on processes are counted for a user; inside a user namespace, for that user there.
    separate = uid in UIDS or (cell.level == "strong" and uid is None)
    zygote = Zygote(process, ours, own_user=separate)
    zygote._send({**cell.set_up, "uid": uid}, [])
    await zygote.ready()
    return zygote
