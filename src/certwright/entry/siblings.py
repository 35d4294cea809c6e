"""Web processes forked from the first one when everything is loaded, so that they share the memory of it.

A fork copies one thread and no promise that somebody made to others: `fork` comes before any other thread, event loop,
connection, key or id, and the settings are all a sibling knows. It waits until the first one serves, opens everything
for itself, and ends when the first one says so or is gone. One that ends by itself is followed by an interpreter of its
own (see `entry.children`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from certwright.entry import children
from certwright.entry.children import Child, Forked
from certwright.entry.lifeline import ENDING
from certwright.platform.memory import freeze_loaded


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
    """The forked ones and those that follow them, as the first process has them."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    def let_serve(self) -> None:
        for child in self._children:
            assert child.lifeline is not None
            with contextlib.suppress(BrokenPipeError):  # it ended already
                os.write(child.lifeline, b"\n")

    async def watch(self) -> None:
        """Whichever ends by itself is started again; the others go on."""
        while True:
            await asyncio.sleep(children.LOOK_EVERY)
            children.look_after(self._children)

    def cut(self) -> None:
        """They finish what they are at, and end."""
        for child in self._children:
            child.cut()

    async def gone(self, patience: float) -> None:
        """Waits for all of them; after so many seconds they are killed."""
        await children.end(self._children, patience)


def fork(count: int, successor: Callable[[int], Child]) -> Siblings | Sibling:
    """So many processes like this one: in each of them a Sibling is returned, and here all Siblings. `successor` says
    how one is started that takes the place of the one with this number."""
    freeze_loaded()
    # Else what is buffered would be said by everybody.
    sys.stdout.flush()
    sys.stderr.flush()
    pipes = [os.pipe() for _ in range(count)]
    forked = []
    for number, (theirs, ours) in enumerate(pipes, start=1):
        pid = os.fork()
        if pid == 0:
            return _begin(theirs, {end for pipe in pipes for end in pipe}, number)
        child = successor(number)
        child.process, child.lifeline, child.started = Forked(pid), ours, time.monotonic()
        forked.append(child)
    for theirs, _ in pipes:
        os.close(theirs)
    return Siblings(forked)


def _begin(lifeline: int, ends: set[int], number: int) -> Sibling:
    # What reaches every process of a terminal or a service; the first one ends its siblings in order.
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)
    # Held open here, a lifeline of another sibling wouldn't be cut when the first process is gone.
    for end in ends - {lifeline}:
        os.close(end)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return Sibling(lifeline, number)
