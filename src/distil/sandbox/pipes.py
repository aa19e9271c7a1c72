"""A run's pipes on the broker's side: feeding, draining and talking in lines, all without blocking.

Every one has a limit, and none waits for a program that doesn't read or write.
"""

import asyncio
import os
from collections.abc import Callable

CHUNK = 1 << 16
SMALL = 1 << 10
REST_S = 0.002
PATIENCE = 64
"""After so many small reads a pipe rests for REST_S each time: a program that writes byte by byte
would else cost this process more than it costs itself."""


class Feed:
    """Writes bytes into a pipe as it takes them, then closes it (unless `stay_open`)."""

    def __init__(self, descriptor: int, data: bytes, *, stay_open: bool = False) -> None:
        self._descriptor, self._left, self._open = descriptor, memoryview(data), True
        self._stay_open, self._waiting = stay_open, False
        os.set_blocking(descriptor, False)
        self._write()

    def add(self, data: bytes) -> None:
        """More to write; dropped if the other end has gone."""
        if self._open:
            self._left = memoryview(bytes(self._left) + data)
            self._write()

    def close(self) -> None:
        """Gives up what is left."""
        if self._open:
            self._open = False
            if self._waiting:
                asyncio.get_running_loop().remove_writer(self._descriptor)
            os.close(self._descriptor)

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._descriptor, self._left[:CHUNK]) :]
        except BlockingIOError:
            if not self._waiting:
                asyncio.get_running_loop().add_writer(self._descriptor, self._write)
                self._waiting = True
            return
        except BrokenPipeError:  # a program needn't read
            self.close()
            return
        if self._waiting:
            asyncio.get_running_loop().remove_writer(self._descriptor)
            self._waiting = False
        if not self._stay_open:
            self.close()


class Drain:
    """Reads a pipe to its end and keeps `limit` bytes; `full()` is called at the first more."""

    def __init__(self, descriptor: int, limit: int, full: Callable[[], None]) -> None:
        self._descriptor, self._limit, self._full = descriptor, limit, full
        self._parts: list[bytes] = []
        self._size = 0
        self._small = 0
        self.overflown = False
        self.ended = asyncio.get_running_loop().create_future()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    @property
    def data(self) -> bytes:
        """What was read, up to the limit."""
        return b"".join(self._parts)[: self._limit]

    def _go_on(self) -> None:
        if not self.ended.done():
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Stops reading."""
        if not self.ended.done():
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self.ended.set_result(None)

    def _read(self) -> None:
        try:
            part = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return
        if not part:
            self.close()
            return
        self._size += len(part)
        self._small += len(part) < SMALL
        if self._small > PATIENCE and not self.ended.done():
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._descriptor)
            loop.call_later(REST_S, self._go_on)
        if not self.overflown:
            self._parts.append(part)
        if self._size > self._limit and not self.overflown:
            self.overflown = True
            self._full()


class Lines:
    """Reads a pipe's lines one by one; a line longer than `limit` bytes ends it."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor, self._limit = descriptor, limit
        self._rest = bytearray()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._open = True
        self.too_long = False
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    async def next(self) -> bytes | None:
        """The next line without its end; None at the end of the pipe."""
        line = await self._queue.get()
        if line is None:
            self._queue.put_nowait(None)
        return line

    def close(self) -> None:
        """Stops reading."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._queue.put_nowait(None)

    def _read(self) -> None:
        try:
            part = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return
        first, *others = part.split(b"\n")
        self._rest += first  # only what is new is looked through, however small the parts
        for piece in others:
            self._queue.put_nowait(bytes(self._rest))
            self._rest = bytearray(piece)
        self.too_long = max([len(self._rest), *map(len, others), len(first)]) > self._limit
        if not part or self.too_long or self._queue.qsize() > 1000:
            self.close()
