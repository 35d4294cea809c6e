"""Group commit: requests that arrive while a batch is being written wait together and become the next batch.

A single one is written at once. In a crowd, the next batch waits some milliseconds for those who were just answered and
ask again: sixteen in one batch share round trips and one disk flush, where three and thirteen in turn would pay twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

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
    all of them. Items of different keys never share a batch."""

    def __init__(self, run: Run[Key, Item, Result], *, most: int = 64) -> None:
        self._run = run
        self._most = most
        self._waiting: dict[Key, list[tuple[Item, asyncio.Future[Result]]]] = {}
        self._writers: dict[Key, asyncio.Task[None]] = {}
        # How many asked during the last batch, when it ended, and what its writer waits on for them to come back.
        self._crowds: dict[Key, tuple[int, float]] = {}
        self._complete: dict[Key, asyncio.Event] = {}

    async def submit(self, key: Key, item: Item) -> Result:
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((item, answer))
        if key not in self._writers:
            self._writers[key] = asyncio.create_task(self._write(key))
        elif key in self._complete and len(self._waiting[key]) >= self._expected(key):
            self._complete[key].set()
        return await answer

    def _expected(self, key: Key) -> int:
        size, ended = self._crowds.get(key, (1, 0.0))
        if asyncio.get_running_loop().time() - ended > _REMEMBER_SECONDS:
            return 1
        return min(size, self._most)

    async def _write(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting.get(key):
                await self._linger(key)
                waiting = self._waiting[key]
                batch, self._waiting[key] = waiting[: self._most], waiting[self._most :]
                await self._write_one(key, batch)
                self._crowds[key] = (len(batch) + len(self._waiting[key]), loop.time())
        finally:
            self._waiting.pop(key, None)
            self._writers.pop(key, None)
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
        # Not swallowed: whatever went wrong is handed to the requests that wait for it, and nobody else would
        # wake them; so is what is no `Exception`, such as a library's panic.
        except BaseException as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.done():
                continue  # its request was cancelled meanwhile
            if isinstance(result, Problem):
                answer.set_exception(result)
            else:
                answer.set_result(result)
