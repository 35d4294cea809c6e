"""What a process and those it starts say to each other: settings at the beginning, and later that it is over.

Settings, with the password of a database role among them, go through a pipe: not in arguments, environment or a file.
The parent's end of that pipe stays open as long as the child shall live, so that a child doesn't outlive its parent
however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import SecretStr

from certwright.kernel.problems import Unavailable
from certwright.platform import confinement
from certwright.platform.config import Settings

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the product in order: Ctrl-C, a service manager, and a terminal that is closed."""


def handed(settings: Settings, forbidden: Sequence[Path]) -> bytes:
    """What `take` reads."""
    values = {name: _plain(value) for name, value in settings.model_dump().items()}
    return orjson.dumps({"settings": values, "forbidden": [str(path) for path in forbidden]}, default=str) + b"\n"


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def take(descriptor: int) -> tuple[Settings, list[Path]]:
    """Settings that the parent wrote, and the paths this process denies itself. Raises Unavailable `parent_gone`."""
    said = b""
    # Nothing comes after that line but the end. Whoever starts the product anew needs what this process holds.
    while not said.endswith(b"\n") or select.select([descriptor], [], [], 0)[0]:
        more = os.read(descriptor, 65536)
        if not more:
            raise Unavailable("parent_gone", "The process that started this one is gone.",
                              fix="Start certwright serve again, as it was started.")  # fmt: skip
        said += more
    values = orjson.loads(said)
    return Settings(**values["settings"]), [Path(path) for path in values["forbidden"]]


def confine(role: str, forbidden: Sequence[Path]) -> None:
    """In a child, first of all. A web process also loses the right to signal others; a worker reloads servers."""
    if forbidden:
        confinement.forbid(forbidden, signals=role == "web")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows has none; the standard loop serves there
        return None
    return uvloop.new_event_loop


def stop_event(lifeline: int | None, *, quiet: bool = False) -> asyncio.Event:
    """Set once this process shall end: by a signal, or where there is a `lifeline`, when its other end is closed."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not stopping.is_set() and not quiet:
            say("stopping…")
        stopping.set()

    def cut() -> None:
        # Nothing is ever said over it any more: the other end is closed.
        assert lifeline is not None
        loop.remove_reader(lifeline)
        stopping.set()

    for number in ENDING:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup
        # These reach every process; the parent ends its own in order.
        loop.add_signal_handler(number, stop if lifeline is None else lambda: None)
    if lifeline is not None:
        loop.add_reader(lifeline, cut)
    return stopping


def say(text: str) -> None:
    """To the person at the terminal, if it is still there."""
    with contextlib.suppress(OSError):
        print(text, flush=True)
