"""One thread that says everything to a module of others, which may hang in a call or serve one thread only."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Call:
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class OneThread:
    """Runs calls one after the other in a daemon thread, which ends with the process whatever it waits for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None

    @property
    def started(self) -> bool:
        return self._thread is not None

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Raises TimeoutError; at once while an earlier call hangs. A call given up before its turn is never made."""
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > seconds:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        call = _Call(work, loop, loop.create_future())
        self._calls.put(call)
        if self._thread is None:
            self._thread = threading.Thread(target=self._go, name=self._name, daemon=True)
            self._thread.start()
        async with asyncio.timeout(seconds):
            found: T = await call.answer
            return found

    def end(self) -> None:
        self._calls.put(None)
        self._thread = None

    def _go(self) -> None:
        while (call := self._calls.get()) is not None:
            if call.answer.cancelled():
                continue
            self._busy_since = time.monotonic()
            try:
                found, error = call.work(), None
            except Exception as raised:  # noqa: BLE001  # whatever it is goes to whoever called; the thread lives on
                found, error = None, raised
            self._busy_since = None
            # The loop is closed when the process ends while a call hangs.
            with suppress(RuntimeError):
                call.loop.call_soon_threadsafe(_answer, call.answer, found, error)


def _answer(future: asyncio.Future[Any], found: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)
