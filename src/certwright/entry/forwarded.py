"""Behind a reverse proxy the operator named: who the client is, and by which scheme it came."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from certwright.platform.addresses import IPNetwork, address_behind, is_trusted

_SCHEMES = ("http", "https")


class Forwarded:
    """ASGI middleware: believes X-Forwarded-For and X-Forwarded-Proto when one of `trusted` is connected, never else.

    Everything behind it sees the client in `scope["client"]` (port 0: nobody tells it) and its scheme in
    `scope["scheme"]`. `Host` stays as it came: the proxy passes the browser's on.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[IPNetwork]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        if scope["type"] == "http" and peer and is_trusted(peer[0], self._trusted):
            headers = Headers(scope=scope)
            client = address_behind(peer[0], headers.getlist("x-forwarded-for"), self._trusted)
            if client != peer[0]:
                scope["client"] = (client, 0)
            # The last word is that of the proxy connected to us; what stands before it came from further away.
            scheme = ",".join(headers.getlist("x-forwarded-proto")).rpartition(",")[2].strip().lower()
            if scheme in _SCHEMES:
                scope["scheme"] = scheme
        await self._app(scope, receive, send)
