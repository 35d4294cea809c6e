"""Processes that are started again whenever they end by themselves.

Each is an interpreter of its own, which is told its settings, and with them the password of its database role, by its
parent alone (see `entry.lifeline`). One that was forked is followed by such a one: a parent that has threads and
connections can't fork safely.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from certwright.platform.config import PREFIX

log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 0.2
"""How often whoever has children should look after them, in seconds."""
# Seconds until a process that ended is started again: at once the first time, then ever later.
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
_STEADY: Final = 30.0
_LOOK_AT_THE_END_EVERY: Final = 0.02


class Process(Protocol):
    """As much of a `Popen` as is needed here."""

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...


class Forked:
    """A process that was forked, as if it had been started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        # Its id is its own until it was waited for.
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@dataclass
class Child:
    """How one is started, and the one that runs: `process`, and our end of the pipe that keeps it alive. `when_ended`
    is called as soon as it is seen to have ended by itself."""

    name: str
    arguments: list[str]
    said: bytes
    descriptors: tuple[int, ...] = ()
    process: Process | None = None
    lifeline: int | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    when_ended: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic

    def start(self) -> None:
        theirs, ours = os.pipe()
        try:
            self.process = subprocess.Popen(
                # Safely: nothing is imported from the directory we happen to be in, where others may write.
                [sys.executable, "-P", "-m", "certwright", "serve", *self.arguments, "--handed-fd", str(theirs)],
                pass_fds=[theirs, *self.descriptors], stdin=subprocess.DEVNULL, env=self.environment,
            )  # fmt: skip
            self.started = self.clock()
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.lifeline = ours
        # Less than a pipe holds, so that this doesn't wait for anybody; one that ended already is seen to have.
        with contextlib.suppress(BrokenPipeError):
            os.write(ours, self.said)

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def revive(self) -> None:
        """Once it has ended; after a pause where it doesn't live long."""
        assert self.process is not None
        now = self.clock()
        if self.lifeline is not None:
            self.cut()
            self.when_ended()
            if now - self.started > _STEADY:
                self.pause = 0.0
            code = self.process.returncode
            if self.pause < _LONGEST_PAUSE:
                log.warning("a process ended and is started again", process=self.name, code=code)
            else:
                log.error("a process ends again and again", process=self.name, code=code, next_start=self.pause)
            self.due = now + self.pause
            self.pause = min(max(2 * self.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        if now >= self.due:
            try:
                self.start()
            except OSError as error:
                log.error("a process can't be started", process=self.name, reason=error.strerror)
                self.due = now + _LONGEST_PAUSE

    def cut(self) -> None:
        """It finishes what it is at, and ends."""
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None


def look_after(children: Sequence[Child]) -> None:
    """Whichever ended is started again; the others go on."""
    for child in children:
        if child.has_ended():
            child.revive()


async def end(children: Sequence[Child], patience: float) -> None:
    """Waits for all of them to end in order; after so many seconds they are killed."""
    for child in children:
        child.cut()
    deadline = time.monotonic() + patience
    running = [child.process for child in children if child.process is not None]
    while any(process.poll() is None for process in running):
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
        await asyncio.sleep(_LOOK_AT_THE_END_EVERY)


def clean_environment() -> dict[str, str]:
    """Ours without settings: children are told theirs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
