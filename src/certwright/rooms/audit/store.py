"""All SQL of the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from certwright.platform.db import Tx
from certwright.rooms.audit.tables import audit_chain, audit_events, audit_unsealed
from certwright.rooms.audit.words import AuditEvent, Filter

_E, _C, _U = audit_events.c, audit_chain.c, audit_unsealed.c
_COLUMNS = tuple(_E[name] for name in AuditEvent.__slots__)
_SEAL_LOCK = 0x61756474  # "audt"
_PAGE = 2000


def _insert_one() -> sa.Insert:
    """One statement, so that recording costs one round trip; built once, as nearly everything records something."""
    values = {column.name: sa.bindparam(f"e_{column.name}", type_=column.type) for column in _WRITTEN}
    added = sa.insert(audit_events).values(values).returning(_E.id).cte("added")
    return sa.insert(audit_unsealed).from_select(["event_id"], sa.select(added.c.id))


_WRITTEN = tuple(
    _E[name] for name in (
        "id", "at", "account_id", "project_id", "actor_kind", "actor_id", "actor_name", "user_id", "request_id",
        "action", "object_type", "object_id", "before", "after", "reason",
    )
)  # fmt: skip
_ONE = _insert_one()


def recorded(done: sa.FromClause) -> tuple[sa.CTE, sa.CTE]:
    """Parts of a statement that record one event if `done` has a row: for a change that is one statement by itself. The
    parameters are those of `written`."""
    values = [sa.bindparam(f"e_{column.name}", type_=column.type) for column in _WRITTEN]
    names = [column.name for column in _WRITTEN]
    added = sa.insert(audit_events).from_select(names, sa.select(*values).select_from(done)).returning(_E.id)
    event = added.cte("event")
    waiting = sa.insert(audit_unsealed).from_select(["event_id"], sa.select(event.c.id)).returning(_U.event_id)
    return event, waiting.cte("waiting")


def written(row: Mapping[str, Any]) -> dict[str, Any]:
    return {f"e_{name}": value for name, value in row.items()}


_JSON = ("before", "after")


def _insert_many(done: sa.FromClause | None = None) -> tuple[sa.CTE, sa.Insert]:
    """The same for any number of events, each column as an array; with `done` only if that has a row."""
    kinds = {column.name: sa.Text() if column.name in _JSON else column.type for column in _WRITTEN}
    arrays = [sa.cast(sa.bindparam(f"e_{name}"), sa.ARRAY(kind)) for name, kind in kinds.items()]
    new = sa.func.unnest(*arrays).table_valued(*kinds, name="new").render_derived()
    values = [sa.cast(new.c[name], _E[name].type) if name in _JSON else new.c[name] for name in kinds]
    events = sa.select(*values).select_from(new if done is None else new.join(done, sa.true()))
    added = sa.insert(audit_events).from_select(list(kinds), events).returning(_E.id).cte("added")
    return added, sa.insert(audit_unsealed).from_select(["event_id"], sa.select(added.c.id))


_, _MANY = _insert_many()


def recorded_many(done: sa.FromClause) -> tuple[sa.CTE, sa.CTE]:
    """What `recorded` is for any number of events. `done` has one row or none; the parameters are those of
    `written_many`."""
    added, waiting = _insert_many(done)
    return added, waiting.returning(_U.event_id).cte("waiting")


def written_many(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = {column.name: [row[column.name] for row in rows] for column in _WRITTEN}
    for name in _JSON:
        columns[name] = [None if one is None else orjson.dumps(one).decode() for one in columns[name]]
    return {f"e_{name}": values for name, values in columns.items()}


async def insert_events(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    if len(rows) == 1:
        await tx.execute(_ONE, written(rows[0]))
    elif rows:
        await tx.execute(_MANY, written_many(rows))


async def lock_chain(tx: Tx) -> bool:
    """Whether this transaction may seal now; False while another does."""
    return bool(await tx.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_SEAL_LOCK))))


async def chain_head(tx: Tx) -> tuple[int, bytes] | None:
    row = (await tx.execute(sa.select(_C.position, _C.hash).order_by(_C.position.desc()).limit(1))).one_or_none()
    return (row.position, row.hash) if row else None


async def unsealed_events(tx: Tx, limit: int) -> list[AuditEvent]:
    rows = await tx.execute(
        sa.select(*_COLUMNS).join(audit_unsealed, _U.event_id == _E.id).order_by(_U.event_id).limit(limit)
    )
    return [AuditEvent(*row) for row in rows]


async def append_links(tx: Tx, links: Sequence[tuple[int, str, bytes]]) -> None:
    """Add (position, event id, hash) and take the events off the queue."""
    positions, ids, hashes = zip(*links, strict=True)
    rows = (
        sa.func.unnest(
            sa.cast(list(positions), sa.ARRAY(sa.BigInteger)),
            sa.cast(list(ids), sa.ARRAY(sa.Text)),
            sa.cast(list(hashes), sa.ARRAY(sa.LargeBinary)),
        )
        .table_valued("position", "event_id", "hash")
        .render_derived()
    )
    await tx.execute(sa.insert(audit_chain).from_select(["position", "event_id", "hash"], sa.select(*rows.c)))
    await tx.execute(sa.delete(audit_unsealed).where(_U.event_id == sa.any_(sa.cast(list(ids), sa.ARRAY(sa.Text)))))


async def chain_with_events(tx: Tx) -> AsyncIterator[tuple[int, str, bytes, AuditEvent | None]]:
    """The whole chain in order, page by page, each link with its event if that still exists."""
    after = 0
    while True:
        rows = (
            await tx.execute(
                sa.select(_C.position, _C.event_id, _C.hash, *_COLUMNS)
                .outerjoin(audit_events, _E.id == _C.event_id)
                .where(_C.position > after)
                .order_by(_C.position)
                .limit(_PAGE)
            )
        ).all()
        for position, event_id, digest, *event in rows:
            yield position, event_id, digest, AuditEvent(*event) if event[0] is not None else None
        if len(rows) < _PAGE:
            return
        after = rows[-1].position


async def never_sealed(tx: Tx) -> str | None:
    """An event that is neither in the chain nor waiting."""
    return await tx.scalar(
        sa.select(_E.id)
        .where(
            ~sa.exists().where(_C.event_id == _E.id),
            ~sa.exists().where(_U.event_id == _E.id),
        )
        .order_by(_E.id)
        .limit(1)
    )


async def waiting(tx: Tx) -> tuple[int, str | None, datetime | None]:
    """How many events wait to be sealed, and the oldest one's id and time."""
    count = await tx.scalar(sa.select(sa.func.count()).select_from(audit_unsealed)) or 0
    oldest = (
        await tx.execute(
            sa.select(_E.id, _E.at).join(audit_unsealed, _U.event_id == _E.id).order_by(_E.at, _E.id).limit(1)
        )
    ).one_or_none()
    return (count, oldest.id, oldest.at) if oldest else (count, None, None)


async def list_events(
    tx: Tx, visible: sa.ColumnElement[bool], filter: Filter, *, limit: int, before_id: str | None
) -> list[AuditEvent]:
    query = sa.select(*_COLUMNS).where(visible).order_by(_E.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(_E.id < before_id)
    if filter.action is not None:
        if filter.action.endswith("*"):
            query = query.where(_E.action.startswith(filter.action[:-1], autoescape=True))
        else:
            query = query.where(_E.action == filter.action)
    for column, value in (
        (_E.actor_id, filter.actor_id),
        (_E.object_type, filter.object_type),
        (_E.object_id, filter.object_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if filter.since is not None:
        query = query.where(_E.at >= filter.since)
    if filter.until is not None:
        query = query.where(_E.at < filter.until)
    return [AuditEvent(*row) for row in await tx.execute(query)]


async def get_event(tx: Tx, visible: sa.ColumnElement[bool], event_id: str) -> AuditEvent | None:
    row = (await tx.execute(sa.select(*_COLUMNS).where(visible, _E.id == event_id))).one_or_none()
    return AuditEvent(*row) if row else None
