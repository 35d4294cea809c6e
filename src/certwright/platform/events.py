"""Events: what travels up. A row written in the same transaction as the change; delivering it is a step of that row.

Listeners are content to hear an event twice. Rooms subscribe at wiring and never learn who else listens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.kernel.clock import Clock
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Problem
from certwright.platform.db import Tx, at_column, id_column, json_column, metadata, step_columns
from certwright.platform.jobs import Jobs, Next

if TYPE_CHECKING:
    from certwright.platform.services import Services

log = structlog.get_logger(__name__)

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
    # Listeners that have heard it; when all have, `delivered_at` is set.
    sa.Column("heard", ARRAY(sa.Text), nullable=False, server_default="{}"),
    at_column("delivered_at"),
    *step_columns(),
    sa.Index("ix_events_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
    sa.Index("ix_events_delivered", "delivered_at", postgresql_where=sa.text("delivered_at IS NOT NULL")),
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
        jobs.register(DELIVER, events, self._deliver)

    def subscribe(self, kind: str, name: str, listener: Listener) -> None:
        """`name` is stored when the listener has heard an event: keep it stable across releases."""
        self._listeners.setdefault(kind, {})[name] = listener

    async def publish(
        self, tx: Tx, kind: str, *, account_id: str, object_id: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        await self.publish_many(tx, kind, [(account_id, object_id, payload or {})])

    async def publish_many(self, tx: Tx, kind: str, happenings: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Several events of one kind: (account id, object id, payload) each."""
        if kind not in self._listeners or not happenings:
            return
        now, due = self._clock.now(), self._jobs.due_when_started()
        rows = [
            {
                "id": new_id("evt", now), "kind": kind, "account_id": account_id, "object_id": object_id,
                "payload": dict(payload), "at": now, "next_step_at": due,
            }
            for account_id, object_id, payload in happenings
        ]  # fmt: skip
        await tx.execute(sa.insert(events), rows)
        await self._jobs.announce(tx, DELIVER, *(str(row["id"]) for row in rows))

    async def _deliver(self, services: Services, event_id: str) -> Next:
        """Step: let each listener hear it that has not; one that fails is tried again without disturbing the others."""
        async with services.db.begin() as tx:
            row = (await tx.execute(sa.select(events).where(events.c.id == event_id))).one_or_none()
        if row is None or row.delivered_at is not None:
            return None
        event = Event(row.id, row.kind, row.account_id, row.object_id, row.payload, row.at)
        heard = set(row.heard)
        failure: Exception | None = None
        for name, listener in self._listeners.get(row.kind, {}).items():
            if name in heard:
                continue
            try:
                await listener(services, event)
            except Problem as problem:
                log.warning("a listener refused an event", listener=name, kind=event.kind, code=problem.code)
                failure = problem
            # One listener's mistake must not keep the others from hearing; the step fails after all had their turn.
            except Exception as mistake:
                log.exception("a listener failed", listener=name, kind=event.kind)
                failure = mistake
            else:
                heard.add(name)
        async with services.db.begin() as tx:
            at = None if failure else services.clock.now()
            await tx.execute(
                sa.update(events).where(events.c.id == event_id).values(heard=sorted(heard), delivered_at=at)
            )
        if failure is not None:
            raise failure
        return None


async def forget_delivered(services: Services) -> None:
    """Chore: delivered events older than a week are dropped (the audit log keeps what was done)."""
    old = sa.select(events.c.id).where(events.c.delivered_at < services.clock.now() - timedelta(days=7)).limit(5000)
    async with services.db.begin() as tx:
        await tx.execute(sa.delete(events).where(events.c.id.in_(old.scalar_subquery())))
