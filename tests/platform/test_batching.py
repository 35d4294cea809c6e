"""Group commit: who waits for whom, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from certwright.kernel.problems import Problem, Refused
from certwright.platform.batching import Coalescer


class Writer:
    """Notes the batches it is given; a batch takes as long as `gate` is closed."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, key: str, items: Sequence[str]) -> list[str | Problem]:
        self.batches.append(list(items))
        await asyncio.sleep(0)
        await self.gate.wait()
        return [Refused("no", "No.") if item == "bad" else item.upper() for item in items]


async def together(*work: Awaitable[object]) -> list[object]:
    return list(await asyncio.gather(*work, return_exceptions=True))


def test_a_single_request_is_written_at_once() -> None:
    async def story() -> None:
        writer = Writer()
        queue: Coalescer[str, str, str] = Coalescer(writer.run)
        loop = asyncio.get_running_loop()
        took = []
        for name in "abcdefgh":
            asked = loop.time()
            assert await queue.submit("k", name) == name.upper()
            took.append(loop.time() - asked)
        assert writer.batches == [[name] for name in "abcdefgh"]
        # Nobody was waited for: not even a busy machine makes each of them late.
        assert min(took) < 0.004

    asyncio.run(story())


def test_those_who_come_while_a_batch_is_written_are_the_next_batch() -> None:
    async def story() -> None:
        writer = Writer()
        writer.gate.clear()
        queue: Coalescer[str, str, str] = Coalescer(writer.run)
        first = asyncio.create_task(queue.submit("k", "a"))
        while not writer.batches:
            await asyncio.sleep(0)
        others = [asyncio.create_task(queue.submit("k", name)) for name in "bcd"]
        await asyncio.sleep(0)
        writer.gate.set()
        assert await together(first, *others) == ["A", "B", "C", "D"]
        assert writer.batches == [["a"], ["b", "c", "d"]]

    asyncio.run(story())


def test_a_crowd_that_comes_back_is_waited_for_and_written_in_one_batch() -> None:
    async def story() -> None:
        writer = Writer()
        queue: Coalescer[str, str, str] = Coalescer(writer.run)

        async def client(name: str, late: int) -> None:
            for _ in range(4):
                await queue.submit("k", name)
                for _ in range(late):
                    await asyncio.sleep(0)

        await together(*(client(name, late) for late, name in enumerate("abcdefgh")))
        assert [len(batch) for batch in writer.batches] == [8, 8, 8, 8]

    asyncio.run(story())


def test_a_crowd_that_left_is_waited_for_some_milliseconds_only() -> None:
    async def story() -> None:
        writer = Writer()
        queue: Coalescer[str, str, str] = Coalescer(writer.run)
        await together(*(queue.submit("k", name) for name in "abcd"))
        async with asyncio.timeout(60):
            assert await queue.submit("k", "e") == "E"
        assert writer.batches[-1] == ["e"]

    asyncio.run(story())


def test_requests_of_different_keys_never_share_a_batch() -> None:
    async def story() -> None:
        writer = Writer()
        queue: Coalescer[str, str, str] = Coalescer(writer.run)
        await together(queue.submit("one", "a"), queue.submit("two", "b"))
        assert sorted(writer.batches) == [["a"], ["b"]]

    asyncio.run(story())


def test_a_problem_of_one_is_not_the_others() -> None:
    async def story() -> None:
        queue: Coalescer[str, str, str] = Coalescer(Writer().run)
        good, bad = await together(queue.submit("k", "a"), queue.submit("k", "bad"))
        assert good == "A"
        assert isinstance(bad, Refused)

    asyncio.run(story())


def test_what_the_writer_raises_concerns_all_and_the_next_batch_is_written() -> None:
    async def story() -> None:
        broken = True

        async def run(key: str, items: Sequence[str]) -> list[str | Problem]:
            if broken:
                raise ZeroDivisionError
            return list(items)

        queue: Coalescer[str, str, str] = Coalescer(run)
        answers = await together(queue.submit("k", "a"), queue.submit("k", "b"))
        assert [type(answer) for answer in answers] == [ZeroDivisionError, ZeroDivisionError]
        broken = False
        assert await queue.submit("k", "c") == "c"

    asyncio.run(story())


@pytest.mark.parametrize("cancelled", ["b", "c"])
def test_a_cancelled_request_does_not_disturb_its_batch(cancelled: str) -> None:
    async def story() -> None:
        writer = Writer()
        writer.gate.clear()
        queue: Coalescer[str, str, str] = Coalescer(writer.run)
        tasks = {name: asyncio.create_task(queue.submit("k", name)) for name in "abc"}
        while not writer.batches:
            await asyncio.sleep(0)
        tasks[cancelled].cancel()
        writer.gate.set()
        answers = dict(zip(tasks, await together(*tasks.values()), strict=True))
        assert isinstance(answers.pop(cancelled), asyncio.CancelledError)
        assert sorted(map(str, answers.values())) == sorted(name.upper() for name in answers)

    asyncio.run(story())


def test_no_more_than_the_most_are_written_together() -> None:
    async def story() -> None:
        writer = Writer()
        queue: Coalescer[str, str, str] = Coalescer(writer.run, most=3)
        await together(*(queue.submit("k", str(number)) for number in range(8)))
        assert [len(batch) for batch in writer.batches] == [3, 3, 2]

    asyncio.run(story())


def test_those_who_wait_hear_of_what_no_handler_catches() -> None:
    class PanicError(BaseException):
        pass

    async def run(key: str, items: Sequence[str]) -> list[str]:
        raise PanicError

    async def story() -> None:
        queue: Coalescer[str, str, str] = Coalescer(run)
        async with asyncio.timeout(60):
            answers = await together(queue.submit("k", "a"), queue.submit("k", "b"))
        assert [type(answer) for answer in answers] == [PanicError, PanicError]

    asyncio.run(story())
