"""One TLS handshake with one address, to see what is served: every certificate is accepted and none trusted.

The TLS engine runs on memory buffers inside an asyncio protocol: no thread, no stream objects, and the bytes of the
server's hello are at hand, from which the key-exchange group is read.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

from certwright.rooms.watch.words import StartTls

_MAX_BYTES = 256 * 1024
_MAX_LINE = 2048
_HELLO_NAME = b"certwright.invalid"

_NO_ROUTE = frozenset((errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


class NoHandshakeError(Exception):
    """No certificate was got. `code` is a problem code of `words.Observation`, the text says what happened."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Handshake:
    """What was negotiated and served. `chain` is DER, the server's own certificate first; `seconds` from connecting."""

    chain: tuple[bytes, ...]
    tls_version: str | None
    cipher: str | None
    group: str | None
    seconds: float


async def handshake(
    address: str,
    port: int,
    *,
    server_name: str | None,
    starttls: StartTls = StartTls.NONE,
    timeout: float = 10.0,
) -> Handshake:
    """Connect to an IP address already found permitted and look at what it serves. Raises NoHandshakeError.

    `server_name` goes into SNI (None sends none); `timeout` in seconds covers everything.
    """
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    try:
        protocol = _Probe(server_name, starttls, loop.create_future())
    except ValueError as error:
        raise NoHandshakeError("tls", f"the name {server_name!r} can't be asked for: {error}") from None
    try:
        async with asyncio.timeout(timeout):
            await loop.create_connection(lambda: protocol, address, port)
            await protocol.done
    except TimeoutError:
        stage = "didn't finish the handshake" if protocol.connected else "didn't answer"
        raise NoHandshakeError("timeout", f"{address} port {port} {stage} within {timeout:g} seconds") from None
    except OSError as error:
        code = "no_route" if error.errno in _NO_ROUTE else "refused"
        reason = error.strerror or type(error).__name__
        raise NoHandshakeError(code, f"{address} port {port} can't be connected to: {reason}") from None
    finally:
        protocol.abort()
    return protocol.result(time.perf_counter() - started)


@lru_cache(maxsize=1)
def _context() -> ssl.SSLContext:
    """One for the process. It talks to servers however old: what they serve is to be seen, nothing is sent to them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.options |= getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class _Probe(asyncio.Protocol):
    def __init__(self, server_name: str | None, starttls: StartTls, done: asyncio.Future[None]) -> None:
        self.done = done
        self.connected = False
        self._transport: asyncio.Transport | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _context().wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._dialogue = _DIALOGUES[starttls]() if starttls is not StartTls.NONE else None
        self._plain = bytearray()
        self._received = bytearray()
        self._total = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport but aren't of its class.
        self._transport = cast(asyncio.Transport, transport)
        self.connected = True
        if self._dialogue is None:
            self._shake()
        else:
            self._transport.write(next(self._dialogue))

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        self._total += len(data)
        if self._total > _MAX_BYTES:
            self._fail("tls", "the server sent more than a handshake needs")
        elif self._dialogue is None:
            self._feed(data)
        else:
            self._plain += data
            self._converse()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._dialogue is not None:
            self._fail("starttls", "the server closed the connection before TLS began")
        elif _served(self._tls):
            self._finish()
        else:
            self._fail("tls", "the server closed the connection during the handshake")

    def abort(self) -> None:
        """Drop the connection: after a probe nobody is owed a farewell."""
        if self._transport is not None:
            self._transport.abort()

    def result(self, seconds: float) -> Handshake:
        cipher = self._tls.cipher()
        group = self._tls.group() if hasattr(self._tls, "group") else named_group(bytes(self._received))
        return Handshake(
            chain=_served(self._tls),
            tls_version=self._tls.version(),
            cipher=cipher[0] if cipher else None,
            group=group,
            seconds=seconds,
        )

    def _converse(self) -> None:
        """Hand the dialogue each whole line (or single octet, for PostgreSQL) and send what it answers."""
        assert self._dialogue is not None
        assert self._transport is not None
        while self._plain:
            end = self._plain.find(b"\n")
            if end < 0 and len(self._plain) <= _MAX_LINE and not isinstance(self._dialogue, _Octets):
                return
            size = 1 if isinstance(self._dialogue, _Octets) else end + 1 or len(self._plain)
            unit = bytes(self._plain[:size])
            del self._plain[:size]
            try:
                answer = self._dialogue.send(unit)
            except StopIteration:
                self._dialogue = None
                if self._plain:
                    # What came in clear after the go-ahead may have been put there by somebody in between.
                    self._fail("starttls", "the server sent data in clear after agreeing to TLS")
                else:
                    self._shake()
                return
            except _DeclinedError as declined:
                self._fail("starttls", str(declined))
                return
            if answer:
                self._transport.write(answer)

    def _feed(self, data: bytes) -> None:
        self._received += data
        self._incoming.write(data)
        self._shake()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()
            if _served(self._tls):
                self._finish()
            else:
                self._fail("tls", f"the TLS handshake failed: {_reason(error)}")
            return
        self._flush()
        self._finish()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._transport is not None:
            self._transport.write(data)

    def _finish(self) -> None:
        """Done; also when a server that insists on a client's certificate hung up after showing its own."""
        if not self.done.done():
            self.done.set_result(None)

    def _fail(self, code: str, detail: str) -> None:
        if not self.done.done():
            self.done.set_exception(NoHandshakeError(code, detail))


def _served(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """The certificates as sent. Python has a public method from 3.13 on; before, the object beneath has it."""
    public: Any = getattr(tls, "get_unverified_chain", None)
    if public is not None:
        return tuple(public() or ())
    beneath: Any = tls._sslobj  # type: ignore[attr-defined]
    return tuple(ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in beneath.get_unverified_chain() or ())


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "protocol error").replace("_", " ").lower()


class _DeclinedError(Exception):
    """The server doesn't do STARTTLS."""


Dialogue = Generator[bytes, bytes, None]
"""Yields what to send (first without having heard anything), is sent each unit received, returns when TLS begins."""


def _smtp() -> Dialogue:
    """RFC 3207."""
    yield from _smtp_reply(b"", b"220")
    offered = yield from _smtp_reply(b"EHLO " + _HELLO_NAME + b"\r\n", b"250")
    if not any(line[4:].strip().upper() == b"STARTTLS" for line in offered):
        raise _DeclinedError("the mail server doesn't offer STARTTLS")
    yield from _smtp_reply(b"STARTTLS\r\n", b"220")


def _smtp_reply(command: bytes, expected: bytes) -> Generator[bytes, bytes, list[bytes]]:
    """Send a command and read a reply of any number of lines (RFC 5321 4.2.1)."""
    lines = []
    send = command
    while True:
        line = yield send
        send = b""
        lines.append(line)
        if line[:3] != expected or len(lines) > 100:
            raise _DeclinedError(f"the mail server answered {line[:80].decode('ascii', 'replace').strip()!r}")
        if line[3:4] != b"-":
            return lines


def _imap() -> Dialogue:
    """RFC 9051 section 6.2.1."""
    greeting = yield b""
    if not greeting.upper().startswith(b"* OK"):
        raise _DeclinedError(f"the IMAP server answered {greeting[:80].decode('ascii', 'replace').strip()!r}")
    line = yield b"a1 STARTTLS\r\n"
    while line.startswith(b"*"):
        line = yield b""
    if not line.upper().startswith(b"A1 OK"):
        raise _DeclinedError("the IMAP server doesn't do STARTTLS")


class _Octets(Generator[bytes, bytes, None]):
    """PostgreSQL's SSLRequest: eight octets out, one back, `S` for yes."""

    _REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"

    def __init__(self) -> None:
        self._asked = False

    def send(self, value: bytes | None, /) -> bytes:
        if not self._asked:
            self._asked = True
            return self._REQUEST
        if value != b"S":
            raise _DeclinedError("the PostgreSQL server has TLS switched off")
        raise StopIteration

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> bytes:
        raise typ if val is None else val


_DIALOGUES: Final = {StartTls.SMTP: _smtp, StartTls.IMAP: _imap, StartTls.POSTGRES: _Octets}

# IANA "TLS Supported Groups".
_GROUPS: Final = {
    0x0017: "secp256r1",
    0x0018: "secp384r1",
    0x0019: "secp521r1",
    0x001A: "brainpoolP256r1",
    0x001B: "brainpoolP384r1",
    0x001C: "brainpoolP512r1",
    0x001D: "x25519",
    0x001E: "x448",
    0x0100: "ffdhe2048",
    0x0101: "ffdhe3072",
    0x0102: "ffdhe4096",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
}
_HANDSHAKE_RECORD, _SERVER_HELLO, _SERVER_KEY_EXCHANGE = 22, 2, 12
_KEY_SHARE, _NAMED_CURVE = 0x0033, 3


def named_group(received: bytes) -> str | None:
    """The key-exchange group from a server's first bytes: its key share (RFC 8446 4.2.8) or, before TLS 1.3, the curve
    of its key exchange (RFC 8422 5.4). None where there is none or the bytes are no handshake. Never raises."""
    messages = bytearray()
    at = 0
    while at + 5 <= len(received) and received[at] == _HANDSHAKE_RECORD:
        size = int.from_bytes(received[at + 3 : at + 5], "big")
        messages += received[at + 5 : at + 5 + size]
        at += 5 + size
    at = 0
    while at + 4 <= len(messages):
        kind, size = messages[at], int.from_bytes(messages[at + 1 : at + 4], "big")
        body = bytes(messages[at + 4 : at + 4 + size])
        at += 4 + size
        number = None
        if kind == _SERVER_HELLO:
            number = _key_share(body)
        elif kind == _SERVER_KEY_EXCHANGE and len(body) >= 3 and body[0] == _NAMED_CURVE:
            number = int.from_bytes(body[1:3], "big")
        if number is not None:
            return _GROUPS.get(number, f"0x{number:04x}")
    return None


def _key_share(hello: bytes) -> int | None:
    if len(hello) < 35:
        return None
    at = 35 + hello[34] + 3
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    while at + 4 <= min(end, len(hello)):
        kind, size = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == _KEY_SHARE and size >= 2 and at + 6 <= len(hello):
            return int.from_bytes(hello[at + 4 : at + 6], "big")
        at += 4 + size
    return None
