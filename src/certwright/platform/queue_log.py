"""Keeps the queue's own books short: PgQueuer writes a line for every change of every job, and nothing of ours reads
them."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from pgqueuer.domain.settings import db_settings

from certwright.platform.services import Services

KEPT = timedelta(days=1)
_BATCH = 5000


def _written(name: str) -> sa.TableClause:
    columns = sa.column("id", sa.BigInteger), sa.column("created", sa.DateTime(timezone=True))
    return sa.table(name, *columns, schema=db_settings().db_schema)


async def forget_queue_log(services: Services) -> None:
    """Chore: drop what PgQueuer logged and counted more than a day ago, in transactions of some thousand lines."""
    before = services.clock.now() - KEPT
    for name in (db_settings().queue_table_log, db_settings().statistics_table):
        table = _written(name)
        old = sa.select(table.c.id).where(table.c.created < before).limit(_BATCH).scalar_subquery()
        dropped = _BATCH
        while dropped == _BATCH:
            async with services.db.begin() as tx:
                dropped = (await tx.execute(sa.delete(table).where(table.c.id.in_(old)))).rowcount
