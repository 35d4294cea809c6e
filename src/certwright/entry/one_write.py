"""An answer in one write. Uvicorn gives the head of an answer to TLS by itself and its body after it: two records, two
system calls, and a client that is woken twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD: Final = b"HTTP/1.1 "
# "100 Continue" is waited for.
_PROVISIONAL: Final = b"HTTP/1.1 1"
# Bodies from here on (octets) aren't worth copying.
_LARGE: Final = 64 * 1024


class OneWrite(HttpToolsProtocol):
    """Uvicorn's protocol over such a transport. `at_the_end` is called when the connection has ended."""

    at_the_end: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _Joining(transport, self.loop)))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.at_the_end is not None:
            self.at_the_end()


class _Joining:
    """Holds back the head of an answer for its body, which comes in the same turn of the loop; without one it goes at
    the end of that turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head:
            if len(data) < _LARGE:
                self._transport.write(head + data)
            else:
                self._transport.write(head)
                self._transport.write(data)
        elif data.startswith(_HEAD) and not data.startswith(_PROVISIONAL):
            self._head = data
            self._loop.call_soon(self._let_go)
        elif data:
            self._transport.write(data)

    def _let_go(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)

    def close(self) -> None:
        self._let_go()
        self._transport.close()
