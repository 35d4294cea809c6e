"""A second, independent ACME server: Caddy's, with dns-01 written over RFC 2136."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from certwright.connectors.dns.rfc2136 import Rfc2136Writer
from certwright.platform.config import Settings
from certwright.rooms import audit, cas, certificates, validation
from certwright.rooms.certificates import State, Wanted
from certwright.rooms.validation import DnsRecord
from certwright.x509.certificates import read_certificates
from tests.cas import work
from tests.certificates.ca_conformance import CaConformance, Subject
from tests.conftest import World
from tests.servers.caddy import Caddy, caddy, require_caddy
from tests.servers.dns import DnsServer, TsigKey, authoritative, zone_text
from tests.servers.pebble import pebble
from tests.servers.ports import free_port
from tests.servers.programs import require

ZONE = "caddy.test"
KEY = TsigKey("caddy.key")


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    require("knotd")
    require_caddy()
    directory = tmp_path_factory.mktemp("dns")
    with authoritative(directory, {ZONE: zone_text(ZONE)}, keys=[KEY], port=free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def ca(dns: DnsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caddy]:
    with caddy(tmp_path_factory.mktemp("caddy"), dns.endpoint) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, dns: DnsServer) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8",), dns_servers=(dns.endpoint,), dns_authoritative_port=dns.port,
    )  # fmt: skip


def connect_dns(world: World, dns: DnsServer) -> None:
    world.run(
        validation.create_connection(
            world.services, world.actor, name="knot", kind="rfc2136", zones=(ZONE,), secret=KEY.secret,
            settings={"server": dns.address, "port": dns.port, "key_name": KEY.name},
        )
    )  # fmt: skip


@pytest.fixture
def product(world: World, ca: Caddy, dns: DnsServer) -> World:
    world.clock.set(datetime.now(UTC))
    work.add(world, ca.directory_url, ca.root_pem)
    connect_dns(world, dns)
    return world


def test_names_and_a_wildcard_are_issued_and_reissued(product: World) -> None:
    made = work.apply(product, "shop.caddy.test", "*.shop.caddy.test", method="dns")
    detail = work.finish(product, made.id)
    assert detail.summary.state is State.ISSUED, detail.application
    chain = read_certificates(
        product.run(certificates.download(product.services, product.actor, made.id, "fullchain")).content
    )
    assert set(chain[0].dns_names) == {"shop.caddy.test", "*.shop.caddy.test"}
    assert "Caddy Local Authority" in chain[0].issuer
    product.run(certificates.reissue(product.services, product.actor, made.id))
    assert [v.number for v in work.finish(product, made.id).versions] == [2, 1]


def test_a_record_taken_away_before_the_ca_looks_is_a_failure_in_its_words(
    product: World, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from certwright.connectors.ca.acme import AcmeClient

    usual = AcmeClient.respond
    added: list[DnsRecord] = []
    looks = 0
    writing = Rfc2136Writer.add

    async def noted(self: Rfc2136Writer, record: DnsRecord) -> None:
        added.append(record)
        await writing(self, record)

    async def robbed(self: AcmeClient, who: object, challenge: object) -> None:
        nonlocal looks
        looks += 1
        writer = Rfc2136Writer(
            product.services.egress, dns.address, dns.port, (ZONE,), key_name=KEY.name, algorithm=KEY.algorithm,
            secret=KEY.secret,
        )  # fmt: skip
        for record in added:
            await writer.remove(record)
        await usual(self, who, challenge)  # type: ignore[arg-type]

    monkeypatch.setattr(Rfc2136Writer, "add", noted)
    monkeypatch.setattr(AcmeClient, "respond", robbed)
    made = work.apply(product, "robbed.caddy.test", method="dns")
    for _ in range(6):
        product.drain()
        product.later(minutes=3)
    detail = work.look(product, made.id)
    # Caddy leaves the name open after a failed look (RFC 8555 8.2): it is told three times, minutes apart.
    assert looks == 3
    assert detail.summary.state is State.APPROVAL_FAILED
    assert "robbed.caddy.test (pending) dns-01:" in work.why(detail)


def test_the_account_is_found_again_and_its_directory_read(product: World) -> None:
    (added,) = product.run(cas.list_cas(product.services, product.actor))
    tested = product.run(cas.check_ca(product.services, product.actor, added.id))
    assert tested.problem is None, tested.problem
    again = product.run(cas.check_ca(product.services, product.actor, added.id))
    assert again.account_url == tested.account_url


class TestCaddy(CaConformance):
    """The suite every CA passes, shown by records written by hand, so to speak."""

    @pytest.fixture
    def subject(self, world: World, ca: Caddy, dns: DnsServer) -> Subject:
        world.clock.set(datetime.now(UTC))
        added = work.add(world, ca.directory_url, ca.root_pem)

        def publish(wanted: Wanted) -> None:
            writer = Rfc2136Writer(
                world.services.egress, dns.address, dns.port, (ZONE,), key_name=KEY.name, algorithm=KEY.algorithm,
                secret=KEY.secret,
            )  # fmt: skip
            world.run(writer.add(DnsRecord(wanted.place, "TXT", wanted.value)))

        return Subject(world, added.id, ("a.caddy.test", "b.caddy.test"), publish, method="dns")


def test_when_the_first_ca_is_down_the_second_issues_and_the_audit_says_why(
    world: World, ca: Caddy, dns: DnsServer, tmp_path: Path
) -> None:
    """Pebble was reached once and is then stopped for good; Caddy takes over."""
    require("pebble")
    world.clock.set(datetime.now(UTC))
    connect_dns(world, dns)
    work.add(world, ca.directory_url, ca.root_pem, name="caddy")
    with pebble(tmp_path / "pebble", dns.endpoint) as first:
        added = work.add(world, first.directory_url, first.root_pem, name="pebble")
        assert world.run(cas.check_ca(world.services, world.actor, added.id)).problem is None
    made = work.apply(world, "over.caddy.test", method="dns", ca="pebble", fallback_ca="caddy")
    world.drain()
    waiting = work.look(world, made.id)
    assert waiting.summary.state is State.PENDING_DOMAIN_VALIDATION
    assert waiting.application is not None
    assert waiting.application.waiting_for is not None
    assert waiting.application.waiting_for["code"] == "ca_unreachable"
    world.later(hours=world.services.settings.ca_patience_hours, minutes=1)
    detail = work.finish(world, made.id)
    assert detail.summary.state is State.ISSUED, detail.application
    assert "Caddy" in detail.versions[0].issuer
    assert (detail.summary.ca, detail.fallback_ca) != (added.id, None)
    events = audit.audit_events.c
    (told,) = work.rows(world, sa.select(events.before, events.reason).where(events.action == "scm:cert:fall_over"))
    assert told.before == {"ca": added.id}
    assert "can't be reached" in told.reason
