"""The room's door over HTTP: shapes, codes, revisions, and that no secret ever comes back."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from certwright.connectors.dns.rfc2136 import Rfc2136Provider
from certwright.entry.api import validation as door
from certwright.entry.api.base import add_routes, install_problem_handlers
from certwright.kernel.actor import Actor
from certwright.rooms import access
from certwright.rooms.validation import DnsProviders
from tests.conftest import World
from tests.servers.dns import TsigKey
from tests.servers.ports import free_port

KEY = TsigKey("door.key")


class Door:
    """The room's routes on an application of their own, called as `actor`."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._world = world
        self.actor: Actor = world.actor

        async def authenticate(services: Any, token: str) -> Actor:
            return self.actor

        monkeypatch.setattr(access, "authenticate_token", authenticate)
        app = FastAPI()
        app.state.services = world.services
        install_problem_handlers(app)
        add_routes(app, door.router, "/api/v1")
        self._transport = httpx2.ASGITransport(app=app)

    def __call__(self, method: str, path: str, **options: Any) -> httpx2.Response:
        async def go() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=self._transport, base_url="https://cw.example") as client:
                headers = {"Authorization": "Bearer x"} | options.pop("headers", {})
                return await client.request(method, f"/api/v1{path}", headers=headers, **options)

        return self._world.run(go())


@pytest.fixture
def call(world: World, monkeypatch: pytest.MonkeyPatch) -> Door:
    world.services.ports[DnsProviders] = DnsProviders({"rfc2136": Rfc2136Provider()})  # type: ignore[index]
    return Door(world, monkeypatch)


def body(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Primary", "kind": "rfc2136", "zones": ["door.test"], "secret": KEY.secret,
        "settings": {"server": "127.0.0.1", "port": free_port("127.0.0.1"), "key_name": KEY.name},
    } | changes  # fmt: skip


def test_a_connection_lives_through_its_routes(call: Door) -> None:
    made = call("POST", "/dns-connections", json=body())
    assert made.status_code == 201
    path = made.headers["Location"].removeprefix("/api/v1")
    assert made.headers["ETag"] == '"1"'
    tested = call("POST", f"{path}/test").json()
    assert tested["problem"]["code"] == "dns_update_unreachable"
    missing = call("PATCH", path, json={"name": "New"})
    assert (missing.status_code, missing.json()["code"]) == (428, "if_match_needed")
    changed = call("PATCH", path, json={"name": "New", "secret": TsigKey("y").secret}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["name"], changed.headers["ETag"]) == (200, "New", '"2"')
    stale = call("PATCH", path, json={"name": "Late"}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "changed_meanwhile")
    for answer in (made, changed, call("GET", path), call("GET", "/dns-connections")):
        assert KEY.secret not in answer.text
        assert "secret" not in answer.json()
    assert call("DELETE", path).status_code == 204
    assert call("GET", path).status_code == 404


def test_lists_are_paged_by_cursor(call: Door, world: World) -> None:
    for number in range(3):
        world.later(seconds=1)
        assert call("POST", "/dns-connections", json=body(name=f"c{number}")).status_code == 201
    first = call("GET", "/dns-connections?limit=2").json()
    assert [c["name"] for c in first["items"]] == ["c2", "c1"]
    rest = call("GET", f"/dns-connections?limit=2&cursor={first['next_cursor']}").json()
    assert ([c["name"] for c in rest["items"]], rest["next_cursor"]) == (["c0"], None)
    assert call("GET", "/dns-connections?cursor=nonsense").json()["code"] == "cursor_invalid"
    assert call("GET", "/evidence").json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"settings": {}}, "invalid_fields", None),
        ({"zones": []}, "dns_zones_count", "zones"),
        ({"secret": "short"}, "tsig_secret_invalid", "secret"),
        ({"colour": "red"}, "field_unknown", "colour"),
    ],
)
def test_mistakes_are_said_of_their_field(call: Door, change: dict[str, Any], code: str, field: str | None) -> None:
    answer = call("POST", "/dns-connections", json=body(**change))
    assert (answer.status_code, answer.json()["code"], answer.json().get("field")) == (422, code, field)


def test_each_route_asks_for_its_action(call: Door, world: World) -> None:
    call.actor = world.actor_with("scm:cert:list")
    for method, path in [
        ("GET", "/dns-connections"), ("POST", "/dns-connections"), ("GET", "/dns-connections/dns_x"),
        ("PATCH", "/dns-connections/dns_x"), ("DELETE", "/dns-connections/dns_x"),
        ("POST", "/dns-connections/dns_x/test"), ("POST", "/tools/check-dns"), ("POST", "/tools/check-file"),
        ("POST", "/tools/check-caa"), ("GET", "/tools/validation-methods?name=a.test"), ("GET", "/evidence"),
    ]:  # fmt: skip
        answer = call(method, path)
        assert (path, answer.status_code, answer.json()["code"]) == (path, 403, "not_permitted")


def test_the_tool_explains_over_http(call: Door) -> None:
    file = call("POST", "/tools/check-file", json={"host": "10.0.0.1", "file_name": "a.txt", "content": "x"}).json()
    assert (file["ok"], file["code"]) == (False, "file_network_denied")
    assert file["fix"]
    wrong = call("POST", "/tools/check-file", json={"host": "*.a.test", "file_name": "a.txt", "content": "x"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "method_not_for_wildcard")
    path = call("POST", "/tools/check-file", json={"host": "a.test", "file_name": "../etc", "content": "x"})
    assert path.json()["code"] == "check_file_name_invalid"


def test_the_methods_on_offer_say_why_not(call: Door) -> None:
    offers = {o["method"]: o for o in call("GET", "/tools/validation-methods?name=*.a.test").json()["items"]}
    assert offers["dns"]["allowed"] is True
    assert (offers["file"]["allowed"], offers["file"]["code"]) == (False, "method_not_for_wildcard")
    public = call("GET", "/tools/validation-methods?name=a.example.com&ca_kind=public").json()["items"]
    assert {o["method"]: o["ends"] for o in public}["email"] == "2028-03-15"


def test_operators_are_offered_with_their_fields_to_whoever_may_list_connections(call: Door, world: World) -> None:
    (own,) = call("GET", "/dns-operators").json()["items"]
    assert own["key"] == own["kind"] == "rfc2136"
    fields = {field["name"]: field for field in own["fields"]}
    assert fields["secret"] == {"name": "secret", "secret": True, "required": True, "choices": [], "default": ""}
    assert fields["algorithm"]["choices"] == ["hmac-sha256", "hmac-sha384", "hmac-sha512"]
    call.actor = world.actor_with("scm:cert:list")
    assert call("GET", "/dns-operators").status_code == 403
