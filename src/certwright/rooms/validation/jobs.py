"""The steps of a challenge: write the record, look at it, keep it while it is needed, take it away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from certwright.kernel.problems import NotFound, Problem
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms.validation import actions, checks, connections, foresight, rules, store
from certwright.rooms.validation.words import Act, DnsRecord, Explanation, Method

# The event that releases a record starts its step at once; this is for the event that comes while a step ends.
_HOLD = timedelta(minutes=10)


async def challenge_step(services: Services, challenge_id: str) -> Next:
    """One step of one challenge; repeatable at any point."""
    async with services.db.begin() as tx:
        row = await store.challenge(tx, challenge_id)
    if row is None:
        return None
    now = services.clock.now()
    act = rules.next_act(
        automatic=row.connection_id is not None, write_intended_at=row.write_intended_at, written_at=row.written_at,
        removed_at=row.removed_at, released_at=row.released_at, cancelled_at=row.cancelled_at,
        validated_at=row.validated_at, expires_at=row.expires_at, now=now,
    )  # fmt: skip
    if act is Act.WRITE:
        return await _write(services, row)
    if act is Act.CHECK:
        return await _check(services, await _routed(services, row))
    if act is Act.HOLD:
        left: timedelta = row.expires_at - now
        return min(_HOLD, max(left, timedelta(seconds=1)))
    if act is Act.REMOVE:
        return await _remove(services, row)
    return None


async def _routed(services: Services, row: store.Row) -> store.Row:
    """The challenge as it stands once its name's CNAMEs were followed: they may lead into a zone that another DNS
    connection holds, or none. What is being written stays where it is."""
    record = actions.record_of(row)
    if record is None or row.write_intended_at is not None or not rules.is_delegable(record):
        return row
    found = await checks.follow(services.resolver, record)
    if not found.known:
        return row
    place = found.target or record.name
    async with services.db.begin() as tx:
        # A CNAME that leads nowhere leaves nothing to write to.
        held = {} if found.loops else await actions.holders_of(tx, row.account_id, row.project_id, [place])
        if (row.leads_to, row.connection_id) == (found.target, held.get(place)):
            return row
        await store.route(tx, row.id, found.target, held.get(place))
        fresh = await store.challenge(tx, row.id)
    assert fresh is not None, "challenges are not deleted"
    return fresh


async def _write(services: Services, row: store.Row) -> Next:
    row = await _routed(services, row)
    if row.connection_id is None:
        return timedelta(0)
    async with services.db.begin() as tx:
        if not await store.intend_write(tx, row.id, services.clock.now()):
            return timedelta(0)
    try:
        writer = await connections.open_writer(services, row.connection_id)
        await writer.add(_placed(row))
    except Problem as problem:
        if problem.code == "dns_update_cname" and await _written_otherwise(services, row):
            return timedelta(0)
        said = Explanation(False, problem.code, problem.message, problem.fix)
        await actions.record_outcome(services, actions.acting(row), row, said)
        raise Again(rules.poll_after(row.checks), problem) from problem
    async with services.db.begin() as tx:
        await store.written(tx, row.id, services.clock.now())
    return timedelta(0)


def _placed(row: store.Row) -> DnsRecord:
    return DnsRecord(row.leads_to or row.record_name, row.record_type, row.value)


async def _written_otherwise(services: Services, row: store.Row) -> bool:
    """A CNAME at the name keeps a TXT record out, and nothing was written. For our own records there is one that does
    as well, beside it; where it leads elsewhere now, the next step finds out."""
    instead = rules.cname_instead(_placed(row)) if row.leads_to is None else None
    changes = {"record_name": instead.name, "record_type": instead.type, "value": instead.value} if instead else {}
    async with services.db.begin() as tx:
        await store.not_written(tx, row.id, **changes)
    return instead is not None


async def _check(services: Services, row: store.Row) -> Next:
    try:
        explanation = await actions.examine(services, actions.acting(row), row)
    except Problem as problem:
        raise Again(rules.poll_after(row.checks), problem) from problem
    if explanation.ok:
        return timedelta(0)
    wait = rules.poll_after(row.checks, automatic=row.connection_id is not None or row.method == Method.TLS_ALPN_01)
    left: timedelta = row.expires_at - services.clock.now()
    return max(timedelta(seconds=1), min(wait, left))


async def _remove(services: Services, row: store.Row) -> Next:
    """Failures are tried again with growing pauses; the step's problem stays on the row."""
    try:
        writer = await connections.open_writer(services, row.connection_id)
    except NotFound:
        return None  # the connection was deleted meanwhile, and with it the means
    await writer.remove(_placed(row))
    async with services.db.begin() as tx:
        await store.removed(tx, row.id, services.clock.now())
    return None


async def version_issued(services: Services, told: Sequence[Event]) -> None:
    """Listener: what was published for these applications isn't needed any more, what was shown is needed again."""
    applications = [event for event in told if event.payload.get("application_id")]
    if applications:
        async with services.db.begin() as tx:
            await store.release(
                tx, [str(event.payload["application_id"]) for event in applications], services.clock.now()
            )
            await foresight.foresee(tx, services, applications)
