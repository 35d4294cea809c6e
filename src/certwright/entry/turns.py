"""Connections of one listener shared out among several processes.

Left to themselves the process that wakes first takes all that wait: of sixteen that came together one got fifteen, and
the other core had nothing to do for as long as they were kept.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

# How long one that is ahead leaves a connection to the others, in seconds.
_POLITE: Final = 0.002
# How long none is accepted when there are no descriptors left, in seconds.
_NO_ROOM: Final = 1.0
_GONE: Final = 2**32 - 1


class Shares:
    """How many connections each process has, in memory they share. One that doesn't serve counts as having more than
    everybody, so that nothing is left to it."""

    def __init__(self, descriptor: int, mine: int = 0) -> None:
        """Of the process `mine` (from 0), in what `made` made."""
        self.descriptor = descriptor
        self._counts = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size)).cast("I")
        self._mine = mine

    @classmethod
    def made(cls, processes: int) -> Shares:
        """For so many processes: those that are forked from this one or given its descriptor. None serves yet."""
        descriptor = _anonymous_file()
        os.write(descriptor, _GONE.to_bytes(4, sys.byteorder) * processes)
        return cls(descriptor)

    def belong_to(self, number: int) -> None:
        """Which of the processes this one is, from 0."""
        self._mine = number

    def begin(self) -> None:
        """This process serves, and has no connections."""
        self._counts[self._mine] = 0

    def one_more(self) -> None:
        self._counts[self._mine] += 1

    def one_less(self) -> None:
        self._counts[self._mine] = max(self._counts[self._mine] - 1, 0)

    def gone(self, number: int) -> None:
        """A process ended."""
        self._counts[number] = _GONE

    @property
    def is_ahead(self) -> bool:
        return self._counts[self._mine] > min(self._counts)


class TurnByTurn:
    """Accepts one connection at a time, and leaves it to the others for a moment while it has more than they. It can be
    closed like a server."""

    def __init__(
        self, listener: socket.socket, shares: Shares, protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
    ) -> None:  # fmt: skip
        self._listener, self._shares, self._protocol, self._context = listener, shares, protocol, context
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, backlog: int) -> None:
        self._shares.begin()
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._loop.add_reader(self._listener.fileno(), self._readable)

    def _readable(self) -> None:
        if self._shares.is_ahead:
            self._rest(_POLITE)
        else:
            self._take()

    def _take(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was quicker, or the client has gone
        except OSError as error:
            log.error("no connection can be accepted", reason=error.strerror)
            self._rest(_NO_ROOM)
            return
        connection.setblocking(False)
        self._shares.one_more()
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._readable)
            # Whoever still waits was left to others that ended, or have much to do.
            self._take()

    async def _open(self, connection: socket.socket) -> None:
        opened = False
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._context)
            opened = True
        except (OSError, TimeoutError):
            pass  # a handshake that failed is the client's business
        finally:
            if not opened:
                # Its protocol, which counts itself out at the end, never began.
                self._shares.one_less()
                connection.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener.fileno())
            for task in self._opening:
                task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._opening, return_exceptions=True)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("certwright-turns", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
