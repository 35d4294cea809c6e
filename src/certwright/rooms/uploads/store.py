"""All SQL of the uploads room."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from certwright.platform.db import Tx
from certwright.rooms import certificates
from certwright.rooms.uploads.tables import upload_policies, uploads

Row = Any
_U, _P = uploads.c, upload_policies.c


async def one_at_a_time(tx: Tx, account_id: str) -> None:
    """Uploads of one account are stored one after the other: quotas and duplicates hold among them."""
    await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"uploads:{account_id}", 0))))


async def insert(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(uploads).values(**values))


async def records(tx: Tx, certificate_id: str) -> Sequence[Row]:
    """Newest first."""
    query = sa.select(uploads).where(_U.certificate_id == certificate_id).order_by(_U.version.desc())
    return (await tx.execute(query)).all()


async def follow(tx: Tx, certificate_id: str) -> None:
    await tx.execute(certificates.followed(uploads, _U.certificate_id, certificate_id))


async def policy(tx: Tx, account_id: str) -> Row | None:
    return (await tx.execute(sa.select(upload_policies).where(_P.account_id == account_id))).one_or_none()


async def set_policy(tx: Tx, account_id: str, revision: int, now: datetime, *, legacy_rsa: bool) -> bool:
    """False when the revision has moved on. Revision 0 is that of a policy never written."""
    if revision == 0:
        made = pg_insert(upload_policies).values(account_id=account_id, legacy_rsa=legacy_rsa, updated_at=now)
        return bool((await tx.execute(made.on_conflict_do_nothing())).rowcount)
    result = await tx.execute(
        sa.update(upload_policies).where(_P.account_id == account_id, _P.revision == revision)
        .values(legacy_rsa=legacy_rsa, updated_at=now, revision=_P.revision + 1)
    )  # fmt: skip
    return bool(result.rowcount)
