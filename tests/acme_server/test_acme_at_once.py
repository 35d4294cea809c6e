"""One statement a request: it goes by what the process knows, and does nothing where that has changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec

from certwright.acme import jose
from certwright.kernel.problems import Unavailable
from certwright.rooms import acme_server, authorities
from certwright.rooms.acme_server import store
from certwright.rooms.acme_server.tables import acme_accounts, acme_directories, acme_orders
from certwright.rooms.authorities.signer import Signer
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


# --- races ------------------------------------------------------------------------------------------------------------


def _while_held(
    world: World, client: Client, url: str, payload: Any, first: str, then: Sequence[str]
) -> httpx2.Response:
    """The answer to a request that had to wait for what a transaction with `first` holds, until `then` was said too."""
    body = jose.signed_request(payload, url=url, nonce=client.fresh_nonce(), key=client.key, kid=client.kid)

    async def race() -> httpx2.Response:
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as http:
            async with world.services.db.begin() as tx:
                await tx.execute(sa.text(first))
                # A context of its own: the request isn't inside this transaction.
                sent = asyncio.get_running_loop().create_task(
                    http.post(url, content=body, headers={"content-type": JOSE}), context=Context()
                )
                while not sent.done() and not await tx.scalar(_WAITING):
                    await tx.execute(sa.text("SELECT pg_stat_clear_snapshot()"))
                assert not sent.done(), "it waits for what is held"
                for statement in then:
                    await tx.execute(sa.text(statement))
            return await sent

    return world.run(race())


_TABLES = ("acme_orders", "acme_authorizations", "acme_accounts", "acme_directories")
_ORDER = {"identifiers": [{"type": "dns", "value": "b.example"}]}


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("SELECT 1 FROM acme_accounts FOR UPDATE", id="one waits for the other"),
        pytest.param("SELECT 1 FROM acme_directories FOR UPDATE", id="both wait for each other"),
    ],
)
def test_an_order_in_the_moment_its_service_is_deleted(world: World, client: Client, first: str) -> None:
    client.order("a.example")
    deletes = [f"DELETE FROM {table}" for table in _TABLES]

    answer = _while_held(world, client, client.at("new-order"), _ORDER, first, deletes)

    assert problem(answer) == "accountDoesNotExist"
    assert world.run(_count(world, acme_orders)) == world.run(_count(world, acme_directories)) == 0


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param("UPDATE authorities SET disabled_at = now()", "unauthorized", id="the CA is disabled"),
        pytest.param(
            "UPDATE acme_accounts SET deactivated_at = now(), revoked = true", "unauthorized",
            id="the account is turned away",
        ),
        pytest.param("UPDATE acme_orders SET status = 'invalid'", "orderNotReady", id="the order fails"),
    ],
)  # fmt: skip
def test_a_finalization_that_had_to_wait_is_judged_by_what_is_then(
    world: World, client: Client, change: str, kind: str
) -> None:
    client.obtain("a.example")
    order = _ready(client, "b.example")
    held = "SELECT 1 FROM acme_orders WHERE status = 'pending' FOR UPDATE"
    change = change if "acme_orders" not in change else f"{change} WHERE status = 'pending'"

    answer = _while_held(world, client, order["finalize"], {"csr": csr("b.example")}, held, [change])

    assert problem(answer) == kind, answer.text
    assert len(world.run(authorities.list_leaves(world.services, world.actor, builtin_ca(world)))) == 1


def test_an_account_turned_away_between_the_two_statements_gets_nothing(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.obtain("a.example")
    order = _ready(client, "b.example")
    fulfil = store.fulfil_at_once

    async def late(*given: Any) -> bool:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(acme_accounts).values(deactivated_at=world.clock.now(), revoked=True))
        return await fulfil(*given)

    monkeypatch.setattr(store, "fulfil_at_once", late)

    assert problem(client.post(order["finalize"], {"csr": csr("b.example")})) == "unauthorized"
    assert len(world.run(authorities.list_leaves(world.services, world.actor, builtin_ca(world)))) == 1


def test_a_signer_that_does_not_answer_is_asked_once(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = _ready(client, "b.example")
    asked = []

    async def silent(*_: Any) -> bytes:
        asked.append(1)
        raise Unavailable("hsm_unavailable", "The HSM doesn't answer.", fix="Try again.")

    monkeypatch.setattr(world.services.port(Signer), "sign", silent)

    refused = client.post(order["finalize"], {"csr": csr("b.example")})

    assert refused.status_code == 503
    assert len(asked) == 1


async def _count(world: World, table: sa.Table) -> int:
    async with world.services.db.begin() as tx:
        return int(await tx.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
