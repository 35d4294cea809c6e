"""Mass replacement: what matches is replaced once, at a rate, the important first, whatever is killed on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Forbidden, Invalid, NotFound, Refused
from certwright.platform.db import Database, Tx
from certwright.rooms import certificates, renewal
from certwright.rooms.audit import audit_events
from certwright.rooms.certificates import RevocationReason, State
from certwright.rooms.certificates.tables import applications
from certwright.rooms.certificates.tables import certificates as certificates_table
from certwright.rooms.renewal import CampaignReason, CampaignState, Criteria, ItemState, Priority, campaigns
from certwright.rooms.renewal.tables import campaign_items
from certwright.rooms.renewal.tables import campaigns as campaigns_table
from tests.conftest import World
from tests.renewal.conftest import detail, issued, numbers, plant, rows, write

ALL = Criteria(names="*")
DAY = timedelta(days=1)


def start(world: World, criteria: Criteria = ALL, *, per_hour: int = 36_000, **more: Any) -> renewal.Campaign:
    return world.run(
        campaigns.start(
            world.services, world.actor, criteria, name="incident", reason=CampaignReason.KEY_COMPROMISE,
            deadline=world.clock.now() + DAY, per_hour=per_hour, **more,
        )
    )  # fmt: skip


def look(world: World, campaign_id: str) -> renewal.Campaign:
    return world.run(campaigns.get_campaign(world.services, world.actor, campaign_id))


def items(world: World, campaign_id: str, state: ItemState | None = None) -> list[renewal.CampaignItem]:
    return world.run(campaigns.list_items(world.services, world.actor, campaign_id, state=state, limit=100))


def step(world: World, campaign_id: str) -> datetime:
    """One look of the campaign, planned or running; answers when it wants to look again."""
    assert world.run(world.services.jobs.run_step(world.services, campaigns.STEP, campaign_id))
    ((at,),) = rows(world, sa.select(campaigns_table.c.next_step_at).where(campaigns_table.c.id == campaign_id))
    return at or world.clock.now()


def preview(world: World, criteria: Criteria = ALL, per_hour: int = 100) -> renewal.Preview:
    return world.run(
        campaigns.preview(world.services, world.actor, criteria, deadline=world.clock.now() + DAY, per_hour=per_hour)
    )


def counted(world: World, campaign_id: str) -> dict[str, int]:
    """The kept counts, which must be those of the items."""
    kept = {word: count for word, count in look(world, campaign_id).counts.items() if count}
    query = (
        sa.select(campaign_items.c.state, sa.func.count())
        .where(campaign_items.c.campaign_id == campaign_id)
        .group_by(campaign_items.c.state)
    )
    assert kept == {row[0]: row[1] for row in rows(world, query)}
    return kept


def work(world: World, span: timedelta) -> None:
    """What a worker does within this time: every row that falls due, in order, the clock moving from one to the next.
    Nothing is taken out of a row but by its step, so that it can be killed anywhere."""
    services, until = world.services, world.clock.now() + span

    async def first_due() -> tuple[Any, str, str] | None:
        found = []
        async with services.db.begin() as tx:
            for one in services.jobs.steps.values():
                t = one.table.c
                query = sa.select(t.next_step_at, t.id).where(t.next_step_at <= until).order_by(t.next_step_at, t.id)
                row = (await tx.execute(query.limit(1))).one_or_none()
                found += [(row[0], one.name, row[1])] if row else []
        return min(found, default=None)

    for _ in range(2000):
        due = world.run(first_due())
        if due is None:
            return
        at, name, row_id = due
        world.clock.set(max(world.clock.now(), at))
        if not world.run(services.jobs.run_step(services, name, row_id)):
            world.later(seconds=services.jobs.lease.total_seconds() + 1)  # a killed worker's lease
    raise AssertionError(f"there is no end: {due}")


# --- what matches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criteria", "matched"),
    [
        pytest.param(Criteria(ca="builtin"), 3, id="of a CA"),
        pytest.param(Criteria(key_algorithm="EC_P256"), 0, id="of a key type by another spelling: none"),
        pytest.param(Criteria(key_algorithm="EC P-256"), 3, id="of a key type"),
        pytest.param(Criteria(names="*.shop.example"), 2, id="below a domain"),
        pytest.param(Criteria(names="A.SHOP.example"), 1, id="with one name, in whatever case"),
        pytest.param(Criteria(names="%"), 0, id="by a sign that only databases know: none"),
        pytest.param(Criteria(issuer="no such"), 0, id="of another issuing authority"),
        pytest.param(Criteria(ca="builtin", names="b.*"), 1, id="both must hold"),
    ],
)  # fmt: skip
def test_what_a_campaign_matches(product: World, criteria: Criteria, matched: int) -> None:
    for name in ("a.shop.example", "b.shop.example", "c.example"):
        issued(product, name)
    assert preview(product, criteria).replaced == matched


def test_issued_before_and_by_whom(product: World) -> None:
    first = issued(product, "a.example")
    middle = product.later(hours=1)
    issued(product, "b.example")
    issuer = detail(product, first).versions[0].issuer
    assert preview(product, Criteria(issued_before=middle)).replaced == 1
    assert preview(product, Criteria(issuer=issuer[3:12].lower())).replaced == 2


def test_the_preview_says_what_it_cannot_replace_and_when_it_would_end(product: World) -> None:
    issued(product, "good.example")
    revoked = issued(product, "revoked.example")
    product.run(certificates.revoke(product.services, product.actor, revoked, RevocationReason.SUPERSEDED))
    product.drain()
    csr = issued(product, "csr.example")
    write(product, sa.update(certificates_table).where(certificates_table.c.id == csr).values(key_id=None))
    uploaded = issued(product, "uploaded.example")
    write(
        product,
        sa.update(certificates_table).where(certificates_table.c.id == uploaded).values(uploaded=True, stage="hosted"),
    )
    busy = issued(product, "busy.example")
    product.run(certificates.reissue(product.services, product.actor, busy))
    before = rows(product, sa.select(sa.func.count()).select_from(campaigns_table))
    found = preview(product, per_hour=1)
    assert found.counts == {"replaceable": 1, "busy": 1, "revoked": 1, "uploaded_csr": 1, "uploaded": 1}
    assert found.replaced == 2
    assert {line.code for line in found.excluded} == {"revoked", "uploaded_csr", "uploaded"}
    assert all(line.reason for line in found.excluded)
    assert found.estimate.ends_at - product.clock.now() == timedelta(hours=2)
    assert found.estimate.in_time
    assert rows(product, sa.select(sa.func.count()).select_from(campaigns_table)) == before


# --- on its way ------------------------------------------------------------------------------------------------------


def test_everything_that_matches_is_replaced_once_and_the_campaign_ends(product: World) -> None:
    ids = [issued(product, f"n{number}.example") for number in range(4)]
    made = start(product)
    work(product, timedelta(hours=1))
    assert look(product, made.id).state is CampaignState.FINISHED
    assert counted(product, made.id) == {"replaced": 4}
    for certificate_id in ids:
        assert numbers(product, certificate_id) == [2, 1]
    said = rows(product, sa.select(audit_events).where(audit_events.c.object_id == made.id).order_by("id"))
    assert [row.after["done"] for row in said] == ["started", "finished"]
    assert {row.reason for row in said} == {"key_compromise"}


def test_renewal_that_is_switched_off_keeps_nothing_from_being_replaced(product: World) -> None:
    certificate_id = issued(product)
    write(product, sa.update(certificates_table).values(auto_renew=False))
    start(product)
    product.drain()
    assert numbers(product, certificate_id) == [2, 1]


def test_what_somebody_must_do_himself_is_listed(product: World) -> None:
    certificate_id = issued(product)
    write(product, sa.update(certificates_table).values(key_id=None))
    made = start(product)
    product.drain()
    assert counted(product, made.id) == {"excluded": 1}
    (item,) = items(product, made.id)
    assert (item.certificate_id, item.reason_code) == (certificate_id, "uploaded_csr")
    assert numbers(product, certificate_id) == [1]


def test_what_serves_comes_first_then_what_ends_soonest(product: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = product.clock.now()
    ids = plant(product, 6, due=lambda _: now + 40 * DAY, ends=lambda number: now + (60 - number) * DAY)

    async def serving(tx: Tx, certificate_ids: Any) -> frozenset[str]:
        return frozenset((ids[0], ids[2])) & frozenset(certificate_ids)

    monkeypatch.setattr(product.services.port(renewal.Serving), "serving", serving)
    for priority, order in (
        (Priority.BOUND_FIRST, [ids[2], ids[0], ids[5], ids[4], ids[3], ids[1]]),
        (Priority.SOONEST_END, list(reversed(ids))),
    ):
        made = start(product, per_hour=60, priority=priority)
        step(product, made.id)
        went: list[str] = []
        for _ in range(6):
            product.later(minutes=2)
            step(product, made.id)
            fresh = [item.certificate_id for item in items(product, made.id, ItemState.GOING)]
            went += [one for one in fresh if one not in went]
        assert went == order


def test_no_hour_sees_more_than_the_rate_and_the_cas_own_rate_binds_too(product: World) -> None:
    now = product.clock.now()
    plant(product, 300, due=lambda _: now + 40 * DAY, ends=lambda number: now + 60 * DAY)
    made = start(product, per_hour=120)
    step(product, made.id)
    went: list[datetime] = []
    while (at := step(product, made.id)) < now + timedelta(hours=2):
        went += [product.clock.now()] * (look(product, made.id).counts["going"] - len(went))
        product.clock.set(max(at, product.clock.now() + timedelta(seconds=1)))
    for moment in went:
        assert len([other for other in went if moment <= other < moment + timedelta(hours=1)]) <= 120
    assert len(went) >= 220
    product.run(renewal.set_limit(product.services, product.actor, "builtin", per_minute=1, reserve_percent=0))
    fast = product.run(campaigns.set_rate(product.services, product.actor, made.id, 100_000))
    assert fast.per_hour == 100_000
    for _ in range(5):
        product.later(minutes=1)
        step(product, made.id)
    assert look(product, made.id).counts["going"] - len(went) <= 6


def test_pausing_resuming_and_cancelling(product: World) -> None:
    now = product.clock.now()
    plant(product, 5, due=lambda _: now + 40 * DAY, ends=lambda _: now + 60 * DAY)
    made = start(product, per_hour=60)
    step(product, made.id)
    step(product, made.id)
    paused = product.run(campaigns.pause(product.services, product.actor, made.id))
    assert (paused.state, paused.counts["going"]) == (CampaignState.PAUSED, 1)
    product.later(hours=1)
    step(product, made.id)
    assert look(product, made.id).counts["going"] == 1
    with pytest.raises(Refused) as caught:
        product.run(campaigns.pause(product.services, product.actor, made.id))
    assert caught.value.extra["state"] == "paused"
    product.run(campaigns.resume(product.services, product.actor, made.id))
    step(product, made.id)
    assert look(product, made.id).counts["going"] == 2
    cancelled = product.run(campaigns.cancel(product.services, product.actor, made.id))
    assert cancelled.state is CampaignState.CANCELLED
    assert counted(product, made.id) == {"going": 2, "skipped": 3}
    for steer in (campaigns.resume, campaigns.cancel, campaigns.retry):
        with pytest.raises(Refused):
            product.run(steer(product.services, product.actor, made.id))


def test_failed_ones_are_tried_again_later_and_end_as_failed(product: World, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate_id = issued(product)

    async def refused(*_: Any, **__: Any) -> str:
        raise Refused("no", "The CA is on holiday.")

    made = start(product)
    with monkeypatch.context() as patched:
        patched.setattr(campaigns.certificates, "renew_version", refused)
        product.drain()
        (item,) = items(product, made.id)
        assert (item.state, item.attempts, item.reason) == (ItemState.WAITING, 1, "The CA is on holiday.")
        assert item.retry_at == product.clock.now() + timedelta(minutes=5)
        for _ in range(5):
            product.later(hours=6)
            product.drain()
    assert counted(product, made.id) == {"failed": 1}
    assert look(product, made.id).state is CampaignState.FINISHED
    product.run(campaigns.retry(product.services, product.actor, made.id))
    product.drain()
    assert counted(product, made.id) == {"replaced": 1}
    assert numbers(product, certificate_id) == [2, 1]


def test_a_reissue_that_is_withdrawn_counts_as_an_attempt(product: World) -> None:
    certificate_id = issued(product)
    made = start(product)
    step(product, made.id)
    step(product, made.id)
    (item,) = items(product, made.id)
    for _ in range(2):
        product.run(product.services.jobs.run_step(product.services, campaigns.ITEM_STEP, item.id))
    assert detail(product, certificate_id).summary.state is State.VERIFYING_REISSUE
    product.run(certificates.withdraw(product.services, product.actor, certificate_id))
    product.drain()
    (item,) = items(product, made.id)
    assert (item.attempts, item.reason_code) == (1, "withdrawn")


def test_a_certificate_replaced_by_somebody_else_is_not_replaced_again(product: World) -> None:
    certificate_id = issued(product)
    made = start(product, per_hour=60)
    step(product, made.id)
    product.run(certificates.reissue(product.services, product.actor, certificate_id))
    product.drain()
    product.later(hours=1)
    product.drain()
    assert counted(product, made.id) == {"replaced": 1}
    assert numbers(product, certificate_id) == [2, 1]


def test_a_certificate_that_is_deleted_meanwhile_is_skipped(product: World) -> None:
    now = product.clock.now()
    (certificate_id,) = plant(product, 1, due=lambda _: now + 40 * DAY, ends=lambda _: now + 60 * DAY)
    made = start(product)
    step(product, made.id)
    step(product, made.id)
    write(product, sa.text("DELETE FROM certificates WHERE id = :id").bindparams(id=certificate_id))
    product.drain()
    assert counted(product, made.id) == {"skipped": 1}
    assert look(product, made.id).state is CampaignState.FINISHED


# --- killed ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs, nothing is caught."""


def kill_at(database: Database, number: int, *, after: bool) -> None:
    """Let the transaction number `number` that writes be the last thing this process does."""
    begin = database.begin
    seen = 0

    @asynccontextmanager
    async def counted_begin() -> AsyncIterator[Tx]:
        nonlocal seen
        async with begin() as tx:
            yield tx
            if await tx.scalar(sa.text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")):
                seen += 1
                if seen == number and not after:
                    raise Killed
        if seen == number and after:
            seen += 1
            raise Killed

    database.begin = counted_begin  # type: ignore[method-assign]


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
def test_a_worker_killed_at_any_commit_reissues_each_item_once(product: World, after: bool) -> None:
    """From the start of a campaign to its end; each kill is one commit later than the one before."""
    certificate_id = issued(product)
    versions = 1
    database = product.services.db
    begin = database.begin
    for number in range(1, 60):
        made = start(product)
        kill_at(database, number, after=after)
        killed = False
        try:
            work(product, timedelta(minutes=10))
        except Killed:
            killed = True
        finally:
            database.begin = begin  # type: ignore[method-assign]
        work(product, timedelta(hours=2))
        versions += 1
        assert numbers(product, certificate_id)[0] == versions, f"killed at commit {number}"
        assert counted(product, made.id) == {"replaced": 1}
        reissues = rows(product, sa.select(sa.func.count()).select_from(applications))[0][0]
        assert reissues == versions
        if not killed:
            break
    else:
        raise AssertionError("there is always another commit")
    assert number > 8


# --- the doors -------------------------------------------------------------------------------------------------------


def test_whoever_may_not_starts_nothing_and_steers_nothing(product: World) -> None:
    issued(product)
    weak = product.actor_with("scm:cert:*", "scm:campaign:list", "scm:campaign:get")
    deadline = product.clock.now() + DAY
    with pytest.raises(Forbidden):
        product.run(campaigns.preview(product.services, weak, ALL, deadline=deadline, per_hour=1))
    with pytest.raises(Forbidden):
        product.run(
            campaigns.start(
                product.services, weak, ALL, name="x", reason=CampaignReason.DRILL, deadline=deadline, per_hour=1
            )
        )
    made = start(product)
    for steer in (campaigns.pause, campaigns.resume, campaigns.cancel, campaigns.retry):
        with pytest.raises(Forbidden):
            product.run(steer(product.services, weak, made.id))


def test_only_certificates_the_starter_may_reissue_are_touched(product: World) -> None:
    mine = issued(product, "mine.example")
    other = issued(product, "other.example")
    limited = product.actor_with("scm:campaign:*")
    own = product.actor_with("scm:cert:*", resources=(f"certificate:{mine}",))
    limited = replace(limited, grants=(*limited.grants, *own.grants))
    made = product.run(
        campaigns.start(
            product.services, limited, ALL, name="x", reason=CampaignReason.DRILL, per_hour=36_000,
            deadline=product.clock.now() + DAY,
        )
    )  # fmt: skip
    product.drain()
    assert counted(product, made.id) == {"replaced": 1}
    assert (numbers(product, mine), numbers(product, other)) == ([2, 1], [1])


def test_another_account_is_neither_shown_nor_touched(product: World) -> None:
    certificate_id = issued(product)
    made = start(product)
    other = product.other_actor
    assert product.run(campaigns.list_campaigns(product.services, other)) == []
    for look_at in (campaigns.get_campaign, campaigns.list_items, campaigns.pause, campaigns.cancel):
        with pytest.raises(NotFound):
            product.run(look_at(product.services, other, made.id))
    found = product.run(campaigns.preview(product.services, other, ALL, deadline=product.clock.now() + DAY, per_hour=1))
    assert found.replaced == 0
    assert numbers(product, certificate_id) == [1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"criteria": Criteria()}, "criteria", id="nothing is said of which"),
        pytest.param({"criteria": Criteria(ca="nobody")}, "criteria.ca", id="an unknown CA"),
        pytest.param({"criteria": Criteria(names="a" * 400)}, "criteria.names", id="a pattern without end"),
        pytest.param({"deadline": -DAY}, "deadline", id="a deadline in the past"),
        pytest.param({"per_hour": 0}, "per_hour", id="no rate"),
        pytest.param({"name": ""}, "name", id="no name"),
    ],
)
def test_a_campaign_that_makes_no_sense_is_refused(product: World, change: dict[str, Any], field: str) -> None:
    fields: dict[str, Any] = {"criteria": ALL, "deadline": DAY, "per_hour": 10, "name": "x"} | change
    with pytest.raises((Invalid, NotFound)) as caught:
        product.run(
            campaigns.start(
                product.services, product.actor, fields["criteria"], name=fields["name"], reason=CampaignReason.DRILL,
                deadline=product.clock.now() + fields["deadline"], per_hour=fields["per_hour"],
            )
        )  # fmt: skip
    assert caught.value.field == field
    assert rows(product, sa.select(sa.func.count()).select_from(campaigns_table)) == [(0,)]
