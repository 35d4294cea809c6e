"""From registration to certificate over the ACME server, and what stands in the way of wrong orders."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy.dialects import postgresql

from certwright.acme.jose import b64url
from certwright.acme.renewal import certificate_id
from certwright.rooms import acme_server, audit, authorities
from certwright.rooms.acme_server import OrderState
from certwright.rooms.acme_server.tables import acme_orders
from tests.acme_server.support import Client, Outside, builtin_ca, csr, open_directory, problem
from tests.conftest import Api, World


def names_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(one.value) for one in names}


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_a_certificate_by_http_01(client: Client) -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    chain = client.obtain("www.example", "shop.example", key=key)

    assert names_of(chain[0]) == {"www.example", "shop.example"}
    assert chain[0].public_key() == key.public_key()
    chain[0].verify_directly_issued_by(chain[1])
    assert len(chain) == 2, "the root isn't sent along"


def test_a_wildcard_by_dns_01(client: Client) -> None:
    chain = client.obtain("*.example", "example", kind="dns-01")

    assert names_of(chain[0]) == {"*.example", "example"}


def test_an_address_by_http_01(client: Client) -> None:
    assert names_of(client.obtain("127.0.0.1")[0]) == {"127.0.0.1"}


def test_an_rsa_key_is_certified_too(client: Client) -> None:
    key = rsa.generate_private_key(65537, 2048)

    assert client.obtain("www.example", key=key)[0].public_key() == key.public_key()


def test_a_dns_record_behind_a_cname(client: Client, net: Outside) -> None:
    net.records["_acme-challenge.www.example", "CNAME"] = ["proofs.example."]
    order = client.order("www.example").json()
    authorization = client.read(order["authorizations"][0])
    challenge = client.show(authorization, "dns-01")
    net.records["proofs.example", "TXT"] = net.records.pop(("_acme-challenge.www.example", "TXT"))
    net.records["_acme-challenge.www.example", "TXT"] = []

    client.look(challenge)

    assert client.read(order["authorizations"][0])["status"] == "valid"


def test_the_directory_says_what_it_offers(world: World, net: Outside) -> None:
    directory = open_directory(world, eab_required=True, terms_url="https://intranet.example/terms",
                               website="https://intranet.example", profiles=("server", "client"))  # fmt: skip
    said = Client(world, directory, net).send("GET", directory.url).json()

    assert said["meta"] == {
        "externalAccountRequired": True, "termsOfService": "https://intranet.example/terms",
        "website": "https://intranet.example",
        "profiles": {"server": "TLS servers", "client": "TLS clients (mutual TLS)"},
    }  # fmt: skip
    assert set(said) == {"newNonce", "newAccount", "newOrder", "revokeCert", "keyChange", "renewalInfo", "meta"}


def test_what_was_issued_is_in_the_ca_s_list_and_in_the_audit_log(world: World, client: Client) -> None:
    serial = client.obtain("www.example")[0].serial_number
    ca = world.run(acme_server.list_directories(world.services, world.actor))[0].authority_id

    (leaf,) = world.run(authorities.list_leaves(world.services, world.actor, ca))

    async def events_of(action: str) -> Any:
        async with world.services.db.begin() as tx:
            return await audit.list_events(tx, sa.true(), audit.Filter(action=action), limit=5, before_id=None)

    assert leaf.serial == f"{serial:x}"
    assert not leaf.managed, "people may revoke it: nothing else leads it"
    (issued,) = world.run(events_of("ccm:cert:issue"))
    (registered,) = world.run(events_of("ccm:acme:register"))
    assert issued.actor_name.startswith("ACME account aca_")
    assert issued.after["names"] == ["www.example"]
    assert registered.after["acme_account"] == issued.actor_name.rpartition(" ")[2]


def test_a_profile_and_a_life_of_the_directory(world: World, net: Outside) -> None:
    client = Client(world, open_directory(world, profiles=("server", "client"), days=6), net).register()

    usual = client.obtain("www.example")[0]
    named = client.obtain("www.example", profile="client")[0]

    assert usual.not_valid_after_utc - usual.not_valid_before_utc <= timedelta(days=6, hours=1)
    usages = named.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert x509.ExtendedKeyUsageOID.SERVER_AUTH not in usages
    assert problem(client.order("www.example", profile="gold")) == "invalidProfile"


# --- what can't be ordered --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifiers", "kind"),
    [
        ([], "malformed"),
        ("www.example", "malformed"),
        ([{"type": "dns"}], "malformed"),
        ([{"type": "dns", "value": 7}], "malformed"),
        ([{"type": "email", "value": "ann@example"}], "unsupportedIdentifier"),
        ([{"type": "dns", "value": "127.0.0.1"}], "rejectedIdentifier"),
        ([{"type": "ip", "value": "www.example"}], "rejectedIdentifier"),
        ([{"type": "ip", "value": "fe80::1%eth0"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": "www.example."}], "rejectedIdentifier"),
        ([{"type": "dns", "value": " www.example"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": "bücher.example"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": "www..example"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": "a.*.example"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": "*.*.example"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": "www.example\u0000.evil"}], "malformed"),
        ([{"type": "dns", "value": "www.example/../admin"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": "a" * 64 + ".example"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": "x." * 130 + "example"}], "rejectedIdentifier"),
        ([{"type": "dns", "value": ""}], "rejectedIdentifier"),
        ([{"type": "dns", "value": f"h{number}.example"} for number in range(101)], "rejectedIdentifier"),
    ],
)
def test_identifiers_that_are_refused(client: Client, identifiers: Any, kind: str) -> None:
    assert problem(client.post(client.at("new-order"), {"identifiers": identifiers})) == kind


def test_each_of_several_wrong_names_is_told(client: Client) -> None:
    said = client.order("good.example", "bad..example", "worse_.example").json()

    assert [sub["identifier"]["value"] for sub in said["subproblems"]] == ["bad..example", "worse_.example"]
    assert "status" not in said["subproblems"][0]


def test_dates_are_the_server_s(client: Client) -> None:
    assert problem(client.order("www.example", notAfter="2027-01-01T00:00:00Z")) == "malformed"


def test_a_directory_s_names(world: World, net: Outside) -> None:
    client = Client(world, open_directory(world, allowed_names=(".shop.example",)), net).register()

    assert client.order("a.shop.example").status_code == 201
    assert problem(client.order("a.shop.example", "www.example")) == "rejectedIdentifier"


def test_a_directory_without_dns_01_has_no_wildcards(world: World, net: Outside) -> None:
    client = Client(world, open_directory(world, challenges=("http-01",)), net).register()

    refused = client.order("*.example")

    assert problem(refused) == "rejectedIdentifier"
    assert "dns-01" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("www.example", ["http-01", "dns-01", "tls-alpn-01"]),
        ("*.example", ["dns-01"]),
        ("127.0.0.1", ["http-01", "tls-alpn-01"]),
    ],
)
def test_only_challenges_that_fit_are_offered(client: Client, name: str, kinds: list[str]) -> None:
    authorization = client.read(client.order(name).json()["authorizations"][0])

    assert [one["type"] for one in authorization["challenges"]] == kinds
    assert {one["status"] for one in authorization["challenges"]} == {"pending"}
    for missing in {"http-01", "dns-01", "tls-alpn-01"} - set(kinds):
        url = authorization["challenges"][0]["url"].rpartition("/")[0]
        assert client.post(f"{url}/{missing}", {}).status_code == 404
    client.settle()
    assert client.read(client.order(name).json()["authorizations"][0])["status"] == "pending"


def test_at_most_300_orders_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acme_server.protocol.rules, "MOST_OPEN_ORDERS", 2)
    client.order("a.example")
    client.order("b.example")

    refused = client.order("c.example")

    assert problem(refused) == "rateLimited"
    assert refused.headers["retry-after"] == "3600"


# --- challenges that fail ---------------------------------------------------------------------------------------------


def first_authorization(client: Client, *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
    order = client.order(*names).json()
    return order, client.read(order["authorizations"][0])


def test_a_file_that_isn_t_there(client: Client) -> None:
    order, authorization = first_authorization(client, "www.example")

    client.look(client.challenge(authorization, "http-01"))

    failed = client.read(order["authorizations"][0])
    assert failed["status"] == "invalid"
    assert [one["type"] for one in failed["challenges"]] == ["http-01"]
    error = failed["challenges"][0]["error"]
    assert error["type"].endswith(":unauthorized")
    assert "404" in error["detail"]
    assert client.read(client.order_url(order))["status"] == "invalid"
    assert problem(client.post(order["finalize"], {"csr": csr("www.example")})) == "orderNotReady"


def test_what_another_server_says_is_not_repeated(client: Client, net: Outside) -> None:
    _, authorization = first_authorization(client, "www.example")
    challenge = client.show(authorization)
    net.files[f"/.well-known/acme-challenge/{challenge['token']}"] = b"the launch code is 0000"

    client.look(challenge)

    error = client.post(challenge["url"], None).json()["error"]
    assert "launch" not in error["detail"]
    assert "23 bytes of other content" in error["detail"]


def test_another_account_s_file_is_no_proof(world: World, client: Client, net: Outside) -> None:
    other = Client(world, world.run(acme_server.list_directories(world.services, world.actor))[0], net).register()
    _, authorization = first_authorization(client, "www.example")
    challenge = client.challenge(authorization, "http-01")
    key, client_key = other.key, client.key
    client.key = key
    client.show(authorization)
    client.key = client_key

    client.look(challenge)

    assert client.post(challenge["url"], None).json()["status"] == "invalid"


def test_a_private_address_nobody_opened_is_not_connected_to(world: World, client: Client, net: Outside) -> None:
    net.records["www.example", "A"] = ["10.1.2.3"]
    _, authorization = first_authorization(client, "www.example")

    client.look(client.show(authorization))

    error = client.post(client.challenge(authorization, "http-01")["url"], None).json()["error"]
    assert error["type"].endswith(":rejectedIdentifier")
    assert "CERTWRIGHT_ALLOWED_NETWORKS" in error["detail"]
    assert net.asked == []


@pytest.mark.parametrize("kind", ["http-01", "tls-alpn-01"])
@pytest.mark.parametrize(
    ("name", "said"), [("nowhere.example", "has no address"), ("silent.example", "server failure")]
)  # fmt: skip
def test_a_name_the_dns_has_no_address_of(client: Client, kind: str, name: str, said: str) -> None:
    _, authorization = first_authorization(client, name)

    client.look(client.challenge(authorization, kind))

    error = client.post(client.challenge(authorization, kind)["url"], None).json()["error"]
    assert error["type"].endswith(":dns")
    assert said in error["detail"], "a name that isn't there is another thing than a DNS that doesn't answer"


def test_where_a_file_moved_to_is_not_told(client: Client, net: Outside) -> None:
    _, authorization = first_authorization(client, "www.example")
    challenge = client.show(authorization)
    net.moved[f"/.well-known/acme-challenge/{challenge['token']}"] = "http://silent.example/"

    client.look(challenge)

    error = client.post(challenge["url"], None).json()["error"]
    assert error["detail"] == "www.example has no address in the DNS that this server asks."


def test_a_record_that_comes_late_is_seen_at_the_next_look(world: World, client: Client) -> None:
    order, authorization = first_authorization(client, "www.example")
    challenge = client.challenge(authorization, "dns-01")

    client.look(challenge)
    assert client.read(order["authorizations"][0])["status"] == "pending"
    assert client.post(challenge["url"], None).json()["status"] == "processing"
    client.show(authorization, "dns-01")
    world.later(seconds=3)
    world.drain()

    assert client.read(order["authorizations"][0])["status"] == "valid"


def test_a_record_that_never_comes(world: World, client: Client) -> None:
    order, authorization = first_authorization(client, "www.example")

    client.look(client.challenge(authorization, "dns-01"))
    for _ in range(2):
        world.later(seconds=10)
        world.drain()

    failed = client.read(order["authorizations"][0])
    assert failed["status"] == "invalid"
    assert "no TXT record at _acme-challenge.www.example" in failed["challenges"][0]["error"]["detail"]


def test_a_challenge_that_a_killed_process_had_begun_is_looked_at_by_the_worker(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acme_server.Prover, "begin", lambda self, *which: None)
    order, authorization = first_authorization(client, "www.example")
    client.post(client.show(authorization)["url"], {})

    world.drain()

    assert client.read(order["authorizations"][0])["status"] == "valid"


def test_the_first_challenge_that_was_asked_for_counts(client: Client) -> None:
    order, authorization = first_authorization(client, "www.example")
    client.show(authorization, "http-01")

    client.look(client.challenge(authorization, "dns-01"))
    late = client.look(client.challenge(authorization, "http-01"))

    assert late.json()["status"] == "pending", "it was never begun"
    assert client.read(order["authorizations"][0])["status"] == "pending"


# --- finalizing -------------------------------------------------------------------------------------------------------


def ready(client: Client, *names: str) -> dict[str, Any]:
    order: dict[str, Any] = client.order(*names).json()
    client.prove(order)
    assert client.read(client.order_url(order))["status"] == "ready"
    return order


def test_an_order_without_proof_is_not_ready(client: Client) -> None:
    order = client.order("www.example").json()

    assert problem(client.post(order["finalize"], {"csr": csr("www.example")})) == "orderNotReady"


def test_a_csr_must_name_what_was_ordered(client: Client) -> None:
    order = ready(client, "a.example", "b.example")
    rsa_1024 = rsa.generate_private_key(65537, 1024)

    for payload, kind in (
        ({}, "badCSR"),
        ({"csr": 7}, "badCSR"),
        ({"csr": "not base64!"}, "badCSR"),
        ({"csr": b64url(b"\x30\x03\x02\x01\x05")}, "badCSR"),
        ({"csr": csr("a.example")}, "badCSR"),
        ({"csr": csr("a.example", "b.example", "c.example")}, "badCSR"),
        ({"csr": csr("a.example", "b.example", common_name="evil.example")}, "badCSR"),
        ({"csr": csr("a.example", "b.example", key=client.key)}, "badCSR"),
        ({"csr": csr("a.example", "b.example", key=rsa_1024)}, "badPublicKey"),
    ):
        assert problem(client.post(order["finalize"], payload)) == kind, payload
    # Nothing of that spoiled the order (RFC 8555 section 7.4).
    assert client.post(order["finalize"], {"csr": csr("b.example", "a.example")}).json()["status"] == "valid"


def test_an_order_is_finalized_once(world: World, client: Client) -> None:
    order = ready(client, "www.example")
    client.post(order["finalize"], {"csr": csr("www.example")})

    assert problem(client.post(order["finalize"], {"csr": csr("www.example")})) == "orderNotReady"
    ca = world.run(acme_server.list_directories(world.services, world.actor))[0].authority_id
    assert len(world.run(authorities.list_leaves(world.services, world.actor, ca))) == 1


def test_two_finalizations_at_once_make_one_certificate(world: World, client: Client) -> None:
    import asyncio

    import httpx2

    from certwright.acme import jose

    order = ready(client, "www.example")
    bodies = [
        jose.signed_request({"csr": csr("www.example")}, url=order["finalize"], nonce=client.fresh_nonce(),
                            key=client.key, kid=client.kid)
        for _ in range(4)
    ]  # fmt: skip

    async def together() -> list[int]:
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as http:
            answers = await asyncio.gather(*(
                http.post(order["finalize"], content=body, headers={"content-type": "application/jose+json"})
                for body in bodies
            ))  # fmt: skip
        return sorted(answer.status_code for answer in answers)

    assert world.run(together()) == [200, 403, 403, 403]
    ca = world.run(acme_server.list_directories(world.services, world.actor))[0].authority_id
    assert len(world.run(authorities.list_leaves(world.services, world.actor, ca))) == 1


def test_two_proofs_that_come_in_together_make_the_order_ready(world: World, client: Client) -> None:
    order = client.order("a.example", "b.example").json()
    for url in order["authorizations"]:
        authorization = client.read(url)
        # Both are begun before either is looked at.
        client.nonce = client.nonce or client.fresh_nonce()
        client.post(client.show(authorization)["url"], {})
    client.settle()

    assert client.read(client.order_url(order))["status"] == "ready"


def test_an_order_runs_out(world: World, client: Client) -> None:
    order = ready(client, "www.example")
    world.later(days=8)

    late = client.read(client.order_url(order))

    assert late["status"] == "invalid"
    assert "ran out" in late["error"]["detail"]
    assert problem(client.post(order["finalize"], {"csr": csr("www.example")})) == "orderNotReady"


def test_a_ca_that_is_disabled_refuses_in_words(world: World, client: Client) -> None:
    order = ready(client, "www.example")
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]

    def seen() -> tuple[str, str | None]:
        (one,) = world.run(acme_server.list_orders(world.services, world.actor, directory.id))
        return one.state, one.error

    world.run(authorities.disable_authority(world.services, world.actor, directory.authority_id))

    refused = client.post(order["finalize"], {"csr": csr("www.example")})

    assert problem(refused) == "unauthorized"
    why = "The CA 'Certwright Issuing CA 1' is disabled; issuing isn't possible."
    assert refused.json()["detail"] == f"{why} Ask whoever runs this ACME service."
    assert seen() == ("ready", why)
    world.run(authorities.enable_authority(world.services, world.actor, directory.authority_id))
    assert client.post(order["finalize"], {"csr": csr("www.example")}).json()["status"] == "valid"
    assert seen() == ("valid", None)


def test_a_deactivated_authorization_ends_its_order(client: Client) -> None:
    order = ready(client, "www.example")

    gone = client.post(order["authorizations"][0], {"status": "deactivated"})

    assert gone.json()["status"] == "deactivated"
    assert client.read(client.order_url(order))["status"] == "invalid"
    assert problem(client.post(order["finalize"], {"csr": csr("www.example")})) == "orderNotReady"


def test_a_proof_is_used_again_only_where_the_directory_says_so(world: World, client: Client, net: Outside) -> None:
    client.obtain("www.example")
    assert client.order("www.example").json()["status"] == "pending"

    directory = open_directory(world, name="Reusing", reuse_days=2)
    reusing = Client(world, directory, net).register()
    reusing.obtain("www.example")
    assert reusing.order("www.example").json()["status"] == "ready"
    assert reusing.order("*.www.example").json()["status"] == "pending", "one below was never shown"
    other = Client(world, directory, net).register()
    assert other.order("www.example").json()["status"] == "pending", "another account has shown nothing"
    world.later(days=2, seconds=1)
    assert reusing.order("www.example").json()["status"] == "pending"


# --- orders of others -------------------------------------------------------------------------------------------------


def test_nothing_of_another_account_can_be_reached(world: World, client: Client, net: Outside) -> None:
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    order = client.order("www.example").json()
    url = client.order_url(order)
    authorization = client.read(order["authorizations"][0])
    client.prove(order)
    stranger = Client(world, directory, net).register()

    for place, payload in (
        (url, None),
        (order["finalize"], {"csr": csr("www.example")}),
        (order["authorizations"][0], None),
        (order["authorizations"][0], {"status": "deactivated"}),
        (authorization["challenges"][0]["url"], None),
        (authorization["challenges"][0]["url"], {}),
        (url.replace("/order/", "/cert/"), None),
    ):
        assert stranger.post(place, payload).status_code == 404, place
    assert problem(stranger.post(client.kid or "", None)) == "unauthorized"
    assert problem(stranger.post(f"{client.kid}/orders", None)) == "unauthorized"
    assert client.read(url)["status"] == "ready", "nothing was changed"


def test_an_account_of_another_directory_is_none_here(world: World, client: Client, net: Outside) -> None:
    elsewhere = open_directory(world, name="Elsewhere")
    order = client.order("www.example").json()
    moved = client.order_url(order).replace("/servers/", f"/{elsewhere.slug}/")

    assert problem(client.post(moved, None)) == "accountDoesNotExist"


# --- lists, renewal, revocation ---------------------------------------------------------------------------------------


def test_an_account_s_orders_are_listed_in_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acme_server.protocol, "_ORDERS_A_PAGE", 2)
    urls = [client.order_url(client.order(f"h{number}.example").json()) for number in range(3)]

    first = client.post(f"{client.kid}/orders", None)
    following = first.headers["link"].split("<")[2].split(">")[0]
    second = client.post(following, None)

    assert first.json()["orders"] + second.json()["orders"] == urls[::-1]
    assert 'rel="next"' in first.headers["link"]
    assert 'rel="next"' not in second.headers["link"]


def test_a_window_to_renew_in(world: World, client: Client) -> None:
    leaf = client.obtain("www.example")[0]
    url = client.at("renewal-info", certificate_id(der(leaf)) or "")

    response = client.send("GET", url)

    window = response.json()["suggestedWindow"]
    start, end = (datetime.fromisoformat(window[side]) for side in ("start", "end"))
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert leaf.not_valid_before_utc + life * 0.6 < start < end < leaf.not_valid_after_utc
    assert int(response.headers["retry-after"]) == 6 * 3600


def test_a_revoked_certificate_is_to_be_renewed_at_once(world: World, client: Client) -> None:
    leaf = client.obtain("www.example")[0]
    assert client.post(client.at("revoke-cert"), {"certificate": b64url(der(leaf))}).status_code == 200

    window = client.send("GET", client.at("renewal-info", certificate_id(der(leaf)) or "")).json()["suggestedWindow"]

    assert datetime.fromisoformat(window["end"]) <= world.clock.now()


@pytest.mark.parametrize("renewal_id", ["a.b", "nothing", "..a", "x." + "A" * 100, "%2e%2e.AA", "AAAA.AQ"])
def test_renewal_information_of_what_isn_t_there(client: Client, renewal_id: str) -> None:
    response = client.send("GET", client.at("renewal-info", renewal_id))

    assert response.status_code == 404
    assert response.json()["type"].endswith(":malformed")


def test_an_order_replaces_a_certificate_once(world: World, client: Client, net: Outside) -> None:
    renewal_id = certificate_id(der(client.obtain("www.example", "shop.example")[0]))
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    stranger = Client(world, directory, net).register()

    assert problem(stranger.order("www.example", replaces=renewal_id)) == "malformed"
    assert problem(client.order("other.example", replaces=renewal_id)) == "malformed"
    assert problem(client.order("www.example", replaces="a.b")) == "malformed"
    assert problem(client.order("www.example", replaces=7)) == "malformed"
    order = client.order("www.example", replaces=renewal_id)
    assert order.json()["replaces"] == renewal_id
    again = client.order("www.example", replaces=renewal_id)
    assert (again.status_code, again.headers["location"]) == (201, order.headers["location"]), "said once more"
    for names in (("shop.example",), ("shop.example", "www.example")):
        another = client.order(*names, replaces=renewal_id)
        assert (another.status_code, problem(another)) == (409, "alreadyReplaced")
    # Once it failed, another may replace it.
    client.look(client.challenge(client.read(order.json()["authorizations"][0]), "http-01"))
    assert client.order("www.example", replaces=renewal_id).status_code == 201


def revoked(world: World) -> list[str | None]:
    ca = world.run(acme_server.list_directories(world.services, world.actor))[0].authority_id
    leaves = world.run(authorities.list_leaves(world.services, world.actor, ca, revoked=True))
    return [leaf.revocation_reason for leaf in leaves]


def test_revoking_by_the_account_that_ordered(world: World, client: Client) -> None:
    payload = {"certificate": b64url(der(client.obtain("www.example")[0])), "reason": 4}

    done = client.post(client.at("revoke-cert"), payload)

    assert (done.status_code, done.content) == (200, b"")
    assert revoked(world) == ["superseded"]
    assert problem(client.post(client.at("revoke-cert"), payload)) == "alreadyRevoked"


def test_revoking_by_the_certificate_s_key(world: World, client: Client) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    payload = {"certificate": b64url(der(client.obtain("www.example", key=key)[0])), "reason": 1}
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    holder = Client(world, directory)

    assert problem(holder.post(holder.at("revoke-cert"), payload, by_key=True)) == "unauthorized"
    holder.key = key
    assert holder.post(holder.at("revoke-cert"), payload, by_key=True).status_code == 200
    assert revoked(world) == ["key_compromise"]


def test_revoking_by_an_account_that_shows_control_of_every_name(world: World, client: Client, net: Outside) -> None:
    payload = {"certificate": b64url(der(client.obtain("a.example", "b.example")[0]))}
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    owner = Client(world, directory, net).register()

    owner.prove(owner.order("a.example").json())
    half = owner.post(owner.at("revoke-cert"), payload)
    assert problem(half) == "unauthorized"
    assert "b.example" in half.json()["detail"]
    owner.prove(owner.order("b.example").json())
    assert owner.post(owner.at("revoke-cert"), payload).status_code == 200
    assert revoked(world) == ["unspecified"]


@pytest.mark.parametrize("reason", [2, 6, 7, 8, 10, -1, "keyCompromise", True, 1.5])
def test_reasons_that_aren_t_a_subscriber_s(client: Client, reason: Any) -> None:
    payload = {"certificate": b64url(der(client.obtain("www.example")[0])), "reason": reason}

    assert problem(client.post(client.at("revoke-cert"), payload)) == "badRevocationReason"


def test_what_this_ca_never_issued_over_acme_can_t_be_revoked(world: World, client: Client) -> None:
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]
    by_hand = authorities.LeafRequest("server", names=("www.example",))
    (leaf,) = world.run(authorities.issue_leaves(world.services, world.actor, directory.authority_id, [by_hand]))
    assert isinstance(leaf, authorities.Leaf)

    for certificate in (b64url(leaf.der), b64url(b"no certificate"), "no base64!"):
        refused = client.post(client.at("revoke-cert"), {"certificate": certificate})
        assert problem(refused) == "malformed"
    assert problem(client.post(client.at("revoke-cert"), {})) == "malformed"
    assert revoked(world) == []


@pytest.mark.parametrize("ocsp", [True, False], ids=["the CA answers", "nobody answers"])
def test_must_staple_is_put_in_where_the_kind_says_so_and_the_ca_answers(
    world: World, net: Outside, ocsp: bool
) -> None:
    kind = {
        "extended_key_usage": ["server_auth"], "names": "server",
        "extensions": [{"oid": "1.3.6.1.5.5.7.1.24", "value": "MAMCAQU=", "critical": False}],
    }  # fmt: skip
    world.run(authorities.create_profile(world.services, world.actor, "stapled", kind))
    ca = world.run(authorities.update_authority(world.services, world.actor, builtin_ca(world), ocsp_enabled=ocsp))
    world.drain()
    client = Client(world, open_directory(world, profiles=("server", "stapled"), authority_id=ca.id), net).register()

    def finalized(profile: str) -> Any:
        order = client.order("www.example", profile=profile).json()
        client.prove(order)
        return client.post(order["finalize"], {"csr": csr("www.example", must_staple=True)})

    refused = finalized("server")
    assert problem(refused) == "badCSR"
    assert "must-staple, which certificates of the profile server don't have" in refused.json()["detail"]
    done = finalized("stapled")
    if not ocsp:
        assert (problem(done), "nobody gives any" in done.json()["detail"]) == ("malformed", True)
        return
    (leaf, *_) = x509.load_pem_x509_certificates(client.post(done.json()["certificate"], None).content)
    assert list(leaf.extensions.get_extension_for_class(x509.TLSFeature).value) == [x509.TLSFeatureType.status_request]


# --- what people see --------------------------------------------------------------------------------------------------


def test_people_see_why_an_order_failed(world: World, client: Client) -> None:
    _, authorization = first_authorization(client, "www.example")
    client.look(client.challenge(authorization, "http-01"))
    client.obtain("shop.example")
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]

    async def orders(state: OrderState | None = None) -> list[acme_server.AcmeOrder]:
        return await acme_server.list_orders(world.services, world.actor, directory.id, state=state)

    good, failed = world.run(orders())
    assert (good.state, good.names) == (OrderState.VALID, ("shop.example",))
    assert good.serial is not None
    assert failed.state is OrderState.INVALID
    assert "404" in (failed.error or "")
    whole = world.run(acme_server.get_order(world.services, world.actor, directory.id, failed.id))
    assert whole.authorizations[0].challenge == "http-01"
    assert [one.id for one in world.run(orders(OrderState.VALID))] == [good.id]
    assert [one.id for one in world.run(orders(OrderState.INVALID))] == [failed.id]
    assert world.run(orders(OrderState.READY)) == world.run(orders(OrderState.PENDING)) == []
    waiting = client.order("late.example").json()
    assert [one.names for one in world.run(orders(OrderState.PENDING))] == [("late.example",)]
    client.prove(waiting)
    assert [one.names for one in world.run(orders(OrderState.READY))] == [("late.example",)]
    assert datetime(2026, 3, 1, tzinfo=UTC) < whole.created_at


def test_orders_are_found_by_a_whole_name_as_people_write_it(world: World, api: Api, client: Client) -> None:
    for names in (("www.example", "shop.example"), ("*.example",), ("xn--bcher-kva.example",), ("www.example",)):
        client.order(*names)
    directory = world.run(acme_server.list_directories(world.services, world.actor))[0]

    def found(search: str, **more: str | int) -> list[list[str]]:
        listed = api.get(f"/api/v1/acme-directories/{directory.id}/orders", params={"search": search, **more})
        assert listed.status_code == 200, listed.text
        return [one["names"] for one in listed.json()["items"]]

    assert found("www.example") == [["www.example"], ["www.example", "shop.example"]]
    assert found(" WWW.Example. ", state="pending", limit=1) == [["www.example"]]
    assert found("*.example") == [["*.example"]]
    assert found("b\u00fccher.example") == [["xn--bcher-kva.example"]]
    # No pattern, no part of a name, nothing that ends a statement.
    for nothing in ("%.example", "_ww.example", "example", "w*.example", "'; --", "{www.example}", '"', "10.0.0.1"):
        assert found(nothing) == []
    assert len(found("  ")) == 4
    first = api.get(f"/api/v1/acme-directories/{directory.id}/orders", params={"search": "www.example", "limit": 1})
    assert found("www.example", cursor=first.json()["next_cursor"]) == [["www.example", "shop.example"]]

    async def plan() -> str:
        o = acme_orders.c
        query = sa.select(o.id).where(o.names.contains(["www.example"]))
        async with world.services.db.begin() as tx:
            # A table of four rows is read whole otherwise, whatever it has.
            await tx.execute(sa.text("SET LOCAL enable_seqscan = off"))
            compiled = query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
            return "\n".join((await tx.execute(sa.text(f"EXPLAIN {compiled}"))).scalars())

    assert "ix_acme_orders_names" in world.run(plan())
