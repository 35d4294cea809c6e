"""What is had without TLS: lists, OCSP and CA certificates, over connections as strangers make them; nothing else."""

from __future__ import annotations

import asyncio
import base64
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from cryptography.x509 import ocsp as library
from hypothesis import given
from hypothesis import strategies as st

from certwright.entry import status_listener
from certwright.entry.status_listener import StatusListener
from certwright.kernel.problems import InvalidFields, Unavailable
from certwright.platform.config import Settings, load_settings
from certwright.rooms import authorities
from certwright.rooms.authorities.tables import crls
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
            return [await asyncio.wait_for(_read(reader, method), 60) for _ in range(answers)]
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


def spoken(world: World, listener: StatusListener, *sent: bytes, until: bytes) -> bytes:
    """Everything that comes back, up to `until`; each part is sent when something came back for the one before."""

    async def go() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        heard = b""
        try:
            for part in sent:
                writer.write(part)
                heard += await asyncio.wait_for(reader.read(65536), 60)
            while until not in heard:
                heard += await asyncio.wait_for(reader.readexactly(1), 60)
            return heard
        finally:
            writer.close()

    return world.run(go())


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("parts", [1, 7], ids=["at once", "in parts"])
def test_an_offer_to_speak_another_protocol_is_passed_over(
    world: World, listener: StatusListener, low: authorities.Authority, parts: int
) -> None:
    # What clients written in Java do at plain addresses; nobody has to accept (RFC 9110 section 7.8).
    world.drain()
    question = asked_by_sha1(low, int(leaf(world, low.id).serial, 16))
    get = b"GET /crl/%s.crl HTTP/1.1\r\nHost: status.example\r\n" % low.id.encode() + H2C + b"\r\n"
    post = b"POST /ocsp/%s HTTP/1.1\r\nContent-Length: %d\r\n" % (low.id.encode(), len(question)) + H2C + b"\r\n"
    sent = (get + post + question) * 3

    async def go() -> list[Said]:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        try:
            for at in range(parts):
                writer.write(sent[len(sent) * at // parts : len(sent) * (at + 1) // parts])
                await writer.drain()
            return [await asyncio.wait_for(_read(reader, "GET"), 60) for _ in range(6)]
        finally:
            writer.close()

    said = world.run(go())
    assert [one.status for one in said] == [200] * 6
    assert [read_crl(one.body).number for one in said[::2]] == [1, 1, 1]
    assert [state_of(one) for one in said[1::2]] == [Status.GOOD] * 3


def test_who_waits_for_leave_to_send_the_question_gets_it(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    question = asked_by_sha1(low, int(leaf(world, low.id).serial, 16))
    head = b"POST /ocsp/%s HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (
        low.id.encode(), len(question),
    )  # fmt: skip
    heard = spoken(world, listener, head, question, until=b"application/ocsp-response")
    assert heard.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    # Behind another request it is given in turn; the older protocol doesn't know of it.
    heard = spoken(world, listener, b"GET /nothing HTTP/1.1\r\n\r\n" + head, until=b"100 Continue")
    assert heard.startswith(b"HTTP/1.1 404 Not Found\r\n")
    heard = spoken(
        world, listener, head.replace(b"HTTP/1.1", b"HTTP/1.0") + question, until=b"application/ocsp-response"
    )
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")


def test_what_isnt_a_request_is_said_after_what_was_asked_before(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    world.drain()
    get = b"GET /crl/%s.crl HTTP/1.1\r\n\r\n" % low.id.encode()
    said = said_to(world, listener, get * 2 + b"GARBAGE\r\n\r\n", answers=3)
    assert [one.status for one in said] == [200, 200, 400]


def test_tags_may_come_on_several_lines_and_count_for_readers_only(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    asked = asked_by_sha1(low, int(leaf(world, low.id).serial, 16))
    path = f"/ocsp/{low.id}/{quote(base64.b64encode(asked).decode(), safe='')}"
    tag = ask(world, listener, path).headers["etag"]
    lines = f'GET {path} HTTP/1.1\r\nif-none-match: {tag}\r\nIF-NONE-MATCH: "other"\r\n\r\n'.encode()
    assert said_to(world, listener, lines)[0].status == 304
    for said in (tag, "*"):
        answer = ask(world, listener, f"/ocsp/{low.id}", "POST", asked, If_None_Match=said)
        assert (answer.status, state_of(answer)) == (200, Status.GOOD)


def test_a_question_made_longer_than_it_need_be_is_answered_and_not_kept(
    world: World, listener: StatusListener, low: authorities.Authority
) -> None:
    asked = asked_by_sha1(low, int(leaf(world, low.id).serial, 16))
    path = f"/ocsp/{low.id}/{quote(base64.b64encode(asked).decode(), safe='')}"
    assert state_of(ask(world, listener, f"{path}?{'x' * 500}")) is Status.GOOD
    assert not listener._kept
    assert state_of(ask(world, listener, path)) is Status.GOOD
    assert len(listener._kept) == 1


class _Echo:
    """In the listener's place: says what it was asked."""

    conversations: set[Any]

    def __init__(self) -> None:
        self.conversations = set()

    def make_room(self) -> None:
        pass

    def at_once(self, asked: Any) -> bytes | None:
        return self._said(asked) if asked.url.endswith(b"known") else None

    async def respond(self, asked: Any) -> bytes:
        await asyncio.sleep(0)
        return self._said(asked)

    def _said(self, asked: Any) -> bytes:
        return repr((asked.method, asked.url, bytes(asked.body), asked.if_none_match)).encode() + b"\r\n"


class _Line(asyncio.Transport):
    """What is written to it is kept; it is never full."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


_TAGS = st.lists(st.sampled_from(['"a"', '"b", W/"c"', "*"]), max_size=2)
_REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([b"GET", b"HEAD", b"POST"]), st.sampled_from([b"/crl/x.crl", b"/ocsp/ca/MEIw//+=", b"/known"]),
        st.binary(max_size=200), st.sampled_from(["length", "chunks"]), _TAGS, st.booleans(), st.booleans(),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@given(requests=_REQUESTS, cuts=st.lists(st.integers(0, 3000), max_size=12))
def test_however_the_stream_is_cut_each_request_is_understood_and_answered_in_turn(
    requests: list[tuple[bytes, bytes, bytes, str, list[str], bool, bool]], cuts: list[int]
) -> None:
    stream, expected = b"", []
    for method, url, given_body, way, tags, offers, waits in requests:
        body = given_body if method == b"POST" else b""
        lines = [b"%s %s HTTP/1.1" % (method, url), *(f"If-None-Match: {tag}".encode() for tag in tags)]
        lines += [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"] if offers else []
        lines += [b"Expect: 100-continue"] if waits and body else []
        if way == "chunks" and body:
            lines.append(b"Transfer-Encoding: chunked")
            coded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
            coded += b"0\r\n\r\n"
        else:
            lines.append(b"Content-Length: %d" % len(body))
            coded = body
        stream += b"\r\n".join(lines) + b"\r\n\r\n" + coded
        expected.append(repr((method, url, body, ", ".join(tags) or None)).encode() + b"\r\n")

    async def go() -> list[bytes]:
        line = _Line()
        talk = status_listener._Conversation(_Echo())  # type: ignore[arg-type]  # as much of one as it takes
        talk.connection_made(line)
        places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        for begin, end in pairwise(places):
            talk.data_received(stream[begin:end])
            await asyncio.sleep(0)
        while talk._answering is not None:
            await talk._answering
        return [one for one in line.written if one != b"HTTP/1.1 100 Continue\r\n\r\n"]

    assert asyncio.run(go()) == expected


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
    "another protocol": (b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\n\r\n", 400),
    "endless headers": (b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"x" * 20_000, 413),
    "an endless body": (b"POST /ocsp/ca_1 HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"0" * 20_000, 413),
    "the older protocol": (b"GET /crl/nothing.crl HTTP/1.0\r\n\r\n", 404),
}


def test_who_speaks_otherwise_is_told_so_and_hung_up_on(world: World, listener: StatusListener) -> None:
    async def go(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        try:
            writer.write(sent)
            return await asyncio.wait_for(reader.read(), 60)
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
            gone = await asyncio.wait_for(talks[0][0].read(), 60)
            talks[3][1].write(b"GET /crl/nothing.crl HTTP/1.1\r\n\r\n")
            return [gone, await asyncio.wait_for(talks[3][0].readline(), 60)]
        except ConnectionResetError:
            return [b"", await asyncio.wait_for(talks[3][0].readline(), 60)]
        finally:
            for _, writer in talks:
                writer.close()

    assert world.run(go()) == [b"", b"HTTP/1.1 404 Not Found\r\n"]


async def _read_slowly(listener: StatusListener, path: str, passing: Callable[[], None], *, all_of: int) -> int:
    """Octets that came; whenever some of them leave the server, time goes on."""
    loop = asyncio.get_running_loop()
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        line.setblocking(False)
        await loop.sock_connect(line, ("127.0.0.1", listener.port))
        await loop.sock_sendall(line, f"GET {path} HTTP/1.1\r\n\r\n".encode())
        got = len(await loop.sock_recv(line, 4096))
        (talk,) = listener.conversations
        while got < all_of and talk._transport is not None:
            before = talk._transport.get_write_buffer_size()
            while got < all_of and talk._transport is not None and talk._transport.get_write_buffer_size() == before:
                more = len(await loop.sock_recv(line, 1_000_000))
                if not more:
                    return got
                got += more
            passing()
    return got


def test_who_reads_slowly_gets_the_whole_list_and_who_reads_nothing_is_ended(
    world: World, listener: StatusListener, low: authorities.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drain()
    size = 12_000_000
    world.run(_replace_list(world, low.id, b"0" * size))
    clock = SimpleNamespace(monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr(status_listener, "time", clock)

    def passing() -> None:
        now = clock.monotonic()
        clock.monotonic = lambda: now + 20
        listener.end_silent()

    assert world.run(_read_slowly(listener, f"/crl/{low.id}.crl", passing, all_of=size)) >= size

    def passing_without_reading() -> None:
        passing()
        passing()
        passing()

    assert world.run(_read_slowly(listener, f"/crl/{low.id}.crl", passing_without_reading, all_of=size)) < size


async def _replace_list(world: World, authority_id: str, der: bytes) -> None:
    async with world.services.db.begin() as tx:
        await tx.execute(sa.update(crls).where(crls.c.authority_id == authority_id).values(der=der))


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
