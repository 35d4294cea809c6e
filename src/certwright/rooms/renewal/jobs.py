"""The steps of renewal: a queue lets due ones through, and each one asks its CA or starts its reissue."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from certwright.kernel.actor import system_actor
from certwright.kernel.problems import NotFound, Refused, Unavailable
from certwright.platform.db import Tx, assert_no_transaction
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import audit, certificates, validation
from certwright.rooms.certificates import State
from certwright.rooms.renewal import rules, store
from certwright.rooms.renewal.actions import silent_cas
from certwright.rooms.renewal.rules import why_renew
from certwright.rooms.renewal.tables import renewals
from certwright.rooms.renewal.words import Allowed

log = structlog.get_logger(__name__)

STEP = "renewal.renew"
ADMIT = "renewal.admit"

# An event lost with a restored backup is made good by this look.
_LOOK_IN = timedelta(days=1)
_MOST_AT_ONCE = 500
_ASK_AGAIN = timedelta(hours=1)
_NO_WINDOW = timedelta(days=1)


# --- what happened to certificates -----------------------------------------------------------------------------------


async def version_issued(services: Services, told: Sequence[Event]) -> None:
    """Listener: plan the renewal of new versions and forget the plans for the old ones.

    Told late, when a newer version is current or the certificate is gone, it plans nothing: one statement decides.
    """
    async with services.db.begin() as tx:
        fallbacks = {
            account: (await validation.rules_of(tx, account)).renewal_fallback
            for account in {event.account_id for event in told}
        }
        plans = [_plan(event, fallbacks[event.account_id]) for event in told]
        await store.plan(tx, plans, silent_cas(services), services.clock.now())


def _plan(event: Event, fallback: validation.RenewalFallback) -> store.Plan:
    payload = event.payload
    not_before, not_after = (datetime.fromisoformat(str(payload[key])) for key in ("not_before", "not_after"))
    version_id = str(payload["version_id"])
    due = rules.by_fraction(certificates.renew_at(not_before, not_after, version_id, fallback), not_after)
    return store.Plan(event.object_id, version_id, due.at, due.need_by, not_after)


async def auto_renew_set(services: Services, event: Event) -> None:
    """Listener: switched on again, a version that fell due meanwhile is renewed now."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        query = sa.select(renewals.c.account_id, renewals.c.ca).where(renewals.c.certificate_id == event.object_id)
        await store.wake(tx, {(row.account_id, row.ca): now for row in await tx.execute(query)}, now)


async def moved(services: Services, event: Event) -> None:
    """Listener: the plan is seen by whoever sees the certificate."""
    async with services.db.begin() as tx:
        await tx.execute(certificates.followed(renewals, renewals.c.certificate_id, event.object_id))


async def attempt_over(services: Services, event: Event) -> None:
    """Listener: a renewal that was refused or withdrawn is tried again later, as long as the version lives."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        mine = renewals.c.certificate_id == event.object_id
        row = (await tx.execute(sa.select(renewals).where(mine))).one_or_none()
        if row is not None:
            await store.put_back(tx, now + rules.retry_after(row.not_after - now), now, mine)


# --- the queue -------------------------------------------------------------------------------------------------------


async def admit_step(services: Services, queue_id: str) -> Next:
    """Let due renewals of one account at one CA through: as many as there are tokens, those that end soonest first,
    all in one transaction with the tokens they cost. Answers when there is something to look at again."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        queue = await store.lock_queue(tx, queue_id)
        if queue is None:
            return None
        ready = await store.projects_ready(tx, queue.account_id, queue.ca, now)
        due = await store.next_due(tx, queue.account_id, queue.ca, now)
        looks = [now + _LOOK_IN] + ([due] if due is not None else [])
        if ready:
            looks.append(await _let_through(tx, services, queue, ready, now))
    return max(min(looks) - now, timedelta(0))


async def _let_through(
    tx: Tx, services: Services, queue: store.Row, ready: dict[str, datetime], now: datetime
) -> datetime:
    """Admit what may go; answers when more of what is ready can."""
    calendar = await store.calendar(tx, queue.account_id, now)
    verdicts = {project: rules.when_allowed(now, *calendar.of(project), need_by) for project, need_by in ready.items()}
    going = [project for project, verdict in verdicts.items() if verdict.at <= now and not verdict.forced]
    bucket = store.bucket_of(queue)
    tokens = rules.filled(bucket, now)
    ids = (queue.account_id, queue.ca, now)
    room = min(rules.whole(tokens), _MOST_AT_ONCE)
    admitted = await store.admit(tx, *ids, projects=(), urgent=True, limit=room)
    forced = [row for row in admitted if row.project_id not in going]
    ordinary = min(room - len(admitted), rules.whole(tokens - rules.reserve(bucket)) - len(admitted))
    admitted += await store.admit(tx, *ids, projects=going, urgent=False, limit=ordinary)
    if admitted:
        took = await store.take(tx, queue.id, len(admitted), tokens, now)
        assert took, "no more was admitted than there were tokens, and the queue is locked"
        await services.jobs.start(tx, STEP, *(row.id for row in admitted))
        await _audit_forced(tx, services, queue, forced, verdicts)
    left = await store.projects_ready(tx, queue.account_id, queue.ca, now)
    looks = [now + _LOOK_IN]
    for project, need_by in left.items():
        if need_by <= now or project in going:
            keep = 0.0 if need_by <= now else rules.reserve(bucket)
            looks.append(now + rules.until_token(bucket, tokens - len(admitted), keep=keep))
        else:
            looks.append(rules.when_allowed(now, *calendar.of(project), need_by).at)
    return min(looks)


async def _audit_forced(
    tx: Tx, services: Services, queue: store.Row, forced: Sequence[store.Row], verdicts: dict[str, Allowed]
) -> None:
    actor = system_actor(queue.account_id, "renewal")
    await audit.record_many(
        tx,
        services,
        [
            audit.Entry(
                actor, "scm:cert:renew", "certificate", row.certificate_id, row.project_id, None,
                {"need_by": row.need_by.isoformat(), "not_after": row.not_after.isoformat()},
                verdicts[row.project_id].reason,
            )
            for row in forced
        ],
    )  # fmt: skip


# --- one renewal -----------------------------------------------------------------------------------------------------


async def renew_step(services: Services, renewal_id: str) -> Next:
    """Start the reissue of a renewal that was let through; of another one, ask its CA when it would like it."""
    async with services.db.read() as tx:
        row = await store.renewal(tx, renewal_id)
    if row is None or row.started_at is not None:
        return None
    now = services.clock.now()
    if row.admitted_at is not None:
        await _renew(services, row, now)
        return None
    if row.ask_at is None:
        return None
    return row.ask_at - now if row.ask_at > now else await _ask(services, row, random.random())  # noqa: S311  # spreads load, guards nothing


async def _renew(services: Services, row: store.Row, now: datetime) -> None:
    if row.current_version_id != row.version_id:
        return  # replaced already; the event of that will plan the next one
    actor = system_actor(row.account_id, "renewal")
    verdict = why_renew(
        auto_renew=row.auto_renew, state=State(row.stage), renew_at=row.renew_at, not_after=row.not_after, now=now
    )
    if not verdict.renew:
        # Changed since it was let through; the queue looks whether it may go another time.
        async with services.db.begin() as tx:
            await store.put_back(tx, now + (verdict.look_again or timedelta(0)), now, *_of_version(row))
        return
    try:
        application_id = await certificates.renew_version(services, actor, row.certificate_id)
    except Refused as refused:
        log.warning("renewal refused", certificate=row.certificate_id, code=refused.code)
        wait = rules.retry_after(row.not_after - now)
        async with services.db.begin() as tx:
            await store.put_back(tx, now + wait, now, *_of_version(row))
        raise Again(wait, refused) from refused
    except NotFound:
        return  # deleted since we looked, and its plan with it
    # Killed before this line, the next run finds the certificate in verifying_reissue and has nothing to do.
    async with services.db.single() as tx:
        await store.record(tx, row, started_at=now, application_id=application_id)


def _of_version(row: store.Row) -> tuple[sa.ColumnElement[bool], ...]:
    return renewals.c.id == row.id, renewals.c.version_id == row.version_id


async def _ask(services: Services, row: store.Row, draw: float) -> Next:
    """Ask the CA for its window (RFC 9773) and move the renewal there. `draw` in [0, 1) is used if there is no place in
    the window yet. Raises Again when the CA can't be reached; what was planned stands."""
    async with services.db.begin() as tx:
        found = await services.port(certificates.AuthorityDirectory).find(tx, row.account_id, row.ca)
        version = await certificates.version_material(tx, row.version_id)
    if found is None or version is None or not isinstance(found[1], certificates.RenewalInformation):
        async with services.db.begin() as tx:
            await store.record(tx, row, ask_at=None)
        return None
    assert_no_transaction()
    try:
        window = await found[1].renewal_window(version.leaf_der)
    except (Unavailable, Refused) as problem:
        seconds = problem.extra.get("retry_after")
        raise Again(timedelta(seconds=seconds) if isinstance(seconds, int) else _ASK_AGAIN, problem) from problem
    now = services.clock.now()
    again = window.again if window is not None else _NO_WINDOW
    values: dict[str, object] = {"asked_at": now, "ask_at": now + again}
    due = rules.by_fraction(row.fraction_at, row.not_after)
    if window is None:
        values |= {"window_start": None, "window_end": None, "explanation_url": None}
    else:
        place = draw if row.window_place is None else row.window_place
        due = rules.by_window(window, place, row.fraction_at, row.not_after, version.not_before)
        values |= {
            "window_start": window.start, "window_end": window.end, "explanation_url": window.explanation_url,
            "window_place": place,
        }  # fmt: skip
    async with services.db.begin() as tx:
        if await store.record(tx, row, renew_at=due.at, need_by=due.need_by, **values):
            await store.wake(tx, {(row.account_id, row.ca): due.at}, now)
            if due.at < row.renew_at:
                await services.events.publish(
                    tx, "renewal.sooner", account_id=row.account_id, object_id=row.certificate_id,
                    payload={"version_id": row.version_id, "renew_at": due.at.isoformat()},
                )  # fmt: skip
            await _note_moved(tx, services, row, due, window)
    return again


async def _note_moved(
    tx: Tx, services: Services, row: store.Row, due: rules.Due, window: certificates.RenewalWindow | None
) -> None:
    """A window that the CA moved forward says that something is wrong with the certificate: that is written down."""
    if window is None or row.window_end is None or window.end >= row.window_end:
        return
    why = f" ({window.explanation_url})" if window.explanation_url else ""
    await audit.record(
        tx, services, system_actor(row.account_id, "renewal"), "scm:cert:renew", "certificate", row.certificate_id,
        project_id=row.project_id, before={"renew_at": row.renew_at.isoformat()},
        after={"renew_at": due.at.isoformat()}, reason=f"The CA moved its renewal window forward{why}.",
    )  # fmt: skip
    await services.events.publish(
        tx, "renewal.window_moved", account_id=row.account_id, object_id=row.certificate_id,
        payload={"renew_at": due.at.isoformat(), "explanation_url": window.explanation_url},
    )  # fmt: skip
