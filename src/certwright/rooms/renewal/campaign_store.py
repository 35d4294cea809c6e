"""Mass replacements in the database. Items change state only through `settle`, which keeps the counts in step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from certwright.platform.db import Tx, is_one_of, unnested
from certwright.rooms.renewal.tables import campaign_items, campaigns
from certwright.rooms.renewal.words import CampaignState, ItemState, Priority

Row = Any

_C, _I = campaigns.c, campaign_items.c


async def insert_campaign(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(campaigns).values(**values))


async def campaign(
    tx: Tx, campaign_id: str, where: sa.ColumnElement[bool] | None = None, *, lock: bool = False
) -> Row | None:
    query = sa.select(campaigns).where(_C.id == campaign_id)
    if where is not None:
        query = query.where(where)
    return (await tx.execute(query.with_for_update() if lock else query)).one_or_none()


async def page(tx: Tx, visible: sa.ColumnElement[bool], *, after: str | None, limit: int) -> list[Row]:
    query = sa.select(campaigns).where(visible).order_by(_C.id.desc()).limit(limit)
    return list(await tx.execute(query if after is None else query.where(_C.id < after)))


async def move(tx: Tx, campaign_id: str, leaves: Sequence[CampaignState], enters: CampaignState, **values: Any) -> bool:
    """False when it was in none of the states it should leave."""
    result = await tx.execute(
        sa.update(campaigns)
        .where(_C.id == campaign_id, _C.state.in_([state.value for state in leaves]))
        .values(state=enters.value, **values)
    )
    return bool(result.rowcount)


async def update(tx: Tx, campaign_id: str, **values: Any) -> None:
    await tx.execute(sa.update(campaigns).where(_C.id == campaign_id).values(**values))


# --- items -----------------------------------------------------------------------------------------------------------


async def add_items(tx: Tx, campaign_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Items of a locked campaign, each certificate once."""
    if not rows:
        return
    made = insert(campaign_items).on_conflict_do_nothing(index_elements=["campaign_id", "certificate_id"])
    states = (await tx.scalars(made.values(list(rows)).returning(_I.state))).all()
    await _count(tx, {campaign_id: Counter(states)})


async def _count(tx: Tx, changes: Mapping[str, Mapping[str, int]]) -> None:
    for campaign_id, counts in sorted(changes.items()):
        changed = {state: _C[state] + by for state, by in counts.items() if by}
        if changed:
            await tx.execute(sa.update(campaigns).where(_C.id == campaign_id).values(changed))


async def settle(
    tx: Tx, where: Sequence[sa.ColumnElement[bool]], enters: ItemState, *, leaves: Sequence[ItemState], **values: Any
) -> list[Row]:
    """Move items from one of the states they leave, and keep their campaigns' counts. Returns those that moved, with
    `id`, `campaign_id`, `certificate_id` and `attempts`."""
    leaving = [*where, _I.state.in_([state.value for state in leaves])]
    # Campaigns are locked before their items, here and in the campaign's step: one order, no deadlock.
    found = sa.select(_I.campaign_id).where(*leaving).distinct().scalar_subquery()
    locked = (await tx.scalars(sa.select(_C.id).where(_C.id.in_(found)).order_by(_C.id).with_for_update())).all()
    if not locked:
        return []
    old = (
        sa.select(_I.id, _I.state)
        .where(*leaving, is_one_of(_I.campaign_id, locked))
        .order_by(_I.id)
        .with_for_update()
        .subquery("old")
    )
    rows = list(
        await tx.execute(
            sa.update(campaign_items)
            .where(_I.id == old.c.id)
            .values(state=enters.value, **values)
            .returning(_I.id, _I.campaign_id, _I.certificate_id, _I.attempts, old.c.state.label("left"))
        )
    )
    changes: dict[str, Counter[str]] = {}
    for row in rows:
        counts = changes.setdefault(row.campaign_id, Counter())
        counts[row.left] -= 1
        counts[enters.value] += 1
    await _count(tx, changes)
    return rows


async def item(tx: Tx, item_id: str) -> Row | None:
    query = (
        sa.select(campaign_items, _C.state.label("campaign_state"), _C.reason.label("campaign_reason"), _C.to_ca)
        .join(campaigns, _C.id == _I.campaign_id)
        .where(_I.id == item_id)
    )
    return (await tx.execute(query)).one_or_none()


async def record_item(tx: Tx, item_id: str, missing: str, **values: Any) -> bool:
    """Write a fact of an item under way that was missing until now."""
    result = await tx.execute(
        sa.update(campaign_items)
        .where(_I.id == item_id, _I.state == ItemState.GOING.value, campaign_items.c[missing].is_(None))
        .values(**values)
    )
    return bool(result.rowcount)


async def waiting_by_ca(tx: Tx, campaign_id: str, now: datetime) -> dict[str, int]:
    query = (
        sa.select(_I.ca, sa.func.count())
        .where(_I.campaign_id == campaign_id, _I.state == ItemState.WAITING.value, _may_go(now))
        .group_by(_I.ca)
    )
    return {row[0]: row[1] for row in await tx.execute(query)}


def _may_go(now: datetime) -> sa.ColumnElement[bool]:
    return sa.func.coalesce(_I.retry_at, now) <= now


async def left_by_ca(tx: Tx, campaign_id: str) -> dict[str, int]:
    query = (
        sa.select(_I.ca, sa.func.count())
        .where(_I.campaign_id == campaign_id, _I.state == ItemState.WAITING.value)
        .group_by(_I.ca)
    )
    return {row[0]: row[1] for row in await tx.execute(query)}


async def next_retry(tx: Tx, campaign_id: str) -> datetime | None:
    found: datetime | None = await tx.scalar(
        sa.select(sa.func.min(_I.retry_at)).where(_I.campaign_id == campaign_id, _I.state == ItemState.WAITING.value)
    )
    return found


async def choose(
    tx: Tx, campaign_id: str, priority: Priority, room: Mapping[str, int], now: datetime, *, limit: int
) -> list[Row]:
    """The next items by priority, of each CA at most as many as it has room for."""
    order: list[sa.ColumnElement[Any]] = [_I.not_after, _I.id]
    if priority is Priority.BOUND_FIRST:
        order = [_I.bound.desc(), *order]
    place = sa.func.row_number().over(partition_by=_I.ca, order_by=order).label("place")
    rooms = unnested("room", ca=(sa.Text(), list(room)), most=(sa.Integer(), list(room.values()))).c
    ranked = (
        sa.select(_I.id, _I.ca, _I.bound, _I.not_after, place)
        .where(_I.campaign_id == campaign_id, _I.state == ItemState.WAITING.value, _may_go(now))
        .subquery("ranked")
    )
    columns = {column.name: column for column in ranked.c}
    sorted_by: list[sa.ColumnElement[Any]] = [columns["not_after"], columns["id"]]
    if priority is Priority.BOUND_FIRST:
        sorted_by = [columns["bound"].desc(), *sorted_by]
    query = (
        sa.select(ranked.c.id, ranked.c.ca)
        .where(ranked.c.ca == rooms.ca, ranked.c.place <= rooms.most)
        .order_by(*sorted_by)
        .limit(limit)
    )
    return list(await tx.execute(query))


async def items(
    tx: Tx, visible: sa.ColumnElement[bool], campaign_id: str, *, state: ItemState | None, after: str | None, limit: int
) -> list[Row]:
    query = sa.select(campaign_items).where(visible, _I.campaign_id == campaign_id).order_by(_I.id).limit(limit)
    if state is not None:
        query = query.where(_I.state == state.value)
    return list(await tx.execute(query if after is None else query.where(_I.id > after)))
