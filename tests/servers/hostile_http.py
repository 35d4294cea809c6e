"""An HTTP server that misbehaves on demand: raw bytes in, raw bytes out, drop by drop, without end, or never."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.servers.ports import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class HostileHttp:
    """Running on a free port; `requests` holds the raw head of every request received."""

    address: str
    port: int
    requests: list[str] = field(default_factory=list)

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"http://{host or self.address}:{self.port}{path}"


def raw(data: bytes) -> Handler:
    """Send exactly these bytes and close."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return handle


def answer(status: int, body: bytes = b"", **headers: str) -> Handler:
    """A well-formed answer; header names with underscores for hyphens."""
    fields = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"HTTP/1.1 {status} Said So\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return raw(head.encode() + b"\r\n" + body)


def silent() -> Handler:
    """Accept, read, and never say anything until the client leaves."""

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    return handle


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Handler:
    """Send `head`, then `piece` again and again (with a pause: slow drops) until the client leaves."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return handle


@contextmanager
def hostile_http(routes: Mapping[str, Handler], *, address: str = "127.0.0.1", port: int = 0) -> Iterator[HostileHttp]:
    """Serve `routes` by path; anything else is 404."""
    loop = asyncio.new_event_loop()
    server = HostileHttp(address, port or free_port(address))
    ready = threading.Event()
    stopping = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            server.requests.append(head)
            path = head.split(" ", 2)[1].partition("?")[0]
            await routes.get(path, answer(404, b"not here"))(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left, which is what many of these tests want
        finally:
            writer.close()

    async def serve() -> None:
        listening = await asyncio.start_server(handle, address, server.port)
        ready.set()
        await stopping.wait()
        listening.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not ready.wait(60):
        raise RuntimeError("the hostile server didn't start")
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
