"""Events: what travels up. A row written in the same transaction as the change, delivered to each listener as a step.

Listeners are content to hear an event twice. Rooms subscribe at wiring and never learn who else listens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from certwright.kernel.clock import Clock
from certwright.kernel.ids import new_id
from certwright.platform.db import Tx, at_column, id_column, json_column, metadata, step_columns
from certwright.platform.jobs import Jobs, Next

if TYPE_CHECKING:
    from certwright.platform.services import Services

DELIVER = "events.deliver"

events = sa.Table(
    "events",
    metadata,
    id_column(primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    id_column("account_id", nullable=False),
    id_column("object_id", nullable=False),
    json_column("payload", nullable=False),
    at_column("at", nullable=False),
)

deliveries = sa.Table(
    "event_deliveries",
    metadata,
    id_column(primary_key=True),
    id_column("event_id", sa.ForeignKey("events.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("listener", sa.Text, nullable=False),
    at_column("delivered_at"),
    *step_columns(),
    sa.Index("ix_event_deliveries_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is `room.what_happened`; `payload` holds ids and facts, never secrets."""

    id: str
    kind: str
    account_id: str
    object_id: str
    payload: Mapping[str, Any]
    at: datetime


Listener = Callable[["Services", Event], Awaitable[None]]


class Events:
    """Publish inside a transaction; subscribe at wiring."""

    def __init__(self, clock: Clock, jobs: Jobs) -> None:
        self._clock = clock
        self._jobs = jobs
        self._listeners: dict[str, dict[str, Listener]] = {}
        jobs.register(DELIVER, deliveries, self._deliver)

    def subscribe(self, kind: str, name: str, listener: Listener) -> None:
        """`name` is stored with each delivery: keep it stable across releases."""
        self._listeners.setdefault(kind, {})[name] = listener

    async def publish(
        self, tx: Tx, kind: str, *, account_id: str, object_id: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        listeners = self._listeners.get(kind)
        if not listeners:
            return
        now = self._clock.now()
        event_id = new_id("evt", now)
        await tx.execute(
            sa.insert(events).values(
                id=event_id, kind=kind, account_id=account_id, object_id=object_id, payload=dict(payload or {}), at=now
            )
        )
        rows = [{"id": new_id("dlv", now), "event_id": event_id, "listener": name} for name in listeners]
        await tx.execute(sa.insert(deliveries), rows)
        await self._jobs.start(tx, DELIVER, *(row["id"] for row in rows))

    async def _deliver(self, services: Services, delivery_id: str) -> Next:
        async with services.db.begin() as tx:
            row = (
                await tx.execute(
                    sa.select(events, deliveries.c.listener)
                    .join(deliveries, deliveries.c.event_id == events.c.id)
                    .where(deliveries.c.id == delivery_id, deliveries.c.delivered_at.is_(None))
                )
            ).one_or_none()
        if row is None:
            return None
        listener = self._listeners.get(row.kind, {}).get(row.listener)
        if listener is not None:
            await listener(services, Event(row.id, row.kind, row.account_id, row.object_id, row.payload, row.at))
        async with services.db.begin() as tx:
            await tx.execute(
                sa.update(deliveries).where(deliveries.c.id == delivery_id).values(delivered_at=services.clock.now())
            )
        return None


async def forget_delivered(services: Services) -> None:
    """Chore: delivered events older than a week are dropped (the audit log keeps what was done)."""
    open_delivery = sa.exists().where(deliveries.c.event_id == events.c.id, deliveries.c.delivered_at.is_(None))
    old = events.c.at < services.clock.now() - timedelta(days=7)
    async with services.db.begin() as tx:
        await tx.execute(
            sa.delete(events).where(
                events.c.id.in_(sa.select(events.c.id).where(old, ~open_delivery).limit(5000).scalar_subquery())
            )
        )
