"""A small TLS server whose certificate can be switched while it runs, with faults on demand.

It runs on the event loop of a thread of its own, so that both synchronous and asynchronous tests can use it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.ports import free_port


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and, below the root, what signed it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    issuer: Issued | None = None

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def chain(self) -> tuple[Issued, ...]:
        """Leaf first, without the root."""
        above = self.issuer.chain if self.issuer is not None and self.issuer.issuer is not None else ()
        return (self, *above)


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    names: Sequence[str] = (),
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    ca: bool = False,
) -> Issued:
    """A certificate of `name`; without an issuer it is self-signed. Defaults: from yesterday, for 90 days."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = not_before or datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    end = not_after or start + timedelta(days=90)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        san = [_general_name(entry) for entry in (names or (name,))]
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    return Issued(builder.sign((issuer.key if issuer else key), hashes.SHA256()), key, issuer)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def context_of(issued: Issued, chain: Sequence[Issued] | None = None) -> ssl.SSLContext:
    """A server context that sends exactly `chain` (default: leaf and intermediates)."""
    pem = issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for link in issued.chain if chain is None else chain:
        pem += link.certificate.public_bytes(serialization.Encoding.PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "server.pem"
        file.write_bytes(pem)
        context.load_cert_chain(file)
    return context


@dataclass
class TlsServer:
    """`serve` switches the certificate for connections made from now on; `mode` is one of
    `tls`, `hang` (accepts and says nothing), `garbage` (answers something else), `close` (hangs up at once),
    `smtp` (STARTTLS after an SMTP dialogue), `smtp_without_starttls`, `imap`, `postgres`, `postgres_without_tls`."""

    context: ssl.SSLContext
    mode: str = "tls"
    port: int = 0
    connections: int = 0
    seen_names: list[str | None] = field(default_factory=list)
    _server: asyncio.Server | None = None

    def serve(self, issued: Issued, chain: Sequence[Issued] | None = None) -> None:
        self.use(context_of(issued, chain))

    def use(self, context: ssl.SSLContext) -> None:
        context.sni_callback = lambda _, name, __: self.seen_names.append(name)
        self.context = context

    async def listen(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.mode == "close":
                return
            if self.mode == "garbage":
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\nthis is no TLS\r\n")
                await writer.drain()
                return
            if self.mode == "hang":
                await reader.read()
                return
            if not await self._agree(reader, writer):
                return
            await writer.start_tls(self.context, ssl_handshake_timeout=60)
            await reader.read(1)
        except (OSError, ssl.SSLError, asyncio.CancelledError):
            pass  # the other side left, or the server is being stopped
        finally:
            writer.transport.abort()

    async def _agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """The dialogue in clear; False when the server doesn't do TLS."""
        if self.mode.startswith("smtp"):
            writer.write(b"220-mail.example.test welcomes\r\n220 you\r\n")
            await reader.readline()
            offer = b"" if self.mode == "smtp_without_starttls" else b"250-STARTTLS\r\n"
            writer.write(b"250-mail.example.test\r\n" + offer + b"250 8BITMIME\r\n")
            if await reader.readline() != b"STARTTLS\r\n":
                return False
            writer.write(b"220 go ahead\r\n")
        elif self.mode == "imap":
            writer.write(b"* OK ready\r\n")
            tag = (await reader.readline()).split()[0]
            writer.write(b"* CAPABILITY IMAP4rev2\r\n" + tag + b" OK begin\r\n")
        elif self.mode.startswith("postgres"):
            await reader.readexactly(8)
            writer.write(b"N" if self.mode == "postgres_without_tls" else b"S")
            return self.mode == "postgres"
        await writer.drain()
        return True

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def tls_server(issued: Issued, *, mode: str = "tls", host: str = "127.0.0.1", port: int = 0) -> Iterator[TlsServer]:
    """A listening server on a free port, stopped at the end of the block."""
    server = TlsServer(context_of(issued), mode)
    server.use(server.context)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tls-server", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.listen(host, port or free_port(host)), loop).result(60)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server._stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
