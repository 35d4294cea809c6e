"""The guarded client: what it refuses to reach, and how it survives servers that mean harm."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.platform.addresses import AddressGuard, special_class
from certwright.platform.db import _open_transactions
from certwright.platform.egress import Egress, EgressProblem, Fetched
from certwright.platform.resolver import Outcome, Resolver, is_localhost
from tests.servers.hostile_dns import HostileDns, hostile_dns, reply
from tests.servers.hostile_http import HostileHttp, answer, endless, hostile_http, raw, silent
from tests.servers.ports import free_port

LOOPBACK = AddressGuard.of(["127.0.0.0/8", "::1/128"])

FORBIDDEN = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("10.0.0.1", "private"),
    ("100.64.0.1", "carrier-grade NAT"),
    ("100.127.255.255", "carrier-grade NAT"),
    ("100.100.100.200", "metadata"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("168.63.129.16", "metadata"),
    ("169.254.1.1", "link-local"),
    ("169.254.169.254", "metadata"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.8", "protocol assignment"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4 relay"),
    ("192.168.1.1", "private"),
    ("198.18.0.1", "benchmarking"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::127.0.0.1", "IPv4-compatible"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:169.254.169.254", "metadata"),
    ("64:ff9b::10.0.0.1", "private"),
    ("64:ff9b::7f00:1", "loopback"),
    ("64:ff9b:1::1", "local-use NAT64"),
    ("100::1", "discard"),
    ("2001::1", "Teredo"),
    ("2001:2::1", "benchmarking"),
    ("2001:20::1", "ORCHID"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "loopback"),
    ("2002:a00:1::1", "private"),
    ("2002:a9fe:a9fe::", "metadata"),
    ("3fff::1", "documentation"),
    ("5f00::1", "segment routing"),
    ("4000::1", "reserved"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "metadata"),
    ("fe80::1", "link-local"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def fetch(egress: Egress, url: str, **options: Any) -> Fetched:
    fetched = run(egress.fetch(url, **options))
    assert isinstance(fetched, Fetched)
    return fetched


def refused(egress: Egress, url: str, **options: Any) -> EgressProblem:
    with pytest.raises(EgressProblem) as caught:
        run(egress.fetch(url, **options))
    return caught.value


def open_egress(server: HostileDns | None = None, guard: AddressGuard = LOOPBACK) -> Egress:
    return Egress(Resolver([server.endpoint] if server else ["127.0.0.1:9"], guard=guard), guard)


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "kind"), FORBIDDEN, ids=[a for a, _ in FORBIDDEN])
def test_addresses_that_are_not_public_are_refused_by_class(address: str, kind: str) -> None:
    assert AddressGuard().refusal(ipaddress.ip_address(address)) == kind
    host = f"[{address}]" if ":" in address else address
    problem = refused(open_egress(guard=AddressGuard()), f"http://{host}/")
    assert problem.code == "egress_denied"
    assert problem.extra["address_class"] == kind
    assert address in problem.message or str(ipaddress.ip_address(address)) in problem.message


PUBLIC = [
    "8.8.8.8", "1.1.1.1", "193.0.6.139", "100.63.255.255", "100.128.0.0", "172.32.0.1",
    "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808", "::ffff:8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert AddressGuard().refusal(ipaddress.ip_address(address)) is None


@given(st.ip_addresses(v=4))
def test_no_ipv6_wrapping_changes_what_an_ipv4_address_is(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for wrapped in (
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number),
    ):
        assert special_class(wrapped) == special_class(address)


@given(st.ip_addresses())
def test_whatever_python_calls_not_global_is_refused_too(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    # Those in which an IPv4 address lies are what that is, whatever this release of Python calls the whole.
    wraps = isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour)
    if not address.is_global and not wraps:
        assert special_class(address) is not None


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "192.168.0.1", False),
        (["169.254.0.0/16"], "169.254.7.7", True),
        (["169.254.0.0/16"], "169.254.169.254", False),
        (["0.0.0.0/0"], "169.254.169.254", False),
        (["169.254.169.254/32"], "169.254.169.254", True),
        (["fd00::/8"], "fd00:ec2::254", False),
        (["fd00::/8"], "fd00::1", True),
        (["::/0"], "fe80::1%eth0", False),
    ],
)  # fmt: skip
def test_the_operator_opens_networks_but_metadata_only_by_its_exact_address(
    networks: list[str], address: str, allowed: bool
) -> None:
    assert (AddressGuard.of(networks).refusal(ipaddress.ip_address(address)) is None) is allowed


# --- names -------------------------------------------------------------------------------------------------------


def addresses_in_turn(*turns: str) -> Any:
    """Answers A with one address per question, the last one for ever; AAAA has none."""
    left = list(turns)

    def say(query: dns.message.Message) -> dns.message.Message:
        name = query.question[0].name
        if query.question[0].rdtype != dns.rdatatype.A:
            return reply(query, authority=[f"{name} 5 IN SOA ns. host. 1 2 3 4 5"])
        return reply(query, f"{name} 0 IN A {left.pop(0) if len(left) > 1 else left[0]}")

    return say


def test_a_name_is_resolved_once_and_a_second_answer_is_never_used() -> None:
    with (
        hostile_http({"/": answer(200, b"first")}) as good,
        hostile_http({"/": answer(200, b"inside")}, address="127.0.0.9", port=good.port),
        hostile_dns(addresses_in_turn("127.0.0.1", "127.0.0.9")) as rebinding,
    ):
        guard = AddressGuard.of(["127.0.0.1/32"])
        egress = open_egress(rebinding, guard)
        fetched = fetch(egress, good.url(host="rebind.test"), allowed_ports={good.port})
        assert (fetched.body, fetched.address) == (b"first", "127.0.0.1")
        assert rebinding.asked.count("rebind.test. A") == 1
        problem = refused(egress, good.url(host="rebind.test"), allowed_ports={good.port})
        assert (problem.code, problem.extra["address"]) == ("egress_denied", "127.0.0.9")


def test_a_redirect_to_a_name_that_now_points_inside_is_refused() -> None:
    routes = {"/": answer(302, Location="/again"), "/again": answer(200, b"secret")}
    with hostile_http(routes) as site, hostile_dns(addresses_in_turn("127.0.0.1", "10.0.0.1")) as rebinding:
        egress = open_egress(rebinding, AddressGuard.of(["127.0.0.1/32"]))
        problem = refused(egress, site.url(host="rebind.test"), allowed_ports={site.port}, max_redirects=3)
        assert problem.code == "egress_denied"
        assert problem.extra == {"host": "rebind.test", "address": "10.0.0.1", "address_class": "private"}
        assert len(site.requests) == 1


def test_of_mixed_answers_only_the_permitted_address_is_used() -> None:
    def mixed(query: dns.message.Message) -> dns.message.Message:
        if query.question[0].rdtype != dns.rdatatype.A:
            return reply(query, "mixed.test. 5 IN AAAA ::1")
        return reply(query, "mixed.test. 5 IN A 10.0.0.1", "mixed.test. 5 IN A 127.0.0.1")

    with hostile_dns(mixed) as server:
        found = run(open_egress(server, AddressGuard.of(["127.0.0.0/8"])).resolve("mixed.test"))
        assert [str(address) for address in found] == ["127.0.0.1"]


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "a.localhost", "x.y.localhost."])
def test_localhost_names_are_loopback_and_nobody_is_asked(name: str) -> None:
    assert is_localhost(name)
    with hostile_dns(lambda query: reply(query, "evil. 5 IN A 8.8.8.8")) as server:
        addresses, why = run(Resolver([server.endpoint]).addresses(name))
        assert [str(address) for address in addresses] == ["127.0.0.1", "::1"]
        assert why is None
        assert server.asked == []
        assert refused(open_egress(server, AddressGuard()), f"http://{name}/").extra["address_class"] == "loopback"


@pytest.mark.parametrize(
    ("say", "outcome"),
    [
        (lambda q: reply(q, rcode=3, authority=["test. 5 IN SOA a. b. 1 2 3 4 5"]), Outcome.NO_SUCH_NAME),
        (lambda q: reply(q, authority=["test. 5 IN SOA a. b. 1 2 3 4 5"]), Outcome.NO_SUCH_TYPE),
        (lambda q: reply(q, "x.test. 5 IN CNAME y.test."), Outcome.ALIAS),
        (lambda q: reply(q, "x.test. 5 IN CNAME x.test."), Outcome.ALIAS),
        (lambda q: reply(q, rcode=2), Outcome.SERVER_FAILURE),
        (lambda q: reply(q, rcode=5), Outcome.REFUSED),
        (lambda q: None, Outcome.TIMEOUT),
        (lambda q: b"\x00\x01garbage", Outcome.TIMEOUT),
    ],
    ids=["nxdomain", "nodata", "dangling-cname", "cname-loop", "servfail", "refused", "silent", "garbage"],
)
def test_every_way_a_name_may_not_resolve_is_told_apart(say: Any, outcome: Outcome) -> None:
    with hostile_dns(say) as server:
        # Who is answered has time for it, however busy the machine is.
        egress = Egress(Resolver([server.endpoint], timeout=0.4 if outcome is Outcome.TIMEOUT else 60))
        problem = refused(egress, "http://x.test/")
        assert (problem.code, problem.extra["outcome"]) == ("egress_dns", str(outcome))
        assert problem.message.startswith("x.test ")


def test_a_truncated_answer_is_fetched_again_over_tcp() -> None:
    seen: list[int] = []

    def say(query: dns.message.Message) -> dns.message.Message:
        response = reply(query, f"{query.question[0].name} 5 IN TXT hello")
        seen.append(1)
        if len(seen) == 1:
            response.flags |= dns.flags.TC
            response.answer.clear()
        return response

    with hostile_dns(say) as server:
        look = run(Resolver([server.endpoint]).lookup("big.test", "TXT"))
        assert (look.values, len(seen)) == (("hello",), 2)


def test_the_next_resolver_is_asked_when_the_first_fails() -> None:
    with (
        hostile_dns(lambda q: reply(q, rcode=2)) as broken,
        hostile_dns(lambda q: reply(q, f"{q.question[0].name} 5 IN TXT fine")) as sound,
    ):
        look = run(Resolver([broken.endpoint, sound.endpoint]).lookup("a.test", "TXT"))
        assert (look.values, look.server) == (("fine",), f"127.0.0.1 port {sound.port}")


# --- URLs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://example.com/", "egress_bad_url"),
        ("file:///etc/passwd", "egress_bad_url"),
        ("http:///path", "egress_bad_url"),
        ("http://user:secret@example.com/", "egress_bad_url"),
        ("http://exa mple.com/", "egress_bad_url"),
        ("http://example.com/\r\nX: y", "egress_bad_url"),
        ("http://example.com\\@127.0.0.1/", "egress_bad_url"),
        ("http://[fe80::1%25eth0]/", "egress_bad_url"),
        ("http://example.com:99999/", "egress_bad_url"),
        ("http://example.com:22/", "egress_denied"),
        ("http://exam<ple.com/", "egress_bad_url"),
        ("http://" + "a" * 3000, "egress_bad_url"),
    ],
)
def test_addresses_that_are_not_plain_web_addresses_are_refused(url: str, code: str) -> None:
    problem = refused(open_egress(), url)
    assert problem.code == code
    assert "secret" not in problem.message


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "017700000001"])
def test_odd_spellings_of_loopback_are_names_that_do_not_exist(host: str) -> None:
    with hostile_dns(lambda q: reply(q, rcode=3, authority=[". 5 IN SOA a. b. 1 2 3 4 5"])) as server:
        assert refused(open_egress(server), f"http://{host}/").code == "egress_dns"


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda text: "http://" + text))
def test_no_text_as_url_gives_anything_but_a_problem(text: str) -> None:
    problem = refused(Egress(Resolver(["127.0.0.1:9"], timeout=0.2)), text)
    assert problem.code in ("egress_bad_url", "egress_denied", "egress_dns")


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Iterator[HostileHttp]:
    bomb = gzip.compress(b"0" * 10_000_000)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    routes = {
        "/ok": answer(200, b"hello"),
        "/until-close": raw(b"HTTP/1.1 200 OK\r\n\r\nuntil close"),
        "/chunked": raw(chunked + b"5\r\nhello\r\n0\r\n\r\n"),
        "/interim": raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        "/bomb": answer(200, bomb, Content_Encoding="gzip"),
        "/silent": silent(),
        "/drops": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05),
        "/endless": endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096),
        "/endless-chunks": endless(chunked, b"1\r\nx\r\n"),
        "/endless-head": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"b" * 100 + b"\r\n"),
        "/endless-interim": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "/lies": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
        "/not-http": raw(b"220 mail.example.com ESMTP\r\n"),
        "/nothing": raw(b""),
        "/relative": answer(307, Location="/ok"),
        "/303": answer(303, Location="/ok"),
        "/no-location": answer(302),
        "/loop": answer(301, Location="/loop"),
        "/to-ssh": answer(302, Location="http://127.0.0.1:22/"),
        "/to-file": answer(302, Location="file:///etc/passwd"),
        "/to-metadata": answer(302, Location="http://169.254.169.254/latest/"),
        "/to-user": answer(302, Location="http://u:p@127.0.0.1/"),
        "/to-nonsense": answer(302, Location="http://[/"),
    }
    with hostile_http(routes) as server:
        yield server


def get(site: HostileHttp, path: str, **options: Any) -> Fetched:
    return fetch(open_egress(), site.url(path), allowed_ports={site.port}, **options)


def fails(site: HostileHttp, path: str, **options: Any) -> EgressProblem:
    return refused(open_egress(), site.url(path), allowed_ports={site.port}, **options)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/ok", b"hello"), ("/until-close", b"until close"), ("/chunked", b"hello"), ("/interim", b"hi")],
)
def test_every_framing_of_an_answer_is_read(site: HostileHttp, path: str, body: bytes) -> None:
    fetched = get(site, path)
    assert (fetched.status, fetched.body, fetched.address) == (200, body, "127.0.0.1")


def test_a_request_carries_no_credentials_and_asks_for_no_compression(site: HostileHttp, monkeypatch: Any) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    get(site, "/ok")
    head = site.requests[-1].lower()
    assert "accept-encoding: identity" in head
    assert "cookie" not in head
    assert "authorization" not in head
    assert f"host: 127.0.0.1:{site.port}" in head


def test_a_compressed_answer_is_never_unpacked(site: HostileHttp) -> None:
    fetched = get(site, "/bomb", max_bytes=64 * 1024)
    assert gzip.decompress(fetched.body).startswith(b"000")
    assert len(fetched.body) < 64 * 1024


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/silent", "egress_timeout"),
        ("/drops", "egress_timeout"),
        ("/endless", "egress_too_large"),
        ("/endless-chunks", "egress_too_large"),
        ("/endless-head", "egress_protocol"),
        ("/endless-interim", "egress_too_large"),
        ("/lies", "egress_protocol"),
        ("/not-http", "egress_protocol"),
        ("/nothing", "egress_protocol"),
    ],
)
def test_misbehaving_servers_end_in_a_problem_that_names_the_host(site: HostileHttp, path: str, code: str) -> None:
    problem = fails(site, path, timeout=0.6 if code == "egress_timeout" else 10, max_bytes=2000)
    assert problem.code == code
    assert "127.0.0.1" in problem.message
    assert problem.fix


def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(site: HostileHttp) -> None:
    assert get(site, "/ok", max_bytes=5).body == b"hello"
    assert fails(site, "/ok", max_bytes=4).code == "egress_too_large"


def test_redirects_are_followed_only_when_asked_for(site: HostileHttp) -> None:
    assert get(site, "/relative").status == 307
    followed = get(site, "/relative", max_redirects=1)
    assert (followed.status, followed.body, followed.redirects) == (200, b"hello", (site.url("/ok"),))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/303", "egress_bad_redirect"),
        ("/loop", "egress_bad_redirect"),
        ("/to-ssh", "egress_bad_redirect"),
        ("/to-file", "egress_bad_redirect"),
        ("/to-user", "egress_bad_redirect"),
        ("/to-nonsense", "egress_bad_redirect"),
        ("/to-metadata", "egress_denied"),
    ],
)
def test_redirects_outside_the_rules_are_refused_at_their_hop(site: HostileHttp, path: str, code: str) -> None:
    options: dict[str, Any] = {"allowed_ports": {site.port, 80}, "max_redirects": 5}
    assert refused(open_egress(), site.url(path), **options).code == code


@pytest.mark.parametrize(("address", "kind"), FORBIDDEN, ids=[a for a, _ in FORBIDDEN])
def test_a_redirect_to_a_forbidden_address_is_refused(address: str, kind: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with hostile_http({"/": answer(301, Location=f"http://{host}/")}, address="127.0.0.7") as server:
        egress = open_egress(guard=AddressGuard.of(["127.0.0.7/32"]))
        problem = refused(egress, server.url("/"), allowed_ports={server.port, 80}, max_redirects=2)
        assert (problem.code, problem.extra["address_class"]) == ("egress_denied", kind)


def test_a_redirect_without_location_is_the_answer(site: HostileHttp) -> None:
    assert get(site, "/no-location", max_redirects=3).status == 302


def test_nobody_listening_is_told_as_refused() -> None:
    port = free_port("127.0.0.1")
    problem = refused(open_egress(), f"http://127.0.0.1:{port}/", allowed_ports={port})
    assert problem.code == "egress_refused"
    assert problem.extra["port"] == port


def test_the_time_limit_covers_all_redirects_together() -> None:
    async def slowly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.25)
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")

    with hostile_http({"/": slowly}) as server:
        problem = refused(
            open_egress(), server.url(), allowed_ports={server.port}, max_redirects=1000, timeout=0.9
        )  # fmt: skip
        assert problem.code == "egress_timeout"
        assert len(server.requests) <= 4


def test_post_sends_the_body_and_is_not_redirected() -> None:
    with hostile_http({"/": answer(307, Location="/elsewhere")}) as server:
        fetched = fetch(open_egress(), server.url(), method="POST", content=b"{}", max_redirects=5,
                        headers={"Content-Type": "application/json"}, allowed_ports={server.port})  # fmt: skip
        assert (fetched.status, len(server.requests)) == (307, 1)
        assert "content-length: 2" in server.requests[0].lower()


def test_tls_to_a_server_that_speaks_plain_text_is_a_tls_problem(site: HostileHttp) -> None:
    problem = refused(open_egress(), f"https://127.0.0.1:{site.port}/ok", allowed_ports={site.port}, timeout=3)
    assert problem.code in ("egress_tls", "egress_timeout")


def test_connect_gives_the_pinned_address(site: HostileHttp) -> None:
    async def talk() -> tuple[str, bytes]:
        connection = await open_egress().connect("127.0.0.1", site.port)
        connection.writer.write(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
        data = await connection.reader.read(15)
        await connection.close()
        return connection.address, data

    assert run(talk()) == ("127.0.0.1", b"HTTP/1.1 200 Sa")


def test_an_outside_call_with_an_open_transaction_is_a_mistake_in_our_code(site: HostileHttp) -> None:
    token = _open_transactions.set(1)
    try:
        for call in (open_egress().fetch(site.url("/ok")), open_egress().resolve("127.0.0.1")):
            with pytest.raises(RuntimeError, match="transaction is open"):
                run(call)
    finally:
        _open_transactions.reset(token)
