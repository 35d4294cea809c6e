"""What is had without TLS: lists, OCSP and CA certificates, over connections as strangers make them; nothing else."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.x509 import ocsp as library

from certwright.entry import status_listener
from certwright.entry.status_listener import StatusListener
from certwright.kernel.problems import InvalidFields, Unavailable
from certwright.platform.config import Settings, load_settings
from certwright.rooms import authorities
from certwright.x509.certificates import facts_of, to_pem
from certwright.x509.crl import read_crl
from certwright.x509.ocsp import Status
from tests.authorities.test_hierarchy import BELOW, leaf, look, make
from tests.authorities.test_leaves_and_status import asked_by_sha1
from tests.conftest import World


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"status_listen": "127.0.0.1:0", "status_url": "http://status.example"})


@pytest.fixture
def listener(world: World) -> Iterator[StatusListener]:
    made = StatusListener(world.services)
    world.run(made.start())
    try:
        yield made
    finally:
        world.run(made.stop())


@pytest.fixture
def low(world: World) -> authorities.Authority:
    return make(world, BELOW, parent_id=make(world).id, ocsp_enabled=True)


class Said:
    """One response off the wire."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *lines = head.decode().split("\r\n")
        self.status = int(line.split()[1])
        self.headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines if one)}
        self.body = body


async def _read(reader: asyncio.StreamReader, method: str) -> Said:
    head = await reader.readuntil(b"\r\n\r\n")
    length = Said(head, b"").headers.get("content-length", "0")
    return Said(head, b"" if method == "HEAD" else await reader.readexactly(int(length)))


def said_to(world: World, listener: StatusListener, sent: bytes, answers: int = 1, method: str = "GET") -> list[Said]:
    """What comes back on one connection; the connection must end by itself when fewer answers come."""

    async def go() -> list[Said]:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        try:
            writer.write(sent)
            return [await asyncio.wait_for(_read(reader, method), 10) for _ in range(answers)]
        finally:
            writer.close()

    return world.run(go())


def ask(
    world: World, listener: StatusListener, path: str, method: str = "GET", body: bytes = b"", **headers: str
) -> Said:
    lines = [f"{method} {path} HTTP/1.1", "Host: status.example", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    (said,) = said_to(world, listener, ("\r\n".join(lines) + "\r\n\r\n").encode() + body, method=method)
    return said


def state_of(said: Said) -> Status:
    return Status(library.load_der_ocsp_response(said.body).certificate_status.name.lower())


# --- what is there ---------------------------------------------------------------------------------------------------


def test_certificates_name_this_address_and_all_they_name_is_there(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    world.drain()
    made = leaf(world, low.id)
    facts = facts_of(made.der)
    (crl_url,) = facts.crl_urls
    assert crl_url == f"http://status.example/crl/{low.id}.crl"
    (issuer_url,) = facts.aia_urls
    listed = ask(world, listener, crl_url.removeprefix("http://status.example"))
    assert (listed.status, listed.headers["content-type"]) == (200, "application/pkix-crl")
    assert read_crl(listed.body).number == 1
    issuer = ask(world, listener, issuer_url.removeprefix("http://status.example"))
    assert (issuer.headers["content-type"], issuer.body) == ("application/pkix-cert", low.certificate_der)
    pem = ask(world, listener, f"/ca/{low.id}.pem")
    assert pem.body.startswith(b"-----BEGIN CERTIFICATE-----")
    assert low.ocsp_url == f"http://status.example/ocsp/{low.id}"


def test_a_list_that_is_known_isnt_sent_again(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    world.drain()
    first = ask(world, listener, f"/crl/{low.id}.crl")
    again = ask(world, listener, f"/crl/{low.id}.crl", If_None_Match=f'"other", {first.headers["etag"]}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    head = ask(world, listener, f"/crl/{low.id}.crl", "HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(first.body)))
    made = leaf(world, low.id)
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id))
    world.drain()
    newer = ask(world, listener, f"/crl/{low.id}.crl", If_None_Match=first.headers["etag"])
    assert (newer.status, read_crl(newer.body).number) == (200, 2)


def test_an_answer_is_the_same_by_post_and_get_kept_or_not_until_the_revocation(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    made = leaf(world, low.id)
    asked = asked_by_sha1(low, int(made.serial, 16))
    path = f"/ocsp/{low.id}/{quote(base64.b64encode(asked).decode(), safe='')}"
    # The second of each is answered without asking anybody.
    said = [ask(world, listener, path) for _ in range(2)]
    said += [ask(world, listener, f"/ocsp/{low.id}", "POST", asked) for _ in range(2)]
    assert len({one.body for one in said}) == 1
    assert {one.status for one in said} == {200}
    assert {one.headers["content-type"] for one in said} == {"application/ocsp-response"}
    assert "max-age=3600" in said[1].headers["cache-control"]
    assert "date" in said[1].headers
    assert state_of(said[0]) is Status.GOOD
    known = ask(world, listener, path, If_None_Match=said[0].headers["etag"])
    assert (known.status, known.body) == (304, b"")
    assert ask(world, listener, path, "HEAD").headers["content-length"] == str(len(said[0].body))
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id))
    world.later(seconds=1)
    assert state_of(ask(world, listener, path)) is Status.REVOKED
    assert state_of(ask(world, listener, f"/ocsp/{low.id}", "POST", asked)) is Status.REVOKED


@pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
def test_openssl_asks_over_http_and_believes_it(
    world: World, listener: StatusListener, low: authorities.Authority, tmp_path: Path, nonce: str
) -> None:
    made, root = leaf(world, low.id), look(world, low.parent_id or "")
    assert low.certificate_der is not None
    assert root.certificate_der is not None
    for name, der in (("leaf", made.der), ("ca", low.certificate_der), ("root", root.certificate_der)):
        (tmp_path / f"{name}.pem").write_text(to_pem(der))
    command = [
        "openssl", "ocsp", "-issuer", "ca.pem", "-CAfile", "root.pem", "-cert", "leaf.pem", nonce,
        "-url", f"http://127.0.0.1:{listener.port}/ocsp/{low.id}",
        "-validity_period", "1000000000", "-attime", str(int(world.clock.now().timestamp())),
    ]  # fmt: skip
    ask_it = asyncio.to_thread(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = world.run(ask_it)
    assert "leaf.pem: good" in said.stdout
    assert "Response verify OK" in said.stderr
    assert "no nonce in response" not in said.stderr


def test_serials_nobody_issued_are_unknown_and_push_nobody_out(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    for serial in (5, 6):
        assert state_of(ask(world, listener, f"/ocsp/{low.id}", "POST", asked_by_sha1(low, serial))) is Status.UNKNOWN
    assert not listener._kept


@pytest.mark.parametrize("safe", ["", "/"], ids=["percent-encoded", "as it is"])
def test_a_question_whose_path_ends_in_a_slash_is_answered(
    world: World, listener: StatusListener, low: authorities.Authority, safe: str
) -> None:
    # What one certificate in 64 has: only its length and its last six bits decide.
    text = base64.b64encode(asked_by_sha1(low, 2**153 - 1)).decode()
    assert text.endswith("/")
    assert state_of(ask(world, listener, f"/ocsp/{low.id}/{quote(text, safe=safe)}")) is Status.UNKNOWN


def test_several_requests_at_once_on_one_connection_are_answered_in_order(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    world.drain()
    made = leaf(world, low.id)
    question = asked_by_sha1(low, int(made.serial, 16))
    post = b"POST /ocsp/%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (low.id.encode(), len(question)) + question
    crl = b"GET /crl/%s.crl HTTP/1.1\r\n\r\n" % low.id.encode()
    said = said_to(world, listener, (post + crl) * 20, answers=40)
    assert [one.headers["content-type"] for one in said] == ["application/ocsp-response", "application/pkix-crl"] * 20


# --- what isn't ------------------------------------------------------------------------------------------------------


NOT_HERE = (
    ("GET", "/", 404), ("GET", "/healthz", 404), ("GET", "/metrics", 404), ("GET", "/api/v1/me", 404),
    ("GET", "/certificates", 404), ("GET", "/setup", 404), ("GET", "/crl/", 404), ("GET", "/crl/ca_1.crl", 404),
    ("GET", "/ca/ca_1.crt", 404), ("GET", "/ca/../api/v1/me", 404), ("GET", "http://other.example/api/v1/me", 404),
    ("POST", "/api/v1/authorities", 404), ("POST", "/crl/ca_1.crl", 405), ("DELETE", "/ca/ca_1.crt", 405),
    ("PUT", "/ocsp/ca_1", 405),
)  # fmt: skip


def test_nothing_else_is_had_there(world: World, listener: StatusListener) -> None:
    for method, path, status in NOT_HERE:
        assert ask(world, listener, path, method).status == status, (method, path)


WRONG = {
    "garbage": (b"GARBAGE\r\n\r\n", 400),
    "another protocol": (b"GET /crl/ca_1.crl HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 400),
    "endless headers": (b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"x" * 20_000, 413),
    "an endless body": (b"POST /ocsp/ca_1 HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"0" * 20_000, 413),
    "the older protocol": (b"GET /crl/nothing.crl HTTP/1.0\r\n\r\n", 404),
}


def test_who_speaks_otherwise_is_told_so_and_hung_up_on(world: World, listener: StatusListener) -> None:
    async def go(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        try:
            writer.write(sent)
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()

    for name, (sent, status) in WRONG.items():
        said = world.run(go(sent))
        assert said.startswith(b"HTTP/1.1 %d " % status), name
        assert b"Connection: close" in said, name


def test_what_is_no_question_is_told_so_in_the_protocol(world: World, listener: StatusListener) -> None:
    said = [ask(world, listener, "/ocsp/ca_1", "POST", body) for body in (b"", b"garbage", b"0" * 5000)]
    for one in [*said, ask(world, listener, "/ocsp/ca_1/garbage")]:
        assert one.status == 200
        malformed = library.load_der_ocsp_response(one.body).response_status
        assert malformed is library.OCSPResponseStatus.MALFORMED_REQUEST


def test_a_database_that_is_away_is_said_in_each_protocol(
    world: World, listener: StatusListener, low: authorities.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Any:
        raise Unavailable("database_unavailable", "The database can't be reached at the moment.", fix="Wait.")

    question = asked_by_sha1(low, 5)
    monkeypatch.setattr(world.services.db, "read", away)
    monkeypatch.setattr(world.services.db, "begin", away)
    later = library.load_der_ocsp_response(ask(world, listener, f"/ocsp/{low.id}", "POST", question).body)
    assert later.response_status is library.OCSPResponseStatus.TRY_LATER
    assert ask(world, listener, f"/crl/{low.id}.crl").status == 503


def test_connections_give_way_and_silent_ones_are_ended(
    world: World, listener: StatusListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_listener, "_MOST_CONNECTIONS", 3)

    async def go() -> list[bytes]:
        talks = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(4)]
        try:
            gone = await asyncio.wait_for(talks[0][0].read(), 10)
            talks[3][1].write(b"GET /crl/nothing.crl HTTP/1.1\r\n\r\n")
            return [gone, await asyncio.wait_for(talks[3][0].readline(), 10)]
        except ConnectionResetError:
            return [b"", await asyncio.wait_for(talks[3][0].readline(), 10)]
        finally:
            for _, writer in talks:
                writer.close()

    assert world.run(go()) == [b"", b"HTTP/1.1 404 Not Found\r\n"]


# --- settings --------------------------------------------------------------------------------------------------------


def test_an_address_that_is_taken_is_said_with_its_setting(world: World, listener: StatusListener) -> None:
    taken = world.services.settings.model_copy(update={"status_listen": f"127.0.0.1:{listener.port}"})
    with pytest.raises(Unavailable) as refusal:
        world.run(StatusListener(replace(world.services, settings=taken)).start())
    assert (refusal.value.code, refusal.value.field) == ("status_listen_failed", "CERTWRIGHT_STATUS_LISTEN")


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ({}, "https://127.0.0.1:8443"),
        ({"STATUS_LISTEN": "127.0.0.1:8080"}, "http://127.0.0.1:8080"),
        ({"STATUS_LISTEN": "0.0.0.0:80", "STATUS_URL": "http://pki.example/"}, "http://pki.example"),
        ({"STATUS_URL": "http://pki.example"}, "http://pki.example"),
        ({"PUBLIC_URL": "https://cw.example"}, "https://cw.example"),
    ],
)
def test_what_certificates_name(given: dict[str, str], base: str) -> None:
    assert load_settings({f"CERTWRIGHT_{key}": value for key, value in given.items()}).status_base_url == base


@pytest.mark.parametrize(
    "given",
    [{"STATUS_LISTEN": "0.0.0.0:80"}, {"STATUS_LISTEN": "[::]:80"}, {"STATUS_URL": "ftp://x"}, {"STATUS_LISTEN": "80"}],
)
def test_an_address_nobody_can_reach_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidFields):
        load_settings({f"CERTWRIGHT_{key}": value for key, value in given.items()})
