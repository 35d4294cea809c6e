"""Web processes forked from the first one when everything is loaded, so that they share the memory of it.

A fork copies one thread and no promise that somebody made to others: `fork` comes before any other thread, event loop,
connection, key or id, and the settings are all a sibling knows. It waits until the first one serves, opens everything
for itself, and ends when the first one says so or is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from certwright.platform.memory import freeze_loaded

log = structlog.get_logger(__name__)

_LOOK_EVERY = 1.0
_LOOK_AT_THE_END_EVERY = 0.02


@dataclass(frozen=True, slots=True)
class Sibling:
    """What a forked process has of the first one: a descriptor whose other end that one holds, and which of the
    processes it is (from 1)."""

    lifeline: int
    number: int

    def may_serve(self) -> bool:
        """Waits for the first one; False when that ended instead."""
        return bool(os.read(self.lifeline, 1))


class Siblings:
    """The forked ones, as the first process has them."""

    def __init__(self, lifelines: dict[int, int]) -> None:
        """`lifelines` by process id."""
        self._lifelines = lifelines
        self._running = set(lifelines)
        self._numbers = {pid: number for number, pid in enumerate(lifelines, start=1)}

    def let_serve(self) -> None:
        for lifeline in self._lifelines.values():
            with contextlib.suppress(BrokenPipeError):  # it ended already
                os.write(lifeline, b"\n")

    async def watch(self, ended: Callable[[int], None]) -> None:
        """Says which ended by itself, in the log and to `ended`; the others go on."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for pid, code in self._reap():
                log.error("a web process ended; the others go on without it", pid=pid, code=code)
                ended(self._numbers[pid])

    def cut(self) -> None:
        """They finish what they are at, and end."""
        for lifeline in self._lifelines.values():
            os.close(lifeline)
        self._lifelines = {}

    async def gone(self, patience: float) -> None:
        """Waits for all of them; after so many seconds they are killed."""
        self.cut()
        deadline = time.monotonic() + patience
        self._reap()
        while self._running:
            if time.monotonic() > deadline:
                for pid in self._running:
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(_LOOK_AT_THE_END_EVERY)
            self._reap()

    def _reap(self) -> list[tuple[int, int]]:
        """Id and exit code of those that ended since the last look; a signal is its negative number."""
        found = []
        for pid in sorted(self._running):
            looked_at, status = os.waitpid(pid, os.WNOHANG)
            if looked_at == pid:
                self._running.discard(pid)
                found.append((pid, os.waitstatus_to_exitcode(status)))
        return found


def fork(count: int) -> Siblings | Sibling:
    """So many processes like this one: in each of them a Sibling is returned, and here all Siblings."""
    freeze_loaded()
    # Else what is buffered would be said by everybody.
    sys.stdout.flush()
    sys.stderr.flush()
    pipes = [os.pipe() for _ in range(count)]
    pids = []
    for number, (theirs, _) in enumerate(pipes, start=1):
        pid = os.fork()
        if pid == 0:
            return _begin(theirs, {end for pipe in pipes for end in pipe}, number)
        pids.append(pid)
    for theirs, _ in pipes:
        os.close(theirs)
    return Siblings({pid: ours for pid, (_, ours) in zip(pids, pipes, strict=True)})


def _begin(lifeline: int, ends: set[int], number: int) -> Sibling:
    # Ctrl-C and a service manager reach every process; the first one ends its siblings in order.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    # Held open here, a lifeline of another sibling wouldn't be cut when the first process is gone.
    for end in ends - {lifeline}:
        os.close(end)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return Sibling(lifeline, number)
