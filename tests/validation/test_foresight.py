"""Looking ahead: an alarm before evidence that a renewal needs runs out, and none where it doesn't."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.rooms import validation, watch
from certwright.rooms.validation import ledger, rules, store
from certwright.rooms.validation.rulepack import rule_pack
from certwright.rooms.validation.tables import challenges, foreseen
from certwright.rooms.watch.tables import alarms
from tests.conftest import World
from tests.servers.dns import TsigKey
from tests.servers.tls import issue
from tests.watch.material import put_version, span

NAME = "www.example.test"
SECOND = timedelta(seconds=1)
KEY = TsigKey("ahead.key")


def shown(world: World, subject: str, *names: str) -> None:
    """Evidence by DNS for every name of an application, now."""

    async def go() -> None:
        async with world.services.db.begin() as tx:
            await validation.require_domains(
                tx, world.services, account_id=world.account.id, project_id=world.project_id, subject_id=subject,
                names=names, method="dns", per_name_methods={}, ca="builtin", now=world.clock.now(),
            )  # fmt: skip
            for row in await store.of_subject(tx, subject):
                if row.evidence_id is None:
                    await ledger.keep(tx, world.services, world.actor, row, {"message": "seen"}, world.clock.now())

    world.run(go())


def issued(world: World, certificate_id: str, subject: str, not_before: datetime, not_after: datetime) -> None:
    async def go() -> None:
        async with world.services.db.begin() as tx:
            await world.services.events.publish(
                tx, "certificate.version_issued", account_id=world.account.id, object_id=certificate_id,
                payload={
                    "application_id": subject, "version_id": "ver_x", "sha256": "00",
                    "not_before": not_before.isoformat(), "not_after": not_after.isoformat(),
                },
            )  # fmt: skip

    world.run(go())
    world.drain()


def open_alarms(world: World) -> list[Any]:
    async def go() -> list[Any]:
        async with world.services.db.begin() as tx:
            query = sa.select(alarms).where(alarms.c.cleared_at.is_(None), alarms.c.kind == watch.words.EVIDENCE)
            return list((await tx.execute(query)).all())

    return world.run(go())


@pytest.fixture
def certificate(world: World) -> str:
    """With a version that lives from now on for 90 days; its names were shown by hand 150 days ago."""
    shown(world, "app_1", NAME)
    world.later(days=150)
    leaf = issue(NAME, **span(world, left=90, life=90))
    certificate_id = str(world.run(put_version(world, leaf)))
    now = world.clock.now()
    issued(world, certificate_id, "app_1", now, now + timedelta(days=90))
    return certificate_id


def led_elsewhere(world: World, subject: str, place: str) -> None:
    """As if the record of the application had stood where a CNAME leads."""

    async def go() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(challenges).where(challenges.c.subject_id == subject).values(leads_to=place))

    world.run(go())


def test_a_connection_that_holds_where_a_cname_led_renews_the_evidence_by_itself(
    world: World, certificate: str
) -> None:
    world.later(days=21)
    world.drain()
    assert len(open_alarms(world)) == 1
    connection = validation.create_connection(
        world.services, world.actor, name="acme zone", kind="rfc2136", zones=["acme.elsewhere.test"],
        settings={"server": "ns.elsewhere.test", "key_name": KEY.name}, secret=KEY.secret,
    )  # fmt: skip
    world.run(connection)
    world.later(days=1)
    world.drain()
    assert len(open_alarms(world)) == 1, "it holds another zone than the name's"
    led_elsewhere(world, "app_1", "x.acme.elsewhere.test")
    world.later(days=1)
    world.drain()
    assert open_alarms(world) == []


def test_the_alarm_comes_thirty_days_before_the_evidence_ends_and_clears_with_newer_evidence(
    world: World, certificate: str
) -> None:
    world.clock.set(datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(days=170) - timedelta(minutes=2))
    world.drain()
    assert open_alarms(world) == []
    world.later(minutes=3)
    world.drain()
    (alarm,) = open_alarms(world)
    assert (alarm.severity, alarm.object_id, alarm.reason) == ("minor", certificate, "evidence_runs_out")
    said = watch.sentence(alarm.reason, alarm.params)
    assert NAME in said
    assert "2026-09-17 12:00 UTC" in said
    world.later(days=2)
    world.drain()
    assert len(open_alarms(world)) == 1, "said once"
    shown(world, "app_2", f"other.{NAME}", NAME)
    assert len(open_alarms(world)) == 1, "the earlier evidence is still used"
    world.later(days=29)
    shown(world, "app_3", NAME)
    world.later(days=1)
    world.drain()
    assert open_alarms(world) == []


def test_no_alarm_where_a_dns_connection_does_it_again(world: World, certificate: str) -> None:
    world.run(
        validation.create_connection(
            world.services, world.actor, name="dns", kind="rfc2136", zones=["example.test"], secret=KEY.secret,
            settings={"server": "127.0.0.1", "key_name": KEY.name},
        )
    )  # fmt: skip
    world.later(days=45)
    world.drain()
    assert open_alarms(world) == []


def test_no_alarm_where_the_evidence_lasts(world: World) -> None:
    shown(world, "app_1", NAME)
    certificate_id = str(world.run(put_version(world, issue(NAME, **span(world, left=90, life=90)))))
    now = world.clock.now()
    issued(world, certificate_id, "app_1", now, now + timedelta(days=90))
    world.later(days=59)
    world.drain()
    assert open_alarms(world) == []


def test_a_revoked_certificate_needs_nothing(world: World, certificate: str) -> None:
    world.later(days=25)
    world.drain()
    assert len(open_alarms(world)) == 1

    async def tell() -> None:
        async with world.services.db.begin() as tx:
            await world.services.events.publish(
                tx, "certificate.revoked", account_id=world.account.id, object_id=certificate, payload={}
            )

    world.run(tell())
    world.drain()
    assert open_alarms(world) == []

    async def kept() -> int:
        async with world.services.db.begin() as tx:
            return int(await tx.scalar(sa.select(sa.func.count()).select_from(foreseen)) or 0)

    assert world.run(kept()) == 0


@pytest.mark.parametrize(
    ("end", "automatic", "missed"),
    [(-SECOND, False, True), (0 * SECOND, False, False), (SECOND, False, False), (-SECOND, True, False),
     (None, False, True), (None, True, False)],
)  # fmt: skip
def test_a_gap_is_evidence_that_ends_before_the_renewal_and_renews_by_nobody(
    end: timedelta | None, automatic: bool, missed: bool
) -> None:
    needed = datetime(2026, 12, 1, tzinfo=UTC)
    ends = {"a.test": None if end is None else needed + end}
    assert bool(rules.evidence_gap(ends, ["a.test"] if automatic else [], needed)) is missed


def test_renewals_are_planned_by_the_rule_pack() -> None:
    start, pack = datetime(2026, 12, 1, tzinfo=UTC), rule_pack()
    assert rules.planned_renewal(start, start + timedelta(days=9), pack) == start + timedelta(days=4.5)
    assert abs(rules.planned_renewal(start, start + timedelta(days=90), pack) - start - timedelta(days=60)) < (
        timedelta(minutes=15)
    )
