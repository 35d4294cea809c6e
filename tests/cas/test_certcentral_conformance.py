"""The suite every CA passes, over a CA that sells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from certwright.platform.config import Settings
from certwright.rooms import validation
from certwright.rooms.certificates import Wanted
from tests.cas import work
from tests.cas.site import Site, site
from tests.certificates.ca_conformance import CaConformance, Subject
from tests.conftest import World
from tests.servers.certcentral import fake_certcentral


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


class TestCertCentral(CaConformance):
    @pytest.fixture
    def subject(self, world: World, web: Site) -> Iterator[Subject]:
        with fake_certcentral() as ca:
            ca.now = world.clock.now
            added = work.add_shop(world, ca)

            def publish(wanted: Wanted) -> None:
                assert wanted.method is validation.Method.FILE
                assert wanted.place == "fileauth.txt"
                ca.published[wanted.name] = wanted.value
                web.publish(f"http://x/.well-known/pki-validation/{wanted.place}", wanted.value)

            yield Subject(world, added.id, ("a.demo.localhost", "b.demo.localhost"), publish)
