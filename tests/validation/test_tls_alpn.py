"""What tls-alpn-01 (RFC 8737) sees of a server that has certificates for two kinds of keys."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certwright.acme.challenges import TLS_ALPN_PROTOCOL, tls_alpn_certificate
from certwright.platform.addresses import AddressGuard
from certwright.platform.egress import Egress
from certwright.platform.resolver import Resolver
from certwright.rooms.validation import gather_tls_alpn
from certwright.rooms.validation.words import TlsAttempt
from tests.servers.tls import context_of, issue

NAME, TOKEN = "127.0.0.1", "a token.a thumbprint"
DIGEST = hashlib.sha256(TOKEN.encode()).digest()
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


def load_challenge(
    context: ssl.SSLContext, folder: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, token: str = TOKEN
) -> None:
    made = tls_alpn_certificate(NAME, token, key, datetime.now(UTC))  # type: ignore[arg-type]  # as others make them
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "challenge.pem"
    file.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    context.load_cert_chain(file)


def seen(context: ssl.SSLContext) -> tuple[TlsAttempt, int]:
    """What is seen of a server with this context, and in how many connections."""
    context.set_alpn_protocols([TLS_ALPN_PROTOCOL])
    guard = AddressGuard.of(["127.0.0.0/8"])
    egress = Egress(Resolver([], guard=guard), guard)
    connections = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async def look() -> TlsAttempt:
        async with await asyncio.start_server(accept, NAME, 0, ssl=context) as server:
            return await gather_tls_alpn(egress, NAME, server.sockets[0].getsockname()[1])

    return asyncio.run(look()), connections


def test_the_challenge_is_the_certificate_that_is_preferred(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_challenge(context, tmp_path, RSA_KEY, "another token.a thumbprint")
    load_challenge(context, tmp_path, EC_KEY)
    attempt, connections = seen(context)
    assert (attempt.names, attempt.digest, connections) == ((NAME,), DIGEST, 1)


def test_the_challenge_took_the_place_of_the_rsa_certificate_alone(tmp_path: Path) -> None:
    """As mod_md does it, where Apache has a certificate of each kind."""
    context = context_of(issue("fallback.example"))
    load_challenge(context, tmp_path, RSA_KEY)
    attempt, connections = seen(context)
    assert (attempt.names, attempt.digest, connections) == ((NAME,), DIGEST, 2)


def test_no_certificate_is_the_challenges() -> None:
    attempt, _ = seen(context_of(issue("fallback.example")))
    assert (attempt.spoke, attempt.names, attempt.digest) == (True, ("fallback.example",), None)
