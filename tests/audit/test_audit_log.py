"""The audit log refuses change, seals everything once, and finds every kind of tampering."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from certwright.rooms import audit
from certwright.rooms.audit.rules import canonical, link
from certwright.rooms.audit.tables import audit_chain, audit_events, audit_unsealed


async def _record(world: Any, *names: str) -> None:
    async with world.services.db.begin() as tx:
        for name in names:
            await audit.record(
                tx, world.services, world.actor, "scm:target:create", "target", name, after={"name": name, "n": 1.5}
            )


async def _tamper(world: Any, *statements: str) -> None:
    """As someone who owns the database and switches the triggers off."""
    async with world.services.db.begin() as tx:
        await tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await tx.exec_driver_sql(statement)


def _verify(world: Any, **kwargs: Any) -> audit.Verdict:
    return world.run(audit.verify(world.services.db, now=world.clock.now(), **kwargs))


@pytest.fixture
def sealed(world: Any) -> Any:
    """Five sealed events at the end of the chain; `world.first` is the position of the first of them."""
    world.run(audit.seal(world.services))
    for name in ("a", "b", "c", "d", "e"):
        world.later(seconds=1)
        world.run(_record(world, name))
    world.run(audit.seal(world.services))
    return world


@pytest.mark.parametrize("table", ["audit_events", "audit_chain"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {t} SET {c} = {c}", "DELETE FROM {t}", "TRUNCATE {t}"], ids=["update", "delete", "truncate"]
)
def test_the_database_itself_refuses_to_change_what_was_logged(sealed: Any, table: str, statement: str) -> None:
    column = "reason" if table == "audit_events" else "event_id"

    async def attempt() -> None:
        async with sealed.services.db.begin() as tx:
            await tx.exec_driver_sql(statement.format(t=table, c=column))

    with pytest.raises(DBAPIError, match="can only be added to"):
        sealed.run(attempt())


def test_every_committed_event_is_sealed_once_and_verifies(sealed: Any) -> None:
    verdict = _verify(sealed)
    assert verdict.ok
    assert verdict.unsealed == 0

    async def count() -> Any:
        async with sealed.services.db.begin() as tx:
            return await tx.scalar(sa.select(sa.func.count()).select_from(audit_events))

    assert verdict.sealed == sealed.run(count())
    assert sealed.run(audit.seal(sealed.services)) == 0


def test_a_transaction_that_commits_late_is_sealed_late(world: Any) -> None:
    async def story() -> None:
        services = world.services
        slow = services.db.begin()
        tx = await slow.__aenter__()
        await audit.record(tx, services, world.actor, "scm:cert:apply", "certificate", "cert_slow")
        await _record(world, "quick")
        await audit.seal(services)
        await slow.__aexit__(None, None, None)
        assert await audit.seal(services) == 1

    world.run(story())
    assert _verify(world).ok


def test_a_rolled_back_change_leaves_no_event(world: Any) -> None:
    before = world.run(audit.seal(world.services))
    assert before > 0

    async def fail() -> None:
        async with world.services.db.begin() as tx:
            await audit.record(tx, world.services, world.actor, "scm:cert:apply", "certificate", "cert_never")
            raise RuntimeError("rolled back")

    with pytest.raises(RuntimeError):
        world.run(fail())
    assert world.run(audit.seal(world.services)) == 0


def test_two_sealers_at_once_make_one_chain(world: Any) -> None:
    import asyncio

    async def race() -> int:
        await _record(world, *[f"t{n}" for n in range(50)])
        return sum(await asyncio.gather(*(audit.seal(world.services) for _ in range(4))))

    world.run(race())
    world.run(audit.seal(world.services))
    verdict = _verify(world)
    assert verdict.ok
    assert verdict.unsealed == 0


_EVENT = "(SELECT event_id FROM audit_chain WHERE position = (SELECT max(position) FROM audit_chain) - 2)"
_LAST = "(SELECT max(position) FROM audit_chain)"


@pytest.mark.parametrize(
    ("statements", "finding", "from_end"),
    [
        ((f"UPDATE audit_events SET reason = 'x' WHERE id = {_EVENT}",), audit.Finding.EVENT_CHANGED, 2),
        (
            (f"UPDATE audit_events SET at = at + interval '1 microsecond' WHERE id = {_EVENT}",),
            audit.Finding.EVENT_CHANGED,
            2,
        ),
        ((f"UPDATE audit_events SET after = NULL WHERE id = {_EVENT}",), audit.Finding.EVENT_CHANGED, 2),
        ((f"DELETE FROM audit_events WHERE id = {_EVENT}",), audit.Finding.EVENT_REMOVED, 2),
        ((f"DELETE FROM audit_chain WHERE position = {_LAST} - 2",), audit.Finding.CHAIN_GAP, 2),
        (
            (
                f"DELETE FROM audit_events WHERE id = {_EVENT}",
                f"DELETE FROM audit_chain WHERE position = {_LAST} - 2",
                f"UPDATE audit_chain SET position = position - 1 WHERE position >= {_LAST} - 1",
            ),
            audit.Finding.EVENT_CHANGED,
            2,
        ),
        (
            (
                "UPDATE audit_chain c SET event_id = o.event_id || '' FROM audit_chain o, "
                "(SELECT max(position) AS last FROM audit_chain) m "
                "WHERE o.position = 2 * m.last - 3 - c.position AND c.position IN (m.last - 2, m.last - 1)",
            ),
            audit.Finding.EVENT_CHANGED,
            2,
        ),
    ],
    ids=["changed-text", "changed-time", "changed-fields", "removed", "gap", "removed-and-closed", "reordered"],
)
def test_tampering_is_found_and_the_first_bad_row_named(
    sealed: Any, statements: tuple[str, ...], finding: audit.Finding, from_end: int
) -> None:
    head = _verify(sealed).head
    assert head is not None

    async def tamper() -> None:
        async with sealed.services.db.begin() as tx:
            await tx.exec_driver_sql("ALTER TABLE audit_chain DROP CONSTRAINT uq_audit_chain_event_id")
            await tx.exec_driver_sql("ALTER TABLE audit_chain DROP CONSTRAINT pk_audit_chain")
            await tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for statement in statements:
                await tx.exec_driver_sql(statement)
            nonlocal verdict
            verdict = await _verdict_inside(tx, sealed)
            await tx.rollback()

    verdict: audit.Verdict | None = None
    sealed.run(tamper())
    assert verdict is not None
    assert not verdict.ok
    assert verdict.finding is finding
    assert verdict.first_bad_position == head.position - from_end
    assert verdict.explanation


async def _verdict_inside(tx: Any, world: Any) -> audit.Verdict:
    """Verify within an open transaction, so that what was broken is rolled back."""
    from contextlib import asynccontextmanager

    class Inside:
        @asynccontextmanager
        async def begin(self) -> Any:
            yield tx

    return await audit.verify(Inside(), now=world.clock.now())  # type: ignore[arg-type]


def test_a_chain_cut_at_its_end_is_found_with_a_noted_head(sealed: Any) -> None:
    head = _verify(sealed).head
    sealed.run(
        _tamper(
            sealed,
            f"DELETE FROM audit_events WHERE id = (SELECT event_id FROM audit_chain WHERE position = {_LAST})",
            f"DELETE FROM audit_chain WHERE position = {_LAST}",
        )
    )
    assert _verify(sealed).ok
    verdict = _verify(sealed, noted=head)
    assert not verdict.ok
    assert verdict.finding is audit.Finding.CHAIN_CUT


def test_an_event_kept_out_of_the_chain_is_found(sealed: Any) -> None:
    sealed.run(_record(sealed, "hidden"))
    sealed.run(_tamper(sealed, "DELETE FROM audit_unsealed"))
    verdict = _verify(sealed)
    assert not verdict.ok
    assert verdict.finding is audit.Finding.EVENT_NEVER_SEALED


def test_events_that_wait_too_long_are_reported(sealed: Any) -> None:
    sealed.run(_record(sealed, "waiting"))
    assert _verify(sealed).ok
    sealed.later(minutes=10)
    assert _verify(sealed).ok
    sealed.later(seconds=1)
    verdict = _verify(sealed)
    assert not verdict.ok
    assert verdict.finding is audit.Finding.SEALING_STOPPED
    assert verdict.unsealed == 1


def test_a_link_depends_on_the_previous_one_and_on_every_field(sealed: Any) -> None:
    async def events() -> list[audit.AuditEvent]:
        async with sealed.services.db.begin() as tx:
            return await audit.list_events(tx, sa.true(), audit.Filter(), limit=2, before_id=None)

    one, two = sealed.run(events())
    assert link(bytes(32), one) != link(bytes([1]) * 32, one)
    assert canonical(one) != canonical(two)
    assert canonical(one).count(b":") >= len(audit.AuditEvent.__slots__)


def test_listing_filters_and_pages_newest_first(sealed: Any) -> None:
    async def page(before: str | None = None, **kwargs: Any) -> list[audit.AuditEvent]:
        async with sealed.services.db.begin() as tx:
            mine = audit_events.c.account_id == sealed.account.id
            return await audit.list_events(tx, mine, audit.Filter(**kwargs), limit=2, before_id=before)

    first = sealed.run(page(action="scm:target:*"))
    assert [e.object_id for e in first] == ["e", "d"]
    assert [e.object_id for e in sealed.run(page(first[-1].id, action="scm:target:create"))] == ["c", "b"]
    assert [e.object_id for e in sealed.run(page(object_id="a"))] == ["a"]
    assert sealed.run(page(action="scm%")) == []
    assert sealed.run(page(since=sealed.later(seconds=1))) == []


def test_the_queue_is_empty_after_sealing(sealed: Any) -> None:
    async def counts() -> tuple[Any, Any]:
        async with sealed.services.db.begin() as tx:
            return (
                await tx.scalar(sa.select(sa.func.count()).select_from(audit_unsealed)),
                await tx.scalar(sa.select(sa.func.max(audit_chain.c.position))),
            )

    waiting, last = sealed.run(counts())
    assert waiting == 0
    assert last >= 5
