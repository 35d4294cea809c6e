"""The console's pages of ACME services: opened, given keys, looked at and closed without any script."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from certwright.platform.config import Settings
from certwright.rooms import acme_server, authorities
from tests.acme_server.support import Client, Outside, builtin_ca, csr, outside

SignIn = Callable[[Any], Any]


@pytest.fixture(scope="module")
def net() -> Iterator[Outside]:
    with outside() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, net: Outside) -> Settings:
    net.clear()
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8",), dns_servers=(net.dns.endpoint,), dns_authoritative_port=net.dns.port,
        validation_http_port=net.port,
    )  # fmt: skip


@pytest.fixture
def place(api: Any, web: SignIn) -> str:
    """Address of the page of an ACME service that was opened by a form."""
    ca = builtin_ca(api.world)
    made = web(api.world.actor).form(
        "/authorities/acme/new",
        {"name": "Shop <b>", "authority_id": ca, "slug": "shop", "eab_required": "yes", "profiles": "server",
         "allowed_names": ".shop.example", "http-01": "yes", "dns-01": "yes", "reuse_days": "0"},
    )  # fmt: skip
    assert made.status_code == 303, made.text
    return str(made.headers["location"])


def test_a_service_is_opened_changed_and_closed(api: Any, web: SignIn, place: str) -> None:
    me, ca = web(api.world.actor), builtin_ca(api.world)
    assert "Shop &lt;b&gt;" in me.get("/authorities/acme").text
    assert "Shop &lt;b&gt;" in me.get(f"/authorities/{ca}").text
    shown = me.get(place).text
    assert "https://cw.example/acme/shop/directory" in shown
    assert "www.shop.example" in shown
    wrong = me.form("/authorities/acme/new", {"name": "", "authority_id": ca, "profiles": "server", "days": "x"})
    assert (wrong.status_code, 'id="e-days-1"' in wrong.text) == (422, True)
    wrong = me.form("/authorities/acme/new", {"name": "X", "authority_id": ca, "profiles": "server"})
    assert 'id="e-challenges-1"' in wrong.text
    assert 'value="yes" checked' in me.get(f"{place}/edit").text
    changed = {"revision": "1", "name": "Shop", "profiles": "server", "tls-alpn-01": "yes", "days": "10",
               "allowed_names": "www.shop.example"}  # fmt: skip
    assert me.form(f"{place}/edit", changed).status_code == 303
    assert me.form(f"{place}/edit", changed).status_code == 412
    assert "10 days" in me.get(place).text
    assert "Disable this ACME service?" in me.form(f"{place}/disable", {"about": "Shop", "back": place}).text
    assert me.form(f"{place}/delete", {"confirmed": "yes"}).status_code == 409
    assert me.form(f"{place}/disable", {"confirmed": "yes"}).status_code == 303
    assert "This service is disabled" in me.get(place).text
    assert me.form(f"{place}/enable", {}).status_code == 303
    assert me.form(f"{place}/disable", {"confirmed": "yes"}).status_code == 303
    assert me.form(f"{place}/delete", {"confirmed": "yes"}).status_code == 303
    assert me.get(place).status_code == 404


def test_a_key_is_shown_once_with_commands_and_its_client_is_seen(
    api: Any, web: SignIn, place: str, net: Outside
) -> None:
    me, world = web(api.world.actor), api.world
    wrong = me.form(f"{place}/keys", {"name": "web-1", "allowed_names": "a b"})
    assert 'id="e-allowed_names-1"' in wrong.text
    made = me.form(f"{place}/keys", {"name": "web-1", "allowed_names": "www.shop.example", "days": "30"})
    assert made.headers["cache-control"] == "no-store"
    kid, secret = (html.unescape(re.search(f'<code id="{what}">([^<]+)', made.text)[1]) for what in ("kid", "hmac"))
    assert f"--eab-kid {kid} --eab-hmac-key" in made.text
    unused = me.get(f"{place}/keys").text
    assert (secret in unused, "with_accounts" in unused) == (False, False)
    (service,) = world.run(acme_server.list_directories(world.services, world.actor))
    client = Client(world, service, net, app=api.app).bind(kid, secret)
    client.obtain("www.shop.example")
    failing = client.order("www.shop.example").json()
    net.clear()
    client.look(client.challenge(client.read(failing["authorizations"][0]), "http-01"))
    (account,) = world.run(acme_server.list_accounts(world.services, world.actor, service.id))
    assert account.id in me.get(f"{place}/accounts").text
    orders = me.get(f"{place}/orders").text
    assert "Issued" in orders
    failed, issued = world.run(acme_server.list_orders(world.services, world.actor, service.id))
    assert failed.error
    assert failed.error in html.unescape(orders)
    assert failed.id not in me.get(f"{place}/orders?state=valid").text
    assert issued.id in me.get(f"{place}/orders?state=valid&account={account.id}").text
    assert issued.id in me.get(f"{place}/orders?q=www.shop.example&state=valid").text
    nothing = me.get(f"{place}/orders?q=%25shop.example").text
    assert ("No order like that" in nothing, 'value="%shop.example"' in nothing) == (True, True)
    page = html.unescape(me.get(f"{place}/orders/{failed.id}").text)
    assert (failed.error in page, "This order failed" in page) == (True, True)
    leaf = f"/authorities/{service.authority_id}/issued/{issued.issued_id}"
    assert leaf in me.get(f"{place}/orders/{issued.id}").text
    assert me.get(leaf).status_code == 200
    assert "Turn this client away?" in me.form(f"{place}/accounts/{account.id}/deactivate", {}).text
    assert me.form(f"{place}/accounts/{account.id}/deactivate", {"confirmed": "yes"}).status_code == 303
    assert "Turned away" in me.get(f"{place}/accounts").text
    assert 'name="with_accounts"' in me.get(f"{place}/keys").text
    assert 'name="with_accounts" value="yes"' in me.form(f"{place}/keys/{kid}/revoke", {"with_accounts": "yes"}).text
    assert me.form(f"{place}/keys/{kid}/revoke", {"confirmed": "yes", "with_accounts": "yes"}).status_code == 303
    assert "Revoked" in me.get(f"{place}/keys").text


def test_an_order_the_ca_refuses_says_so_while_it_waits(api: Any, web: SignIn, place: str, net: Outside) -> None:
    me, world = web(api.world.actor), api.world
    (service,) = world.run(acme_server.list_directories(world.services, world.actor))
    key = world.run(acme_server.create_eab_key(world.services, world.actor, service.id, name="web-1"))
    client = Client(world, service, net, app=api.app).bind(key.key.id, key.secret)
    order = client.order("www.shop.example").json()
    client.look(client.show(client.read(order["authorizations"][0])))
    assert "signs nothing" not in me.get(place).text + me.get("/authorities/acme").text
    world.run(authorities.disable_authority(world.services, world.actor, service.authority_id))
    assert client.post(order["finalize"], {"csr": csr("www.shop.example")}).status_code == 403

    page = me.get(f"{place}/orders/{order['finalize'].split('/')[-2]}").text

    assert "The CA refused it so far" in page
    assert "is disabled" in page
    assert "The CA of this service signs nothing" in me.get(place).text
    assert "Its CA signs nothing." in me.get("/authorities/acme").text


def test_services_of_another_account_are_not_there(api: Any, web: SignIn, place: str) -> None:
    stranger = web(api.world.other_actor)
    assert "Shop" not in stranger.get("/authorities/acme").text
    for path in ("", "/edit", "/keys", "/accounts", "/orders", "/orders/ord_x"):
        assert stranger.get(place + path).status_code == 404, path
    for path in ("/edit", "/disable", "/enable", "/delete", "/keys", "/keys/eab_x/revoke", "/accounts/x/deactivate"):
        sent = {"confirmed": "yes", "name": "Mine", "revision": "1", "http-01": "yes", "profiles": "server"}
        assert stranger.form(place + path, sent).status_code == 404, path
