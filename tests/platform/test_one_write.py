"""What reaches TLS of an answer, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from certwright.entry.one_write import OneWrite

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
