"""Group commit: requests that arrive while a batch is being written wait together and become the next batch.

A single one is written at once. In a crowd, the next batch waits some milliseconds for those who were just answered and
ask again: sixteen in one batch share round trips and one disk flush, where three and thirteen in turn would pay twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast

from certwright.kernel.problems import Problem

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")

_LINGER_SECONDS = 0.005
# Longer ago than this, the crowd has gone.
_REMEMBER_SECONDS = 0.1
_MOST_CROWDS = 1000

Run = Callable[[Key, Sequence[Item]], Awaitable[Sequence[Result | Problem]]]


class Coalescer(Generic[Key, Item, Result]):
    """`run(key, items)` answers each item with a result or the problem that concerns it alone; what it raises concerns
    all of them. Items of different keys never share a batch. With two `writers` one batch is made while another waits
    for the disk; then the batches of a key may end in another order than they began."""

    def __init__(self, run: Run[Key, Item, Result], *, most: int = 64, writers: int = 1) -> None:
        self._run = run
        self._most = most
        self._most_writers = writers
        self._waiting: dict[Key, list[tuple[Item, asyncio.Future[Result]]]] = {}
        self._writers: dict[Key, set[asyncio.Task[None]]] = {}
        self._inside: dict[Key, int] = {}
        # How many asked during the last batch, when it ended, and what its writer waits on for them to come back.
        self._crowds: dict[Key, tuple[int, float]] = {}
        self._complete: dict[Key, asyncio.Event] = {}

    async def submit(self, key: Key, item: Item) -> Result:
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((item, answer))
        writers = self._writers.setdefault(key, set())
        enough = len(self._waiting[key]) >= self._expected(key)
        if key in self._complete:
            if enough:
                self._complete[key].set()
        elif not writers or (enough and len(writers) < self._most_writers):
            writers.add(asyncio.create_task(self._write(key)))
        return await answer

    def _expected(self, key: Key) -> int:
        """How many the next batch will have; a crowd shares itself out among the writers."""
        size, ended = self._crowds.get(key, (1, 0.0))
        if asyncio.get_running_loop().time() - ended > _REMEMBER_SECONDS:
            return 1
        return min(-(-size // self._most_writers), self._most)

    async def _write(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        try:
            # Whoever lingers takes what comes.
            while self._waiting.get(key) and key not in self._complete:
                await self._linger(key)
                waiting = self._waiting[key]
                batch, self._waiting[key] = waiting[: self._most], waiting[self._most :]
                self._inside[key] = self._inside.get(key, 0) + len(batch)
                await self._write_one(key, batch)
                self._crowds[key] = (self._inside[key] + len(self._waiting[key]), loop.time())
                self._inside[key] -= len(batch)
        finally:
            writers = self._writers[key]
            writers.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            if not writers:
                for held in (self._waiting, self._writers, self._inside):
                    held.pop(key, None)
            if len(self._crowds) > _MOST_CROWDS:
                self._crowds.clear()

    async def _linger(self, key: Key) -> None:
        if len(self._waiting[key]) >= self._expected(key):
            return
        self._complete[key] = asyncio.Event()
        try:
            await asyncio.wait_for(self._complete[key].wait(), _LINGER_SECONDS)
        except TimeoutError:
            return
        finally:
            del self._complete[key]

    async def _write_one(self, key: Key, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run(key, [item for item, _ in batch])
        # Not swallowed (BLE001): whatever went wrong is handed to the requests that wait for it.
        except Exception as error:  # noqa: BLE001
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.done():
                continue  # its request was cancelled meanwhile
            if isinstance(result, Problem):
                answer.set_exception(result)
            else:
                answer.set_result(result)
