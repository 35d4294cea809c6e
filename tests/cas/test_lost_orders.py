"""Orders whose answer was lost, orders that are shared, and orders given up: the CA and we agree on what there is, and
no quota is used up for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.platform.config import Settings
from certwright.rooms import cas, certificates
from certwright.rooms.cas.tables import ca_orders, ca_uses
from certwright.rooms.certificates import State, applications, tables
from tests.cas import work
from tests.cas.site import Site, site
from tests.conftest import World
from tests.servers.acme import FakeAcme, Reply, fake_acme, problem

NAME = "shop.demo.localhost"
OTHER = "other.demo.localhost"
NO_ANSWER = Reply(200, b"<html>a proxy's page")


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
        yield running


def add(world: World, ca: FakeAcme, **changes: Any) -> cas.Ca:
    return work.add(world, ca.directory_url, ca.root_pem, **changes)


def counted(world: World, kind: str) -> int:
    return len(work.rows(world, sa.select(ca_uses.c.id).where(ca_uses.c.kind == kind)))


def waits_for(world: World, certificate_id: str) -> str:
    application = work.look(world, certificate_id).application
    assert application is not None
    assert application.waiting_for is not None, application
    return str(application.waiting_for["code"])


# --- the answer to newOrder is lost ----------------------------------------------------------------------------------


def test_an_order_whose_answer_was_lost_is_found_in_the_accounts_list_and_none_is_placed_twice(
    world: World, ca: FakeAcme, web: Site
) -> None:
    add(world, ca)
    for name in ("a.demo.localhost", "b.demo.localhost", "c.demo.localhost"):
        work.apply(world, name)
    world.drain()
    ca.lost["new-order"].append(NO_ANSWER)
    made = work.apply(world, NAME)
    world.drain()
    world.later(minutes=5)
    world.drain()
    assert len(ca.orders) == 4
    assert len(ca.requests("orders")) == 2  # the list has two pages
    assert counted(world, "orders") == 4
    work.publish_all(world, web, made.id)
    assert work.finish(world, made.id).summary.state is State.ISSUED


def test_a_list_without_the_order_means_that_it_was_never_placed(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    work.apply(world, OTHER)
    world.drain()
    # Somebody else's order of the same account, for other names: not ours to go on with.
    ca.orders[2] = type(ca.orders[1])(2, next(iter(ca.accounts)), ["third.demo.localhost"])
    ca.in_the_way["new-order"].append(NO_ANSWER)
    made = work.apply(world, NAME)
    world.drain()
    world.later(minutes=5)
    world.drain()
    assert [order.names for order in ca.orders.values()][2:] == [[NAME]]
    work.publish_all(world, web, made.id)
    assert work.finish(world, made.id).summary.state is State.ISSUED
    assert ca.orders[2].csr is None


def test_where_the_ca_lists_no_orders_another_one_is_placed_and_counted(world: World, ca: FakeAcme) -> None:
    ca.with_order_lists = False
    add(world, ca)
    ca.lost["new-order"].append(NO_ANSWER)
    work.apply(world, NAME)
    world.drain()
    world.later(minutes=5)
    world.drain()
    assert len(ca.orders) == 2
    assert counted(world, "orders") == 2


def test_a_ca_that_swallows_every_answer_is_asked_no_more_often_than_it_allows(world: World, ca: FakeAcme) -> None:
    ca.with_order_lists = False
    add(world, ca, limits={"orders": {"count": 3, "seconds": 86_400}})
    ca.lost["new-order"].extend([NO_ANSWER] * 50)
    made = work.apply(world, NAME)
    for _ in range(12):
        world.drain()
        world.later(minutes=30)
    assert len(ca.orders) == 3
    assert waits_for(world, made.id) == "ca_quota_spent"


def test_an_order_the_ca_refused_or_was_too_busy_for_is_not_looked_for(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    ca.in_the_way["new-order"].extend([problem("serverInternal", "busy", 503), problem("rateLimited", "slowly", 429)])
    made = work.apply(world, NAME)
    for _ in range(4):
        world.drain()
        world.later(minutes=5)
    work.publish_all(world, web, made.id)
    assert work.finish(world, made.id).summary.state is State.ISSUED
    assert ca.requests("orders") == []
    assert (len(ca.orders), counted(world, "orders")) == (1, 1)


# --- two applications, one order -------------------------------------------------------------------------------------


def test_two_applications_for_the_same_names_never_share_an_order_of_the_ca(
    world: World, ca: FakeAcme, web: Site
) -> None:
    ca.shares_orders = True
    add(world, ca)
    first, second = work.apply(world, NAME), work.apply(world, NAME)
    world.drain()
    waiting = [made.id for made in (first, second) if not work.publish_all(world, web, made.id)]
    assert len(waiting) == 1
    assert waits_for(world, waiting[0]) == "ca_order_shared"
    (going,) = {first.id, second.id} - set(waiting)
    assert work.finish(world, going).summary.state is State.ISSUED
    world.later(minutes=6)
    world.drain()
    work.publish_all(world, web, waiting[0])
    assert work.finish(world, waiting[0]).summary.state is State.ISSUED
    spki = [work.look(world, made.id).versions[0].sha256 for made in (first, second)]
    assert spki[0] != spki[1]


# --- orders given up -------------------------------------------------------------------------------------------------


def withdrawn(world: World, certificate_id: str) -> certificates.Detail:
    world.run(certificates.withdraw(world.services, world.actor, certificate_id))
    world.drain()
    return work.look(world, certificate_id)


def test_withdrawing_gives_the_names_up_at_the_ca_so_that_nobody_can_go_on_with_the_order(
    world: World, ca: FakeAcme, web: Site
) -> None:
    add(world, ca)
    made = work.apply(world, NAME, OTHER)
    world.drain()
    assert withdrawn(world, made.id).summary.state is State.PENDING_APPLICATION
    (order,) = ca.orders.values()
    assert order.given_up == {NAME, OTHER}
    work.issue(world, web, NAME, OTHER)


def test_names_that_another_order_waits_for_are_not_given_up(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    kept = work.apply(world, OTHER)
    made = work.apply(world, NAME, OTHER)
    world.drain()
    withdrawn(world, made.id)
    assert {len(order.names): order.given_up for order in ca.orders.values()} == {1: set(), 2: {NAME}}
    work.publish_all(world, web, kept.id)
    assert work.finish(world, kept.id).summary.state is State.ISSUED


def test_what_was_validated_before_stays_of_use_after_a_withdrawal(world: World, ca: FakeAcme) -> None:
    add(world, ca)
    ca.valid_names.add(OTHER)
    made = work.apply(world, NAME, OTHER)
    world.drain()
    withdrawn(world, made.id)
    assert ca.orders[1].given_up == {NAME}


def test_a_ca_that_is_away_keeps_nobody_from_withdrawing(world: World, ca: FakeAcme) -> None:
    add(world, ca)
    made = work.apply(world, NAME)
    world.drain()
    ca.in_the_way["order"].extend([Reply(503, b"")] * 5)
    assert withdrawn(world, made.id).summary.state is State.PENDING_APPLICATION


def test_a_withdrawal_that_finds_the_certificate_issued_is_too_late_and_says_so(
    world: World, ca: FakeAcme, web: Site
) -> None:
    add(world, ca)
    ca.processing_looks = 1000
    made = work.apply(world, NAME)
    world.drain()
    work.publish_all(world, web, made.id)
    work.check(world, made.id)
    world.drain()
    assert ca.orders[1].status == "processing"

    async def asked_meanwhile() -> None:
        """As a withdrawal does that came between two steps."""
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(applications).values(withdraw_asked_at=world.clock.now()))
            await tx.execute(sa.update(tables.certificates).values(stage=State.VERIFYING_WITHDRAWAL.value))

    world.run(asked_meanwhile())
    ca.processing_looks = 0
    world.later(minutes=11)
    world.drain()
    detail = work.look(world, made.id)
    assert detail.summary.state is State.ISSUED
    assert detail.application is not None
    assert detail.application.withdrawal_refused is not None
    assert ca.orders[1].given_up == set()


def test_the_names_of_a_failed_order_that_were_not_looked_at_are_given_up(
    world: World, ca: FakeAcme, web: Site
) -> None:
    add(world, ca)
    made = work.apply(world, NAME, OTHER)
    world.drain()
    ca.offered = ["dns-01"]
    work.publish_all(world, web, made.id)
    work.check(world, made.id)
    world.drain()
    assert work.look(world, made.id).summary.state is State.APPROVAL_FAILED
    assert ca.orders[1].given_up == {NAME, OTHER}
    failed = work.rows(world, sa.select(ca_orders.c.failed_at))
    assert [row.failed_at is not None for row in failed] == [True]


# --- nothing that fails uses up what the CA allows -------------------------------------------------------------------


def test_an_order_that_fails_over_and_over_stops_here_before_the_ca_would_stop_it(
    world: World, ca: FakeAcme, web: Site
) -> None:
    """Whatever is tried, the CA never sees more failures of a name in an hour than its limit minus the reserve."""
    add(world, ca)
    ca.failing[NAME] = {"type": "urn:ietf:params:acme:error:connection", "detail": "the firewall says no"}
    for _ in range(8):
        made = work.apply(world, NAME)
        world.drain()
        work.publish_all(world, web, made.id)
        work.check(world, made.id)
        world.drain()
        world.later(minutes=2)
    looked_at = sum(NAME in order.tried for order in ca.orders.values())
    assert looked_at == 3
    assert len(ca.orders) == 3
    assert counted(world, "duplicates") == 0


def test_a_replacement_somebody_made_first_takes_room_like_any_other_order(
    world: World, ca: FakeAcme, web: Site
) -> None:
    added = add(world, ca)
    detail = work.issue(world, web, NAME)
    before = counted(world, "orders")
    ca.in_the_way["new-order"].append(problem("alreadyReplaced", "somebody was first", 409))
    ca.valid_names.add(NAME)
    world.run(certificates.reissue(world.services, world.actor, detail.id))
    assert work.finish(world, detail.id).summary.state is State.ISSUED
    assert counted(world, "orders") == before + 1
    assert counted(world, "duplicates") == 2
    now = world.run(cas.get_ca(world.services, world.actor, added.id))
    limits = {"duplicates": {"count": 2, "seconds": 86_400}}
    world.run(cas.update_ca(world.services, world.actor, added.id, revision=now.revision, limits=limits))
    ca.in_the_way["new-order"].append(problem("alreadyReplaced", "again", 409))
    world.run(certificates.reissue(world.services, world.actor, detail.id))
    world.drain()
    assert waits_for(world, detail.id) == "ca_quota_spent"
    world.later(days=1, minutes=1)
    assert work.finish(world, detail.id).summary.state is State.ISSUED
