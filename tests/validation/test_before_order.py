"""What is looked at before anything is ordered: CAA at public CAs; and IP addresses at private ones, end to end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dns.message
import dns.rdatatype
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certwright.platform.config import Settings
from certwright.rooms import authorities, certificates
from certwright.rooms.certificates import Applicant, Application, AuthorityDirectory, State
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import make_csr
from certwright.x509.keys import KeyAlgorithm, generate
from tests.conftest import World
from tests.servers.hostile_dns import HostileDns, hostile_dns, reply
from tests.servers.hostile_http import Handler, HostileHttp, answer, hostile_http

NAME = "shop.example.com"
APPLICANT = Applicant("Ada Lovelace", "ada@example.com", "+44 20 7946 0000")


class Zone:
    """What the resolver says about CAA; None: it fails."""

    def __init__(self) -> None:
        self.caa: dict[str, str] | None = {}

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name = str(question.name).rstrip(".")
        if self.caa is None:
            return reply(query, rcode=2)
        if question.rdtype == dns.rdatatype.CAA and name in self.caa:
            return reply(query, f"{name}. 60 IN CAA {self.caa[name]}")
        if question.rdtype == dns.rdatatype.A and name == NAME:
            return reply(query, f"{name}. 60 IN A 127.0.0.1")
        return reply(query, authority=["example.com. 60 IN SOA ns. host. 1 2 3 4 5"])


@pytest.fixture
def zone() -> Zone:
    return Zone()


@pytest.fixture
def resolver(zone: Zone) -> Iterator[HostileDns]:
    with hostile_dns(zone.answer) as server:
        yield server


@pytest.fixture
def routes() -> dict[str, Handler]:
    return {}


@pytest.fixture
def site(routes: dict[str, Handler]) -> Iterator[HostileHttp]:
    with hostile_http(routes) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, resolver: HostileDns, site: HostileHttp) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8",), dns_servers=(resolver.endpoint,), validation_http_port=site.port,
    )  # fmt: skip


class PublicCa:
    """The built-in CA with a public one's duty to heed CAA."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.capabilities = replace(
            real.capabilities, name="Public CA", public=True, caa_identifiers=("ca.example.net",),
            caa_methods={"file": "http-01"}, account_uri="https://ca.example.net/acct/1",
        )  # fmt: skip
        self.orders: list[Any] = []

    async def submit(self, order: Any) -> str:
        self.orders.append(order)
        return str(await self.real.submit(order))

    async def collect(self, order_id: str, account_id: str) -> Any:
        return await self.real.collect(order_id, account_id)

    async def revoke(self, leaf_der: bytes, reason: Any, account_id: str) -> None:
        await self.real.revoke(leaf_der, reason, account_id)


@pytest.fixture
def ca(world: World) -> PublicCa:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    directory = world.services.port(AuthorityDirectory)
    public = PublicCa(directory.by_id["builtin"])
    plugged = AuthorityDirectory({**directory.by_id, "public": public}, directory.outside)
    world.services.ports[AuthorityDirectory] = plugged  # type: ignore[index]
    return public


def apply(world: World, routes: dict[str, Handler], *names: str, ca: str = "public", csr: str | None = None) -> str:
    """Everything published as asked for, and every step run."""
    asked = Application(names=names, validation_method="file", applicant=APPLICANT, consent=True, csr=csr)
    detail = world.run(certificates.create_certificate(world.services, world.actor, application=asked, ca=ca))
    return published(world, routes, detail.id)


def published(world: World, routes: dict[str, Handler], certificate_id: str) -> str:
    detail = look(world, certificate_id)
    assert detail.validation is not None
    for domain in detail.validation.domains:
        assert domain.file is not None
        routes[domain.file.path] = answer(200, domain.file.content.encode())
    world.drain()
    return certificate_id


def look(world: World, certificate_id: str) -> certificates.Detail:
    return world.run(certificates.get_certificate(world.services, world.actor, certificate_id))


@pytest.mark.parametrize("caa", [{}, {"example.com": '0 issue "ca.example.net"'}, {NAME: '0 iodef "mailto:a@b.test"'}])
def test_where_caa_permits_it_is_ordered(
    world: World, zone: Zone, ca: PublicCa, routes: dict[str, Handler], caa: dict[str, str]
) -> None:
    zone.caa = caa
    assert look(world, apply(world, routes, NAME)).summary.state is State.ISSUED
    assert len(ca.orders) == 1


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ('0 issue "other.example"', "caa_forbids"),
        ('0 issue ";"', "caa_forbids"),
        ('128 surprise "x"', "caa_unknown_critical"),
        ('0 issue "ca.example.net; validationmethods=dns-01"', "caa_forbids_method"),
        ('0 issue "ca.example.net; accounturi=https://ca.example.net/acct/2"', "caa_forbids_account"),
    ],
)
def test_what_caa_forbids_is_not_ordered_and_says_what_to_add(
    world: World, zone: Zone, ca: PublicCa, routes: dict[str, Handler], record: str, code: str
) -> None:
    zone.caa = {"example.com": record}
    detail = look(world, apply(world, routes, NAME))
    assert detail.summary.state is State.APPROVAL_FAILED
    assert detail.application is not None
    assert detail.application.failure is not None
    assert detail.application.failure["code"] == code
    assert detail.application.failure["fix"]
    assert ca.orders == []


def test_while_caa_can_not_be_looked_up_nothing_is_ordered_and_afterwards_it_goes_on(
    world: World, zone: Zone, ca: PublicCa, routes: dict[str, Handler]
) -> None:
    asked = Application(names=(NAME,), validation_method="file", applicant=APPLICANT, consent=True)
    made = world.run(certificates.create_certificate(world.services, world.actor, application=asked, ca="public"))
    for domain in made.validation.domains if made.validation else ():
        assert domain.file is not None
        routes[domain.file.path] = answer(200, domain.file.content.encode())
    world.run(certificates.check_domains(world.services, world.actor, made.id))
    zone.caa = None
    world.drain()
    detail = look(world, made.id)
    assert detail.summary.state is State.TO_BE_ISSUED
    assert detail.application is not None
    assert detail.application.waiting_for is not None
    assert detail.application.waiting_for["code"] == "caa_lookup_failed"
    assert ca.orders == []
    zone.caa = {}
    world.clock.move(timedelta(minutes=6))
    world.drain()
    assert look(world, made.id).summary.state is State.ISSUED


def test_the_private_ca_does_not_ask_for_caa(
    world: World, zone: Zone, ca: PublicCa, routes: dict[str, Handler]
) -> None:
    zone.caa = {"example.com": '0 issue ";"'}
    assert look(world, apply(world, routes, NAME, ca="builtin")).summary.state is State.ISSUED


# --- IP addresses ----------------------------------------------------------------------------------------------------


def test_an_ip_address_is_shown_by_file_and_certified_by_the_private_ca(
    world: World, ca: PublicCa, routes: dict[str, Handler]
) -> None:
    certificate_id = apply(world, routes, "127.0.0.1", NAME, ca="builtin")
    detail = look(world, certificate_id)
    assert detail.summary.state is State.ISSUED
    found = world.run(certificates.download(world.services, world.actor, certificate_id, "leaf"))
    leaf = read_certificate(found.content)
    assert (leaf.ip_addresses, leaf.dns_names) == (("127.0.0.1",), (NAME,))


def test_an_ip_address_of_a_csr_is_taken_too(world: World, ca: PublicCa, routes: dict[str, Handler]) -> None:
    csr = make_csr(generate(KeyAlgorithm.EC_P256), [], ["127.0.0.1"])
    pem = x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM).decode()
    certificate_id = apply(world, routes, csr=pem, ca="builtin")
    assert look(world, certificate_id).summary.names == ("127.0.0.1",)


def test_evidence_for_one_address_speaks_for_no_other(world: World, ca: PublicCa, routes: dict[str, Handler]) -> None:
    apply(world, routes, "127.0.0.1", ca="builtin")
    asked = Application(names=("127.0.0.2",), validation_method="file", applicant=APPLICANT, consent=True)
    made = world.run(certificates.create_certificate(world.services, world.actor, application=asked))
    assert made.validation is not None
    assert not made.validation.all_valid
