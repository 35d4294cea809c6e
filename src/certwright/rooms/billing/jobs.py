"""The step of an order: it lapses when nobody paid in time. Those of payments and refunds stand beside their work."""

from __future__ import annotations

from datetime import timedelta

from certwright.kernel.actor import system_actor
from certwright.platform.jobs import Next
from certwright.platform.services import Services
from certwright.rooms.billing import orders, rules, store
from certwright.rooms.billing.words import OrderStatus

LAPSE_STEP = "billing.lapse"

_LOOK_AGAIN = timedelta(minutes=10)


async def lapse_step(services: Services, order_id: str) -> Next:
    """Let an order lapse whose time to pay is over; while a payment of it runs, look again later."""
    async with services.db.begin() as tx:
        row = await store.order(tx, order_id, lock=True)
        if row is None:
            return None
        status, now = rules.status(store.order_facts(row)), services.clock.now()
        if status is OrderStatus.PAYMENT_RUNNING:
            return _LOOK_AGAIN
        if status is not OrderStatus.PENDING_PAYMENT:
            return None
        if now < row.pay_by:
            return row.pay_by - now  # type: ignore[no-any-return]  # a row's columns have no types
        await orders.end_unpaid(tx, services, system_actor(row.account_id, "billing"), row, OrderStatus.LAPSED)
    return None
