"""All SQL of the csrs room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from certwright.platform.db import Tx
from certwright.rooms.csrs.tables import csrs

Row = Any
_C = csrs.c


async def insert(tx: Tx, **values: Any) -> bool:
    """False when the account has a request of that name."""
    result = await tx.execute(
        pg_insert(csrs).values(**values).on_conflict_do_nothing(index_elements=["account_id", "name"])
    )
    return bool(result.rowcount)


async def csr(
    tx: Tx, csr_id: str, where: sa.ColumnElement[bool], *, lock: bool = False, keep: bool = False
) -> Row | None:
    """`lock` keeps others from changing it, `keep` from deleting it, until the transaction ends."""
    query = sa.select(csrs).where(_C.id == csr_id, where)
    if lock:
        query = query.with_for_update()
    elif keep:
        query = query.with_for_update(read=True, key_share=True)
    return (await tx.execute(query)).one_or_none()


async def name_taken(tx: Tx, account_id: str, name: str, but: str = "") -> bool:
    query = sa.select(sa.exists().where(_C.account_id == account_id, _C.name == name, _C.id != but))
    return bool(await tx.scalar(query))


def filters(
    *, name: str | None = None, search: str | None = None, project_id: str | None = None, has_key: bool | None = None
) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = []
    if name:
        where.append(_C.name == name)
    if search:
        where.append(_C.search_text.contains(search.lower(), autoescape=True))
    if project_id:
        where.append(_C.project_id == project_id)
    if has_key is not None:
        where.append(_C.key_id.is_not(None) if has_key else _C.key_id.is_(None))
    return where


async def page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], *, after: str | None, limit: int) -> Sequence[Row]:
    """Newest first; `after` is the id of the last one seen."""
    query = sa.select(csrs).where(*where).order_by(_C.id.desc()).limit(limit)
    return (await tx.execute(query if after is None else query.where(_C.id < after))).all()


async def update(tx: Tx, csr_id: str, revision: int, values: Mapping[str, Any]) -> bool:
    """False when the revision has moved on."""
    result = await tx.execute(
        sa.update(csrs).where(_C.id == csr_id, _C.revision == revision).values(**values, revision=_C.revision + 1)
    )
    return bool(result.rowcount)


async def delete(tx: Tx, csr_id: str) -> None:
    await tx.execute(sa.delete(csrs).where(_C.id == csr_id))


def search_text(name: str, names: Sequence[str], unicode_names: Sequence[str], common_name: str) -> str:
    """What substring search looks at, in lower case; each word once."""
    return " ".join(dict.fromkeys(w.lower() for w in (name, *names, *unicode_names, common_name) if w))
