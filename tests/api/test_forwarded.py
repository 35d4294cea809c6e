"""Behind a reverse proxy: whose word about the client is believed, and whose never is."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.entry.app import create_app
from certwright.entry.forwarded import Forwarded
from certwright.kernel.problems import InvalidFields
from certwright.platform.addresses import address_behind
from certwright.platform.config import Settings, load_settings
from certwright.rooms.accounts.rules import PAIR_LIMIT
from tests.conftest import World

PROXY, OTHER_PROXY = "192.0.2.7", "10.0.0.2"
CLIENT, ANOTHER = "198.51.100.1", "198.51.100.2"
TRUSTED = tuple(ipaddress.ip_network(n) for n in ("192.0.2.7/32", "10.0.0.0/24", "2001:db8:1::/64"))


@pytest.mark.parametrize(
    ("peer", "lines", "expected"),
    [
        pytest.param(PROXY, [CLIENT], CLIENT, id="the proxy tells its client"),
        pytest.param(PROXY, [], PROXY, id="a proxy that says nothing is the client"),
        pytest.param(CLIENT, [ANOTHER], CLIENT, id="a client is not believed"),
        pytest.param(PROXY, [f"{ANOTHER}, {CLIENT}"], CLIENT, id="what the client claimed stands left and is nothing"),
        pytest.param(PROXY, [ANOTHER, CLIENT], CLIENT, id="several lines are one list"),
        pytest.param(PROXY, [f"{ANOTHER}, {CLIENT}, {OTHER_PROXY}"], CLIENT, id="two proxies in a row"),
        pytest.param(PROXY, [f"{ANOTHER}, {OTHER_PROXY}, {CLIENT}"], CLIENT, id="a trusted address in the claim"),
        pytest.param(PROXY, [f"{OTHER_PROXY}, 10.0.0.3"], OTHER_PROXY, id="only proxies: the one farthest away"),
        pytest.param(PROXY, ["unknown"], PROXY, id="unknown (RFC 7239 6.2)"),
        pytest.param(PROXY, [f"{CLIENT}, garbage, {OTHER_PROXY}"], OTHER_PROXY, id="garbage ends the walk"),
        pytest.param(PROXY, [f"{CLIENT},"], PROXY, id="an empty last word"),
        pytest.param(PROXY, [f"{CLIENT}:4711"], CLIENT, id="a port behind"),
        pytest.param(PROXY, ["[2001:db8:2::5]:4711"], "2001:db8:2::5", id="IPv6 with a port"),
        pytest.param(PROXY, ["2001:DB8:2::5"], "2001:db8:2::5", id="IPv6 in its one spelling"),
        pytest.param(PROXY, [f"::ffff:{CLIENT}"], CLIENT, id="an IPv4 address in IPv6 clothes"),
        pytest.param(f"::ffff:{PROXY}", [CLIENT], CLIENT, id="a proxy seen by an IPv6 socket"),
        pytest.param("2001:db8:1::1", [CLIENT], CLIENT, id="a proxy with IPv6"),
        pytest.param(PROXY, ["fe80::1%eth0"], PROXY, id="an address of one link only"),
        pytest.param(PROXY, [", ".join([CLIENT] + [OTHER_PROXY] * 1000)], OTHER_PROXY, id="a thousand hops"),
    ],
)  # fmt: skip
def test_the_client_is_the_first_address_no_trusted_proxy_vouches_for(
    peer: str, lines: list[str], expected: str
) -> None:
    assert address_behind(peer, lines, TRUSTED) == expected


@given(st.lists(st.text(max_size=60), max_size=4))
def test_no_header_changes_anything_for_an_untrusted_peer_or_raises_for_a_trusted_one(lines: list[str]) -> None:
    assert address_behind(CLIENT, lines, TRUSTED) == CLIENT
    ipaddress.ip_address(address_behind(PROXY, lines, TRUSTED))


def seen(peer: str, *headers: tuple[str, str]) -> tuple[str, str]:
    """Client and scheme as the application behind the middleware sees them."""
    found: list[tuple[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append((scope["client"][0], scope["scheme"]))

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "client": (peer, 4711), "scheme": "https", "headers": raw}
    asyncio.run(Forwarded(app, trusted=TRUSTED)(scope, None, None))  # type: ignore[arg-type]  # nothing is received
    return found[0]


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        (PROXY, [("x-forwarded-for", CLIENT), ("x-forwarded-proto", "http")], (CLIENT, "http")),
        (PROXY, [("x-forwarded-for", CLIENT)], (CLIENT, "https")),
        (PROXY, [("x-forwarded-proto", "https, http")], (PROXY, "http")),
        (PROXY, [("x-forwarded-proto", "https"), ("x-forwarded-proto", "HTTP")], (PROXY, "http")),
        (PROXY, [("x-forwarded-proto", "javascript")], (PROXY, "https")),
        (CLIENT, [("x-forwarded-for", ANOTHER), ("x-forwarded-proto", "http")], (CLIENT, "https")),
    ],
    ids=["told", "no scheme", "the nearest proxy's word", "two lines", "no such scheme", "an untrusted peer"],
)
def test_address_and_scheme_reach_the_application(
    peer: str, headers: list[tuple[str, str]], expected: tuple[str, str]
) -> None:
    assert seen(peer, *headers) == expected


def test_trusting_everybody_is_refused() -> None:
    for networks in ("0.0.0.0/0", "10.0.0.0/8,::/0"):
        with pytest.raises(InvalidFields) as caught:
            load_settings({"CERTWRIGHT_TRUSTED_PROXIES": networks, "CERTWRIGHT_DATA_DIR": "/nowhere"})
        assert caught.value.problems[0].field == "CERTWRIGHT_TRUSTED_PROXIES"


# --- the whole application -------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path, worker_database: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        trusted_proxies=("192.0.2.7/32",),
    )  # fmt: skip


def guess(world: World, peer: str, forwarded_for: str, **headers: str) -> int:
    """The status of a wrong sign-in."""

    async def send() -> int:
        transport = httpx2.ASGITransport(create_app(world.services), client=(peer, 50000))
        async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as client:
            wrong = {"email": "ann@one.example", "password": "not that one at all"}
            answer = await client.post(
                "/api/v1/sign-in", json=wrong, headers={"x-forwarded-for": forwarded_for} | headers
            )
            return answer.status_code

    return world.run(send())


def test_behind_a_trusted_proxy_one_guesser_is_slowed_and_the_others_are_not(world: World) -> None:
    for _ in range(PAIR_LIMIT.free):
        assert guess(world, PROXY, CLIENT) == 401
    assert guess(world, PROXY, CLIENT) == 429
    assert guess(world, PROXY, ANOTHER) == 401


def test_a_guesser_that_makes_up_addresses_is_slowed_all_the_same(world: World) -> None:
    for number in range(PAIR_LIMIT.free):
        assert guess(world, CLIENT, f"198.51.100.{100 + number}") == 401
    assert guess(world, CLIENT, "198.51.100.99") == 429


def test_the_scheme_a_trusted_proxy_tells_is_the_one_an_origin_is_compared_with(world: World) -> None:
    async def send(peer: str, origin: str, scheme: str) -> int:
        transport = httpx2.ASGITransport(create_app(world.services), client=(peer, 50000))
        async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as client:
            answer = await client.post(
                "/preferences", data={"theme": "dark"}, headers={"origin": origin, "x-forwarded-proto": scheme}
            )
            return answer.status_code

    assert world.run(send(PROXY, "https://cw.example", "https")) == 303
    assert world.run(send(PROXY, "https://cw.example", "http")) == 403
    assert world.run(send(PROXY, "http://cw.example", "http")) == 303
    assert world.run(send(CLIENT, "http://cw.example", "http")) == 403
