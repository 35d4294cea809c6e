"""tls-alpn-01 (RFC 8737) and IP addresses (RFC 8738) with a real Pebble, answered by our own responder."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certwright.acme.challenges import TLS_ALPN_PROTOCOL
from certwright.entry.responder import ChallengeResponder
from certwright.kernel.problems import InvalidFields, Unavailable
from certwright.platform.config import Settings
from certwright.platform.egress import EgressProblem
from certwright.rooms import certificates
from certwright.rooms.certificates import RevocationReason, State
from certwright.x509.certificates import read_certificates
from tests.cas import work
from tests.cas.site import Site, site
from tests.conftest import World
from tests.servers.dns import DnsServer, authoritative, zone_text
from tests.servers.pebble import Pebble, pebble
from tests.servers.ports import free_port
from tests.servers.programs import require

PORT = free_port()


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    require("knotd")
    zones = {"alpn.test": zone_text("alpn.test", ["* A 127.0.0.1", "@ A 127.0.0.1"])}
    with authoritative(tmp_path_factory.mktemp("dns"), zones, port=free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def ca(dns: DnsServer, web: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    require("pebble")
    directory = tmp_path_factory.mktemp("pebble")
    with pebble(directory, dns.endpoint, http_port=web.port, tls_port=PORT) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, dns: DnsServer, web: Site) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8",), dns_servers=(dns.endpoint,), dns_authoritative_port=dns.port,
        validation_http_port=web.port, validation_tls_port=PORT, tls_alpn_listen=f"127.0.0.1:{PORT}",
    )  # fmt: skip


@pytest.fixture
def product(world: World, ca: Pebble) -> World:
    world.clock.set(datetime.now(UTC))
    work.add(world, ca.directory_url, ca.root_pem)
    return world


@pytest.fixture
def responder(product: World) -> Iterator[ChallengeResponder]:
    running = ChallengeResponder(product.services)
    product.run(running.start())
    yield running
    product.run(running.stop())


def names_of(world: World, certificate_id: str) -> set[str]:
    pem = world.run(certificates.download(world.services, world.actor, certificate_id, "leaf")).content
    (leaf,) = read_certificates(pem)
    return set(leaf.dns_names + leaf.ip_addresses)


def test_names_and_an_address_are_issued_with_nobody_publishing_anything_and_reissued_and_revoked(
    product: World, responder: ChallengeResponder
) -> None:
    names = ("a.alpn.test", "b.alpn.test", "127.0.0.1")
    made = work.apply(product, *names, method="tls-alpn-01")
    detail = work.finish(product, made.id)
    assert detail.summary.state is State.ISSUED, detail.application
    assert names_of(product, made.id) == set(names)
    product.run(certificates.reissue(product.services, product.actor, made.id))
    assert [v.number for v in work.finish(product, made.id).versions] == [2, 1]
    product.run(certificates.revoke(product.services, product.actor, made.id, RevocationReason.SUPERSEDED))
    assert work.finish(product, made.id).summary.state is State.REVOKED


def test_an_address_is_shown_by_a_file(product: World, web: Site) -> None:
    detail = work.issue(product, web, "127.0.0.1", "c.alpn.test")
    assert names_of(product, detail.id) == {"127.0.0.1", "c.alpn.test"}


def test_an_address_has_no_zone_and_a_wildcard_no_server_of_its_own(product: World) -> None:
    with pytest.raises(InvalidFields) as caught:
        work.apply(product, "127.0.0.1", method="dns")
    assert [problem.code for problem in caught.value.problems] == ["ip_needs_file"]
    with pytest.raises(InvalidFields) as caught:
        work.apply(product, "*.alpn.test", method="tls-alpn-01")
    assert [problem.code for problem in caught.value.problems] == ["wildcard_needs_dns"]


def test_what_is_in_the_way_on_port_443_is_told_before_the_ca_looks(product: World, ca: Pebble) -> None:
    """Nobody listens; then a web server that knows nothing of it; the CA is asked about neither."""
    from tests.servers.tls import issue, tls_server

    made = work.apply(product, "d.alpn.test", method="tls-alpn-01")
    product.drain()
    todo = work.look(product, made.id).validation
    assert todo is not None
    assert todo.domains[0].instructions == {
        "kind": "tls-alpn", "automatic": True, "listen": f"127.0.0.1:{PORT}", "port": 443,
    }  # fmt: skip
    (result,) = product.run(certificates.check_domains(product.services, product.actor, made.id))
    assert result.explanation is not None
    assert result.explanation.code == "egress_refused"
    with tls_server(issue("d.alpn.test"), port=PORT):
        product.later(seconds=2)
        (result,) = product.run(certificates.check_domains(product.services, product.actor, made.id))
    assert result.explanation is not None
    assert result.explanation.code == "tls_alpn_not_spoken", result.explanation
    assert "CERTWRIGHT_TLS_ALPN_LISTEN" in result.explanation.fix
    running = ChallengeResponder(product.services)
    product.run(running.start())
    try:
        product.later(seconds=2)
        work.check(product, made.id)
        assert work.finish(product, made.id).summary.state is State.ISSUED
    finally:
        product.run(running.stop())


def test_strangers_learn_nothing_from_the_responder(product: World, responder: ChallengeResponder) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([TLS_ALPN_PROTOCOL])

    async def knock(server_name: str) -> None:
        connection = await product.services.egress.connect(
            "127.0.0.1", responder.port, tls=context, server_hostname=server_name
        )
        await connection.close()

    for name in ("nobody.alpn.test", "127.0.0.1"):
        with pytest.raises(EgressProblem, match=r"ConnectionReset|unrecognized name"):
            product.run(knock(name))


def test_an_address_that_is_taken_is_told_by_the_settings_name(product: World, responder: ChallengeResponder) -> None:
    with pytest.raises(Unavailable) as caught:
        product.run(ChallengeResponder(product.services).start())
    assert (caught.value.code, caught.value.field) == ("tls_alpn_listen_failed", "CERTWRIGHT_TLS_ALPN_LISTEN")
