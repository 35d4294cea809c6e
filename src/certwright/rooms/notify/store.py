"""All SQL of the notify room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from certwright.kernel.ids import first_id
from certwright.platform.db import Tx, is_one_of, unnested
from certwright.rooms import certificates
from certwright.rooms.notify.tables import expiring_versions, messages, notices, recipients

Row = Any
"""A row of the table a function names; see tables.py for its columns."""


# Recipients


async def insert_recipient(tx: Tx, values: Mapping[str, Any]) -> bool:
    """False when the account has that address already."""
    insert = pg_insert(recipients).values(**values).on_conflict_do_nothing().returning(recipients.c.id)
    return await tx.scalar(insert) is not None


async def recipient(tx: Tx, account_id: str, recipient_id: str, *, lock: bool = False) -> Row | None:
    r = recipients.c
    select = sa.select(recipients).where(r.id == recipient_id, r.account_id == account_id)
    return (await tx.execute(select.with_for_update() if lock else select)).one_or_none()


async def recipient_page(tx: Tx, where: sa.ColumnElement[bool], *, after: str | None, limit: int) -> list[Row]:
    select = sa.select(recipients).where(where).order_by(recipients.c.id.desc()).limit(limit)
    if after is not None:
        select = select.where(recipients.c.id < after)
    return list(await tx.execute(select))


async def update_recipient(tx: Tx, recipient_id: str, **values: Any) -> None:
    await tx.execute(sa.update(recipients).where(recipients.c.id == recipient_id).values(**values))


async def email_used(tx: Tx, account_id: str, email: str, besides: str) -> bool:
    r = recipients.c
    return bool(
        await tx.scalar(sa.select(sa.exists().where(r.account_id == account_id, r.email == email, r.id != besides)))
    )


async def delete_recipient(tx: Tx, recipient_id: str) -> None:
    await tx.execute(sa.delete(recipients).where(recipients.c.id == recipient_id))


async def verified_recipients(tx: Tx, account_id: str) -> list[Row]:
    r = recipients.c
    select = sa.select(recipients).where(r.account_id == account_id, r.verified_at.is_not(None)).order_by(r.id)
    return list(await tx.execute(select))


# Messages


async def insert_message(tx: Tx, values: Mapping[str, Any]) -> bool:
    """False when this message exists: the unique key, not care, keeps it from being written twice."""
    insert = (
        pg_insert(messages)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["account_id", "dedupe_key"])
        .returning(messages.c.id)
    )
    return await tx.scalar(insert) is not None


async def claim_message(tx: Tx, message_id: str, now: datetime) -> Row | None:
    """Note that it is being handed over; None when that is over. A claim found open was somebody's who died."""
    m = messages.c
    claim = (
        sa.update(messages)
        .where(m.id == message_id, m.sent_at.is_(None), m.failed_at.is_(None))
        .values(
            trying_since=now,
            attempts=m.attempts + 1,
            in_doubt=m.in_doubt + sa.case((m.trying_since.is_not(None), 1), else_=0),
        )
        .returning(*messages.c)
    )
    return (await tx.execute(claim)).one_or_none()


async def end_attempt(tx: Tx, message_id: str, **values: Any) -> bool:
    """Record how an attempt ended; False when the message ended meanwhile."""
    m = messages.c
    result = await tx.execute(
        sa.update(messages)
        .where(m.id == message_id, m.sent_at.is_(None), m.failed_at.is_(None))
        .values(trying_since=None, **values)
    )
    return bool(result.rowcount)


async def message_page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], *, after: str | None, limit: int) -> list[Row]:
    """Without the bodies."""
    m = messages.c
    select = (
        sa.select(
            m.id, m.kind, m.object_id, m.recipient_id, m.to_name, m.to_address, m.locale, m.subject, m.created_at,
            m.attempts, m.in_doubt, m.sent_at, m.failed_at, m.failure, m.step_problem, m.next_step_at,
        )
        .where(*where).order_by(m.id.desc()).limit(limit)
    )  # fmt: skip
    if after is not None:
        select = select.where(m.id < after)
    return list(await tx.execute(select))


async def message(tx: Tx, account_id: str, message_id: str) -> Row | None:
    m = messages.c
    return (await tx.execute(sa.select(messages).where(m.id == message_id, m.account_id == account_id))).one_or_none()


async def forget_messages(tx: Tx, before: datetime, limit: int) -> int:
    """Drop what was sent or given up before; the id tells when a message was written."""
    m = messages.c
    ended = sa.func.coalesce(m.sent_at, m.failed_at) < before
    old = sa.select(m.id).where(m.id < first_id("msg", before), ended).limit(limit)
    return (await tx.execute(sa.delete(messages).where(m.id.in_(old.scalar_subquery())))).rowcount


async def delete_messages(tx: Tx, account_id: str, object_id: str) -> None:
    """Erase what was written about an object, with the addresses it went to; a message not sent yet is never sent."""
    m = messages.c
    await tx.execute(sa.delete(messages).where(m.account_id == account_id, m.object_id == object_id))


# Reminders


async def insert_versions(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Id and next step of those that were not known before."""
    if not rows:
        return []
    e = expiring_versions.c
    columns = (e.id, e.certificate_id, e.account_id, e.project_id, e.not_before, e.not_after, e.next_step_at)
    given = unnested("given", **{c.name: (c.type, [row[c.name] for row in rows]) for c in columns}).c
    insert = pg_insert(expiring_versions).from_select(
        [c.name for c in columns], sa.select(*(given[c.name] for c in columns))
    )
    return list(await tx.execute(insert.on_conflict_do_nothing().returning(e.id, e.next_step_at)))


async def version(tx: Tx, version_id: str) -> Row | None:
    select = sa.select(expiring_versions).where(expiring_versions.c.id == version_id)
    return (await tx.execute(select)).one_or_none()


async def stop_reminding(tx: Tx, certificate_ids: Sequence[str], *, but: Sequence[str] = ()) -> None:
    """Of these certificates' versions other than `but`; what was sent stays on record."""
    e = expiring_versions.c
    await tx.execute(
        sa.delete(expiring_versions).where(is_one_of(e.certificate_id, certificate_ids), ~is_one_of(e.id, but))
    )


async def follow_certificate(tx: Tx, certificate_id: str) -> None:
    """What is known of its versions is in the project it is in."""
    await tx.execute(certificates.followed(expiring_versions, expiring_versions.c.certificate_id, certificate_id))


async def notices_of(tx: Tx, version_id: str) -> list[str]:
    return list((await tx.scalars(sa.select(notices.c.step).where(notices.c.version_id == version_id))).all())


async def insert_notice(tx: Tx, version_id: str, step: str, at: datetime, *, sent: bool) -> bool:
    insert = (
        pg_insert(notices).values(version_id=version_id, step=step, at=at, sent=sent)
        .on_conflict_do_nothing().returning(notices.c.step)
    )  # fmt: skip
    return await tx.scalar(insert) is not None
