"""The world of the ACME server's tests: a validator that may look at 127.0.0.1 only, a scripted DNS, one client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from certwright.platform.config import Settings
from tests.acme_server.support import Client, Outside, open_directory, outside
from tests.conftest import World


@pytest.fixture(scope="session")
def net() -> Iterator[Outside]:
    with outside() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, net: Outside) -> Settings:
    net.clear()
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8",), dns_servers=(net.dns.endpoint,), dns_authoritative_port=net.dns.port,
        validation_http_port=net.port,
    )  # fmt: skip


@pytest.fixture
def client(world: World, net: Outside) -> Client:
    """Registered at a directory that needs no binding."""
    return Client(world, open_directory(world), net).register()
