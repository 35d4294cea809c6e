"""The doors for people who lead ACME services: the API, what it tells, and who may do what with which of them."""

from __future__ import annotations

from typing import Any

import pytest

from certwright.entry.acme_clients import Asked, recipes
from certwright.rooms import acme_server, authorities
from certwright.rooms.access import people
from tests.acme_server.support import Client, Outside, builtin_ca, problem

PLACE = "/api/v1/acme-directories"


@pytest.fixture
def service(api: Any) -> dict[str, Any]:
    made = api.post(PLACE, {"name": "Shop servers", "authority_id": builtin_ca(api.world), "eab_required": False})
    assert made.status_code == 201, made.text
    return dict(made.json())


def test_a_service_is_opened_changed_by_revision_disabled_and_closed(api: Any) -> None:
    ca = builtin_ca(api.world)
    asked = {
        "name": "Shop servers", "authority_id": ca, "allowed_names": [".Shop.example", "10.0.0.7/32"], "days": 30,
        "challenges": ["dns-01"], "terms_url": "https://intranet.example/terms",
    }  # fmt: skip
    made = api.post(PLACE, asked)
    document = made.json()
    place = made.headers["location"]
    assert made.status_code == 201
    assert (document["slug"], document["url"]) == ("shop-servers", "https://cw.example/acme/shop-servers/directory")
    assert (document["allowed_names"], document["eab_required"]) == ([".shop.example", "10.0.0.7"], True)
    assert api.post(PLACE, asked).json()["code"] == "acme_slug_taken"
    assert api.post(PLACE, asked | {"slug": "other", "allowed_names": ["a b"]}).json()["field"] == "allowed_names[0]"
    assert api.post(PLACE, asked | {"slug": "other", "profiles": ["none"]}).json()["code"] == "profile_unknown"
    assert api.get(place).headers["etag"] == '"1"'
    assert api.patch(place, {"days": None}).status_code == 428
    changed = api.patch(place, {"days": None, "challenges": ["http-01"]}, headers={"if-match": '"1"'}).json()
    assert (changed["days"], changed["challenges"], changed["terms_url"], changed["revision"]) == (
        None, ["http-01"], "https://intranet.example/terms", 2,
    )  # fmt: skip
    assert api.patch(place, {"days": 5}, headers={"if-match": '"1"'}).status_code == 412
    assert api.patch(place, {"slug": "new"}, headers={"if-match": '"2"'}).status_code == 422
    assert [one["id"] for one in api.get(f"{PLACE}?authority_id={ca}").json()["items"]] == [document["id"]]
    assert api.get(f"{PLACE}?authority_id=other").json()["items"] == []
    assert api.delete(place).json()["code"] == "acme_enabled"
    assert api.patch(place, {"enabled": False}, headers={"if-match": '"2"'}).json()["enabled"] is False
    assert api.delete(place).status_code == 204
    assert api.get(place).status_code == 404


def test_a_service_is_opened_on_a_ca_that_issues_alone(api: Any) -> None:
    ca = builtin_ca(api.world)
    api.world.run(authorities.disable_authority(api.world.services, api.world.actor, ca))
    refused = api.post(PLACE, {"name": "Shop servers", "authority_id": ca})
    assert (refused.status_code, refused.json()["code"]) == (409, "ca_not_active")


def test_its_address_keeps_letters_without_their_accents(api: Any) -> None:
    made = api.post(PLACE, {"name": "Büro Köln №1 ✓", "authority_id": builtin_ca(api.world)})
    assert made.json()["slug"] == "buro-koln-no1"


def test_a_key_shows_its_secret_once_and_binds_a_client(api: Any, service: dict[str, Any]) -> None:
    place = f"{PLACE}/{service['id']}"
    made = api.post(f"{place}/eab-keys", {"name": "web-1", "allowed_names": ["www.shop.example"]})
    key = made.json()
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    assert "secret" not in api.get(f"{place}/eab-keys").text
    (directory,) = api.world.run(_directories(api))
    Client(api.world, directory, app=api.app).bind(key["id"], key["secret"])
    (shown,) = api.get(f"{place}/eab-keys").json()["items"]
    assert shown["used_at"] is not None
    (account,) = api.get(f"{place}/accounts").json()["items"]
    assert (account["state"], account["eab_key_id"]) == ("valid", key["id"])
    revoked = api.post(f"{place}/eab-keys/{key['id']}/revoke", {"with_accounts": True}).json()
    assert revoked["revoked_at"] is not None
    assert api.get(f"{place}/accounts/{account['id']}").json()["state"] == "revoked"
    past = api.post(f"{place}/eab-keys", {"name": "web-2", "expires_at": "2026-02-01T00:00:00Z"})
    assert past.json()["code"] == "acme_key_expires_invalid"


async def _directories(api: Any) -> Any:
    return await acme_server.list_directories(api.world.services, api.world.actor)


def test_orders_say_why_they_failed(api: Any, service: dict[str, Any], net: Outside) -> None:
    (directory,) = api.world.run(_directories(api))
    client = Client(api.world, directory, net, app=api.app).register(contact=["mailto:ops@shop.example"])
    good = client.obtain("www.shop.example")
    failing = client.order("db.shop.example").json()
    client.look(client.challenge(client.read(failing["authorizations"][0]), "http-01"))

    place = f"{PLACE}/{service['id']}/orders"
    failed, issued = api.get(place).json()["items"]
    assert (failed["state"], failed["names"]) == ("invalid", ["db.shop.example"])
    assert failed["error"]
    assert (issued["state"], issued["serial"]) == ("valid", f"{good[0].serial_number:x}")
    assert [one["id"] for one in api.get(f"{place}?state=invalid").json()["items"]] == [failed["id"]]
    assert api.get(f"{place}?state=ready").json()["items"] == []
    (proof,) = api.get(f"{place}/{failed['id']}").json()["authorizations"]
    assert (proof["name"], proof["state"], proof["challenge"]) == ("db.shop.example", "invalid", "http-01")
    assert proof["error"] == failed["error"]
    (account,) = api.get(f"{PLACE}/{service['id']}/accounts").json()["items"]
    assert account["contacts"] == ["mailto:ops@shop.example"]
    assert len(api.get(f"{place}?account={account['id']}&limit=1").json()["items"]) == 1
    turned = api.post(f"{PLACE}/{service['id']}/accounts/{account['id']}/deactivate", {})
    assert turned.json()["state"] == "revoked"
    assert client.order("x.shop.example").status_code in (401, 403)


def test_nobody_reaches_a_service_of_others(api: Any, service: dict[str, Any]) -> None:
    world = api.world
    place = f"{PLACE}/{service['id']}"
    key = api.post(f"{place}/eab-keys", {"name": "web-1"}).json()
    stranger = api.as_actor(world.other_actor)
    assert stranger.get(PLACE).json()["items"] == []
    assert stranger.post(PLACE, {"name": "Mine", "authority_id": builtin_ca(world)}).status_code == 404
    for method, path, body in (
        ("GET", "", None), ("PATCH", "", {"name": "Mine"}), ("DELETE", "", None),
        ("GET", "/eab-keys", None), ("POST", "/eab-keys", {"name": "x"}), ("POST", f"/eab-keys/{key['id']}/revoke", {}),
        ("GET", "/accounts", None), ("GET", "/accounts/acc_x", None), ("POST", "/accounts/acc_x/deactivate", {}),
        ("GET", "/orders", None), ("GET", "/orders/ord_x", None),
    ):  # fmt: skip
        answer = stranger.request(method, place + path, json=body, headers={"if-match": '"1"'})
        assert answer.status_code == 404, (method, path)


@pytest.mark.parametrize(
    ("held", "method", "path", "body"),
    [
        (("ccm:acme:list", "ccm:acme:get"), "PATCH", "", {"name": "Mine"}),
        (("ccm:acme:list", "ccm:acme:get"), "POST", "/eab-keys", {"name": "x"}),
        (("ccm:acme:get", "ccm:acme:update"), "POST", "/eab-keys", {"name": "x"}),
        (("ccm:acme:get", "ccm:acme:bind"), "DELETE", "", None),
        (("ccm:acme:get", "ccm:acme:bind"), "POST", "/accounts/x/deactivate", {}),
        (("ccm:acme:list",), "GET", "", None),
    ],
)
def test_whoever_may_look_may_not_change(
    api: Any, service: dict[str, Any], held: tuple[str, ...], method: str, path: str, body: Any
) -> None:
    world = api.world
    statement = {"Effect": "Allow", "Action": list(held)}
    made = people.create_policy(
        world.services, world.actor, name="just this", document={"Version": "1.1", "Statement": [statement]}
    )
    weak = api.as_actor(world.actor, [world.run(made).id])
    answer = weak.request(method, f"{PLACE}/{service['id']}{path}", json=body, headers={"if-match": '"1"'})
    assert answer.status_code == 403, answer.text


def test_a_policy_of_the_project_holds_for_acme_clients_too(api: Any, service: dict[str, Any], net: Outside) -> None:
    world = api.world
    limits = authorities.PolicyLimits(allowed=(".shop.example",))
    world.run(authorities.create_policy(world.services, world.actor, "Shop", limits))
    (directory,) = world.run(_directories(api))
    client = Client(world, directory, net, app=api.app).register()
    refused = client.order("www.bank.example")
    assert problem(refused) == "rejectedIdentifier"
    assert "Shop" in refused.text
    assert client.obtain("www.shop.example")


def test_what_to_type_into_clients_holds_all_they_need() -> None:
    asked = Asked(
        "https://cw.example/acme/shop/directory", ("a.example", "b.example"), "o@x.example", "eab_1", "c2VjcmV0"
    )
    bound, free = recipes(asked), recipes(Asked(asked.url, asked.names))
    assert [recipe.client for recipe in bound] == [
        "certbot", "lego", "caddy", "apache", "acme.sh", "dehydrated", "cert-manager"
    ]  # fmt: skip
    for recipe, plain in zip(bound, free, strict=True):
        for part in (asked.url, "eab_1", "c2VjcmV0"):
            assert part in recipe.text, recipe.client
        assert "eab" not in plain.text.lower(), plain.client
        assert "/etc/certwright-root.pem" in recipe.text
        if recipe.client != "cert-manager":
            assert "b.example" in recipe.text
