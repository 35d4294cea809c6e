"""All SQL of the cas room. Transitions name the fact that was missing; no rows is an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from certwright.platform.db import Tx, is_one_of
from certwright.rooms.cas.rules import LONGEST_PERIOD, Subject
from certwright.rooms.cas.tables import ca_orders, ca_uses, cas
from certwright.rooms.cas.words import CaOrder, Use

Row = Any
_C = cas.c
_O = ca_orders.c
_U = ca_uses.c

_ORDER = (
    _O.id, _O.ca_id, _O.account_id, _O.reference, _O.names, _O.methods, _O.csr_der, _O.replaces,
    _O.profile, _O.placing_at, _O.order_url, _O.created_at, _O.go_at, _O.answers, _O.answered_at,
    _O.finalize_intended_at, _O.failed_at, _O.failure,
)  # fmt: skip


# --- CAs -------------------------------------------------------------------------------------------------------------


async def insert_ca(tx: Tx, **values: Any) -> bool:
    """False when the account has a CA of that name."""
    result = await tx.execute(
        pg_insert(cas).values(**values).on_conflict_do_nothing(index_elements=["account_id", "name"])
    )
    return bool(result.rowcount)


async def ca(
    tx: Tx, ca_id: str, where: sa.ColumnElement[bool] | None = None, *, lock: bool = False, keep: bool = False
) -> Row | None:
    """`lock` keeps others from changing it, `keep` from deleting it, until the transaction ends."""
    query = sa.select(cas).where(_C.id == ca_id)
    if where is not None:
        query = query.where(where)
    if lock:
        query = query.with_for_update()
    elif keep:
        query = query.with_for_update(read=True, key_share=True)
    return (await tx.execute(query)).one_or_none()


async def find(tx: Tx, account_id: str, text: str) -> Row | None:
    """The account's CA with this id or this name, kept from being deleted until the transaction ends."""
    query = (
        sa.select(cas)
        .where(_C.account_id == account_id, sa.or_(_C.id == text, _C.name == text))
        .order_by((_C.id == text).desc())
        .limit(1)
        .with_for_update(read=True, key_share=True)
    )
    return (await tx.execute(query)).one_or_none()


async def names(tx: Tx, account_id: str) -> list[str]:
    return list((await tx.scalars(sa.select(_C.name).where(_C.account_id == account_id).order_by(_C.name))).all())


async def page(tx: Tx, visible: sa.ColumnElement[bool], *, after: str | None, limit: int) -> Sequence[Row]:
    query = sa.select(cas).where(visible).order_by(_C.id.desc()).limit(limit)
    return (await tx.execute(query if after is None else query.where(_C.id < after))).all()


async def name_taken(tx: Tx, account_id: str, name: str, but: str) -> bool:
    query = sa.select(sa.exists().where(_C.account_id == account_id, _C.name == name, _C.id != but))
    return bool(await tx.scalar(query))


async def update_ca(tx: Tx, ca_id: str, revision: int, values: Mapping[str, Any]) -> bool:
    """False when the revision has moved on."""
    result = await tx.execute(
        sa.update(cas).where(_C.id == ca_id, _C.revision == revision).values(**values, revision=_C.revision + 1)
    )
    return bool(result.rowcount)


async def note(tx: Tx, ca_id: str, **facts: Any) -> None:
    """Facts learned from the CA; they are nobody's edit, so the revision stays."""
    await tx.execute(sa.update(cas).where(_C.id == ca_id).values(**facts))


async def registered(tx: Tx, ca_id: str, key_id: str, account_url: str) -> bool:
    """Keep the account's URL, unless the key was changed while the CA was asked."""
    result = await tx.execute(sa.update(cas).where(_C.id == ca_id, _C.key_id == key_id).values(account_url=account_url))
    return bool(result.rowcount)


async def contacts_told(tx: Tx, ca_id: str, contacts: Sequence[str], now: datetime) -> None:
    """Unless they were changed again meanwhile."""
    await tx.execute(sa.update(cas).where(_C.id == ca_id, _C.contacts == list(contacts)).values(contacts_told_at=now))


async def intend_key_change(tx: Tx, ca_id: str, next_key_id: str) -> bool:
    """False when another roll-over is under way."""
    result = await tx.execute(
        sa.update(cas).where(_C.id == ca_id, _C.next_key_id.is_(None)).values(next_key_id=next_key_id)
    )
    return bool(result.rowcount)


async def replace_key(tx: Tx, ca_id: str, key_id: str, new_key_id: str) -> bool:
    """Another account in place of the one this key has; False when the key was changed meanwhile."""
    result = await tx.execute(
        sa.update(cas)
        .where(_C.id == ca_id, _C.key_id == key_id, _C.next_key_id.is_(None))
        .values(key_id=new_key_id, account_url=None, contacts_told_at=None)
    )
    return bool(result.rowcount)


async def end_key_change(tx: Tx, ca_id: str, next_key_id: str, **values: Any) -> bool:
    result = await tx.execute(
        sa.update(cas).where(_C.id == ca_id, _C.next_key_id == next_key_id).values(next_key_id=None, **values)
    )
    return bool(result.rowcount)


async def delete_ca(tx: Tx, ca_id: str) -> None:
    await tx.execute(sa.delete(cas).where(_C.id == ca_id))


# --- orders ----------------------------------------------------------------------------------------------------------


def _order(row: Row) -> CaOrder:
    return CaOrder(
        row.id, row.ca_id, row.account_id, row.reference, tuple(row.names), row.methods, row.csr_der,
        row.replaces, row.profile, row.placing_at, row.order_url, row.created_at, row.go_at, row.answers,
        row.answered_at, row.finalize_intended_at, row.failed_at, tuple(row.failure),
    )  # fmt: skip


async def order(tx: Tx, order_id: str, account_id: str) -> CaOrder | None:
    query = sa.select(*_ORDER).where(_O.id == order_id, _O.account_id == account_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _order(row)


async def order_of(tx: Tx, reference: str, account_id: str) -> CaOrder | None:
    query = sa.select(*_ORDER).where(_O.reference == reference, _O.account_id == account_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _order(row)


async def insert_order(tx: Tx, **values: Any) -> bool:
    """False when there is one of this reference."""
    result = await tx.execute(
        pg_insert(ca_orders).values(**values).on_conflict_do_nothing(index_elements=["reference"])
    )
    return bool(result.rowcount)


async def record_order(tx: Tx, order_id: str, missing: str, **values: Any) -> bool:
    """Write a fact of an order that was missing until now; False if it was there or the order is over."""
    result = await tx.execute(
        sa.update(ca_orders)
        .where(_O.id == order_id, ca_orders.c[missing].is_(None), _O.failed_at.is_(None))
        .values(**values)
    )
    return bool(result.rowcount)


async def update_order(tx: Tx, order_id: str, **values: Any) -> bool:
    """False when the order has a place at the CA already, or is over."""
    result = await tx.execute(
        sa.update(ca_orders).where(_O.id == order_id, _O.order_url.is_(None), _O.failed_at.is_(None)).values(**values)
    )
    return bool(result.rowcount)


async def known_urls(tx: Tx, ca_id: str, urls: Sequence[str]) -> frozenset[str]:
    """Those of these addresses that orders of ours have."""
    query = sa.select(_O.order_url).where(_O.ca_id == ca_id, is_one_of(_O.order_url, urls))
    return frozenset((await tx.scalars(query)).all())


async def names_under_way(tx: Tx, ca_id: str, but: str, since: datetime) -> frozenset[str]:
    """Names of this CA's other orders that may still be waiting for their validation."""
    query = sa.select(sa.func.unnest(_O.names)).where(
        _O.ca_id == ca_id, _O.id != but, _O.created_at > since, _O.failed_at.is_(None),
        _O.finalize_intended_at.is_(None),
    )  # fmt: skip
    return frozenset((await tx.scalars(query)).all())


async def answered(tx: Tx, order_id: str, answers: int, now: datetime) -> None:
    """One more than `answers` times, unless somebody counted it already."""
    await tx.execute(
        sa.update(ca_orders)
        .where(_O.id == order_id, _O.answers == answers)
        .values(answers=answers + 1, answered_at=now)
    )


# --- limits ----------------------------------------------------------------------------------------------------------


async def lock_limits(tx: Tx, ca_id: str) -> None:
    """One order of a CA at a time looks whether there is room and takes it."""
    await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"ca_uses:{ca_id}", 0))))


async def used(tx: Tx, ca_id: str, subjects: Sequence[Subject], since: datetime) -> dict[Subject, list[datetime]]:
    """When each of these was used since then."""
    query = sa.select(_U.kind, _U.subject, _U.at).where(
        _U.ca_id == ca_id,
        _U.at > since,
        _U.kind.in_(sorted({use.value for use, _ in subjects})),
        _U.subject.in_(sorted({subject for _, subject in subjects})),
    )
    found: dict[Subject, list[datetime]] = {}
    for kind, subject, at in await tx.execute(query):
        found.setdefault((Use(kind), subject), []).append(at)
    return found


async def most_used(tx: Tx, ca_id: str, use: Use, since: datetime) -> tuple[str, int] | None:
    """The subject that was used most often since then, and how often."""
    count = sa.func.count()
    query = (
        sa.select(_U.subject, count)
        .where(_U.ca_id == ca_id, _U.kind == use.value, _U.at > since)
        .group_by(_U.subject)
        .order_by(count.desc(), _U.subject)
        .limit(1)
    )
    found = (await tx.execute(query)).one_or_none()
    return None if found is None else (found[0], found[1])


async def use(tx: Tx, ca_id: str, subjects: Sequence[Subject], now: datetime) -> None:
    """Count these, and forget what no limit looks at any more."""
    await tx.execute(sa.delete(ca_uses).where(_U.ca_id == ca_id, _U.at < now - LONGEST_PERIOD - timedelta(days=1)))
    if subjects:
        rows = [{"ca_id": ca_id, "kind": kind.value, "subject": subject, "at": now} for kind, subject in subjects]
        await tx.execute(sa.insert(ca_uses), rows)


async def use_of_order(tx: Tx, order_id: str, subjects: Sequence[Subject], now: datetime) -> None:
    """Count these at the CA of the order."""
    ca_id = await tx.scalar(sa.select(_O.ca_id).where(_O.id == order_id))
    if ca_id is not None:
        await use(tx, ca_id, subjects, now)
