"""The suite every CA passes, over the built-in CA, a scripted ACME server, and Pebble."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certwright.platform.config import Settings
from certwright.rooms import authorities, certificates, validation
from certwright.rooms.certificates import Wanted
from tests.cas import work
from tests.cas.site import Site, site
from tests.certificates.ca_conformance import CaConformance, Subject
from tests.conftest import World
from tests.servers.acme import fake_acme
from tests.servers.dns import authoritative, zone_text
from tests.servers.pebble import Pebble, pebble
from tests.servers.ports import free_port
from tests.servers.programs import require


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, web: Site) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8", "::1/128"), validation_http_port=web.port,
    )  # fmt: skip


def publisher(web: Site) -> object:
    def publish(wanted: Wanted) -> None:
        assert wanted.method is validation.Method.HTTP_01
        web.publish(f"http://x/.well-known/acme-challenge/{wanted.place}", wanted.value)

    return publish


class TestBuiltin(CaConformance):
    @pytest.fixture
    def subject(self, world: World, web: Site) -> Subject:
        world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))

        def publish(wanted: Wanted) -> None:
            assert wanted.method is validation.Method.FILE, "this CA asks for nothing itself"
            web.publish(f"http://x/.well-known/pki-validation/{wanted.place}", wanted.value)

        return Subject(world, certificates.BUILTIN_CA, ("a.demo.localhost", "b.demo.localhost"), publish)


class TestScriptedAcme(CaConformance):
    @pytest.fixture
    def subject(self, world: World, web: Site) -> Iterator[Subject]:
        with fake_acme() as ca:
            ca.now = world.clock.now
            added = work.add(world, ca.directory_url, ca.root_pem)
            yield Subject(world, added.id, ("a.demo.localhost", "b.demo.localhost"), publisher(web))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ca(web: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    require("knotd", "pebble")
    zones = {"demo.localhost": zone_text("demo.localhost", ["* A 127.0.0.1"])}
    directory = tmp_path_factory.mktemp("ca")
    with (
        authoritative(directory / "dns", zones, port=free_port()) as dns,
        # With nothing to reuse it asks every time.
        pebble(directory / "pebble", dns.endpoint, http_port=web.port, environ={"PEBBLE_AUTHZREUSE": "0"}) as running,
    ):
        yield running


class TestPebble(CaConformance):
    @pytest.fixture
    def subject(self, world: World, ca: Pebble, web: Site) -> Subject:
        world.clock.set(datetime.now(UTC))
        added = work.add(world, ca.directory_url, ca.root_pem)
        return Subject(world, added.id, ("a.demo.localhost", "b.demo.localhost"), publisher(web))  # type: ignore[arg-type]
