"""The whole way with a real ACME CA: Pebble refuses nonces at random and validates http-01 and dns-01 for real."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dns.message import make_query
from dns.query import udp

from certwright.acme.objects import AuthorizationStatus
from certwright.connectors.ca.acme import AcmeAuthorities, AcmeClient
from certwright.kernel.problems import Unavailable
from certwright.platform.config import Settings
from certwright.platform.jobs import drain
from certwright.rooms import cas, certificates, validation
from certwright.rooms.cas.tables import ca_orders, ca_uses
from certwright.rooms.certificates import RevocationReason, State
from certwright.x509.certificates import key_matches, read_certificates
from certwright.x509.keys import read_private_key
from tests.cas import work
from tests.cas.site import Site, site
from tests.conftest import World
from tests.servers.dns import DnsServer, TsigKey, authoritative, zone_text
from tests.servers.pebble import Pebble, pebble
from tests.servers.ports import free_port
from tests.servers.programs import require

ZONE = "acme.test"
KEY = TsigKey("acme.key")


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    """Authoritative for the zone, and what both the product and the CA ask."""
    require("knotd")
    zones = {ZONE: zone_text(ZONE, ["* A 127.0.0.1", "@ A 127.0.0.1"])}
    with authoritative(tmp_path_factory.mktemp("dns"), zones, keys=[KEY], port=free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def ca(dns: DnsServer, web: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    require("pebble")
    with pebble(tmp_path_factory.mktemp("pebble"), dns.endpoint, http_port=web.port) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, dns: DnsServer, web: Site) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8",), dns_servers=(dns.endpoint,), dns_authoritative_port=dns.port,
        validation_http_port=web.port,
    )  # fmt: skip


@pytest.fixture
def product(world: World) -> World:
    world.clock.set(datetime.now(UTC))
    return world


def add(world: World, ca: Pebble, **changes: Any) -> cas.Ca:
    return work.add(world, ca.directory_url, ca.root_pem, **changes)


def connect_dns(world: World, dns: DnsServer) -> None:
    world.run(
        validation.create_connection(
            world.services, world.actor, name="knot", kind="rfc2136", zones=(ZONE,), secret=KEY.secret,
            settings={"server": dns.address, "port": dns.port, "key_name": KEY.name},
        )
    )  # fmt: skip


# --- to a certificate ------------------------------------------------------------------------------------------------


def test_a_certificate_is_issued_over_http_01_and_fits_its_key(product: World, ca: Pebble, web: Site) -> None:
    add(product, ca)
    made = work.apply(product, "shop.acme.test", "www.shop.acme.test")
    product.drain()
    waiting = work.look(product, made.id)
    assert waiting.summary.state is State.PENDING_DOMAIN_VALIDATION
    assert waiting.validation is not None
    assert {d.method for d in waiting.validation.domains} == {validation.Method.HTTP_01}
    urls = work.publish_all(product, web, made.id)
    assert all(f":{web.port}/.well-known/acme-challenge/" in url for url in urls)

    detail = work.finish(product, made.id)

    assert detail.summary.state is State.ISSUED, detail.application
    chain = read_certificates(
        product.run(certificates.download(product.services, product.actor, made.id, "fullchain")).content
    )
    key = read_private_key(product.run(certificates.download(product.services, product.actor, made.id, "key")).content)
    assert set(chain[0].dns_names) == {"shop.acme.test", "www.shop.acme.test"}
    assert "Pebble" in chain[0].issuer
    assert key_matches(key, chain[0])


def test_a_wildcard_and_its_base_are_issued_over_dns_01_by_themselves_and_the_records_go(
    product: World, ca: Pebble, dns: DnsServer
) -> None:
    add(product, ca)
    connect_dns(product, dns)
    made = work.apply(product, "wild.acme.test", "*.wild.acme.test", method="dns")
    detail = work.finish(product, made.id)
    assert detail.summary.state is State.ISSUED, detail.application
    assert set(detail.summary.names) == {"wild.acme.test", "*.wild.acme.test"}
    product.drain()
    question = make_query("_acme-challenge.wild.acme.test.", "TXT")
    assert not udp(question, dns.address, port=dns.port, timeout=5).answer


def test_a_reissue_and_another_certificate_of_the_same_name_work_whether_or_not_the_ca_asks_again(
    product: World, ca: Pebble, web: Site
) -> None:
    add(product, ca)
    detail = work.issue(product, web, "again.acme.test")
    product.run(certificates.reissue(product.services, product.actor, detail.id))
    product.drain()
    work.publish_all(product, web, detail.id)
    after = work.finish(product, detail.id)
    assert [v.number for v in after.versions] == [2, 1]
    work.issue(product, web, "again.acme.test")


def test_a_certificate_is_revoked_at_the_ca(product: World, ca: Pebble, web: Site) -> None:
    add(product, ca)
    detail = work.issue(product, web, "gone.acme.test")
    product.run(certificates.revoke(product.services, product.actor, detail.id, RevocationReason.SUPERSEDED))
    assert work.finish(product, detail.id).summary.state is State.REVOKED


# --- not to a certificate --------------------------------------------------------------------------------------------


def test_what_the_ca_saw_instead_is_told_in_its_words_and_counted(product: World, ca: Pebble, web: Site) -> None:
    added = add(product, ca)
    made = work.apply(product, "liar.acme.test")
    product.drain()
    (url,) = work.publish_all(product, web, made.id)
    work.check(product, made.id)
    web.publish(url, "something else")  # between our look and the CA's
    detail = work.finish(product, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert "liar.acme.test" in work.why(detail)
    assert "something else" in work.why(detail)
    used = work.rows(product, sa.select(ca_uses.c.kind, ca_uses.c.subject).where(ca_uses.c.ca_id == added.id))
    assert ("failed_validations", "liar.acme.test") in [tuple(row) for row in used]


def test_after_three_failures_the_fourth_order_waits_here_instead_of_at_the_ca(
    product: World, ca: Pebble, web: Site
) -> None:
    added = add(product, ca)
    for _ in range(3):
        made = work.apply(product, "fails.acme.test")
        product.drain()
        (url,) = work.publish_all(product, web, made.id)
        work.check(product, made.id)
        web.publish(url, "wrong")
        assert work.finish(product, made.id).summary.state is State.APPROVAL_FAILED
    fourth = work.apply(product, "fails.acme.test")
    product.drain()
    waiting = work.look(product, fourth.id)
    assert waiting.application is not None
    assert waiting.application.waiting_for is not None
    assert waiting.application.waiting_for["code"] == "ca_quota_spent"
    placed = work.rows(product, sa.select(ca_orders.c.id).where(ca_orders.c.ca_id == added.id))
    assert len(placed) == 3
    product.later(minutes=61)
    product.drain()
    placed = work.rows(product, sa.select(ca_orders.c.order_url).where(ca_orders.c.ca_id == added.id))
    assert len(placed) == 4
    assert all(row.order_url for row in placed)


def test_an_application_can_be_withdrawn_while_the_ca_waits_and_the_records_go(
    product: World, ca: Pebble, web: Site
) -> None:
    add(product, ca)
    made = work.apply(product, "changed-mind.acme.test")
    product.drain()
    asked = product.run(certificates.withdraw(product.services, product.actor, made.id))
    assert asked.summary.state is State.VERIFYING_WITHDRAWAL
    product.drain()
    assert work.look(product, made.id).summary.state is State.PENDING_APPLICATION
    (order,) = work.rows(product, sa.select(ca_orders.c.order_url, ca_orders.c.failed_at, ca_orders.c.ca_id))
    assert order.failed_at is not None
    session = product.run(AcmeAuthorities(product.services).session(order.ca_id))
    placed, _ = product.run(session.client.order(session.who, order.order_url))
    (url,) = placed.authorizations
    given_up, _ = product.run(session.client.authorization(session.who, url))
    assert given_up.status is AuthorizationStatus.DEACTIVATED


# --- accounts --------------------------------------------------------------------------------------------------------


def test_testing_a_ca_registers_an_account_once(product: World, ca: Pebble) -> None:
    added = add(product, ca)
    assert added.account_url is None
    first = product.run(cas.check_ca(product.services, product.actor, added.id))
    again = product.run(cas.check_ca(product.services, product.actor, added.id))
    assert first.problem is None, first.problem
    assert first.account_url is not None
    assert again.account_url == first.account_url
    assert first.offers is not None
    assert first.offers.key_change


def test_the_accounts_key_can_be_changed_and_certificates_still_issued(product: World, ca: Pebble, web: Site) -> None:
    added = add(product, ca)
    work.issue(product, web, "before.acme.test")
    changed = product.run(cas.change_key(product.services, product.actor, added.id))
    assert not changed.key_change_pending
    assert changed.account_url is not None
    work.issue(product, web, "after.acme.test")


def test_new_contacts_reach_the_ca(product: World, ca: Pebble) -> None:
    added = product.run(cas.check_ca(product.services, product.actor, add(product, ca).id))
    product.run(
        cas.update_ca(product.services, product.actor, added.id, revision=added.revision, contacts=["new@example.com"])
    )
    assert product.run(cas.check_ca(product.services, product.actor, added.id)).problem is None


def test_a_ca_that_wants_bound_accounts_takes_only_those(
    product: World, dns: DnsServer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    require("pebble")
    mac = base64.urlsafe_b64encode(b"0123456789abcdef0123456789abcdef").decode().rstrip("=")
    with pebble(tmp_path_factory.mktemp("eab"), dns.endpoint, eab={"kid-1": mac}) as bound:
        without = product.run(cas.check_ca(product.services, product.actor, add(product, bound, name="a").id))
        assert without.problem is not None
        assert without.problem["code"] == "ca_eab_needed"
        wrong = base64.urlsafe_b64encode(b"another key, of the right length").decode()
        refused = add(product, bound, name="b", eab_kid="kid-1", eab_key=wrong)
        assert product.run(cas.check_ca(product.services, product.actor, refused.id)).problem is not None
        good = add(product, bound, name="c", eab_kid="kid-1", eab_key=mac)
        done = product.run(cas.check_ca(product.services, product.actor, good.id))
        assert done.problem is None, done.problem
        assert done.account_url is not None


def test_a_ca_that_lost_its_accounts_is_registered_at_again_by_a_test(
    product: World, dns: DnsServer, web: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Pebble keeps everything in memory: a restart forgets the account, as a CA's restored backup would."""
    require("pebble")
    with pebble(tmp_path_factory.mktemp("first"), dns.endpoint, http_port=web.port) as first:
        added = product.run(cas.check_ca(product.services, product.actor, add(product, first).id))
    with pebble(tmp_path_factory.mktemp("second"), dns.endpoint, http_port=web.port) as second:

        async def moved() -> None:
            async with product.services.db.begin() as tx:
                await cas.store.note(tx, added.id, directory_url=second.directory_url, root_pem=second.root_pem)

        product.run(moved())
        made = work.apply(product, "lost.acme.test")
        detail = work.finish(product, made.id)
        assert detail.summary.state is State.APPROVAL_FAILED
        assert "ca_account_unknown" in work.why(detail) or "ca_refused" in work.why(detail)
        again = product.run(cas.check_ca(product.services, product.actor, added.id))
        assert again.problem is None, again.problem
        work.issue(product, web, "found.acme.test")


def test_a_closed_account_is_closed_at_the_ca_and_its_key_erased(product: World, ca: Pebble) -> None:
    from certwright.rooms.keys.tables import private_keys

    added = product.run(cas.check_ca(product.services, product.actor, add(product, ca).id))
    product.run(cas.delete_ca(product.services, product.actor, added.id, deactivate=True))
    assert product.run(cas.list_cas(product.services, product.actor)) == ()
    held = work.rows(product, sa.select(private_keys.c.sealed, private_keys.c.erased_at))
    assert [(row.sealed, row.erased_at is not None) for row in held] == [(None, True)]


def test_an_order_whose_answer_was_lost_is_found_in_the_accounts_list(
    product: World, ca: Pebble, web: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = add(product, ca)
    usual, placed = AcmeClient.new_order, []

    async def swallowed(self: AcmeClient, *args: Any, **kwargs: Any) -> Any:
        placed.append((await usual(self, *args, **kwargs))[0])
        raise Unavailable("ca_answer_unreadable", "the line was cut")

    with monkeypatch.context() as patch:
        patch.setattr(AcmeClient, "new_order", swallowed)
        made = work.apply(product, "cut.acme.test")
        product.run(drain(product.services, rounds=1))
        assert len(placed) >= 1
        first = placed[0]
        monkeypatch.undo()
    detail = work.look(product, made.id)
    product.drain()
    found = work.rows(product, sa.select(ca_orders.c.order_url).where(ca_orders.c.ca_id == added.id))
    assert [row.order_url for row in found] == [first]
    work.publish_all(product, web, detail.id)
    assert work.finish(product, detail.id).summary.state is State.ISSUED


def test_after_another_account_was_registered_the_certificates_key_revokes_it(
    product: World, ca: Pebble, web: Site
) -> None:
    added = add(product, ca)
    detail = work.issue(product, web, "orphan.acme.test")
    before = product.run(cas.get_ca(product.services, product.actor, added.id)).account_url
    after = product.run(cas.new_account(product.services, product.actor, added.id))
    assert after.problem is None, after.problem
    assert after.account_url not in (None, before)
    product.run(certificates.revoke(product.services, product.actor, detail.id, RevocationReason.SUPERSEDED))
    done = work.finish(product, detail.id)
    assert (done.summary.state, done.versions[0].revoked_by) == (State.REVOKED, "key")
