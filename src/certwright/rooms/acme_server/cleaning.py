"""Forgetting what came to nothing: orders, proofs nobody can use any more, accounts and keys that nothing hangs on."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from certwright.platform.services import Services
from certwright.rooms.acme_server.tables import acme_accounts, acme_authorizations, acme_eab_keys, acme_orders

# So long people can see why an order failed.
_KEPT = timedelta(days=30)
# Registered by nobody we know, and never used: a client that comes back registers again by itself.
_IDLE = timedelta(days=90)
_ENDED = timedelta(days=1)
_BATCH = 5000


async def forget_orders(services: Services) -> None:
    """Chore: orders that weren't fulfilled and authorizations go a month after their time was over; those of orders
    that were fulfilled tell how control was shown, and stay as long. Accounts without any order go when they were
    deactivated, or were never used and bound by no key; revoked keys when no account hangs on them."""
    now = services.clock.now()
    a, e, o, z = acme_accounts.c, acme_eab_keys.c, acme_orders.c, acme_authorizations.c
    unused = sa.and_(
        ~sa.exists().where(o.acme_account_id == a.id), ~sa.exists().where(z.acme_account_id == a.id),
        sa.or_(a.deactivated_at < now - _ENDED, sa.and_(a.eab_key_id.is_(None), a.created_at < now - _IDLE)),
    )  # fmt: skip
    for table, old in (
        (acme_orders, sa.and_(o.status != "valid", o.expires_at < now - _KEPT)),
        (acme_authorizations, z.expires_at < now - _KEPT),
        (acme_accounts, unused),
        (acme_eab_keys, sa.and_(e.revoked_at < now - _ENDED, ~sa.exists().where(a.eab_key_id == e.id))),
    ):
        while True:
            async with services.db.begin() as tx:
                some = sa.select(table.c.id).where(old).limit(_BATCH)
                gone = (await tx.execute(sa.delete(table).where(table.c.id.in_(some)))).rowcount
            if gone < _BATCH:
                break
