"""When CAs end, for whoever warns of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from certwright.platform.db import Tx, is_one_of
from certwright.rooms.authorities.tables import authorities, issued_certificates

# A life cut off by the CA's end ends in that very second; what was to end just before was in use just as well.
_WITH_IT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CaLife:
    """From when to when the certificate of a CA is good; `sha256` is its fingerprint."""

    id: str
    account_id: str
    project_id: str
    name: str
    kind: str
    sha256: str
    not_before: datetime
    not_after: datetime


async def lives(tx: Tx) -> list[CaLife]:
    """Of the CAs of all accounts that are active, disabled or expired: those that wait for a certificate have no end
    yet, and nobody need care for the end of one that is revoked or deleted."""
    a = authorities.c
    query = sa.select(
        a.id, a.account_id, a.project_id, a.name, a.kind, a.sha256, a.not_before, a.not_after
    ).where(
        a.certificate_der.is_not(None), a.revoked_at.is_(None), a.delete_at.is_(None), a.erased_at.is_(None)
    )  # fmt: skip
    return [CaLife(**row._mapping) for row in await tx.execute(query.order_by(a.id))]


async def used_to_the_end(tx: Tx, ids: Collection[str]) -> set[str]:
    """Which of these CAs, all of which have ended, were in use until then: the product's own, those with certificates
    that ended with them, and those with CAs below them that aren't revoked or deleted."""
    if not ids:
        return set()
    a, i, below = authorities.c, issued_certificates.c, authorities.alias("below")
    ended_with_it = sa.exists().where(
        i.authority_id == a.id, i.revoked_at.is_(None), ~i.internal, i.not_after >= a.not_after - _WITH_IT
    )
    over_others = sa.exists().where(
        below.c.parent_id == a.id, below.c.revoked_at.is_(None), below.c.delete_at.is_(None),
        below.c.erased_at.is_(None),
    )  # fmt: skip
    query = sa.select(a.id).where(is_one_of(a.id, list(ids)), sa.or_(a.builtin, over_others, ended_with_it))
    return set(await tx.scalars(query))
