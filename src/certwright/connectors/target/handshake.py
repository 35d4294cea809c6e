"""Looks at a TLS listener from outside: which certificate does it present to a client that asks for this name?"""

from __future__ import annotations

import asyncio
import hashlib
import ssl

from certwright.platform.db import assert_no_transaction
from certwright.rooms.deployment.words import Address, KeyKind

_TIMEOUT = 5.0


class NothingAnswers(Exception):
    """No connection at all."""


class NoHandshake(Exception):
    """Connected, but no TLS session came about."""


def _context(kind: KeyKind | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # We look at the certificate, whatever it is; the expired and the untrusted are what we came to see.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    ciphers = "ALL:@SECLEVEL=0"
    if kind is not None:
        # Only up to TLS 1.2 does the cipher suite name the kind of certificate the client takes.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        ciphers = "aRSA:@SECLEVEL=0" if kind is KeyKind.RSA else "aECDSA:@SECLEVEL=0"
    context.set_ciphers(ciphers)
    return context


async def served_certificate(address: Address, kind: KeyKind | None = None) -> bytes:
    """The leaf (DER) presented there; with `kind`, the one for clients that take only such keys (TLS ≤ 1.2).

    Raises NothingAnswers or NoHandshake; never verifies the certificate.
    """
    assert_no_transaction()
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await _look(address, _context(kind))
    except (ssl.SSLError, ConnectionResetError, asyncio.IncompleteReadError, BrokenPipeError) as error:
        raise NoHandshake(str(error)) from error
    except (OSError, TimeoutError) as error:
        raise NothingAnswers(str(error)) from error


async def _look(address: Address, context: ssl.SSLContext) -> bytes:
    if address.unix:
        _, writer = await asyncio.open_unix_connection(address.host)
    else:
        _, writer = await asyncio.open_connection(address.host, address.port)
    try:
        if address.proxy_protocol:
            writer.write(b"PROXY UNKNOWN\r\n")
            await writer.drain()
        # An empty name makes asyncio send no SNI.
        await writer.start_tls(context, server_hostname=address.server_name or "")
        session = writer.get_extra_info("ssl_object")
        leaf = session.getpeercert(binary_form=True) if session is not None else None
        if not leaf:
            raise NoHandshake("no certificate was presented")
        return bytes(leaf)
    finally:
        writer.transport.abort()


def fingerprint(der: bytes) -> str:
    """SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(der).hexdigest()
