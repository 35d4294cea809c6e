"""All SQL of the watch room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from certwright.kernel.ids import first_id
from certwright.platform.db import Tx, is_one_of, unnested
from certwright.rooms import certificates
from certwright.rooms.watch.tables import alarm_history, alarms, endpoints, observations, watched_versions

Row = Any
"""A row of the table a function names; see tables.py for its columns."""

_CALLED_BACK_AT_ONCE = 5000
_ANY_ROW: sa.ColumnElement[bool] = sa.true()


# Endpoints


async def insert_endpoint(tx: Tx, values: Mapping[str, Any]) -> bool:
    """False when the project watches that host, port, name and kind already."""
    insert = pg_insert(endpoints).values(**values).on_conflict_do_nothing().returning(endpoints.c.id)
    return await tx.scalar(insert) is not None


async def endpoint(tx: Tx, endpoint_id: str, where: sa.ColumnElement[bool] = _ANY_ROW) -> Row | None:
    return (await tx.execute(sa.select(endpoints).where(endpoints.c.id == endpoint_id, where))).one_or_none()


async def lock_endpoints(tx: Tx, ids: Sequence[str]) -> dict[str, Row]:
    """In the order of ids, so that two batches never wait for each other crosswise."""
    select = sa.select(endpoints).where(endpoints.c.id.in_(ids)).order_by(endpoints.c.id).with_for_update()
    return {row.id: row for row in await tx.execute(select)}


async def endpoint_at(tx: Tx, project_id: str, host: str, port: int, sni: str, starttls: str) -> Row | None:
    c = endpoints.c
    where = (c.project_id == project_id, c.host == host, c.port == port, c.sni == sni, c.starttls == starttls)
    return (await tx.execute(sa.select(endpoints).where(*where).with_for_update())).one_or_none()


async def endpoint_of_binding(tx: Tx, binding_id: str) -> Row | None:
    select = sa.select(endpoints).where(endpoints.c.binding_id == binding_id).with_for_update()
    return (await tx.execute(select)).one_or_none()


async def endpoints_of_certificates(tx: Tx, certificate_ids: Sequence[str]) -> list[Row]:
    e = endpoints.c
    select = sa.select(endpoints).where(is_one_of(e.certificate_id, certificate_ids)).order_by(e.id)
    return list(await tx.execute(select.with_for_update()))


async def endpoints_named(tx: Tx, account_id: str, names: Sequence[str]) -> list[str]:
    """Ids of the account's endpoints that are asked for one of these names; at most 100."""
    e = endpoints.c
    named = sa.or_(e.sni.in_(names), e.host.in_(names))
    return list(
        (await tx.scalars(sa.select(e.id).where(e.account_id == account_id, e.enabled, named).limit(100))).all()
    )


async def endpoint_page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], *, after: str | None, limit: int) -> list[Row]:
    select = sa.select(endpoints).where(*where).order_by(endpoints.c.id.desc()).limit(limit)
    if after is not None:
        select = select.where(endpoints.c.id < after)
    return list(await tx.execute(select))


async def update_endpoint(tx: Tx, endpoint_id: str, *, read_at: int | None = None, **values: Any) -> bool:
    """With `read_at` only if the row's revision is still that one."""
    guard = _ANY_ROW if read_at is None else endpoints.c.revision == read_at
    result = await tx.execute(sa.update(endpoints).where(endpoints.c.id == endpoint_id, guard).values(**values))
    return bool(result.rowcount)


async def delete_endpoint(tx: Tx, endpoint_id: str) -> None:
    await tx.execute(sa.delete(endpoints).where(endpoints.c.id == endpoint_id))


async def claim_due(tx: Tx, now: datetime, until: datetime, limit: int) -> list[Row]:
    """Endpoints whose round has come; they are nobody else's until `until`."""
    due = (
        sa.select(endpoints.c.id)
        .where(endpoints.c.next_probe_at <= now)
        .order_by(endpoints.c.next_probe_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    claim = sa.update(endpoints).where(endpoints.c.id == due.c.id).values(next_probe_at=until).returning(*endpoints.c)
    return list(await tx.execute(claim))


async def call_back(tx: Tx, now: datetime, latest: datetime) -> None:
    """Make due what was put off beyond `latest`, as only a clock that ran ahead of this one does."""
    ahead = (
        sa.select(endpoints.c.id)
        .where(endpoints.c.next_probe_at > latest)
        .limit(_CALLED_BACK_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("ahead")
    )
    await tx.execute(sa.update(endpoints).where(endpoints.c.id == ahead.c.id).values(next_probe_at=now))


async def note_unchanged(tx: Tx, ids: Sequence[str], at: datetime, interval: timedelta) -> None:
    """The probe found what the one before found; the next comes after the interval ± 10 %."""
    seconds = sa.literal(interval.total_seconds(), sa.Float) * (0.9 + sa.func.random(type_=sa.Float) * 0.2)
    spread = sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=sa.Interval)
    following = sa.literal(at, sa.DateTime(timezone=True)) + spread
    await tx.execute(
        sa.update(endpoints)
        .where(endpoints.c.id.in_(ids))
        .values(last_probe_at=at, failures=0, next_probe_at=sa.case((endpoints.c.enabled, following)))
    )


# Observations


async def open_observations(tx: Tx, endpoint_ids: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Id and digest of what each address serves now, by endpoint and address."""
    o = observations.c
    select = sa.select(o.id, o.endpoint_id, o.address, o.digest).where(
        o.endpoint_id.in_(endpoint_ids), o.superseded_at.is_(None)
    )
    found: dict[str, dict[str, Row]] = {}
    for row in await tx.execute(select):
        found.setdefault(row.endpoint_id, {})[row.address] = row
    return found


async def touch_observations(tx: Tx, at: datetime, seen: Sequence[tuple[str, float | None]]) -> None:
    """Extend the period of each (id, latency in ms) to `at`; one statement for the whole batch."""
    values = unnested("seen", id=(sa.Text(), [row_id for row_id, _ in seen]), ms=(sa.Float(), [ms for _, ms in seen]))
    await tx.execute(
        sa.update(observations).where(observations.c.id == values.c.id).values(last_seen=at, latency_ms=values.c.ms)
    )


async def supersede_observations(tx: Tx, ids: Sequence[str], at: datetime) -> None:
    await tx.execute(
        sa.update(observations)
        .where(observations.c.id.in_(ids), observations.c.superseded_at.is_(None))
        .values(superseded_at=at)
    )


async def insert_observations(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    await tx.execute(sa.insert(observations), list(rows))


async def observation_page(
    tx: Tx, endpoint_id: str, *, current: bool, after: str | None = None, limit: int = 20
) -> list[Row]:
    """Newest first; only the open ones with `current`."""
    o = observations.c
    select = sa.select(observations).where(o.endpoint_id == endpoint_id).order_by(o.id.desc()).limit(limit)
    if current:
        select = select.where(o.superseded_at.is_(None))
    if after is not None:
        select = select.where(o.id < after)
    return list(await tx.execute(select))


async def forget_observations(tx: Tx, before: datetime, limit: int) -> int:
    """Drop periods that ended before; an id tells when its period began, so that the primary key finds them."""
    o = observations.c
    old = sa.select(o.id).where(o.id < first_id("probe", before), o.superseded_at < before).limit(limit)
    return (await tx.execute(sa.delete(observations).where(o.id.in_(old.scalar_subquery())))).rowcount


# Alarms


async def forget_alarms(tx: Tx, before: datetime, limit: int) -> int:
    """Drop what was cleared before, its history with it."""
    a = alarms.c
    old = sa.select(a.id).where(a.id < first_id("alarm", before), a.cleared_at < before).limit(limit)
    return (await tx.execute(sa.delete(alarms).where(a.id.in_(old.scalar_subquery())))).rowcount


async def open_alarms(tx: Tx, object_ids: Sequence[str]) -> dict[tuple[str, str], Row]:
    """By (object, kind)."""
    select = sa.select(alarms).where(is_one_of(alarms.c.object_id, object_ids), alarms.c.cleared_at.is_(None))
    return {(row.object_id, row.kind): row for row in await tx.execute(select)}


async def open_alarms_of_kind(tx: Tx, kind: str) -> dict[str, Row]:
    """By object, of all accounts."""
    select = sa.select(alarms).where(alarms.c.kind == kind, alarms.c.cleared_at.is_(None))
    return {row.object_id: row for row in await tx.execute(select)}


async def insert_alarm(tx: Tx, values: Mapping[str, Any]) -> bool:
    """False when one is open already for that object and kind."""
    insert = (
        pg_insert(alarms)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["object_id", "kind"], index_where=sa.text("cleared_at IS NULL"))
        .returning(alarms.c.id)
    )
    return await tx.scalar(insert) is not None


async def update_open_alarm(tx: Tx, alarm_id: str, **values: Any) -> bool:
    """Zero rows is an answer: somebody cleared it meanwhile."""
    result = await tx.execute(
        sa.update(alarms).where(alarms.c.id == alarm_id, alarms.c.cleared_at.is_(None)).values(**values)
    )
    return bool(result.rowcount)


async def insert_history(tx: Tx, values: Mapping[str, Any]) -> None:
    await tx.execute(sa.insert(alarm_history).values(**values))


async def alarm(tx: Tx, alarm_id: str, where: sa.ColumnElement[bool] = _ANY_ROW) -> Row | None:
    return (await tx.execute(sa.select(alarms).where(alarms.c.id == alarm_id, where))).one_or_none()


async def alarm_page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], *, after: str | None, limit: int) -> list[Row]:
    select = sa.select(alarms).where(*where).order_by(alarms.c.id.desc()).limit(limit)
    if after is not None:
        select = select.where(alarms.c.id < after)
    return list(await tx.execute(select))


async def history(tx: Tx, alarm_id: str) -> list[Row]:
    select = sa.select(alarm_history).where(alarm_history.c.alarm_id == alarm_id).order_by(alarm_history.c.position)
    return list(await tx.execute(select))


async def open_alarm_counts(tx: Tx, where: sa.ColumnElement[bool]) -> dict[str, int]:
    select = (
        sa.select(alarms.c.severity, sa.func.count()).where(alarms.c.cleared_at.is_(None), where)
        .group_by(alarms.c.severity)
    )  # fmt: skip
    return {row[0]: row[1] for row in await tx.execute(select)}


async def endpoint_counts(tx: Tx, where: sa.ColumnElement[bool]) -> tuple[int, int, int]:
    """(all, reachable, unreachable) of those being watched."""
    c = endpoints.c
    select = sa.select(
        sa.func.count(), sa.func.count().filter(c.reachable), sa.func.count().filter(~c.reachable)
    ).where(c.enabled, where)
    total, reachable, unreachable = (await tx.execute(select)).one()
    return total, reachable, unreachable


async def metric_rows(tx: Tx, limit: int) -> list[Row]:
    """At most `limit` of each account, the oldest: none crowds out another's."""
    c = endpoints.c
    place = sa.func.row_number().over(partition_by=c.account_id, order_by=c.id)
    numbered = (
        sa.select(
            c.id, c.account_id, c.project_id, c.host, c.port, c.sni, c.reachable, c.subject, c.issuer, c.serial,
            c.not_before, c.not_after, c.chain_not_after, place.label("place"),
        )
        .where(c.enabled, c.last_probe_at.is_not(None)).subquery()
    )  # fmt: skip
    return list(await tx.execute(sa.select(numbered).where(numbered.c.place <= limit).order_by(numbered.c.id)))


# Versions whose renewal is being waited for


async def watch_versions(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Id and next step of those that were not watched before."""
    if not rows:
        return []
    w = watched_versions.c
    columns = (w.id, w.certificate_id, w.account_id, w.project_id, w.next_step_at)
    given = unnested("given", **{c.name: (c.type, [row[c.name] for row in rows]) for c in columns}).c
    insert = pg_insert(watched_versions).from_select(
        [c.name for c in columns], sa.select(*(given[c.name] for c in columns))
    )
    return list(await tx.execute(insert.on_conflict_do_nothing().returning(w.id, w.next_step_at)))


async def watched_version(tx: Tx, version_id: str) -> Row | None:
    return (await tx.execute(sa.select(watched_versions).where(watched_versions.c.id == version_id))).one_or_none()


async def versions_of(tx: Tx, certificate_id: str) -> list[str]:
    select = sa.select(watched_versions.c.id).where(watched_versions.c.certificate_id == certificate_id)
    return list((await tx.scalars(select)).all())


async def forget_versions(tx: Tx, certificate_ids: Sequence[str], *, but: Sequence[str] = ()) -> None:
    w = watched_versions.c
    await tx.execute(
        sa.delete(watched_versions).where(is_one_of(w.certificate_id, certificate_ids), ~is_one_of(w.id, but))
    )


async def follow_certificate(tx: Tx, certificate_id: str) -> None:
    for table, column in ((watched_versions, watched_versions.c.certificate_id), (alarms, alarms.c.object_id)):
        await tx.execute(certificates.followed(table, column, certificate_id))
