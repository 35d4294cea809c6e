"""Plans of renewal in the database."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from certwright.kernel.ids import new_id
from certwright.platform.db import Tx
from certwright.rooms import certificates
from certwright.rooms.renewal.tables import renewals


async def plan(tx: Tx, certificate_id: str, version_id: str, due: datetime, not_after: datetime, now: datetime) -> None:
    """Plan the renewal of this version, if it is the certificate's current one and not planned yet."""
    c = certificates.CURRENT
    fresh = {
        "version_id": version_id,
        "renew_at": due,
        "not_after": not_after,
        "application_id": None,
        "started_at": None,
        "next_step_at": due,
    }
    current = sa.select(
        sa.literal(new_id("rnw", now)), c.certificate_id, c.account_id, c.project_id,
        *(sa.literal(value, renewals.c[name].type) for name, value in fresh.items()),
    ).where(c.certificate_id == certificate_id, c.version_id == version_id)  # fmt: skip
    columns = ["id", "certificate_id", "account_id", "project_id", *fresh]
    await tx.execute(
        insert(renewals)
        .from_select(columns, current)
        .on_conflict_do_update(index_elements=["certificate_id"], set_=fresh, where=renewals.c.version_id != version_id)
    )
