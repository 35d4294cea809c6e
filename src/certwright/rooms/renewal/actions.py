"""Keep certificates alive: a row per certificate says when its current version is due; its step starts the reissue.

A renewal is a reissue with the same names: valid evidence is used again, and the deployment room hears of the new
version by event like of any other.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.problems import NotFound, Refused
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import access, certificates
from certwright.rooms.renewal import store
from certwright.rooms.renewal.rules import why_renew
from certwright.rooms.renewal.tables import renewals

log = structlog.get_logger(__name__)

STEP = "renewal.renew"

# A refused attempt is tried again this often; the alarm for an overdue renewal is the watch room's.
_RETRY = timedelta(hours=6)


async def version_issued(services: Services, event: Event) -> None:
    """Listener: plan the renewal of the new version and forget the plan for the old one.

    Told late, when a newer version is current or the certificate is gone, it plans nothing: one statement decides.
    """
    told = event.payload
    not_before, not_after = (datetime.fromisoformat(str(told[key])) for key in ("not_before", "not_after"))
    due = certificates.renew_at(not_before, not_after)
    async with services.db.begin() as tx:
        await store.plan(tx, event.object_id, str(told["version_id"]), due, not_after, services.clock.now())


async def auto_renew_set(services: Services, event: Event) -> None:
    """Listener: switched on again, a version that fell due meanwhile is renewed now."""
    async with services.db.begin() as tx:
        await tx.execute(
            sa.update(renewals)
            .where(renewals.c.certificate_id == event.object_id, renewals.c.started_at.is_(None))
            .values(next_step_at=renewals.c.renew_at)
        )


async def renew_step(services: Services, renewal_id: str) -> Next:
    async with services.db.begin() as tx:
        row = (await tx.execute(sa.select(renewals).where(renewals.c.id == renewal_id))).one_or_none()
    if row is None or row.started_at is not None:
        return None
    actor = system_actor(row.account_id, "renewal")
    now = services.clock.now()
    try:
        detail = await certificates.get_certificate(services, actor, row.certificate_id)
    except NotFound:
        return None
    verdict = why_renew(
        auto_renew=detail.summary.auto_renew,
        state=detail.summary.state,
        renew_at=row.renew_at,
        not_after=row.not_after,
        now=now,
    )
    if not verdict.renew:
        return verdict.look_again
    try:
        application_id = await certificates.reissue(services, actor, row.certificate_id)
    except Refused as refused:
        log.warning("renewal refused", certificate=row.certificate_id, code=refused.code)
        raise Again(_RETRY, refused) from refused
    # Killed before this line, the next run finds the certificate in verifying_reissue and has nothing to do.
    async with services.db.begin() as tx:
        await tx.execute(
            sa.update(renewals)
            .where(renewals.c.id == renewal_id, renewals.c.version_id == row.version_id)
            .values(started_at=now, application_id=application_id)
        )
    return None


async def attempt_over(services: Services, event: Event) -> None:
    """Listener: a renewal that was refused or withdrawn is tried again later, as long as the version lives."""
    async with services.db.begin() as tx:
        await tx.execute(
            sa.update(renewals)
            .where(renewals.c.certificate_id == event.object_id, renewals.c.not_after > services.clock.now())
            .values(started_at=None, application_id=None, next_step_at=services.clock.now() + _RETRY)
        )


async def due_soon(
    services: Services, actor: Actor, *, within: timedelta, limit: int = 50
) -> list[tuple[str, datetime]]:
    """(certificate id, due at) of renewals not started yet that fall due within this time, soonest first."""
    async with services.db.begin() as tx:
        rows = await tx.execute(
            sa.select(renewals.c.certificate_id, renewals.c.renew_at)
            .where(
                access.visible(renewals, actor, "scm:cert:list"),
                renewals.c.started_at.is_(None),
                renewals.c.renew_at <= services.clock.now() + within,
            )
            .order_by(renewals.c.renew_at)
            .limit(limit)
        )
        return [(row[0], row[1]) for row in rows]
