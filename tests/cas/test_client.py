"""The ACME client against a server that does what the test says: every odd answer becomes a typed problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from certwright.acme.objects import Identifier, OrderStatus
from certwright.connectors.ca.acme import AcmeClient, Signer
from certwright.connectors.ca.acme.client import NONCE_TRIES
from certwright.kernel.clock import SystemClock
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.addresses import AddressGuard
from certwright.platform.egress import Egress
from certwright.platform.resolver import Resolver
from certwright.x509.csr import make_csr
from tests.servers.acme import FakeAcme, Reply, fake_acme, problem
from tests.servers.tls import issue

GUARD = AddressGuard.of(["127.0.0.0/8"])
NAME = Identifier("dns", "a.example.com")


@pytest.fixture
def ca() -> Iterator[FakeAcme]:
    with fake_acme() as running:
        yield running


def client_of(ca: FakeAcme, *, guard: AddressGuard = GUARD, root_pem: str | None = None) -> AcmeClient:
    egress = Egress(Resolver([], guard=guard), guard)
    return AcmeClient(egress, SystemClock(), ca.directory_url, root_pem=root_pem or ca.root_pem)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def refused(work: Coroutine[Any, Any, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        run(work)
    return caught.value


async def account(client: AcmeClient) -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    url, _ = await client.new_account(key, contacts=["a@example.com"], agree_terms=True)
    return Signer(key, url)


def issued(ca: FakeAcme, client: AcmeClient) -> tuple[Signer, ec.EllipticCurvePrivateKey, str]:
    """(account, the certificate's key, URL of the certificate)."""
    ca.valid_names.add(NAME.value)
    key = ec.generate_private_key(ec.SECP256R1())

    async def go() -> tuple[Signer, ec.EllipticCurvePrivateKey, str]:
        who = await account(client)
        _, order = await client.new_order(who, [NAME])
        after, _ = await client.finalize(who, order, make_csr(key, [NAME.value]))
        assert after.certificate is not None
        return who, key, after.certificate

    return run(go())


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_an_order_goes_from_account_to_certificate(ca: FakeAcme) -> None:
    client = client_of(ca)

    async def go() -> None:
        who = await account(client)
        url, order = await client.new_order(who, [NAME])
        (place,) = order.authorizations
        authorization, _ = await client.authorization(who, place)
        assert {c.type for c in authorization.challenges} == {"http-01", "dns-01", "tls-alpn-01"}
        await client.respond(who, authorization.challenges[0])
        ready, _ = await client.order(who, url)
        assert ready.status is OrderStatus.READY
        key = ec.generate_private_key(ec.SECP256R1())
        done, _ = await client.finalize(who, ready, make_csr(key, [NAME.value]))
        assert done.certificate is not None
        chain = await client.download(who, done.certificate)
        assert chain.certificates[0].dns_names == (NAME.value,)
        assert len(chain.alternates) == 1

    run(go())


def test_accounts_are_found_updated_rolled_over_and_closed(ca: FakeAcme) -> None:
    client = client_of(ca)

    async def go() -> None:
        who = await account(client)
        assert await client.find_account(who.key) == who.kid
        assert await client.find_account(ec.generate_private_key(ec.SECP256R1())) is None
        await client.update_contacts(who, ["b@example.com"])
        assert ca.accounts[str(who.kid)]["contact"] == ["mailto:b@example.com"]
        new = ec.generate_private_key(ec.SECP256R1())
        await client.change_key(who, new)
        assert await client.find_account(who.key) is None
        assert await client.find_account(new) == who.kid
        await client.deactivate_account(Signer(new, who.kid))
        assert await client.find_account(new) is None

    run(go())


def test_a_certificate_is_revoked_by_the_account_and_twice_is_once(ca: FakeAcme) -> None:
    client = client_of(ca)
    who, _, url = issued(ca, client)

    async def go() -> bytes:
        leaf = (await client.download(who, url)).certificates[0].der
        await client.revoke(who, leaf, 4)
        await client.revoke(who, leaf, 4)
        return leaf

    assert ca.revoked[run(go())] == 4


def test_a_certificate_is_revoked_by_its_own_key_without_an_account(ca: FakeAcme) -> None:
    client = client_of(ca)
    who, key, url = issued(ca, client)

    async def go() -> bytes:
        leaf = (await client.download(who, url)).certificates[0].der
        await client.revoke(Signer(key), leaf, 1)
        return leaf

    assert ca.revoked[run(go())] == 1


def test_somebody_elses_key_revokes_nothing(ca: FakeAcme) -> None:
    client = client_of(ca)
    who, _, url = issued(ca, client)

    async def go() -> None:
        leaf = (await client.download(who, url)).certificates[0].der
        await client.revoke(Signer(ec.generate_private_key(ec.SECP256R1())), leaf, 1)

    assert refused(go()).code == "ca_not_permitted"
    assert not ca.revoked


def test_the_renewal_window_comes_with_its_retry_after(ca: FakeAcme) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    ca.ari_window = (start, start + timedelta(days=2))
    found = run(client_of(ca).renewal_info("aaa.bbb"))
    assert found is not None
    info, wait = found
    assert (info.start, info.end, wait) == (start, start + timedelta(days=2), timedelta(hours=6))
    assert ca.requests("renewal-info") == ["aaa.bbb"]


def test_a_server_without_renewal_information_gives_none(ca: FakeAcme) -> None:
    ca.with_ari = False
    assert run(client_of(ca).renewal_info("aaa.bbb")) is None


# --- nonces ----------------------------------------------------------------------------------------------------------


def test_refused_nonces_are_replaced(ca: FakeAcme) -> None:
    client = client_of(ca)
    ca.in_the_way["new-account"].extend([problem("badNonce")] * (NONCE_TRIES - 1))
    assert run(account(client)).kid is not None


def test_a_server_that_takes_no_nonce_at_all_is_given_up(ca: FakeAcme) -> None:
    ca.in_the_way["new-account"].extend([problem("badNonce")] * 50)
    found = refused(account(client_of(ca)))
    assert (type(found), found.code) == (Unavailable, "ca_busy")
    assert len(ca.in_the_way["new-account"]) == 50 - NONCE_TRIES


def test_nonces_of_earlier_answers_are_used_and_forgotten_ones_replaced(ca: FakeAcme) -> None:
    client = client_of(ca)

    async def go() -> None:
        who = await account(client)
        ca.in_the_way["nonce"].append(Reply(500, b"must not be asked"))
        await client.new_order(who, [NAME])
        assert ca.in_the_way["nonce"]
        ca.in_the_way["nonce"].clear()
        ca.forget_nonces()
        await client.new_order(who, [NAME])

    run(go())


def test_many_requests_at_once_share_the_pool(ca: FakeAcme) -> None:
    client = client_of(ca)

    async def go() -> None:
        who = await account(client)
        await asyncio.gather(*(client.new_order(who, [Identifier("dns", f"n{i}.example.com")]) for i in range(12)))

    run(go())
    assert len(ca.orders) == 12


# --- what a CA may say -----------------------------------------------------------------------------------------------

KINDS = [
    ("externalAccountRequired", Refused, "ca_eab_needed"),
    ("userActionRequired", Refused, "ca_user_action"),
    ("accountDoesNotExist", Refused, "ca_account_unknown"),
    ("invalidContact", Refused, "ca_contact_refused"),
    ("unsupportedContact", Refused, "ca_contact_refused"),
    ("rejectedIdentifier", Refused, "ca_name_refused"),
    ("unsupportedIdentifier", Refused, "ca_name_refused"),
    ("caa", Refused, "ca_caa_forbids"),
    ("invalidProfile", Refused, "ca_profile_refused"),
    ("badPublicKey", Refused, "ca_csr_refused"),
    ("badCSR", Refused, "ca_csr_refused"),
    ("badRevocationReason", Refused, "ca_reason_refused"),
    ("badSignatureAlgorithm", Refused, "ca_algorithm_refused"),
    ("alreadyReplaced", Refused, "ca_already_replaced"),
    ("unauthorized", Refused, "ca_not_permitted"),
    ("malformed", Refused, "ca_refused"),
    ("somethingNew", Refused, "ca_refused"),
    ("orderNotReady", Unavailable, "ca_order_not_ready"),
    ("serverInternal", Unavailable, "ca_busy"),
    ("rateLimited", Unavailable, "ca_rate_limited"),
]


@pytest.mark.parametrize(("kind", "shape", "code"), KINDS, ids=[k for k, _, _ in KINDS])
def test_each_kind_of_error_is_a_problem_with_the_cas_words(
    ca: FakeAcme, kind: str, shape: type[Problem], code: str
) -> None:
    ca.in_the_way["new-order"].append(problem(kind, "in its own words", 403))
    client = client_of(ca)

    async def go() -> None:
        await client.new_order(await account(client), [NAME])

    found = refused(go())
    assert (type(found), found.code) == (shape, code)
    assert "in its own words" in found.message
    assert found.extra["acme"] == kind


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_server_without_a_kind_is_asked_again(ca: FakeAcme, status: int) -> None:
    ca.in_the_way["new-order"].append(Reply(status, b"<html>busy</html>", (("Retry-After", "90"),), "text/html"))
    client = client_of(ca)

    async def go() -> None:
        await client.new_order(await account(client), [NAME])

    found = refused(go())
    assert (type(found), found.code, found.extra["retry_after"]) == (Unavailable, "ca_busy", 90)


@pytest.mark.parametrize("as_date", [False, True], ids=["in seconds", "as a date"])
def test_how_long_to_wait_is_told(ca: FakeAcme, as_date: bool) -> None:
    at = datetime.now(UTC) + timedelta(seconds=3600)
    said = format_datetime(at, usegmt=True) if as_date else "3600"
    ca.in_the_way["new-order"].append(problem("rateLimited", "slow down", 429, ("Retry-After", said)))
    client = client_of(ca)

    async def go() -> None:
        await client.new_order(await account(client), [NAME])

    assert 3500 <= refused(go()).extra["retry_after"] <= 3600


def test_words_of_the_ca_are_bounded_and_printable(ca: FakeAcme) -> None:
    ca.in_the_way["new-order"].append(problem("malformed", "\x1b[2J" + "x" * 100_000))
    client = client_of(ca)

    async def go() -> None:
        await client.new_order(await account(client), [NAME])

    found = refused(go())
    assert len(found.message) < 400
    assert found.message.isprintable()


# --- what no CA should say -------------------------------------------------------------------------------------------

GARBAGE = {
    "not JSON": Reply(200, b"<html>"),
    "nothing": Reply(200, b""),
    "a list": Reply(200, b"[]"),
    "bottomless": Reply(200, b"[" * 60_000),
    "the wrong members": Reply(200, json.dumps({"status": "vlaid"}).encode()),
    "a redirect": Reply(302, b"", (("Location", "https://127.0.0.1/"),)),
    "too much": Reply(200, b" " * 3_000_000),
}


@pytest.mark.parametrize("resource", ["directory", "new-account", "new-order", "order", "certificate"])
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_a_problem_that_is_asked_again(ca: FakeAcme, resource: str, garbage: Reply) -> None:
    client = client_of(ca)
    who, _, url = issued(ca, client)
    ca.in_the_way[resource].append(garbage)

    async def go() -> None:
        await client.directory(fresh=True)
        again = await account(client)
        order_url, _ = await client.new_order(again, [NAME])
        await client.order(again, order_url)
        await client.download(who, url)

    found = refused(go())
    assert isinstance(found, Unavailable)
    assert found.code in ("ca_answer_unreadable", "ca_unreachable")


def test_an_order_without_location_is_unreadable(ca: FakeAcme) -> None:
    body = {
        "status": "pending", "identifiers": [], "authorizations": [], "finalize": "https://127.0.0.1/f",
    }  # fmt: skip
    client = client_of(ca)
    ca.in_the_way["new-order"].append(Reply(201, json.dumps(body).encode()))

    async def go() -> None:
        await client.new_order(await account(client), [NAME])

    assert refused(go()).code == "ca_answer_unreadable"


def test_the_directory_cant_send_us_to_another_port(ca: FakeAcme) -> None:
    client = client_of(ca)
    found = {"newNonce": "https://127.0.0.1:22/n", "newAccount": "https://127.0.0.1:22/a",
             "newOrder": "https://127.0.0.1:22/o", "revokeCert": "https://127.0.0.1:22/r"}  # fmt: skip
    ca.in_the_way["directory"].append(Reply(200, json.dumps(found).encode()))
    said = refused(account(client))
    assert (said.code, said.extra["cause"]) == ("ca_unreachable", "egress_denied")


def test_a_private_network_is_reached_only_if_the_operator_opened_it(ca: FakeAcme) -> None:
    said = refused(client_of(ca, guard=AddressGuard()).directory())
    assert (said.code, said.extra["cause"]) == ("ca_unreachable", "egress_denied")
    assert not ca.seen


def test_only_the_root_given_for_a_ca_vouches_for_it(ca: FakeAcme) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    other = issue("Other root", ca=True).certificate.public_bytes(Encoding.PEM).decode()
    said = refused(client_of(ca, root_pem=other).directory())
    assert (said.code, said.extra["cause"]) == ("ca_unreachable", "egress_tls")


def test_a_ca_that_is_away_is_asked_again() -> None:
    with fake_acme() as gone:
        pass
    said = refused(client_of(gone).directory())
    assert (type(said), said.code) == (Unavailable, "ca_unreachable")
