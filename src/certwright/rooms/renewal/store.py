"""Plans, queues, windows and freezes of renewal in the database. Campaigns have a store of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from certwright.kernel.ids import new_id
from certwright.platform.db import Tx, is_one_of, unnested
from certwright.rooms import certificates
from certwright.rooms.certificates import State
from certwright.rooms.renewal import rules
from certwright.rooms.renewal.tables import renewal_freezes, renewal_queues, renewal_windows, renewals
from certwright.rooms.renewal.words import Bucket, Freeze, Window

Row = Any

_R, _Q, _CURRENT = renewals.c, renewal_queues.c, certificates.CURRENT
_OWN = certificates.BUILTIN_CA


@dataclass(frozen=True, slots=True)
class Plan:
    certificate_id: str
    version_id: str
    due: datetime
    need_by: datetime
    not_after: datetime


async def plan(tx: Tx, plans: Sequence[Plan], silent: Sequence[str], now: datetime) -> None:
    """Plan the renewal of those versions that are their certificate's current one and not planned yet, and wake their
    queues. CAs that are `silent` aren't asked when to renew."""
    c = _CURRENT
    text, time = sa.Text(), sa.DateTime(timezone=True)
    p = unnested(
        "planned",
        id=(text, [new_id("rnw", now) for _ in plans]),
        certificate_id=(text, [one.certificate_id for one in plans]),
        version_id=(text, [one.version_id for one in plans]),
        due=(time, [one.due for one in plans]),
        need_by=(time, [one.need_by for one in plans]),
        not_after=(time, [one.not_after for one in plans]),
    ).c
    ask = sa.case((is_one_of(c.ca, silent), sa.null()), else_=sa.literal(now, time))
    current = sa.select(
        p.id, c.certificate_id, c.account_id, c.project_id, p.version_id, c.ca, p.due, p.due, p.need_by, p.not_after,
        ask, ask,
    ).where(c.certificate_id == p.certificate_id, c.version_id == p.version_id)  # fmt: skip
    rows = insert(renewals).from_select(
        ["id", "certificate_id", "account_id", "project_id", "version_id", "ca", "fraction_at", "renew_at", "need_by",
         "not_after", "ask_at", "next_step_at"],
        current,
    )  # fmt: skip
    fresh = rows.excluded
    forgotten = ("asked_at", "window_start", "window_end", "window_place", "explanation_url", "held_until",
                 "admitted_at", "application_id", "started_at", "step_problem")  # fmt: skip
    replaced = ("version_id", "ca", "fraction_at", "renew_at", "need_by", "not_after", "ask_at", "next_step_at")
    made = await tx.execute(
        rows.on_conflict_do_update(
            index_elements=["certificate_id"],
            set_={word: getattr(fresh, word) for word in replaced} | {word: sa.null() for word in forgotten},
            where=_R.version_id != fresh.version_id,
        ).returning(_R.account_id, _R.ca, _R.renew_at)
    )
    soonest: dict[tuple[str, str], datetime] = {}
    for account_id, ca, due in made:
        soonest[account_id, ca] = min(due, soonest.get((account_id, ca), due))
    await wake(tx, soonest, now)


async def wake(tx: Tx, soonest: dict[tuple[str, str], datetime], now: datetime) -> None:
    """Have the queues of (account, CA) look at these moments, if they wouldn't sooner; new ones are made full."""
    if not soonest:
        return
    rows = []
    # In one order, so that two listeners never wait for each other.
    for (account_id, ca), at in sorted(soonest.items()):
        per_minute = rules.OWN_PER_MINUTE if ca == _OWN else rules.OUTSIDE_PER_MINUTE
        bucket = Bucket(per_minute, rules.RESERVE_PERCENT, 0, now)
        rows.append({
            "id": new_id("rnq", now), "account_id": account_id, "ca": ca, "per_minute": per_minute,
            "reserve_percent": rules.RESERVE_PERCENT, "tokens": rules.capacity(bucket), "filled_at": now,
            "next_step_at": at,
        })  # fmt: skip
    made = insert(renewal_queues).values(rows)
    sooner = sa.func.least(_Q.next_step_at, made.excluded.next_step_at)
    await tx.execute(made.on_conflict_do_update(index_elements=["account_id", "ca"], set_={"next_step_at": sooner}))


async def wake_account(tx: Tx, account_id: str, now: datetime) -> None:
    await tx.execute(sa.update(renewal_queues).where(_Q.account_id == account_id).values(next_step_at=now))


# --- the bucket ------------------------------------------------------------------------------------------------------


def bucket_of(row: Row) -> Bucket:
    return Bucket(row.per_minute, row.reserve_percent, row.tokens, row.filled_at)


async def lock_queue(tx: Tx, queue_id: str) -> Row | None:
    """The queue; nobody else takes of its tokens before the transaction ends."""
    return (await tx.execute(sa.select(renewal_queues).where(_Q.id == queue_id).with_for_update())).one_or_none()


async def lock_queues(tx: Tx, account_id: str, cas: Sequence[str]) -> list[Row]:
    query = (
        sa.select(renewal_queues)
        .where(_Q.account_id == account_id, is_one_of(_Q.ca, cas))
        .order_by(_Q.id)
        .with_for_update()
    )
    return list(await tx.execute(query))


async def take(tx: Tx, queue_id: str, count: int, filled: float, now: datetime) -> bool:
    """Take tokens of a locked queue that holds `filled` now. False, and nothing taken, when it doesn't hold them."""
    result = await tx.execute(
        sa.update(renewal_queues)
        .where(_Q.id == queue_id, sa.literal(rules.whole(filled)) >= count)
        .values(tokens=max(filled - count, 0.0), filled_at=now)
    )
    return bool(result.rowcount)


# --- admission -------------------------------------------------------------------------------------------------------


def _waits(account_id: str, ca: str) -> list[sa.ColumnElement[bool]]:
    return [_R.account_id == account_id, _R.ca == ca, _R.admitted_at.is_(None), _R.started_at.is_(None)]


def _ready(account_id: str, ca: str, now: datetime) -> list[sa.ColumnElement[bool]]:
    """Due, not held after a refusal, not over, and of a certificate that may be renewed."""
    return [
        *_waits(account_id, ca),
        _R.renew_at <= now,
        sa.func.coalesce(_R.held_until, now) <= now,
        _R.not_after > now,
        _CURRENT.certificate_id == _R.certificate_id,
        _CURRENT.auto_renew,
        _CURRENT.stage == State.ISSUED.value,
    ]


async def projects_ready(tx: Tx, account_id: str, ca: str, now: datetime) -> dict[str, datetime]:
    """The projects with renewals that are ready, and the first last safe moment in each."""
    query = (
        sa.select(_R.project_id, sa.func.min(_R.need_by)).where(*_ready(account_id, ca, now)).group_by(_R.project_id)
    )
    return {row[0]: row[1] for row in await tx.execute(query)}


async def admit(
    tx: Tx, account_id: str, ca: str, now: datetime, *, projects: Sequence[str], urgent: bool, limit: int
) -> list[Row]:
    """Let through the `limit` that end soonest: of these projects, or (`urgent`) those whose last safe moment came."""
    if limit <= 0:
        return []
    chosen = (
        sa.select(_R.id)
        .where(*_ready(account_id, ca, now), _R.need_by <= now if urgent else is_one_of(_R.project_id, projects))
        .order_by(_R.not_after, _R.id)
        .limit(limit)
        .with_for_update(of=renewals, skip_locked=True)
    )
    ids = (await tx.scalars(chosen)).all()
    admitted = await tx.execute(
        sa.update(renewals)
        .where(is_one_of(_R.id, ids))
        .values(admitted_at=now)
        .returning(_R.id, _R.certificate_id, _R.project_id, _R.need_by, _R.not_after)
    )
    return sorted(admitted, key=lambda row: (row.not_after, row.id))


async def next_due(tx: Tx, account_id: str, ca: str, now: datetime) -> datetime | None:
    """When the next one that isn't ready yet falls due or stops being held."""
    at = sa.func.greatest(_R.renew_at, sa.func.coalesce(_R.held_until, _R.renew_at))
    found: datetime | None = await tx.scalar(
        sa.select(sa.func.min(at)).where(*_waits(account_id, ca), at > now, _R.not_after > now)
    )
    return found


# --- one renewal -----------------------------------------------------------------------------------------------------


async def renewal(tx: Tx, renewal_id: str) -> Row | None:
    """The plan, with `auto_renew`, `stage` and `current_version_id` of its certificate."""
    query = sa.select(
        renewals, _CURRENT.auto_renew, _CURRENT.stage, _CURRENT.version_id.label("current_version_id")
    ).where(_R.id == renewal_id, _CURRENT.certificate_id == _R.certificate_id)
    return (await tx.execute(query)).one_or_none()


async def record(tx: Tx, row: Row, **values: Any) -> bool:
    """Write facts of the version that was looked at; False if another one is current by now."""
    result = await tx.execute(
        sa.update(renewals).where(_R.id == row.id, _R.version_id == row.version_id).values(**values)
    )
    return bool(result.rowcount)


async def put_back(tx: Tx, held_until: datetime, now: datetime, *where: sa.ColumnElement[bool]) -> None:
    """Back to the queue, held until then; versions that are over stay out."""
    rows = await tx.execute(
        sa.update(renewals)
        .where(*where, _R.not_after > now)
        .values(admitted_at=None, started_at=None, application_id=None, held_until=held_until)
        .returning(_R.account_id, _R.ca)
    )
    await wake(tx, {(row.account_id, row.ca): held_until for row in rows}, now)


SHOWN = (
    *(column for column in renewals.c if column.name not in ("next_step_at", "step_lease_until", "step_attempts")),
    _CURRENT.name, _CURRENT.auto_renew, _CURRENT.stage,
)  # fmt: skip


async def page(
    tx: Tx, where: Sequence[sa.ColumnElement[bool]], *, after: tuple[datetime, str] | None, limit: int
) -> list[Row]:
    """Soonest due first; `after` is (renew_at, id) of the last one seen."""
    query = (
        sa.select(*SHOWN)
        .where(_CURRENT.certificate_id == _R.certificate_id, *where)
        .order_by(_R.renew_at, _R.id)
        .limit(limit)
    )
    if after is not None:
        pair = sa.tuple_(_R.renew_at, _R.id)
        query = query.where(pair > sa.tuple_(sa.literal(after[0], _R.renew_at.type), sa.literal(after[1])))
    return list(await tx.execute(query))


# --- windows, freezes, limits ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calendar:
    """Windows and freezes of an account; those under None are its own, others a project's."""

    windows: dict[str | None, list[Window]]
    freezes: dict[str | None, list[Freeze]]

    def of(self, project_id: str) -> tuple[list[Window], list[Freeze]]:
        """A project's own windows stand in for the account's; freezes add up."""
        windows = self.windows.get(project_id) or self.windows.get(None, [])
        return windows, self.freezes.get(None, []) + self.freezes.get(project_id, [])


def window_of(row: Row) -> Window:
    return Window(frozenset(row.weekdays), row.from_time, row.to_time, row.zone, row.name)


async def calendar(tx: Tx, account_id: str, now: datetime) -> Calendar:
    found = Calendar({}, {})
    for row in await tx.execute(sa.select(renewal_windows).where(renewal_windows.c.account_id == account_id)):
        found.windows.setdefault(row.project_id, []).append(window_of(row))
    query = sa.select(renewal_freezes).where(renewal_freezes.c.account_id == account_id, renewal_freezes.c.to_at > now)
    for row in await tx.execute(query):
        found.freezes.setdefault(row.project_id, []).append(Freeze(row.from_at, row.to_at, row.reason))
    return found


async def listed(
    tx: Tx, table: sa.Table, visible: sa.ColumnElement[bool], *, after: str | None, limit: int
) -> list[Row]:
    """Of windows or freezes, newest first."""
    query = sa.select(table).where(visible).order_by(table.c.id.desc()).limit(limit)
    return list(await tx.execute(query if after is None else query.where(table.c.id < after)))


async def waiting_by_ca(tx: Tx, account_id: str, now: datetime) -> dict[str, int]:
    query = (
        sa.select(_R.ca, sa.func.count())
        .where(_R.account_id == account_id, _R.admitted_at.is_(None), _R.renew_at <= now, _R.not_after > now)
        .where(_CURRENT.certificate_id == _R.certificate_id, _CURRENT.auto_renew)
        .group_by(_R.ca)
    )
    return {row[0]: row[1] for row in await tx.execute(query)}


async def queues(tx: Tx, account_id: str) -> list[Row]:
    return list(await tx.execute(sa.select(renewal_queues).where(_Q.account_id == account_id).order_by(_Q.ca)))
