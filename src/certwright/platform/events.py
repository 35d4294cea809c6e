"""Events: what travels up. A row written in the same transaction as the change; delivering it is a step of that row.

Listeners are content to hear an event twice. Rooms subscribe at wiring and never learn who else listens. Events of one
kind that wait together are delivered together, so that a thousand certificates cost each listener a few transactions.
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
from certwright.platform.db import Tx, at_column, id_column, is_one_of, json_column, metadata, step_columns
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
BatchListener = Callable[["Services", Sequence[Event]], Awaitable[None]]
"""Hears several events of one kind in the order they were published; one that fails hears them again one at a time."""

_TOGETHER = 100


class Events:
    """Publish inside a transaction; subscribe at wiring."""

    def __init__(self, clock: Clock, jobs: Jobs) -> None:
        self._clock = clock
        self._jobs = jobs
        self._listeners: dict[str, dict[str, BatchListener]] = {}
        jobs.register(DELIVER, events, self._deliver, takes_along=True)

    def subscribe(self, kind: str, name: str, listener: Listener) -> None:
        """`name` is stored when the listener has heard an event: keep it stable across releases."""

        async def one_by_one(services: Services, told: Sequence[Event]) -> None:
            for event in told:
                await listener(services, event)

        self.subscribe_batch(kind, name, one_by_one)

    def subscribe_batch(self, kind: str, name: str, listener: BatchListener) -> None:
        """For kinds that come in crowds."""
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
        # One job for many of them: its step takes the others along.
        await self._jobs.announce(tx, DELIVER, *(str(row["id"]) for row in rows[::_TOGETHER]))

    async def _deliver(self, services: Services, event_id: str) -> Next:
        """Step: let each listener hear it that has not, together with what else of its kind waits.

        One listener that fails is tried again without disturbing the others. A batch with a failure falls apart: the
        step's own event is tried again like any other row, and those taken along become steps of their own.
        """
        lease = services.clock.now() + self._jobs.lease
        async with services.db.begin() as tx:
            own = (await tx.execute(sa.select(events).where(events.c.id == event_id))).one_or_none()
            if own is None:
                return None
            again = own.delivered_at is None and (own.heard or own.step_attempts)
            along = [] if again else await self._take_along(tx, own, lease)
        rows = along if own.delivered_at else [own, *along]
        if not rows:
            return None
        heard, failure = await self._tell(services, rows, own.heard if again else ())
        now = services.clock.now()
        told = {"heard": sorted(heard), "delivered_at": None if failure else now}
        async with services.db.begin() as tx:
            # The step's own row is given back by the job that claimed it.
            await tx.execute(
                sa.update(events).where(events.c.id == own.id, events.c.delivered_at.is_(None)).values(**told)
            )
            if along:
                await self._give_back(tx, [row.id for row in along], lease, told, now if failure else None)
            if len(along) == _TOGETHER - 1:
                await self._go_on(tx, own.kind)
        if failure is not None and own.delivered_at is None:
            raise failure
        return None

    async def _tell(
        self, services: Services, rows: Sequence[Any], heard_before: Sequence[str]
    ) -> tuple[set[str], Exception | None]:
        """(listeners that have heard all of it, the last failure)."""
        kind = rows[0].kind
        told = [Event(row.id, row.kind, row.account_id, row.object_id, row.payload, row.at) for row in rows]
        heard = set(heard_before)
        failure: Exception | None = None
        for name, listener in self._listeners.get(kind, {}).items():
            if name in heard:
                continue
            try:
                await listener(services, told)
            except Problem as problem:
                log.warning("a listener refused an event", listener=name, kind=kind, code=problem.code)
                failure = problem
            # One listener's mistake must not keep the others from hearing; the step fails after all had their turn.
            except Exception as mistake:
                log.exception("a listener failed", listener=name, kind=kind)
                failure = mistake
            else:
                heard.add(name)
        return heard, failure

    def _waiting(self, kind: str) -> sa.Select[Any]:
        """Ids of events of a kind that nobody has heard or is delivering, oldest first."""
        e = events.c
        return (
            sa.select(e.id)
            .where(
                e.kind == kind, e.next_step_at.is_not(None), e.delivered_at.is_(None), e.step_attempts == 0,
                sa.or_(e.step_lease_until.is_(None), e.step_lease_until <= self._clock.now()),
            )
            .order_by(e.next_step_at)
        )  # fmt: skip

    async def _go_on(self, tx: Tx, kind: str) -> None:
        """More may wait than one run takes along, and those it took may have been the ones with a job."""
        waiting = await tx.scalar(self._waiting(kind).limit(1))
        if waiting is not None:
            await self._jobs.start(tx, DELIVER, waiting)

    async def _take_along(self, tx: Tx, own: Any, lease: datetime) -> list[Any]:
        """Events of the same kind that nobody has heard or is delivering, leased like the step's own."""
        e = events.c
        waiting = self._waiting(own.kind).where(e.id != own.id).limit(_TOGETHER - 1).with_for_update(skip_locked=True)
        taken = await tx.execute(
            sa.update(events).where(e.id.in_(waiting.scalar_subquery())).values(step_lease_until=lease).returning(*e)
        )
        return sorted(taken, key=lambda row: str(row.id))

    async def _give_back(
        self, tx: Tx, ids: Sequence[str], lease: datetime, told: Mapping[str, Any], again_at: datetime | None
    ) -> None:
        """End the leases of those taken along that are still ours; what failed is tried alone at `again_at`."""
        free: dict[str, Any] = {"step_lease_until": None, "next_step_at": again_at}
        if again_at is not None:
            free["step_attempts"] = 1  # not to be taken along again
        await tx.execute(
            sa.update(events)
            .where(is_one_of(events.c.id, ids), events.c.step_lease_until == lease)
            .values(**told, **free)
        )


async def forget_delivered(services: Services) -> None:
    """Chore: delivered events older than a week are dropped (the audit log keeps what was done)."""
    old = sa.select(events.c.id).where(events.c.delivered_at < services.clock.now() - timedelta(days=7)).limit(5000)
    async with services.db.begin() as tx:
        await tx.execute(sa.delete(events).where(events.c.id.in_(old.scalar_subquery())))
