"""What the ACME server takes for a request of an account (RFC 8555 section 6), and who may have one (section 7.3)."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certwright.acme import jose
from certwright.acme.jose import b64url
from certwright.kernel.problems import Forbidden, NotFound, Problem, Refused, Stale
from certwright.rooms import access, acme_server, authorities
from certwright.rooms.acme_server import AccountState, DirectoryRequest, manage
from certwright.rooms.acme_server.tables import acme_nonce_keys, acme_orders, acme_used_nonces
from tests.acme_server.support import JOSE, Client, Outside, builtin_ca, csr, open_directory, problem, tampered
from tests.conftest import World


def signed(client: Client, payload: Any, url: str, *, nonce: str | None = None, key: Any = None) -> bytes:
    return jose.signed_request(
        payload, url=url, nonce=nonce or client.fresh_nonce(), key=key or client.key, kid=client.kid
    )


def orders(world: World) -> int:
    async def count() -> int:
        async with world.services.db.read() as tx:
            return int(await tx.scalar(sa.select(sa.func.count()).select_from(acme_orders)) or 0)

    return world.run(count())


ORDER = {"identifiers": [{"type": "dns", "value": "www.example"}]}


# --- nonces -----------------------------------------------------------------------------------------------------------


def test_a_nonce_for_head_and_get(client: Client) -> None:
    head = client.send("HEAD", client.at("new-nonce"))
    get = client.send("GET", client.at("new-nonce"))

    assert (head.status_code, get.status_code) == (200, 204)
    assert head.headers["cache-control"] == get.headers["cache-control"] == "no-store"
    assert head.headers["replay-nonce"] != get.headers["replay-nonce"]
    assert 'rel="index"' in head.headers["link"]


def test_a_request_is_good_once(world: World, client: Client) -> None:
    url = client.at("new-order")
    body = signed(client, ORDER, url)

    first, second = client.raw(url, body), client.raw(url, body)

    assert first.status_code == 201
    assert problem(second) == "badNonce"
    assert orders(world) == 1
    # The refusal carries a nonce that is good.
    assert client.raw(url, signed(client, ORDER, url, nonce=second.headers["replay-nonce"])).status_code == 201


def test_a_refused_request_has_used_its_nonce_too(client: Client) -> None:
    url = client.at("new-order")
    nonce = client.fresh_nonce()
    assert problem(client.raw(url, signed(client, {"identifiers": []}, url, nonce=nonce))) == "malformed"

    assert problem(client.raw(url, signed(client, ORDER, url, nonce=nonce))) == "badNonce"


def test_one_nonce_used_twice_at_once(world: World, client: Client) -> None:
    import asyncio

    import httpx2

    url, nonce = client.at("new-order"), client.fresh_nonce()
    bodies = [signed(client, ORDER, url, nonce=nonce) for _ in range(8)]

    async def together() -> list[int]:
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as http:
            sent = [http.post(url, content=body, headers={"content-type": JOSE}) for body in bodies]
            return sorted(answer.status_code for answer in await asyncio.gather(*sent))

    assert world.run(together()) == [201] + 7 * [400]
    assert orders(world) == 1


@pytest.mark.parametrize("nonce", ["AAAA", "", "!", "A" * 5000, b64url(b"\x00" * 26), b64url(b"\xff" * 26)])
def test_nonces_nobody_gave_out(client: Client, nonce: str) -> None:
    url = client.at("new-order")
    body = jose.signed_request(ORDER, url=url, nonce=nonce, key=client.key, kid=client.kid)

    assert problem(client.raw(url, body)) == "badNonce"


def test_a_nonce_lasts_an_hour(world: World, client: Client) -> None:
    url = client.at("new-order")
    early, late = signed(client, ORDER, url), signed(client, ORDER, url)
    world.later(minutes=59, seconds=59)
    assert client.raw(url, early).status_code == 201
    world.later(seconds=2)

    assert problem(client.raw(url, late)) == "badNonce"


def test_a_crash_of_the_database_makes_every_nonce_worthless(world: World, client: Client) -> None:
    """PostgreSQL empties tables without a log after a crash; what was used is forgotten, so nothing may be good."""
    url = client.at("new-order")
    body = signed(client, ORDER, url)
    unused = signed(client, ORDER, url)
    assert client.raw(url, body).status_code == 201

    async def crash() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.delete(acme_used_nonces))
            await tx.execute(sa.delete(acme_nonce_keys))

    world.run(crash())

    assert problem(client.raw(url, body)) == "badNonce"
    assert problem(client.raw(url, unused)) == "badNonce"
    assert client.raw(url, signed(client, ORDER, url)).status_code == 201


def test_the_tables_of_nonces_have_no_log(world: World) -> None:
    async def kinds() -> list[str]:
        async with world.services.db.read() as tx:
            found = await tx.scalars(sa.text(
                "SELECT relpersistence::text FROM pg_class WHERE relname IN ('acme_nonce_keys', 'acme_used_nonces')"
            ))  # fmt: skip
            return list(found.all())

    assert world.run(kinds()) == ["u", "u"]


def test_used_nonces_are_forgotten_when_they_are_too_old(world: World, client: Client) -> None:
    client.order("www.example")
    world.later(hours=3)

    async def left() -> int:
        await acme_server.nonces.forget_old(world.services)
        async with world.services.db.read() as tx:
            return int(await tx.scalar(sa.select(sa.func.count()).select_from(acme_used_nonces)) or 0)

    assert world.run(left()) == 0


# --- signatures and shapes --------------------------------------------------------------------------------------------


def test_another_key_than_the_account_s(world: World, client: Client) -> None:
    url = client.at("new-order")
    body = signed(client, ORDER, url, key=ec.generate_private_key(ec.SECP256R1()))

    assert problem(client.raw(url, body)) == "malformed"
    assert orders(world) == 0


def test_a_request_for_another_address(world: World, client: Client) -> None:
    body = signed(client, ORDER, client.at("new-account"))

    assert problem(client.raw(client.at("new-order"), body)) == "unauthorized"
    # A query belongs to the address.
    url = client.at("new-order")
    assert problem(client.raw(url + "?a=1", signed(client, ORDER, url))) == "unauthorized"
    assert orders(world) == 0


def test_an_account_nobody_has(client: Client) -> None:
    url = client.at("new-order")
    for kid in (client.at("account", "aca_00000000000000000000000000"), "https://evil.example/acme/servers/account/x",
                client.kid + "x" if client.kid else "", ""):  # fmt: skip
        client.kid = kid
        kind = problem(client.raw(url, signed(client, ORDER, url)))
        assert kind == ("accountDoesNotExist")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("application/json", 415), ("", 415), ("text/plain", 415), ("application/jose+json; charset=utf-8", 201)],
)
def test_content_types(client: Client, content_type: str, status: int) -> None:
    url = client.at("new-order")

    assert client.raw(url, signed(client, ORDER, url), content_type).status_code == status


def protected(**members: Any) -> str:
    import orjson

    return b64url(orjson.dumps(members))


def test_odd_jws(client: Client) -> None:
    url = client.at("new-order")
    good = signed(client, ORDER, url)

    def header(**members: Any) -> dict[str, Any]:
        base = {"alg": "ES256", "nonce": client.fresh_nonce(), "url": url, "kid": client.kid}
        return {"protected": protected(**(base | members))}

    for body, kind in (
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"{", "malformed"),
        (b"\xff\xfe", "malformed"),
        (tampered(good, signature=None), "malformed"),
        (tampered(good, header={"alg": "ES256"}), "malformed"),
        (tampered(good, signatures=[]), "malformed"),
        (tampered(good, signature="AAAA"), "malformed"),
        (tampered(good, signature="AA=="), "malformed"),
        (tampered(good, payload=b64url(b'{"identifiers":[],"identifiers":[]}')), "malformed"),
        (tampered(good, **header(alg="none")), "badSignatureAlgorithm"),
        (tampered(good, **header(alg="HS256")), "badSignatureAlgorithm"),
        (tampered(good, **header(alg="RS256")), "badSignatureAlgorithm"),
        (tampered(good, **header(alg=None)), "badSignatureAlgorithm"),
        (tampered(good, **header(crit=["b64"], b64=False)), "malformed"),
        (tampered(good, **header(jwk=jose.public_jwk(client.key))), "malformed"),
        (tampered(good, **header(kid=None)), "malformed"),
        (tampered(good, **header(kid=7)), "malformed"),
        (tampered(good, **header(url=7)), "malformed"),
        (tampered(good, **header(nonce=None)), "badNonce"),
    ):
        assert problem(client.raw(url, body)) == kind, body[:80]


def test_a_body_of_unbounded_size(client: Client) -> None:
    response = client.raw(client.at("new-order"), b'{"payload":"' + b"A" * 70_000)

    assert (response.status_code, problem(response)) == (413, "malformed")


def test_a_key_where_an_account_is_needed_and_the_other_way_round(client: Client) -> None:
    assert problem(client.post(client.at("new-order"), ORDER, by_key=True)) == "malformed"
    assert problem(client.post(client.at("new-account"), {})) == "malformed"


def test_reading_takes_no_payload_and_doing_needs_one(client: Client) -> None:
    order = client.order("www.example").json()
    url = client.order_url(order)

    assert problem(client.post(url, {})) == "malformed"
    assert problem(client.post(client.at("new-order"), None)) == "malformed"
    assert problem(client.post(order["finalize"], None)) == "malformed"
    assert problem(client.post(order["authorizations"][0], {"status": "valid"})) == "malformed"
    # RFC 8555 section 6.3 says which error that is.
    refused = client.send("GET", url)
    assert (refused.status_code, refused.headers["allow"], problem(refused)) == (405, "POST", "malformed")


def test_what_needs_no_account_can_be_read_with_one_too(client: Client) -> None:
    """RFC 8555 section 6.3: directory and newNonce answer POST-as-GET as they answer GET."""
    directory, nonce = client.at("directory"), client.at("new-nonce")

    said = client.post(directory, None)
    assert (said.status_code, said.json()) == (200, client.send("GET", directory).json())
    assert client.post(nonce, None).status_code == 204
    used = signed(client, None, nonce)
    first, second = client.raw(nonce, used), client.raw(nonce, used)
    assert (first.status_code, problem(second)) == (204, "badNonce")
    assert client.post(nonce, None, by_key=True).status_code == 400
    assert problem(client.post(directory, {})) == "malformed"
    assert client.send("POST", client.at("renewal-info", "x"), content=b"{}").status_code == 405


def test_members_with_nothing_in_them_say_nothing(client: Client) -> None:
    ordered = client.order("www.example", notBefore=None, notAfter=None, profile=None, replaces=None)
    assert ordered.status_code == 201
    assert not {"notBefore", "notAfter", "profile", "replaces"} & set(ordered.json())
    assert problem(client.order("www.example", notAfter="2027-01-01T00:00:00Z")) == "malformed"


def test_places_that_aren_t_there(client: Client, world: World) -> None:
    for place in ("nothing", "order", "order/", "order/x/y", "account/x/orders/y", "challenge/x"):
        assert client.post(client.at(place), None).status_code == 404
    for slug in ("none", "Servers", "..", "a" * 200):
        response = client.send("GET", f"/acme/{slug}/directory")
        assert response.status_code == 404


def test_ids_that_are_none(client: Client) -> None:
    for place in ("order/%00", "authz/' OR 1=1--", "order/" + "x" * 3000, "cert/../../etc/passwd"):
        response = client.post(client.at(place), None)
        assert response.status_code in (403, 404), place


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_every_kind_of_key(world: World, net: Outside) -> None:
    directory = open_directory(world)
    for key in (
        ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ):  # fmt: skip
        client = Client(world, directory, net)
        client.key = key
        assert client.register().order("www.example").status_code == 201


def test_keys_that_aren_t_taken(world: World) -> None:
    client = Client(world, open_directory(world))
    small = rsa.generate_private_key(65537, 1024)
    client.key = small

    assert problem(client.post(client.at("new-account"), {}, by_key=True)) == "badPublicKey"


def test_registering_twice_finds_the_account(client: Client) -> None:
    again = client.post(client.at("new-account"), {"contact": ["mailto:ann@example.com"]}, by_key=True)
    only = client.post(client.at("new-account"), {"onlyReturnExisting": True}, by_key=True)

    assert (again.status_code, again.headers["location"]) == (200, client.kid)
    assert (only.status_code, only.headers["location"]) == (200, client.kid)
    assert again.json()["contact"] == [], "what it says of itself is changed at its own address"


def test_two_registrations_at_once_make_one_account(world: World, net: Outside) -> None:
    import asyncio

    import httpx2

    client = Client(world, open_directory(world), net)
    url = client.at("new-account")
    bodies = [jose.signed_request({}, url=url, nonce=client.fresh_nonce(), key=client.key) for _ in range(4)]

    async def together() -> set[tuple[int, str]]:
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as http:
            sent = [http.post(url, content=body, headers={"content-type": JOSE}) for body in bodies]
            return {(one.status_code, one.headers["location"]) for one in await asyncio.gather(*sent)}

    answers = world.run(together())
    assert {status for status, _ in answers} <= {200, 201}
    assert len({location for _, location in answers}) == 1


def test_nobody_is_found_who_never_registered(world: World) -> None:
    client = Client(world, open_directory(world))

    answer = client.post(client.at("new-account"), {"onlyReturnExisting": True}, by_key=True)

    assert problem(answer) == "accountDoesNotExist"


@pytest.mark.parametrize(
    ("contact", "kind"),
    [
        ("mailto:a@b.example", "malformed"),
        ([7], "malformed"),
        (["tel:+1"], "unsupportedContact"),
        (["mailto:nobody"], "invalidContact"),
        (["mailto:a@b.example,c@d.example"], "invalidContact"),
        (["mailto:a@b.example?bcc=everybody@example"], "invalidContact"),
        (["mailto:a@b.example\r\nBcc: x@y.example"], "invalidContact"),
        ([f"mailto:a{number}@b.example" for number in range(11)], "invalidContact"),
    ],
)
def test_contacts(world: World, contact: Any, kind: str) -> None:
    client = Client(world, open_directory(world))

    assert problem(client.post(client.at("new-account"), {"contact": contact}, by_key=True)) == kind


def test_contacts_are_changed(client: Client) -> None:
    said = client.post(client.kid or "", {"contact": ["mailto:pat.o'neill+acme@example.com"]})

    assert said.json()["contact"] == ["mailto:pat.o'neill+acme@example.com"]
    assert client.read(client.kid or "")["status"] == "valid"


def test_terms_must_be_agreed_to(world: World) -> None:
    client = Client(world, open_directory(world, terms_url="https://intranet.example/terms"))

    refused = client.post(client.at("new-account"), {}, by_key=True)

    assert (refused.status_code, problem(refused)) == (403, "userActionRequired")
    assert "https://intranet.example/terms" in refused.json()["detail"]
    assert client.register().read(client.kid or "")["termsOfServiceAgreed"] is True


def test_a_deactivated_account_can_do_nothing(world: World, client: Client) -> None:
    order = client.order("www.example").json()
    assert client.post(client.kid or "", {"status": "deactivated"}).json()["status"] == "deactivated"

    assert problem(client.post(client.at("new-order"), ORDER)) == "unauthorized"
    assert problem(client.post(client.order_url(order), None)) == "unauthorized"
    again = client.post(client.at("new-account"), {}, by_key=True)
    assert problem(again) == "unauthorized", "its key is burnt"


def test_a_challenge_of_a_deactivated_account_isn_t_looked_at(world: World, client: Client, net: Outside) -> None:
    order = client.order("www.example").json()
    challenge = client.show(client.read(order["authorizations"][0]))
    from certwright.rooms.acme_server import Prover

    begin, Prover.begin = Prover.begin, lambda self, *which: None  # type: ignore[method-assign]
    try:
        client.post(challenge["url"], {})
    finally:
        Prover.begin = begin  # type: ignore[method-assign]
    client.post(client.kid or "", {"status": "deactivated"})
    world.drain()

    assert net.asked == []


# --- the account's key ------------------------------------------------------------------------------------------------


def change_key(client: Client, new: Any, **more: Any) -> Any:
    url = client.at("key-change")
    inner = jose.key_change(client.key, new, account_url=more.get("account", client.kid), url=more.get("url", url))
    return client.post(url, inner)


def test_an_account_gets_another_key(client: Client) -> None:
    new, old = ec.generate_private_key(ec.SECP256R1()), client.key

    assert change_key(client, new).status_code == 200
    assert problem(client.post(client.at("new-order"), ORDER)) == "malformed", "the old key is good no more"
    client.key = new
    assert client.order("www.example").status_code == 201
    client.key = old
    assert problem(client.post(client.at("new-account"), {"onlyReturnExisting": True}, by_key=True)) == (
        "accountDoesNotExist"
    )


def test_another_account_s_key_can_t_be_taken(world: World, client: Client, net: Outside) -> None:
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    other = Client(world, directory, net).register()

    refused = change_key(client, other.key)

    assert (refused.status_code, refused.headers["location"]) == (409, other.kid)
    assert problem(refused) == "malformed"


@pytest.mark.parametrize("more", [{"account": "https://cw.example/acme/servers/account/x"}, {"url": "https://x/"}])
def test_a_key_change_for_somebody_else(client: Client, more: dict[str, str]) -> None:
    assert problem(change_key(client, ec.generate_private_key(ec.SECP256R1()), **more)) == "malformed"


# --- external account binding -----------------------------------------------------------------------------------------


def bound(world: World, **more: Any) -> tuple[acme_server.AcmeDirectory, acme_server.NewEabKey]:
    directory = open_directory(world, eab_required=True)
    made = world.run(acme_server.create_eab_key(world.services, world.actor, directory.id, name="web servers", **more))
    return directory, made


def refused_binding(client: Client, made: acme_server.NewEabKey, **more: Any) -> str:
    binding = jose.external_account_binding(
        client.key, url=more.get("url", client.at("new-account")), kid=more.get("kid", made.key.id),
        mac_key=more.get("mac_key", jose.from_b64url(made.secret)),
    )  # fmt: skip
    payload = {"externalAccountBinding": more.get("binding", binding)}
    return problem(client.post(client.at("new-account"), payload, by_key=True))


def test_without_binding_nobody_gets_in(world: World) -> None:
    directory, made = bound(world)
    client = Client(world, directory)

    assert problem(client.post(client.at("new-account"), {}, by_key=True)) == "externalAccountRequired"
    assert client.send("GET", directory.url).json()["meta"]["externalAccountRequired"] is True
    assert refused_binding(client, made, mac_key=b"x" * 32) == "unauthorized"
    assert refused_binding(client, made, kid="eab_nobody") == "unauthorized"
    assert refused_binding(client, made, url=client.at("new-order")) == "malformed"
    assert refused_binding(client, made, binding={}) == "malformed"
    assert refused_binding(client, made, binding=7) == "malformed"


def test_a_key_binds_one_account(world: World, net: Outside) -> None:
    directory, made = bound(world)
    first = Client(world, directory, net).bind(made.key.id, made.secret)

    assert first.order("www.example").status_code == 201
    assert refused_binding(Client(world, directory), made) == "unauthorized"


def test_the_secret_of_a_key_never_looks_like_an_option(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Base 64 for addresses begins with a dash once in 64 times: `certbot --eab-hmac-key -wL4…` is refused by certbot.
    drawn = iter([b"\xfb" * 32, b"\xf8" * 32, b"\xfc" * 32])
    monkeypatch.setattr(manage, "secrets", SimpleNamespace(token_bytes=lambda _: next(drawn)))

    directory, made = bound(world)

    assert made.secret == b64url(b"\xfc" * 32)
    Client(world, directory).bind(made.key.id, made.secret)


def test_a_reusable_key_binds_many_until_it_runs_out(world: World) -> None:
    directory, made = bound(world, reusable=True, expires_at=world.clock.now() + timedelta(days=1))
    Client(world, directory).bind(made.key.id, made.secret)
    Client(world, directory).bind(made.key.id, made.secret)
    world.later(days=1)

    assert refused_binding(Client(world, directory), made) == "unauthorized"


def test_a_key_binds_a_project_and_names(world: World, net: Outside) -> None:
    project = world.run(access.people.create_project(world.services, world.actor, name="Shop"))
    directory, made = bound(world, allowed_names=(".shop.example",), project_id=project.id)
    client = Client(world, directory, net).bind(made.key.id, made.secret)

    assert problem(client.order("www.example")) == "rejectedIdentifier"
    client.obtain("a.shop.example")
    (leaf,) = world.run(authorities.list_leaves(world.services, world.actor, directory.authority_id))
    assert leaf.project_id == project.id


def test_a_revoked_key_binds_nobody_and_can_take_its_accounts_along(world: World, net: Outside) -> None:
    directory, made = bound(world, reusable=True)
    client = Client(world, directory, net).bind(made.key.id, made.secret)

    async def revoke(with_accounts: bool) -> acme_server.EabKey:
        return await acme_server.revoke_eab_key(
            world.services, world.actor, directory.id, made.key.id, with_accounts=with_accounts
        )

    assert world.run(revoke(False)).revoked_at is not None
    assert refused_binding(Client(world, directory), made) == "unauthorized"
    assert client.order("www.example").status_code == 201, "who is in stays in"
    world.run(revoke(True))
    assert problem(client.order("www.example")) == "unauthorized"


def test_a_key_of_another_directory(world: World) -> None:
    _, made = bound(world)
    elsewhere = open_directory(world, name="Elsewhere", eab_required=True)

    assert refused_binding(Client(world, elsewhere), made) == "unauthorized"


# --- people -----------------------------------------------------------------------------------------------------------


def test_people_turn_an_account_away(world: World, client: Client) -> None:
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    (account,) = world.run(acme_server.list_accounts(world.services, world.actor, directory.id))

    gone = world.run(acme_server.deactivate_account(world.services, world.actor, directory.id, account.id))

    assert (account.state, gone.state) == (AccountState.VALID, AccountState.REVOKED)
    refused = client.post(client.at("new-order"), ORDER)
    assert problem(refused) == "unauthorized"
    assert "revoked" in refused.json()["detail"]


def test_a_closed_directory_answers_nobody(world: World, client: Client) -> None:
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    world.run(acme_server.update_directory(world.services, world.actor, directory.id, {"enabled": False}))
    world.later(seconds=1)

    assert client.post(client.at("new-order"), ORDER).status_code == 404
    assert client.send("GET", directory.url).status_code == 404


def test_a_directory_s_life(world: World, client: Client) -> None:
    client.obtain("www.example")
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]

    async def change(**changes: Any) -> acme_server.AcmeDirectory:
        return await acme_server.update_directory(
            world.services, world.actor, directory.id, changes, revision=directory.revision
        )

    changed = world.run(change(name="Shop servers", days=10, allowed_names=("*.example",)))
    assert (changed.name, changed.days, changed.allowed_names, changed.slug) == (
        "Shop servers", 10, ("*.example",), "servers",
    )  # fmt: skip
    with pytest.raises(Stale):
        world.run(change(days=11))
    with pytest.raises(Refused, match="open to its clients"):
        world.run(acme_server.delete_directory(world.services, world.actor, directory.id))
    world.run(acme_server.update_directory(world.services, world.actor, directory.id, {"enabled": False}))
    world.run(acme_server.delete_directory(world.services, world.actor, directory.id))
    assert world.run(acme_server.list_directories(world.services, world.actor)) == []
    leaves = world.run(authorities.list_leaves(world.services, world.actor, directory.authority_id))
    assert len(leaves) == 1, "what was issued stays"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": " "}, "acme_name_invalid"),
        ({"slug": "Shop!"}, "acme_slug_invalid"),
        ({"slug": "servers"}, "acme_slug_taken"),
        ({"challenges": ()}, "acme_challenges_invalid"),
        ({"challenges": ("smtp-01",)}, "acme_challenges_invalid"),
        ({"profiles": ()}, "acme_profiles_invalid"),
        ({"profiles": ("gold",)}, "profile_unknown"),
        ({"days": 0}, "acme_days_out_of_range"),
        ({"reuse_days": 31}, "acme_reuse_out_of_range"),
        ({"terms_url": "javascript:alert(1)"}, "acme_url_invalid"),
        ({"allowed_names": ("a..b",)}, "name_empty_label"),
        ({"authority_id": "ca_nothing"}, "not_found"),
    ],
)
def test_directories_that_can_t_be(world: World, changes: dict[str, Any], code: str) -> None:
    open_directory(world)

    with pytest.raises(Problem) as refused:
        open_directory(world, **{"name": "Other"} | changes)

    assert refused.value.code == code


def test_a_root_has_no_acme_service(world: World) -> None:
    builtin_ca(world)
    root = next(ca for ca in world.run(authorities.list_authorities(world.services, world.actor)) if ca.kind == "root")

    with pytest.raises(Refused, match="root"):
        open_directory(world, authority_id=root.id)


def test_tenants_don_t_meet(world: World, client: Client) -> None:
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    (account,) = world.run(acme_server.list_accounts(world.services, world.actor, directory.id))
    services, other, d = world.services, world.other_actor, directory.id
    request = DirectoryRequest("Theirs", directory.authority_id)

    assert world.run(acme_server.list_directories(services, other)) == []
    for attempt in (
        acme_server.create_directory(services, other, request),
        acme_server.get_directory(services, other, d),
        acme_server.update_directory(services, other, d, {"name": "x"}),
        acme_server.delete_directory(services, other, d),
        acme_server.create_eab_key(services, other, d, name="x"),
        acme_server.list_eab_keys(services, other, d),
        acme_server.revoke_eab_key(services, other, d, "eab_x"),
        acme_server.list_accounts(services, other, d),
        acme_server.get_account(services, other, d, account.id),
        acme_server.deactivate_account(services, other, d, account.id),
        acme_server.list_orders(services, other, d),
        acme_server.get_order(services, other, d, "aco_x"),
    ):
        with pytest.raises(NotFound):
            world.run(attempt)


def test_who_may_only_look_can_t_change(world: World, client: Client) -> None:
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    viewer = world.actor_with("ccm:acme:get", "ccm:acme:list", "ccm:ca:get")
    services, d = world.services, directory.id

    assert len(world.run(acme_server.list_directories(services, viewer))) == 1
    for attempt in (
        acme_server.create_directory(services, viewer, DirectoryRequest("Mine", directory.authority_id)),
        acme_server.update_directory(services, viewer, d, {"name": "x"}),
        acme_server.delete_directory(services, viewer, d),
        acme_server.create_eab_key(services, viewer, d, name="x"),
        acme_server.revoke_eab_key(services, viewer, d, "eab_x"),
        acme_server.deactivate_account(services, viewer, d, "aca_x"),
    ):
        with pytest.raises(Forbidden):
            world.run(attempt)


def test_who_may_open_services_needs_the_ca_too(world: World) -> None:
    ca = builtin_ca(world)
    opener = world.actor_with("ccm:acme:create", "ccm:ca:get")

    with pytest.raises(Forbidden):
        world.run(acme_server.create_directory(world.services, opener, DirectoryRequest("Mine", ca)))


def test_orders_that_came_to_nothing_are_forgotten_after_a_month(world: World, client: Client) -> None:
    kept = client.obtain("www.example")
    client.order("late.example")
    world.later(days=38)
    from certwright.rooms.acme_server import cleaning

    world.run(cleaning.forget_orders(world.services))

    assert orders(world) == 1
    url = client.read(f"{client.kid}/orders")["orders"][0]
    assert client.read(url)["status"] == "valid"
    assert client.post(client.at("new-order"), ORDER).status_code == 201
    assert len(kept) == 2
    assert problem(client.post(f"{url}/finalize", {"csr": csr("www.example")})) == "orderNotReady"


def test_an_address_part_stays_its_account_s(world: World) -> None:
    services, actor = world.services, world.actor
    gone = open_directory(world, slug="shop")
    world.run(acme_server.update_directory(services, actor, gone.id, {"enabled": False}))
    world.run(acme_server.delete_directory(services, actor, gone.id))

    async def elsewhere() -> str:
        await authorities.ensure_builtin(services, world.other_account.id, world.other_project_id)
        async with services.db.begin() as tx:
            return await authorities.builtin_issuing_id(tx, world.other_account.id)

    theirs = DirectoryRequest("Theirs", world.run(elsewhere()), slug="shop")
    with pytest.raises(Refused, match="or had"):
        world.run(acme_server.create_directory(services, world.other_actor, theirs))
    assert open_directory(world, slug="shop").slug == "shop", "its first account may open it again"


def test_an_address_registers_a_hundred_accounts_and_then_waits(
    world: World, net: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    from certwright.entry import acme
    from certwright.platform.limits import Rate

    monkeypatch.setattr(acme, "_REGISTRATIONS", Rate(burst=2, per_second=0.1))
    directory = open_directory(world)
    client = Client(world, directory, net).register()

    def another() -> Any:
        client.key = ec.generate_private_key(ec.SECP256R1())
        return client.post(client.at("new-account"), {}, by_key=True)

    assert another().status_code == 201
    refused = another()
    assert (problem(refused), refused.headers["retry-after"]) == ("rateLimited", "10")
    world.later(seconds=10)
    assert another().status_code == 201


def test_orders_that_fail_again_and_again_are_slowed_down(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acme_server.protocol.rules, "MOST_FAILED_ORDERS", 2)
    for _ in range(2):
        order = client.order("www.example").json()
        client.look(client.challenge(client.read(order["authorizations"][0]), "http-01"))

    refused = client.order("www.example")

    assert problem(refused) == "rateLimited"
    assert "failed within the hour" in refused.json()["detail"]
    client.world.later(hours=1)
    assert client.order("www.example").status_code == 201


def test_accounts_and_keys_that_nothing_hangs_on_are_forgotten(world: World, net: Outside) -> None:
    from certwright.rooms.acme_server import cleaning

    directory, made = bound(world)
    services, actor = world.services, world.actor
    used = Client(world, directory, net).bind(made.key.id, made.secret)
    idle = world.run(acme_server.create_eab_key(services, actor, directory.id, name="idle"))
    opened = open_directory(world, name="Open")
    Client(world, opened, net).register()
    world.run(acme_server.revoke_eab_key(services, actor, directory.id, idle.key.id))
    world.later(days=91)
    world.run(cleaning.forget_orders(services))

    (key,) = world.run(acme_server.list_eab_keys(services, actor, directory.id))
    (account,) = world.run(acme_server.list_accounts(services, actor, directory.id))
    assert key.id == made.key.id
    assert used.kid is not None
    assert used.kid.endswith(account.id), "bound by a key, it stays"
    assert world.run(acme_server.list_accounts(services, actor, opened.id)) == []
    world.run(acme_server.revoke_eab_key(services, actor, directory.id, key.id, with_accounts=True))
    world.later(days=2)
    world.run(cleaning.forget_orders(services))
    assert world.run(acme_server.list_eab_keys(services, actor, directory.id)) == []
