"""Private CAs that near their end: the alarm ALM-2001018, and their gauge."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.rooms import acme_server, authorities, watch
from certwright.rooms.watch import jobs, metrics, rules
from certwright.rooms.watch.words import AlarmFact, Severity
from tests.authorities.test_hierarchy import BELOW, ROOT, leaf, make
from tests.conftest import World

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
YEAR = timedelta(days=365)


def fact(life: timedelta, left: timedelta, *, used: bool = False) -> AlarmFact | None:
    return rules.ca_ends(
        name="Shop CA", sha256="aa", not_before=BEGIN, not_after=BEGIN + life, used_to_the_end=used,
        now=BEGIN + life - left,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("life", "left", "severity"),
    [
        (20 * YEAR, YEAR + timedelta(seconds=1), None),
        (20 * YEAR, YEAR, Severity.MINOR),
        (20 * YEAR, timedelta(days=37), Severity.MINOR),
        (20 * YEAR, timedelta(days=36.5), Severity.MAJOR),
        (20 * YEAR, timedelta(seconds=1), Severity.MAJOR),
        (YEAR, timedelta(days=74), None),
        (YEAR, timedelta(days=73), Severity.MINOR),
        (timedelta(days=2), timedelta(days=2), None),
        (timedelta(days=2), timedelta(hours=10), None),
        (timedelta(days=2), timedelta(hours=9), Severity.MINOR),
        (timedelta(days=2), timedelta(minutes=57), Severity.MAJOR),
    ],
)
def test_a_year_or_a_fifth_of_its_life_before_the_end_somebody_should_look(
    life: timedelta, left: timedelta, severity: Severity | None
) -> None:
    found = fact(life, left)
    assert (found.severity if found else None) == severity
    assert found is None or (found.threshold, found.reason) == (1, "ca_ends")


def test_after_the_end_it_matters_only_if_somebody_used_it() -> None:
    assert fact(YEAR, timedelta(0)) is None
    found = fact(YEAR, timedelta(0), used=True)
    assert found is not None
    assert (found.severity, found.threshold, found.reason) == (Severity.CRITICAL, 2, "ca_ended")


@given(st.timedeltas(timedelta(hours=1), 30 * YEAR), st.timedeltas(-YEAR, 30 * YEAR), st.timedeltas(timedelta(0), YEAR))
def test_no_ca_warns_from_birth_and_none_becomes_calmer_by_waiting(
    life: timedelta, left: timedelta, later: timedelta
) -> None:
    assert fact(life, life, used=True) is None
    weights = [0 if found is None else found.severity.weight for found in (
        fact(life, left, used=True), fact(life, left - later, used=True))]  # fmt: skip
    assert weights[0] <= weights[1]


# --- the chore -------------------------------------------------------------------------------------------------------


def ca_alarms(world: World, *, actor: Actor | None = None) -> list[tuple[str, str, str]]:
    """(CA's id, severity, reason) of the open ones, after a look."""
    world.run(jobs.look_at_cas(world.services))
    listed = world.run(
        watch.list_alarms(world.services, actor or world.actor, watch.AlarmFilter(kind="ALM-2001018"), limit=100)
    )
    return [(row.object_id, row.severity, row.reason) for row in listed]


def test_it_warns_gets_graver_and_clears_when_the_ca_is_deleted(world: World) -> None:
    root = make(world, replace(ROOT, days=1000))
    below = make(world, replace(BELOW, days=100), parent_id=root.id)
    assert ca_alarms(world) == []
    assert below.not_after is not None
    leaf(world, below.id)
    world.clock.set(below.not_after - timedelta(days=19))
    assert ca_alarms(world) == [(below.id, "minor", "ca_ends")]
    (alarm,) = world.run(watch.list_alarms(world.services, world.actor, watch.AlarmFilter(kind="ALM-2001018")))
    assert watch.sentence(alarm.reason, alarm.params) == (
        f"The CA {below.name} ends on {below.not_after:%Y-%m-%d %H:%M} UTC; nothing it issues outlives it."
    )
    assert (alarm.object_type, alarm.object_name, alarm.project_id) == ("authority", below.name, below.project_id)
    leaf(world, below.id)
    world.clock.set(below.not_after - timedelta(days=1))
    assert ca_alarms(world) == [(below.id, "major", "ca_ends")]
    world.clock.set(below.not_after)
    assert ca_alarms(world) == [(below.id, "critical", "ca_ended")]
    assert ca_alarms(world, actor=world.other_actor) == []
    world.run(authorities.delete_authority(world.services, world.actor, below.id))
    assert ca_alarms(world) == []
    row, history = world.run(watch.get_alarm(world.services, world.actor, alarm.id))
    assert row.cleared_at == world.clock.now()
    assert [line.what for line in history] == ["raised", "changed", "changed", "cleared"]


def test_it_clears_when_the_ca_is_renewed(world: World) -> None:
    root = make(world, replace(ROOT, days=1000))
    world.later(days=900)
    assert ca_alarms(world) == [(root.id, "minor", "ca_ends")]
    world.run(authorities.renew_authority(world.services, world.actor, root.id))
    assert ca_alarms(world) == []


def test_a_disabled_ca_warns_too_and_a_revoked_one_no_more(world: World) -> None:
    below = make(world, replace(BELOW, days=100), parent_id=make(world, replace(ROOT, days=1000)).id)
    world.run(authorities.disable_authority(world.services, world.actor, below.id))
    world.later(days=90)
    assert ca_alarms(world) == [(below.id, "minor", "ca_ends")]
    world.run(authorities.revoke_authority(world.services, world.actor, below.id))
    assert ca_alarms(world) == []


def test_a_ca_that_nobody_used_to_the_end_ends_in_silence(world: World) -> None:
    root = make(world, replace(ROOT, days=1000))
    idle, served = (make(world, replace(BELOW, name=name, days=100), parent_id=root.id) for name in ("Idle", "Served"))
    leaf(world, idle.id, days=30)
    opened = world.run(
        acme_server.create_directory(
            world.services, world.actor, acme_server.DirectoryRequest(authority_id=served.id, name="Clients")
        )
    )
    world.later(days=91)
    assert sorted(ca_alarms(world)) == sorted([(idle.id, "minor", "ca_ends"), (served.id, "minor", "ca_ends")])
    world.later(days=10)
    assert ca_alarms(world) == [(served.id, "critical", "ca_ended")]
    world.run(acme_server.update_directory(world.services, world.actor, opened.id, {"enabled": False}))
    assert ca_alarms(world) == []


def test_the_built_in_cas_are_watched_like_any_and_never_end_in_silence(world: World) -> None:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    found = {ca.kind: ca for ca in world.run(authorities.list_authorities(world.services, world.actor)) if ca.builtin}
    issuing, root = found["issuing"], found["root"]
    assert issuing.not_after is not None
    world.clock.set(issuing.not_after - timedelta(days=364))
    assert ca_alarms(world) == [(issuing.id, "minor", "ca_ends")]
    world.clock.set(issuing.not_after + timedelta(days=1))
    assert ca_alarms(world) == [(issuing.id, "critical", "ca_ended")]
    assert root.not_after is not None
    world.clock.set(root.not_after)
    assert sorted(ca_alarms(world)) == sorted([(issuing.id, "critical", "ca_ended"), (root.id, "critical", "ca_ended")])


def test_looking_again_is_silent_until_a_day_has_passed(world: World) -> None:
    make(world, replace(ROOT, days=1000))
    world.later(days=900)
    ca_alarms(world)
    listed = watch.AlarmFilter(kind="ALM-2001018")
    (first,) = world.run(watch.list_alarms(world.services, world.actor, listed))
    world.later(minutes=5)
    ca_alarms(world)
    assert world.run(watch.list_alarms(world.services, world.actor, listed)) == [first]
    world.later(days=1)
    ca_alarms(world)
    (after,) = world.run(watch.list_alarms(world.services, world.actor, listed))
    assert [value["value"] for value in after.recent_values] == [99, 98]
    assert after.changed_at == first.changed_at


def test_many_cas_are_looked_at_with_as_many_statements_as_one(world: World) -> None:
    said: list[str] = []

    def note(*args: Any) -> None:
        said.append(args[2])

    def statements() -> int:
        said.clear()
        world.run(jobs.look_at_cas(world.services))
        return len(said)

    make(world, ROOT)
    sa.event.listen(world.services.db.engine.sync_engine, "before_cursor_execute", note)
    try:
        few = statements()
        for number in range(2):
            make(world, replace(ROOT, name=f"Root {number}"))
        assert statements() == few
    finally:
        sa.event.remove(world.services.db.engine.sync_engine, "before_cursor_execute", note)


# --- the gauge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "shown"),
    [((), True), ((Statement("Deny", ("ccm:ca:list",)),), False), ((Statement("Deny", ("alarm:*",)),), True)],
    ids=["metrics only", "no CAs", "no endpoints"],
)
def test_the_gauge_says_when_ones_own_cas_end(world: World, extra: tuple[Statement, ...], shown: bool) -> None:
    root = make(world, ROOT)
    metrics.GAUGES.read_at = None
    world.run(watch.refresh_metrics(world.services))
    grant = Grant("test", (Statement("Allow", ("iam:metrics:read",)), *extra))
    reader = Actor("user", world.actor.id, "x", world.account.id, (grant,), world.actor.user_id)
    lines = [
        line for line in watch.metrics_text(reader).decode().splitlines()
        if line.startswith("certwright_ca_not_after{") and root.id in line
    ]  # fmt: skip
    assert len(lines) == shown
    if shown:
        assert root.not_after is not None
        assert f'authority="{root.id}",kind="root",name="{root.name}"' in lines[0]
        assert float(lines[0].rpartition(" ")[2]) == root.not_after.timestamp()
    assert root.id not in watch.metrics_text(world.other_actor).decode()
