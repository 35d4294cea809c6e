"""What may be watched on loopback when no network was opened: where a bound site listens, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from certwright.platform.config import Settings
from certwright.rooms import watch
from certwright.rooms.deployment.words import Address, Site, site_as_dict
from tests.conftest import World
from tests.servers.tls import Issued, TlsServer, issue, tls_server
from tests.watch.material import change_binding, publish, put_binding, put_version, span

NAME = "www.example.test"


@pytest.fixture
def settings(tmp_path: Path, worker_database: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=worker_database, database_pool=8)


def good(world: World) -> Issued:
    return issue(NAME, **span(world, left=80, life=90))


def bound(world: World, server: TlsServer, intended: Issued, *, found_at: tuple[str, int], told_host: str) -> Any:
    """A binding whose site was found at `found_at`, and the endpoint that its event brought for `told_host`."""
    certificate_id = world.run(put_version(world, intended))
    site = Site("k", (NAME,), (), (), "nginx.conf:1", addresses=(Address(*found_at, NAME),))
    binding_id = world.run(put_binding(world, certificate_id, facts=site_as_dict(site)))
    told = {"binding_id": binding_id, "certificate_id": certificate_id, "host": told_host, "port": server.port,
            "sni": NAME}  # fmt: skip
    world.run(publish(world, "deployment.binding_created", binding_id, **told))
    world.drain()
    (row,) = world.run(watch.list_endpoints(world.services, world.actor))
    assert row.binding_id == binding_id
    return row


def seen_at(world: World, endpoint_id: str) -> Any:
    world.later(minutes=5)
    world.run(watch.probe_now(world.services, world.actor, endpoint_id))
    world.drain()
    _, (seen,), _ = world.run(watch.get_endpoint(world.services, world.actor, endpoint_id))
    return seen


def test_a_bound_site_of_this_machine_is_looked_at_until_its_binding_is_gone(world: World) -> None:
    intended = good(world)
    with tls_server(intended) as server:
        row = bound(world, server, intended, found_at=("127.0.0.1", server.port), told_host="127.0.0.1")
        seen = seen_at(world, row.id)
        assert (seen.problem, seen.address, seen.intended) == (None, "127.0.0.1", True)
        world.run(change_binding(world, row.binding_id))
        assert seen_at(world, row.id).problem == "denied"


@pytest.mark.parametrize(
    ("port_off", "found_host", "told_host"),
    [
        pytest.param(1, "127.0.0.1", "127.0.0.1", id="another port"),
        pytest.param(0, "127.0.0.2", "127.0.0.1", id="another loopback address"),
        pytest.param(0, "localhost", "localhost", id="a name that leads there"),
        pytest.param(0, "10.0.0.1", "10.0.0.1", id="a private address that isn't loopback"),
    ],
)
def test_nothing_but_the_very_address_and_port_found_is_connected_to(
    world: World, port_off: int, found_host: str, told_host: str
) -> None:
    intended = good(world)
    with tls_server(intended) as server:
        found_at = (found_host, server.port + port_off)
        row = bound(world, server, intended, found_at=found_at, told_host=told_host)
        seen = seen_at(world, row.id)
        assert (seen.problem, seen.reachable) == ("denied", False)
        assert "CERTWRIGHT_ALLOWED_NETWORKS" in seen.detail, "what to do is said where it is seen"


def test_an_endpoint_somebody_adds_on_loopback_stays_closed_beside_a_bound_site(world: World) -> None:
    intended = good(world)
    with tls_server(intended) as server, tls_server(intended) as other:
        bound(world, server, intended, found_at=("127.0.0.1", server.port), told_host="127.0.0.1")
        for port, sni in ((other.port, NAME), (server.port, "another.example.test")):
            added = world.run(watch.create_endpoint(world.services, world.actor, host="127.0.0.1", port=port, sni=sni))
            assert seen_at(world, added.id).problem == "denied"
