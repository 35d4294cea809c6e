"""Group commit: requests that arrive while a batch is being written wait together and become the next batch.

No request waits on purpose; a single one is written at once. Sixteen at a time share round trips and one disk flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from certwright.kernel.problems import Problem

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")

Run = Callable[[Key, Sequence[Item]], Awaitable[Sequence[Result | Problem]]]


class Coalescer(Generic[Key, Item, Result]):
    """`run(key, items)` answers each item with a result or the problem that concerns it alone; what it raises concerns
    all of them. Items of different keys never share a batch."""

    def __init__(self, run: Run[Key, Item, Result], *, most: int = 64) -> None:
        self._run = run
        self._most = most
        self._waiting: dict[Key, list[tuple[Item, asyncio.Future[Result]]]] = {}
        self._writers: dict[Key, asyncio.Task[None]] = {}

    async def submit(self, key: Key, item: Item) -> Result:
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((item, answer))
        if key not in self._writers:
            self._writers[key] = asyncio.create_task(self._write(key))
        return await answer

    async def _write(self, key: Key) -> None:
        try:
            while waiting := self._waiting.get(key):
                batch, self._waiting[key] = waiting[: self._most], waiting[self._most :]
                await self._write_one(key, batch)
        finally:
            self._waiting.pop(key, None)
            self._writers.pop(key, None)

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
