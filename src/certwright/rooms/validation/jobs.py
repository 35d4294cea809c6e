"""The steps of a challenge: write the record, look at it, keep it while it is needed, take it away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from certwright.kernel.problems import NotFound, Problem
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms.validation import actions, connections, foresight, rules, store
from certwright.rooms.validation.words import SUGGESTED_TTL, Act, Explanation

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
        return await _check(services, row)
    if act is Act.HOLD:
        left: timedelta = row.expires_at - now
        return min(_HOLD, max(left, timedelta(seconds=1)))
    if act is Act.REMOVE:
        return await _remove(services, row)
    return None


async def _write(services: Services, row: store.Row) -> Next:
    async with services.db.begin() as tx:
        if not await store.intend_write(tx, row.id, services.clock.now()):
            return timedelta(0)
    try:
        writer = await connections.open_writer(services, row.connection_id)
        await writer.add_txt(row.record_name, row.value, SUGGESTED_TTL)
    except Problem as problem:
        said = Explanation(False, problem.code, problem.message, problem.fix)
        await actions.record_outcome(services, actions.acting(row), row, said)
        raise Again(rules.poll_after(row.checks), problem) from problem
    async with services.db.begin() as tx:
        await store.written(tx, row.id, services.clock.now())
    return timedelta(0)


async def _check(services: Services, row: store.Row) -> Next:
    try:
        explanation = await actions.examine(services, actions.acting(row), row)
    except Problem as problem:
        raise Again(rules.poll_after(row.checks), problem) from problem
    if explanation.ok:
        return timedelta(0)
    wait = rules.poll_after(row.checks, automatic=row.connection_id is not None)
    left: timedelta = row.expires_at - services.clock.now()
    return max(timedelta(seconds=1), min(wait, left))


async def _remove(services: Services, row: store.Row) -> Next:
    """Failures are tried again with growing pauses; the step's problem stays on the row."""
    try:
        writer = await connections.open_writer(services, row.connection_id)
    except NotFound:
        return None  # the connection was deleted meanwhile, and with it the means
    await writer.remove_txt(row.record_name, row.value)
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
