"""One statement a request: it goes by what the process knows, and does nothing where that has changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec

from certwright.acme import jose
from certwright.rooms import acme_server, authorities
from certwright.rooms.acme_server.tables import acme_accounts, acme_directories, acme_orders
from certwright.rooms.authorities.words import PolicyLimits
from tests.acme_server.support import JOSE, Client, Outside, builtin_ca, csr, open_directory, problem
from tests.conftest import World

_WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def _ready(client: Client, name: str) -> dict[str, Any]:
    order: dict[str, Any] = client.order(name).json()
    client.prove(order)
    return order


def _disable_ca(world: World) -> None:
    world.run(authorities.disable_authority(world.services, world.actor, builtin_ca(world)))


def _refuse_names(world: World) -> None:
    limits = PolicyLimits(refused=("b.example",))
    world.run(authorities.create_policy(world.services, world.actor, "not b", limits))


def _allow_one(world: World) -> None:
    world.run(authorities.create_policy(world.services, world.actor, "one", PolicyLimits(quota=1)))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param(_disable_ca, "unauthorized", id="a CA that was disabled"),
        pytest.param(_refuse_names, "unauthorized", id="a policy that refuses the name"),
        pytest.param(_allow_one, "unauthorized", id="a policy with a quota that is used up"),
    ],
)
def test_what_was_good_for_one_order_is_asked_again_for_the_next(
    world: World, client: Client, change: Callable[[World], None], kind: str
) -> None:
    order = _ready(client, "b.example")
    client.obtain("a.example")
    change(world)

    refused = client.post(order["finalize"], {"csr": csr("b.example")})

    assert problem(refused) == kind, refused.text
    leaves = world.run(authorities.list_leaves(world.services, world.actor, builtin_ca(world)))
    assert [leaf.names for leaf in leaves] == [("a.example",)]


def test_a_ca_that_got_another_setting_issues_by_it(world: World, client: Client) -> None:
    client.obtain("a.example")
    order = _ready(client, "b.example")
    ca = builtin_ca(world)
    world.run(authorities.update_authority(world.services, world.actor, ca, crl_enabled=False, ocsp_enabled=True))

    done = client.post(order["finalize"], {"csr": csr("b.example")})

    assert done.json()["status"] == "valid", done.text
    leaf = world.run(authorities.list_leaves(world.services, world.actor, ca))[0]
    der = world.run(authorities.get_leaf(world.services, world.actor, ca, leaf.id)).der
    assert b"/crl/" not in der
    assert b"/ocsp/" in der


def _another_process_changes(world: World, **values: Any) -> None:
    async def change() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(acme_accounts).values(**values))

    world.run(change())


def test_a_key_that_was_changed_in_another_process_is_good_no_more(world: World, client: Client) -> None:
    assert client.order("a.example").status_code == 201
    jwk = jose.public_jwk(ec.generate_private_key(ec.SECP256R1()))
    _another_process_changes(world, jwk=dict(jwk), thumbprint=jose.thumbprint(jwk))

    assert problem(client.order("a.example")) == "malformed"


def test_a_key_that_another_process_was_given_is_good_at_once(world: World, client: Client) -> None:
    assert client.order("a.example").status_code == 201
    client.key = ec.generate_private_key(ec.SECP256R1())
    jwk = jose.public_jwk(client.key)
    _another_process_changes(world, jwk=dict(jwk), thumbprint=jose.thumbprint(jwk))

    assert client.order("a.example").status_code == 201


def test_an_account_that_another_process_turned_away_is_told_so(world: World, client: Client) -> None:
    order = client.order("a.example").json()
    _another_process_changes(world, deactivated_at=world.clock.now(), revoked=True)

    for url in (order["authorizations"][0], client.order_url(order)):
        refused = client.post(url, None)
        assert problem(refused) == "unauthorized"
        assert "revoked" in refused.json()["detail"]


def test_names_taken_from_a_key_for_binding_aren_t_ordered_any_more(world: World, net: Outside) -> None:
    directory = open_directory(world, eab_required=True)
    made = world.run(
        acme_server.create_eab_key(world.services, world.actor, directory.id, name="k", allowed_names=("*.example",))
    )
    client = Client(world, directory, net).bind(made.key.id, made.secret)
    assert client.order("a.example").status_code == 201

    async def narrow() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.text("UPDATE acme_eab_keys SET allowed_names = '{b.example}'"))

    world.run(narrow())

    assert problem(client.order("a.example")) == "rejectedIdentifier"


@pytest.mark.parametrize(
    ("resource", "payload"),
    [
        pytest.param("finalize", {"csr": "AAAA"}, id="a CSR that is none"),
        pytest.param("finalize", {}, id="no CSR"),
        pytest.param("order", {"a": 1}, id="a payload where none belongs"),
        pytest.param("new-order", {"identifiers": []}, id="an order for nothing"),
    ],
)
def test_what_is_refused_has_used_its_nonce(client: Client, resource: str, payload: dict[str, Any]) -> None:
    order = _ready(client, "a.example")
    url = {
        "finalize": order["finalize"], "order": client.order_url(order), "new-order": client.at("new-order"),
    }[resource]  # fmt: skip
    nonce = client.fresh_nonce()
    body = jose.signed_request(payload, url=url, nonce=nonce, key=client.key, kid=client.kid)
    assert problem(client.raw(url, body)) != "badNonce"

    good = jose.signed_request(None, url=client.order_url(order), nonce=nonce, key=client.key, kid=client.kid)
    assert problem(client.raw(client.order_url(order), good)) == "badNonce"


def test_an_order_in_the_moment_its_service_is_deleted(world: World, client: Client) -> None:
    client.order("a.example")
    url, nonce = client.at("new-order"), client.fresh_nonce()
    payload = {"identifiers": [{"type": "dns", "value": "b.example"}]}
    body = jose.signed_request(payload, url=url, nonce=nonce, key=client.key, kid=client.kid)

    async def race() -> httpx2.Response:
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as http:
            async with world.services.db.begin() as tx:
                for table in ("acme_orders", "acme_authorizations", "acme_accounts", "acme_directories"):
                    await tx.execute(sa.text(f"DELETE FROM {table}"))
                sent = asyncio.create_task(http.post(url, content=body, headers={"content-type": JOSE}))
                while not sent.done() and not await tx.scalar(_WAITING):
                    await tx.execute(sa.text("SELECT pg_stat_clear_snapshot()"))
            return await sent

    answer = world.run(race())

    assert problem(answer) == "accountDoesNotExist"
    assert world.run(_count(world, acme_orders)) == world.run(_count(world, acme_directories)) == 0


async def _count(world: World, table: sa.Table) -> int:
    async with world.services.db.begin() as tx:
        return int(await tx.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
