"""What the ledger says about many applications at once, for rooms above that look ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from certwright.platform.db import Tx, is_one_of
from certwright.rooms.validation.tables import challenges, dns_connections, evidence
from certwright.rooms.validation.words import Method


@dataclass(frozen=True, slots=True)
class Shown:
    """One name of an application, and by which method it was shown when. `by_connection`: a DNS connection that is
    still there wrote its record, if only where a CNAME leads."""

    name: str
    method: Method
    validated_at: datetime
    by_connection: bool = False


async def shown_by(tx: Tx, subject_ids: Sequence[str]) -> dict[str, list[Shown]]:
    """The evidence each of these applications rests on."""
    query = (
        sa.select(
            challenges.c.subject_id,
            challenges.c.name,
            evidence.c.method,
            evidence.c.validated_at,
            challenges.c.connection_id.is_not(None),
        )
        .join(evidence, evidence.c.id == challenges.c.evidence_id)
        .where(is_one_of(challenges.c.subject_id, subject_ids))
    )
    found: dict[str, list[Shown]] = {}
    for subject_id, name, method, at, by_connection in await tx.execute(query):
        found.setdefault(subject_id, []).append(Shown(name, Method(method), at, by_connection))
    return found


async def held_zones(tx: Tx, account_id: str) -> dict[str, tuple[str, ...]]:
    """Per project the zones in which DNS connections show records by themselves."""
    query = sa.select(dns_connections.c.project_id, dns_connections.c.zones).where(
        dns_connections.c.account_id == account_id
    )
    found: dict[str, tuple[str, ...]] = {}
    for project_id, zones in await tx.execute(query):
        found[project_id] = (*found.get(project_id, ()), *zones)
    return found
