"""What reaches TLS of an answer, and when; and clients that are slow, or say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from certwright.entry import one_write
from certwright.entry.demo.servers import expired_certificate
from certwright.entry.lifeline import loop_factory
from certwright.entry.one_write import OneWrite, hold_little

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Wire(asyncio.Transport):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def plain(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"body"})


async def empty(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def large(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100000")]})
    await send({"type": "http.response.body", "body": b"x" * 100_000})


async def slow(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(3):
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"HTTP/1.1 in a body", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _sent(answer: Callable[[Send], Awaitable[None]], request: bytes) -> Wire:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        await receive()
        await answer(send)

    async def talk() -> Wire:
        config = uvicorn.Config(app, http=OneWrite, ws="none", lifespan="off", log_config=None, date_header=False)
        config.load()
        protocol = OneWrite(config, uvicorn.server.ServerState(), {})
        wire = Wire()
        protocol.connection_made(wire)
        protocol.data_received(request)
        for _ in range(20):
            await asyncio.sleep(0)
        return wire

    return asyncio.run(talk())


@pytest.mark.parametrize(
    ("answer", "method", "writes"),
    [
        pytest.param(plain, "GET", [b"body"], id="head and body are one write"),
        pytest.param(plain, "HEAD", [b""], id="a head without a body goes all the same"),
        pytest.param(empty, "GET", [b""], id="so does an answer that has none"),
        pytest.param(large, "GET", [b"", b"x" * 100_000], id="a large body isn't copied"),
        pytest.param(
            slow, "GET", [b"", b"12\r\nHTTP/1.1 in a body\r\n", b"0\r\n\r\n"], id="what comes in parts goes in parts"
        ),
    ],
)
def test_writes_of_an_answer(answer: Callable[[Send], Awaitable[None]], method: str, writes: list[bytes]) -> None:
    wire = _sent(answer, f"{method} / HTTP/1.1\r\nHost: cw.example\r\n\r\n".encode())

    head, _, first = wire.writes[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 20")
    assert [first, *wire.writes[1:]] == writes
    assert not wire.closed


def test_an_answer_to_a_client_that_goes_is_whole_before_the_end() -> None:
    wire = _sent(plain, b"GET / HTTP/1.1\r\nHost: cw.example\r\nConnection: close\r\n\r\n")

    assert len(wire.writes) == 1
    assert wire.writes[0].endswith(b"\r\n\r\nbody")
    assert wire.closed


def test_whoever_waits_for_100_continue_is_told_at_once() -> None:
    wire = _sent(plain, b"POST / HTTP/1.1\r\nHost: cw.example\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")

    assert wire.writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_malformed_request_is_answered_before_the_end() -> None:
    wire = _sent(plain, b"no request\r\n\r\n")

    assert wire.closed
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 400 ")


# --- over TLS --------------------------------------------------------------------------------------------------------

BOUND = 60.0  # seconds; only reached when something is broken
LONG = b"x" * (8 * 2**20)


async def long(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(LONG))]})
    await send({"type": "http.response.body", "body": LONG})


@dataclass
class Served:
    """A server of `OneWrite`, and which of its connections have ended."""

    port: int
    state: uvicorn.server.ServerState
    trusting: ssl.SSLContext
    ended: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client whose kernel doesn't take much for it."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=client, ssl=self.trusting, server_hostname="x", limit=32 * 1024)

    async def has_ended(self) -> None:
        async with asyncio.timeout(BOUND):
            await self.ended.get()


@asynccontextmanager
async def serving(
    place: Path, answer: Callable[[Send], Awaitable[None]], *, goodbye: float = 30.0, keep: float = 5.0
) -> AsyncIterator[Served]:
    """`goodbye` is how long TLS waits for its end, `keep` how long a connection is kept without a request."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await answer(send)

    certificate, key = expired_certificate("x")
    (place / "server.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "server.pem")
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    config = uvicorn.Config(app, http=OneWrite, ws="none", lifespan="off", log_config=None, timeout_keep_alive=keep)  # type: ignore[arg-type]  # uvicorn passes it to the loop
    config.load()
    served = Served(0, uvicorn.server.ServerState(), trusting)

    def protocol() -> OneWrite:
        made = OneWrite(config, served.state, {})
        made.at_the_end = lambda: served.ended.put_nowait(None)
        return made

    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    hold_little(listener)
    served.port = listener.getsockname()[1]
    server = await loop.create_server(protocol, sock=listener, ssl=context, ssl_shutdown_timeout=goodbye)
    try:
        yield served
    finally:
        server.close()


@pytest.fixture(params=[pytest.param(loop_factory(), id="uvloop"), pytest.param(None, id="asyncio")])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return run


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("connection", [b"keep-alive", b"close"])
def test_a_slow_client_gets_all_of_a_long_answer(run: Run, tmp_path: Path, connection: bytes) -> None:
    """It takes longer than a connection is kept, and than TLS is given for its end: that it has for the last of the
    answer, which it takes at once."""

    async def go() -> None:
        async with serving(tmp_path, long, goodbye=0.8, keep=0.02) as served:
            reader, writer = await served.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: " + connection + b"\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            taken, loop = 0, asyncio.get_running_loop()
            began = loop.time()
            while taken < len(LONG):
                part = await reader.read(64 * 1024)
                assert part, f"it ended after {taken} octets"
                taken += len(part)
                if loop.time() < began + 1.0:
                    # Not even two thirds are taken in this time.
                    await asyncio.sleep(0.012)
            assert taken == len(LONG)
            await served.has_ended()
            writer.close()

    run(go())


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n"


@pytest.mark.parametrize(
    ("said", "then"),
    [
        pytest.param(b"", b"", id="says nothing"),
        pytest.param(HEAD, b"", id="says half a head"),
        pytest.param(HEAD + b"\r\nbody", b"", id="says half a body"),
        pytest.param(HEAD + b"\r\nand body", b"\r\n", id="says nothing but an empty line after an answer"),
        pytest.param(HEAD + b"\r\nand body", HEAD, id="says half of its second request"),
    ],
)
def test_whoever(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, then: bytes) -> None:
    """… is hung up on."""

    async def go() -> None:
        async with serving(tmp_path, plain, keep=BOUND) as served:
            if not then:
                monkeypatch.setattr(one_write, "_PATIENCE", 0.1)
            reader, writer = await served.connect()
            writer.write(said)
            if then:
                await reader.readuntil(b"body")
                monkeypatch.setattr(one_write, "_PATIENCE", 0.1)
                writer.write(then)
            await served.has_ended()
            writer.close()

    run(go())


def test_whoever_speaks_slowly_is_heard_and_answered_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body in parts, each in time, that take longer together; and an answer that does."""
    monkeypatch.setattr(one_write, "_PATIENCE", 1.0)

    async def late(send: Send) -> None:
        await asyncio.sleep(1.2)
        await plain(send)

    async def go() -> None:
        async with serving(tmp_path, late) as served:
            reader, writer = await served.connect()
            writer.write(HEAD + b"\r\n")
            for part in range(8):
                writer.write(b"%d" % part)
                await asyncio.sleep(0.14)
            assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(go())


def test_whoever_takes_nothing_is_hung_up_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_write, "_PATIENCE", 0.1)

    async def go() -> None:
        async with serving(tmp_path, long) as served:
            _, writer = await served.connect()
            writer.transport.pause_reading()
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await served.has_ended()
            writer.transport.abort()

    run(go())


def test_at_a_stop_nobody_waits_for_the_goodbye_of_clients_without_a_request(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS itself would wait half a minute."""
    monkeypatch.setattr(one_write, "_GOODBYE", 0.05)

    async def go() -> None:
        async with serving(tmp_path, plain) as served:
            reader, writer = await served.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"body")
            writer.transport.pause_reading()
            for connection in list(served.state.connections):
                connection.shutdown()
            await served.has_ended()
            with contextlib.suppress(OSError):
                writer.transport.abort()

    run(go())
