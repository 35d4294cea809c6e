"""Looking at real TLS servers, good and bad."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.rooms.watch.handshake import Handshake, NoHandshakeError, handshake, named_group
from certwright.rooms.watch.words import StartTls
from tests.servers.tls import TlsServer, context_of, issue, tls_server

ROOT = issue("Test Root", ca=True)
ISSUING = issue("Test Issuing CA", ROOT, ca=True)
LEAF = issue("www.example.test", ISSUING)


def look(
    server: TlsServer, *, name: str | None = "www.example.test", starttls: str = "none", timeout: float = 5
) -> Handshake:
    return asyncio.run(
        handshake("127.0.0.1", server.port, server_name=name, starttls=StartTls(starttls), timeout=timeout)
    )


@pytest.mark.parametrize("kind", ["none", "smtp", "imap", "postgres"])
def test_the_whole_chain_is_seen(kind: str) -> None:
    with tls_server(LEAF, mode="tls" if kind == "none" else kind) as server:
        seen = look(server, starttls=kind)
        assert seen.chain == (LEAF.der, ISSUING.der)
        assert (seen.tls_version, seen.group) == ("TLSv1.3", "x25519")
        assert server.seen_names == ["www.example.test"]


def test_an_expired_certificate_is_seen_all_the_same() -> None:
    old = issue("old.test", not_before=datetime(2019, 1, 1, tzinfo=UTC), not_after=datetime(2020, 1, 1, tzinfo=UTC))
    with tls_server(old) as server:
        assert look(server).chain == (old.der,)


def test_without_a_name_none_is_sent() -> None:
    with tls_server(LEAF) as server:
        look(server, name=None)
        assert server.seen_names == [None]


def test_a_server_limited_to_tls_1_2_is_understood() -> None:
    context = context_of(LEAF)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_server(LEAF) as server:
        server.use(context)
        seen = look(server)
        assert (seen.tls_version, seen.group, len(seen.chain)) == ("TLSv1.2", "x25519", 2)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_clients_certificate_shows_its_own(version: ssl.TLSVersion) -> None:
    context = context_of(LEAF)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    with tls_server(LEAF) as server:
        server.use(context)
        assert look(server).chain[0] == LEAF.der


def test_the_curve_a_server_insists_on_is_named() -> None:
    context = context_of(LEAF)
    context.set_ecdh_curve("secp384r1")
    with tls_server(LEAF) as server:
        server.use(context)
        assert look(server).group == "secp384r1"


@pytest.mark.parametrize(
    ("mode", "starttls", "code"),
    [
        ("garbage", "none", "tls"),
        ("close", "none", "tls"),
        ("close", "smtp", "starttls"),
        ("garbage", "smtp", "starttls"),
        ("garbage", "imap", "starttls"),
        ("garbage", "postgres", "starttls"),
        ("smtp_without_starttls", "smtp", "starttls"),
        ("postgres_without_tls", "postgres", "starttls"),
    ],
)
def test_what_is_no_tls_is_named(mode: str, starttls: str, code: str) -> None:
    with tls_server(LEAF, mode=mode) as server:
        with pytest.raises(NoHandshakeError) as caught:
            look(server, starttls=starttls)
        assert caught.value.code == code


def test_a_silent_server_costs_no_more_than_the_time_limit() -> None:
    with tls_server(LEAF, mode="hang") as server:
        with pytest.raises(NoHandshakeError) as caught:
            look(server, timeout=0.2)
        assert caught.value.code == "timeout"


@pytest.mark.parametrize("name", ["", ".example.test", "x" * 64 + ".test"])
def test_a_name_nobody_can_ask_for_is_no_crash(name: str) -> None:
    with pytest.raises(NoHandshakeError) as caught:
        asyncio.run(handshake("127.0.0.1", 1, server_name=name))
    assert caught.value.code == "tls"


def test_a_closed_port_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(NoHandshakeError) as caught:
            asyncio.run(handshake("127.0.0.1", port, server_name=None))
    assert caught.value.code == "refused"


@given(st.binary(max_size=200))
def test_reading_the_group_from_anything_never_fails(data: bytes) -> None:
    record = b"\x16\x03\x03" + len(data).to_bytes(2, "big") + data
    for junk in (data, record):
        found = named_group(junk)
        assert found is None or isinstance(found, str)


@given(st.integers(0, 65535), st.binary(max_size=32))
def test_the_group_of_a_server_hello_is_its_key_share(group: int, session: bytes) -> None:
    number = group.to_bytes(2, "big")
    extensions = b"\x00\x2b\x00\x02\x03\x04" + b"\x00\x33" + (8).to_bytes(2, "big") + number + b"\x00\x04abcd"
    body = b"\x03\x03" + bytes(32) + bytes([len(session)]) + session + b"\x13\x02\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x02" + len(body).to_bytes(3, "big") + body
    # Split over two records, as a server may.
    records = b"".join(b"\x16\x03\x03" + len(part).to_bytes(2, "big") + part for part in (message[:20], message[20:]))
    found = named_group(records)
    assert found is not None
    assert found == named_group(records + b"\x14\x03\x03\x00\x01\x01")
    if group == 0x11EC:
        assert found == "X25519MLKEM768"
