"""How an answer goes out: in one write, whole also to whoever takes it slowly, and not for ever.

Uvicorn gives the head of an answer to TLS by itself and its body after it: two records, two system calls, and a client
that is woken twice. It closes a connection five seconds after the last answer was written, and asyncio's TLS then gives
what is still to be sent thirty seconds: a long list on a slow line would end in the middle. And it waits without end
for a client that connects and says nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD: Final = b"HTTP/1.1 "
# "100 Continue" is waited for.
_PROVISIONAL: Final = b"HTTP/1.1 1"
# Bodies from here on (octets) aren't worth copying.
_LARGE: Final = 64 * 1024
# As much (octets) is given to TLS before the client has taken what it was given before.
_AHEAD: Final = 128 * 1024
# How long a client may take, in seconds: for the head of a request, between two parts of its body, and to take `_AHEAD`
# of an answer.
_PATIENCE: Final = 60.0
# How long clients without a request have to say goodbye when the server stops, in seconds; many never do.
_GOODBYE: Final = 1.0


def hold_little(listener: socket.socket) -> None:
    """What its connections are given waits here and not in the kernel, which would take megabytes of it and then none
    until a third of them has gone: too long for the last of a long answer on a slow line."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _AHEAD)


class OneWrite(HttpToolsProtocol):
    """Uvicorn's protocol over such a transport. `at_the_end` is called when the connection has ended."""

    at_the_end: Callable[[], None] | None = None
    _wire: _Joining
    _awaited: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        transport.set_write_buffer_limits(high=_AHEAD)
        self._wire = _Joining(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._wire))
        self._await_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_nothing()
        self._wire.forget()
        try:
            super().connection_lost(exc)
        finally:
            if self.at_the_end is not None:
                self.at_the_end()

    def data_received(self, data: bytes) -> None:
        if self._wire.is_closing():
            return  # the last answer is still on its way
        super().data_received(data)
        self._await_more()

    def _await_more(self) -> None:
        if self._wire.is_closing():
            self._await_nothing()
        elif self.cycle is None or self.cycle.response_complete:
            # A head as a whole, however many parts it comes in.
            if self._awaited is None:
                self._awaited = self.loop.call_later(_PATIENCE, self._hang_up)
        else:
            self._await_nothing()
            if self.cycle.more_body:
                self._awaited = self.loop.call_later(_PATIENCE, self._hang_up)

    def _await_nothing(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _hang_up(self) -> None:
        self._awaited = None
        if self.flow.read_paused:
            self._await_more()  # we are the one who doesn't listen
        else:
            self._wire.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wire.wait()

    def resume_writing(self) -> None:
        if self._wire.go_on():
            super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self._wire.is_sending:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        super().shutdown()
        if self._wire.is_closing() and not self._wire.is_sending:
            self.loop.call_later(_GOODBYE, self._wire.abort)


class _Joining:
    """Holds back the head of an answer for its body, which comes in the same turn of the loop; without one it goes at
    the end of that turn. Of a long body it gives on as much as is taken, and it closes when all of it was."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self._rest: deque[memoryview] = deque()
        self._waiting: asyncio.TimerHandle | None = None
        self._closes = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def is_sending(self) -> bool:
        """Whether the client is behind."""
        return self._waiting is not None

    def write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head:
            if len(data) < _LARGE:
                self._give(head + data)
            else:
                self._give(head)
                self._give(data)
        elif data.startswith(_HEAD) and not data.startswith(_PROVISIONAL):
            self._head = data
            self._loop.call_soon(self._let_go)
        elif data:
            self._give(data)

    def _give(self, data: bytes) -> None:
        if self._waiting is None and len(data) <= _AHEAD:
            self._transport.write(data)
        elif data:
            self._rest.append(memoryview(data))
            self._give_on()

    def _give_on(self) -> None:
        while self._rest and self._waiting is None:
            part, rest = self._rest[0][:_AHEAD], self._rest[0][_AHEAD:]
            if rest:
                self._rest[0] = rest
            else:
                self._rest.popleft()
            # The client may turn out to be behind in here.
            self._transport.write(part)

    def wait(self) -> None:
        """The client is behind; one that stays so is hung up on."""
        if self._waiting is None:
            self._waiting = self._loop.call_later(_PATIENCE, self.abort)

    def go_on(self) -> bool:
        """It has taken most of what it was given; whether there is room for more than waits here."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._give_on()
        if self._closes and self._waiting is None:
            self._transport.close()
        return self._waiting is None

    def _let_go(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._give(head)

    def close(self) -> None:
        self._let_go()
        if self._waiting is None:
            self._transport.close()
        else:
            self._closes = True

    def abort(self) -> None:
        self.forget()
        self._transport.abort()

    def forget(self) -> None:
        """There is nobody any more to send anything to."""
        self._rest.clear()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def is_closing(self) -> bool:
        return self._closes or self._transport.is_closing()
