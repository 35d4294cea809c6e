"""Keep certificates alive: a row per certificate says when its current version is due; a queue per account and CA lets
due ones through at its rate, and the step of each starts the reissue.

A renewal is a reissue with the same names: valid evidence is used again, and the deployment room hears of the new
version by event like of any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, accounts, audit
from certwright.rooms.certificates import AuthorityDirectory, RenewalInformation
from certwright.rooms.renewal import rules, store
from certwright.rooms.renewal.tables import renewal_freezes, renewal_queues, renewal_windows, renewals
from certwright.rooms.renewal.words import (
    Bucket,
    Expected,
    Freeze,
    FreezeView,
    LimitView,
    RenewalView,
    Window,
    WindowView,
)

# --- plans -----------------------------------------------------------------------------------------------------------


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


async def expected(tx: Tx, version_id: str) -> Expected | None:
    """When the renewal of a version is due, and when windows and freezes let it go at the latest; None for a version
    that isn't planned (yet). For the watch room, which needs no right."""
    row = (await tx.execute(sa.select(renewals).where(renewals.c.version_id == version_id))).one_or_none()
    if row is None:
        return None
    calendar = await store.calendar(tx, row.account_id, row.renew_at)
    goes = rules.when_allowed(row.renew_at, *calendar.of(row.project_id), row.need_by)
    return Expected(row.renew_at, goes.at, row.need_by)


async def list_renewals(
    services: Services, actor: Actor, *, after: tuple[datetime, str] | None = None, limit: int = 20
) -> list[tuple[tuple[datetime, str], RenewalView]]:
    """Soonest due first, each with its key for paging; those of certificates that have ended are left out."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        where = [access.visible(renewals, actor, "scm:renewal:list"), renewals.c.not_after > now]
        rows = await store.page(tx, where, after=after, limit=limit)
        calendar = await store.calendar(tx, actor.account_id, now)
    return [((row.renew_at, row.id), _view(row, calendar, now)) for row in rows]


async def get_renewal(services: Services, actor: Actor, certificate_id: str) -> RenewalView:
    now = services.clock.now()
    async with services.db.begin() as tx:
        where = [access.visible(renewals, actor, "scm:renewal:get"), renewals.c.certificate_id == certificate_id]
        rows = await store.page(tx, where, after=None, limit=1)
        if not rows:
            raise not_found("renewal", certificate_id)
        calendar = await store.calendar(tx, actor.account_id, now)
    return _view(rows[0], calendar, now)


def _view(row: store.Row, calendar: store.Calendar, now: datetime) -> RenewalView:
    allowed = None
    if row.started_at is None and row.auto_renew:
        earliest = max(now, row.renew_at, row.held_until or row.renew_at)
        allowed = rules.when_allowed(earliest, *calendar.of(row.project_id), row.need_by)
    return RenewalView(
        row.certificate_id, row.project_id, row.name, row.ca, row.version_id, row.renew_at, row.need_by, row.not_after,
        "ca" if row.window_start is not None else "fraction", row.window_start, row.window_end, row.explanation_url,
        row.asked_at, row.held_until, row.admitted_at, row.started_at, row.auto_renew, row.step_problem, allowed,
    )  # fmt: skip


# --- windows and freezes ---------------------------------------------------------------------------------------------


async def _place(tx: Tx, actor: Actor, project_id: str | None) -> None:
    """May they change the times of this project, or (None) of the whole account?"""
    if project_id is not None and not await accounts.store.project_exists(tx, actor.account_id, project_id):
        raise not_found("project", project_id).at("project_id")
    access.require(actor, "scm:renewal:update", project_id=project_id)


async def add_window(services: Services, actor: Actor, window: Window, *, project_id: str | None = None) -> WindowView:
    """A maintenance window of the account, or of one project: a project's own stand in for the account's."""
    rules.judge_window(window)
    now = services.clock.now()
    view = WindowView(
        new_id("rwn", now), project_id, window.name, tuple(sorted(window.weekdays)), window.from_time, window.to_time,
        window.zone, now,
    )  # fmt: skip
    async with services.db.begin() as tx:
        await _place(tx, actor, project_id)
        await tx.execute(
            sa.insert(renewal_windows).values(
                id=view.id, account_id=actor.account_id, project_id=project_id, name=view.name,
                weekdays=list(view.weekdays), from_time=view.from_time, to_time=view.to_time, zone=view.zone,
                created_at=now,
            )
        )  # fmt: skip
        await _changed(tx, services, actor, "renewal-window", view.id, project_id, after=_window_json(view))
    return view


async def add_freeze(services: Services, actor: Actor, freeze: Freeze, *, project_id: str | None = None) -> FreezeView:
    """A time without renewals for the account or one project; both kinds count."""
    now = services.clock.now()
    rules.judge_freeze(freeze, now)
    view = FreezeView(new_id("rfz", now), project_id, freeze.from_at, freeze.to_at, freeze.reason, now)
    async with services.db.begin() as tx:
        await _place(tx, actor, project_id)
        await tx.execute(
            sa.insert(renewal_freezes).values(
                id=view.id, account_id=actor.account_id, project_id=project_id, from_at=view.from_at, to_at=view.to_at,
                reason=view.reason, created_at=now,
            )
        )  # fmt: skip
        await _changed(tx, services, actor, "renewal-freeze", view.id, project_id, after=_freeze_json(view))
    return view


async def update_window(services: Services, actor: Actor, window_id: str, window: Window) -> WindowView:
    """Put another window in its place; it stays the account's or its project's."""
    rules.judge_window(window)
    values: dict[str, Any] = {
        "name": window.name, "weekdays": sorted(window.weekdays), "from_time": window.from_time,
        "to_time": window.to_time, "zone": window.zone,
    }  # fmt: skip
    return _window_view(await _update(services, actor, renewal_windows, "renewal-window", window_id, values))


async def update_freeze(services: Services, actor: Actor, freeze_id: str, freeze: Freeze) -> FreezeView:
    """Another time or reason; it stays the account's or its project's."""
    rules.judge_freeze(freeze, services.clock.now())
    values = {"from_at": freeze.from_at, "to_at": freeze.to_at, "reason": freeze.reason}
    return _freeze_view(await _update(services, actor, renewal_freezes, "renewal-freeze", freeze_id, values))


async def _update(
    services: Services, actor: Actor, table: sa.Table, kind: str, row_id: str, values: dict[str, Any]
) -> store.Row:
    async with services.db.begin() as tx:
        row = await _own(tx, actor, table, kind, row_id)
        after = (await tx.execute(sa.update(table).where(table.c.id == row_id).values(values).returning(table))).one()
        await _changed(
            tx, services, actor, kind, row_id, row.project_id, before=_shown(table, row), after=_shown(table, after)
        )
    return after


async def list_windows(
    services: Services, actor: Actor, *, after: str | None = None, limit: int = 20
) -> list[WindowView]:
    visible = access.visible(renewal_windows, actor, "scm:renewal:list")
    async with services.db.read() as tx:
        rows = await store.listed(tx, renewal_windows, visible, after=after, limit=limit)
    return [_window_view(row) for row in rows]


async def list_freezes(
    services: Services, actor: Actor, *, after: str | None = None, limit: int = 20
) -> list[FreezeView]:
    visible = access.visible(renewal_freezes, actor, "scm:renewal:list")
    async with services.db.read() as tx:
        rows = await store.listed(tx, renewal_freezes, visible, after=after, limit=limit)
    return [_freeze_view(row) for row in rows]


async def get_window(services: Services, actor: Actor, window_id: str) -> WindowView:
    async with services.db.read() as tx:
        return _window_view(await _visible(tx, actor, renewal_windows, "renewal-window", window_id))


async def get_freeze(services: Services, actor: Actor, freeze_id: str) -> FreezeView:
    async with services.db.read() as tx:
        return _freeze_view(await _visible(tx, actor, renewal_freezes, "renewal-freeze", freeze_id))


async def _visible(tx: Tx, actor: Actor, table: sa.Table, kind: str, row_id: str, *, lock: bool = False) -> store.Row:
    query = sa.select(table).where(access.visible(table, actor, "scm:renewal:list"), table.c.id == row_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise not_found(kind.replace("-", " "), row_id)
    return row


async def delete_window(services: Services, actor: Actor, window_id: str) -> None:
    await _delete(services, actor, renewal_windows, "renewal-window", window_id)


async def delete_freeze(services: Services, actor: Actor, freeze_id: str) -> None:
    await _delete(services, actor, renewal_freezes, "renewal-freeze", freeze_id)


async def _delete(services: Services, actor: Actor, table: sa.Table, kind: str, row_id: str) -> None:
    async with services.db.begin() as tx:
        row = await _own(tx, actor, table, kind, row_id)
        await tx.execute(sa.delete(table).where(table.c.id == row_id))
        await _changed(tx, services, actor, kind, row_id, row.project_id, before=_shown(table, row))


async def _own(tx: Tx, actor: Actor, table: sa.Table, kind: str, row_id: str) -> store.Row:
    """A window or freeze the actor may change, locked. Raises NotFound, Forbidden."""
    row = await _visible(tx, actor, table, kind, row_id, lock=True)
    access.require(actor, "scm:renewal:update", project_id=row.project_id, resource=f"{kind}:{row_id}")
    return row


def _shown(table: sa.Table, row: store.Row) -> dict[str, Any]:
    return _window_json(_window_view(row)) if table is renewal_windows else _freeze_json(_freeze_view(row))


async def _changed(
    tx: Tx,
    services: Services,
    actor: Actor,
    kind: str,
    object_id: str,
    project_id: str | None,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Audit it, and have the queues look again: what was closed may be open now, and the other way round."""
    await audit.record(
        tx, services, actor, "scm:renewal:update", kind, object_id, project_id=project_id, before=before, after=after
    )
    await store.wake_account(tx, actor.account_id, services.clock.now())


def _window_view(row: store.Row) -> WindowView:
    return WindowView(
        row.id, row.project_id, row.name, tuple(row.weekdays), row.from_time, row.to_time, row.zone, row.created_at
    )


def _freeze_view(row: store.Row) -> FreezeView:
    return FreezeView(row.id, row.project_id, row.from_at, row.to_at, row.reason, row.created_at)


def _window_json(view: WindowView) -> dict[str, Any]:
    return {
        "name": view.name, "weekdays": list(view.weekdays), "from": view.from_time.isoformat(),
        "to": view.to_time.isoformat(), "zone": view.zone,
    }  # fmt: skip


def _freeze_json(view: FreezeView) -> dict[str, Any]:
    return {"from": view.from_at.isoformat(), "to": view.to_at.isoformat(), "reason": view.reason}


# --- limits ----------------------------------------------------------------------------------------------------------


async def list_limits(services: Services, actor: Actor) -> list[LimitView]:
    """Of every CA renewals were planned at, with how many are due and not let through yet."""
    access.require(actor, "scm:renewal:list")
    async with services.db.begin() as tx:
        waiting = await store.waiting_by_ca(tx, actor.account_id, services.clock.now())
        rows = await store.queues(tx, actor.account_id)
    return [_limit_view(row, waiting.get(row.ca, 0)) for row in rows]


def _limit_view(row: store.Row, waiting: int) -> LimitView:
    return LimitView(row.ca, row.per_minute, row.reserve_percent, waiting, row.revision)


async def set_limit(
    services: Services, actor: Actor, ca: str, *, per_minute: int, reserve_percent: int, revision: int | None = None
) -> LimitView:
    """How many renewals a minute the account starts at a CA, named by id or name, and what part of them is kept for
    urgent ones. Without a revision the last word counts. Raises NotFound, Stale."""
    access.require(actor, "scm:renewal:update")
    rules.judge_limit(per_minute, reserve_percent)
    now = services.clock.now()
    async with services.db.begin() as tx:
        found = await services.port(AuthorityDirectory).find(tx, actor.account_id, ca)
        if found is None:
            raise not_found("CA", ca[:80])
        await store.wake(tx, {(actor.account_id, found[0]): now}, now)
        (row,) = await store.lock_queues(tx, actor.account_id, [found[0]])
        if revision is not None and row.revision != revision:
            raise Stale("changed_meanwhile", "The limit was changed since you read it.", fix="Read it again.")
        # Settled up to now at the old rate; the new one may hold less.
        held = rules.filled(store.bucket_of(row), now)
        changed = await tx.execute(
            sa.update(renewal_queues)
            .where(renewal_queues.c.id == row.id)
            .values(
                per_minute=per_minute, reserve_percent=reserve_percent, filled_at=now, revision=row.revision + 1,
                tokens=min(held, rules.capacity(Bucket(per_minute, reserve_percent, held, now))),
            )
            .returning(renewal_queues)
        )  # fmt: skip
        after = changed.one()
        await audit.record(
            tx, services, actor, "scm:renewal:update", "renewal-limit", found[0],
            before={"per_minute": row.per_minute, "reserve_percent": row.reserve_percent},
            after={"per_minute": per_minute, "reserve_percent": reserve_percent},
        )  # fmt: skip
        waiting = await store.waiting_by_ca(tx, actor.account_id, now)
    return _limit_view(after, waiting.get(found[0], 0))


def silent_cas(services: Services) -> Sequence[str]:
    """CAs of the product itself that say nothing about renewal; those people added are asked."""
    by_id = services.port(AuthorityDirectory).by_id
    return [ca for ca, authority in by_id.items() if not isinstance(authority, RenewalInformation)]
