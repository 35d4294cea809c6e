"""Answers tls-alpn-01 (RFC 8737) for the names that wait for it, at the address of `tls_alpn_listen`.

A CA connects to port 443 of the very name, says the name in SNI, and wants the protocol acme-tls/1: whatever listens
there hands such connections through to us. The handshake is the whole conversation; nothing else is ever said here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict

import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certwright.acme.challenges import TLS_ALPN_PROTOCOL, tls_alpn_certificate, tls_alpn_server_name
from certwright.entry.web_certificate import in_memory
from certwright.kernel.problems import Unavailable
from certwright.platform.config import host_and_port
from certwright.platform.services import Services
from certwright.rooms import validation
from certwright.x509.keys import to_pkcs8_pem

log = structlog.get_logger(__name__)

# Our own look comes through here before any CA's; so what is known may be a moment old.
_FRESH_SECONDS = 0.25
_HANDSHAKE_SECONDS = 10.0
_MOST_CONTEXTS = 1000
_MOST_AT_ONCE = 100


class ChallengeResponder:
    """Listens from `start` to `stop`. Raises Unavailable `tls_alpn_listen_failed` when it can't."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # One key for all: it protects nothing, and is gone with the process.
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._answers: dict[str, tuple[str, str]] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)
        self._contexts: OrderedDict[tuple[str, str], ssl.SSLContext] = OrderedDict()
        self._front = self._context()
        self._front.sni_callback = self._choose
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._talking: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        address = self._services.settings.tls_alpn_listen
        assert address is not None, "started only where it is set"
        host, port = host_and_port(address)
        try:
            self._listener = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_MOST_AT_ONCE
            )
        except OSError as error:
            raise Unavailable(
                "tls_alpn_listen_failed", f"The address {address} can't be listened on: {error.strerror}.",
                field="CERTWRIGHT_TLS_ALPN_LISTEN", fix="Stop what uses it, or set another HOST:PORT.",
            ) from error  # fmt: skip
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._listener), name="tls-alpn-01")
        log.info("tls-alpn-01 is answered", listen=address)

    @property
    def port(self) -> int:
        assert self._listener is not None, "it was started"
        return int(self._listener.getsockname()[1])

    async def stop(self) -> None:
        tasks = [task for task in (self._accepting, *self._talking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                stranger, _ = await loop.sock_accept(listener)
            except OSError as error:
                # Too many open files, say: others give some back.
                log.warning("a tls-alpn-01 connection could not be accepted", reason=error.strerror)
                self._room.release()
                await asyncio.sleep(1)
                continue
            task = loop.create_task(self._answer(stranger))
            self._talking.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._talking.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("tls-alpn-01 could not be answered", exc_info=error)

    async def _answer(self, stranger: socket.socket) -> None:
        """One handshake. What is asked for is looked up before the first octet is read."""
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await self._look()
                transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                    asyncio.Protocol, stranger, ssl=self._front
                )
                transport.close()
        except (OSError, TimeoutError):
            # ssl.SSLError is an OSError: a stranger, or a name nobody asked about. Both are everyday on port 443.
            stranger.close()

    async def _look(self) -> None:
        """Read again what is waiting, at most four times a second however many connect."""
        async with self._reading:
            at = asyncio.get_running_loop().time()
            if self._read_at is not None and at - self._read_at < _FRESH_SECONDS:
                return
            async with self._services.db.begin() as tx:
                found = await validation.tls_alpn_answers(tx, self._services.clock.now())
            self._answers = {tls_alpn_server_name(name): (name, value) for name, value in found.items()}
            self._read_at = at

    def _choose(self, spoken: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext) -> int | None:
        asked = self._answers.get((server_name or "").lower().rstrip("."))
        if asked is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        spoken.context = self._context_of(asked)
        return None

    def _context_of(self, asked: tuple[str, str]) -> ssl.SSLContext:
        known = self._contexts.get(asked)
        if known is None:
            name, value = asked
            certificate = tls_alpn_certificate(name, value, self._key, self._services.clock.now())
            known = self._contexts[asked] = self._context()
            pem = certificate.public_bytes(Encoding.PEM)
            with in_memory(pem) as certificate_path, in_memory(to_pkcs8_pem(self._key)) as key_path:
                known.load_cert_chain(certificate_path, key_path)
            if len(self._contexts) > _MOST_CONTEXTS:
                self._contexts.popitem(last=False)
        return known

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([TLS_ALPN_PROTOCOL])
        return context
