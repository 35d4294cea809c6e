"""Connections shared out among processes: here several takers in one process, on memory that they share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence

import pytest

from certwright.entry import turns
from certwright.entry.turns import Shares, TurnByTurn


class Taken(asyncio.Protocol):
    """Says when it is over, as the web server's protocol does."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"%d" % self._shares._mine)

    def connection_lost(self, exc: Exception | None) -> None:
        self._shares.one_less()


class Takers:
    """So many processes; only those of `at_work` look at the listener."""

    def __init__(self, processes: int, at_work: Sequence[int] | None = None) -> None:
        made = Shares.made(processes)
        self.shares = [Shares(made.descriptor, number) for number in range(processes)]
        self.writers: list[asyncio.StreamWriter] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.servers = [self._taker(number) for number in (at_work if at_work is not None else range(processes))]

    def _taker(self, number: int) -> TurnByTurn:
        shares = self.shares[number]
        server = TurnByTurn(self.listener, shares, lambda: Taken(shares), None)
        # Several readers on one descriptor of one loop would replace each other.
        server._listener = self.listener.dup()
        server.start(100)
        return server

    async def connect(self) -> tuple[int, asyncio.StreamWriter]:
        """Which of them took it."""
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        self.writers.append(writer)
        return int(await reader.readexactly(1)), writer

    @property
    def counts(self) -> list[int]:
        return list(self.shares[0]._counts)

    async def end(self) -> None:
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        for server in self.servers:
            server.close()
            server._listener.close()
            await server.wait_closed()
        self.listener.close()


def test_connections_that_come_together_are_shared_out_evenly() -> None:
    async def run() -> None:
        takers = Takers(2)
        made = await asyncio.gather(*(takers.connect() for _ in range(16)))
        # Who rested may take one that came just then.
        assert min([number for number, _ in made].count(one) for one in (0, 1)) >= 4
        for _, writer in made:
            writer.close()
        async with asyncio.timeout(60):
            while takers.counts != [0, 0]:
                await asyncio.sleep(0)
        await takers.end()

    asyncio.run(run())


@pytest.mark.parametrize("ahead", [0, 1])
def test_who_has_fewer_gets_the_next(monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    monkeypatch.setattr(turns, "_POLITE", 60.0)

    async def run() -> None:
        takers = Takers(2)
        for _ in range(5):
            takers.shares[ahead].one_more()
        assert {number for number, _ in [await takers.connect() for _ in range(5)]} == {1 - ahead}
        await takers.end()

    asyncio.run(run())


@pytest.mark.parametrize("gone", [pytest.param(False, id="one that is busy"), pytest.param(True, id="one that ended")])
def test_nobody_waits_for(gone: bool) -> None:
    async def run() -> None:
        takers = Takers(2, at_work=[0])
        takers.shares[1].begin()
        if gone:
            takers.shares[0].gone(1)
        async with asyncio.timeout(60):
            made = [await takers.connect() for _ in range(8)]
        assert {number for number, _ in made} == {0}
        await takers.end()

    asyncio.run(run())


def test_nothing_is_left_to_one_that_does_not_serve_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was left something would wait for a minute here."""
    monkeypatch.setattr(turns, "_POLITE", 60.0)

    async def run() -> None:
        takers = Takers(3, at_work=[2])
        async with asyncio.timeout(60):
            made = [await takers.connect() for _ in range(4)]
        assert {number for number, _ in made} == {2}
        await takers.end()

    asyncio.run(run())


def test_one_that_takes_the_place_of_another_has_none_of_its_connections() -> None:
    made = Shares.made(2)
    others, first = Shares(made.descriptor, 0), Shares(made.descriptor, 1)
    others.begin()
    first.begin()
    for shares in (others, first, first):
        shares.one_more()
    assert (others.is_ahead, first.is_ahead) == (False, True)
    others.gone(1)
    assert not others.is_ahead
    second = Shares(made.descriptor, 1)
    second.begin()
    assert (others.is_ahead, second.is_ahead) == (True, False)


def test_a_closed_listener_takes_nobody() -> None:
    async def run() -> None:
        takers = Takers(1)
        takers.servers[0].close()
        client = asyncio.create_task(takers.connect())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not client.done()
        assert takers.counts == [0]
        client.cancel()
        await asyncio.gather(client, return_exceptions=True)
        await takers.end()

    asyncio.run(run())
