"""The CA's renewal window (RFC 9773), from its answer to the order that says what it replaces."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from certwright.acme.renewal import certificate_id
from certwright.platform.config import Settings
from certwright.rooms import audit
from certwright.rooms.cas.tables import ca_uses
from certwright.rooms.certificates import State, versions
from tests.cas import work
from tests.cas.site import Site, site
from tests.conftest import Api, World
from tests.servers.acme import FakeAcme, fake_acme, problem

NAME = "shop.demo.localhost"
INCIDENT = "https://ca.example/incidents/7"


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


@pytest.fixture
def ca(world: World) -> Iterator[FakeAcme]:
    with fake_acme() as running:
        running.now = world.clock.now
        running.valid_names.add(NAME)
        start = world.clock.now() + timedelta(days=60)
        running.ari_window = (start, start + timedelta(days=2))
        work.add(world, running.directory_url, running.root_pem)
        yield running


def replaced_id(world: World, number: int) -> str | None:
    (row,) = work.rows(world, sa.select(versions.c.leaf_der).where(versions.c.number == number))
    return certificate_id(row.leaf_der)


def test_a_window_the_ca_moves_forward_renews_the_certificate_now_and_the_order_says_what_it_replaces(
    world: World, ca: FakeAcme, web: Site, api: Api
) -> None:
    detail = work.issue(world, web, NAME)
    world.drain()
    assert api.get(f"/api/v1/renewals/{detail.id}").json()["source"] == "ca"
    world.later(days=10)
    world.drain()
    assert len(work.look(world, detail.id).versions) == 1
    old = replaced_id(world, 1)
    assert old is not None

    # The CA found that it has to revoke: renew within the next two days.
    ca.ari_windows[old] = (world.clock.now() - timedelta(days=1), world.clock.now() - timedelta(hours=1))
    ca.ari_explanation = INCIDENT
    world.later(hours=7)
    world.drain()

    assert len(work.finish(world, detail.id).versions) == 2
    first, second = ca.requests("new-order")
    assert "replaces" not in first
    assert second["replaces"] == old
    told = work.rows(
        world, sa.select(audit.audit_events.c.reason).where(audit.audit_events.c.action == "scm:cert:renew")
    )
    assert any(INCIDENT in row.reason for row in told)
    # Such an order counts for nothing the CA limits but failures.
    assert len(work.rows(world, sa.select(ca_uses.c.id).where(ca_uses.c.kind == "orders"))) == 1


def test_the_address_of_the_explanation_is_shown_with_the_plan(world: World, ca: FakeAcme, web: Site, api: Api) -> None:
    ca.ari_explanation = INCIDENT
    detail = work.issue(world, web, NAME)
    world.drain()
    assert api.get(f"/api/v1/renewals/{detail.id}").json()["explanation_url"] == INCIDENT


def test_a_certificate_that_somebody_else_replaced_first_is_renewed_without_the_exemption(
    world: World, ca: FakeAcme, web: Site
) -> None:
    detail = work.issue(world, web, NAME)
    start = world.clock.now() + timedelta(days=120)
    old = replaced_id(world, 1)
    assert old is not None
    assert ca.ari_window is not None
    ca.ari_windows[old], ca.ari_window = ca.ari_window, (start, start + timedelta(days=2))
    ca.in_the_way["new-order"].append(problem("alreadyReplaced", "somebody was first", 409))
    world.later(days=63)
    for _ in range(3):
        world.drain()
        world.later(minutes=30)
    assert [v.number for v in work.look(world, detail.id).versions] == [2, 1]
    assert work.look(world, detail.id).summary.state is State.ISSUED
    assert ["replaces" in order for order in ca.requests("new-order") if order != "in the way"] == [False, False]
    lately = ca_uses.c.at > world.clock.now() - timedelta(days=1)
    assert len(work.rows(world, sa.select(ca_uses.c.id).where(ca_uses.c.kind == "orders", lately))) == 1


def test_a_ca_that_calls_every_new_certificate_late_gets_no_orders_without_end(
    world: World, ca: FakeAcme, web: Site
) -> None:
    past = world.clock.now() - timedelta(days=1)
    ca.ari_window = (past, past + timedelta(hours=1))
    detail = work.issue(world, web, NAME)
    for _ in range(12):
        world.drain()
        world.later(hours=2)
    assert len(work.look(world, detail.id).versions) <= 5
