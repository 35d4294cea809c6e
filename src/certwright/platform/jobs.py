"""Work that goes on after the request: steps of rows, run by workers, surviving any crash.

State lives in tables. A row with `next_step_at` (see `db.step_columns`) is moved by a *step*: one short idempotent
function called with the row's id. An action that wants a step at once calls `Jobs.start` in its own transaction; the
sweeper finds every other row that is due. A step claims the row with a lease, so that two workers never run the same
row together, and the lease of a killed worker runs out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from asyncpg.exceptions import InterfaceError, PostgresError
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.models import Job
from pgqueuer.domain.settings import db_settings
from pgqueuer.errors import RetryRequested
from pgqueuer.queries import Queries

from certwright.kernel.clock import Clock
from certwright.kernel.problems import Problem
from certwright.platform.batching import Coalescer
from certwright.platform.db import Database, Tx, is_one_of
from certwright.platform.telemetry import STEP_SECONDS, STEPS_TOTAL

if TYPE_CHECKING:
    from certwright.platform.services import Services

log = structlog.get_logger(__name__)

Next = timedelta | None
"""What a step answers: None, nothing more to do until somebody starts it; a time span, run me again after it."""

StepFunction = Callable[["Services", str], Awaitable[Next]]

_LONGEST_BACKOFF = timedelta(hours=1)
# A row whose step runs on is given back after so many runs, or when half its lease is over.
_MOST_RUNS = 20
_SWEEP_BATCH = 200


class Again(Exception):
    """Raised by a step: not now, try after `after`. The problem is kept on the row for people to read."""

    def __init__(self, after: timedelta, problem: Problem | None = None) -> None:
        super().__init__(str(problem) if problem else "again")
        self.after = after
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Step:
    """A named step of the rows of one table.

    One that `takes_along` moves other rows that wait, too: a process then runs one at a time, and those asked for
    meanwhile only if they were not taken along. One that `runs_on` is run again under the same claim while it has more
    to do at once, which spares the way through the queue.
    """

    name: str
    table: sa.Table
    run: StepFunction
    takes_along: bool = False
    runs_on: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A row held for one run of its step."""

    lease_until: datetime
    next_step_at: datetime | None


@dataclass(frozen=True, slots=True)
class Chore:
    """Something every worker looks at now and then (sealing the audit log); `run` is content to find nothing."""

    name: str
    every: timedelta
    run: Callable[[Services], Awaitable[None]]


class Jobs:
    """The port rooms use: register steps at wiring, start them inside transactions."""

    def __init__(self, clock: Clock, *, lease: timedelta) -> None:
        self.clock = clock
        self.lease = lease
        self.steps: dict[str, Step] = {}
        self.chores: list[Chore] = []
        self._enqueue_sql = Queries(_NO_DRIVER).qbq.build_enqueue_query("skip")

    def register(
        self, name: str, table: sa.Table, run: StepFunction, *, takes_along: bool = False, runs_on: bool = False
    ) -> None:
        if name in self.steps:
            raise RuntimeError(f"the step {name} is registered twice")
        self.steps[name] = Step(name, table, run, takes_along, runs_on)

    def every(self, name: str, interval: timedelta, run: Callable[[Services], Awaitable[None]]) -> None:
        self.chores.append(Chore(name, interval, run))

    async def start(self, tx: Tx, step: str, *object_ids: str) -> None:
        """Run `step` of these rows as soon as `tx` commits. Sets next_step_at as well, so that a lost job is found."""
        if not object_ids:
            return
        table = self.steps[step].table
        due = self.due_when_started()
        await tx.execute(sa.update(table).where(table.c.id.in_(object_ids)).values(next_step_at=due))
        await self._enqueue(tx, step, list(object_ids), [None] * len(object_ids))

    def due_when_started(self) -> datetime:
        """What `next_step_at` a row is inserted with that `announce` starts in the same transaction."""
        return self.clock.now() + self.lease

    async def announce(self, tx: Tx, step: str, *object_ids: str) -> None:
        """Like `start`, for rows just inserted with `due_when_started()`."""
        if object_ids:
            await self._enqueue(tx, step, list(object_ids), [None] * len(object_ids))

    async def sweep(self, db: Database) -> int:
        """Enqueue every due row once; returns how many."""
        total = 0
        tables = await self.with_due_rows(db, self.clock.now())
        for step in self.steps.values():
            if step.table.name not in tables:
                continue
            t, now = step.table, self.clock.now()
            async with db.begin() as tx:
                due = (
                    sa.select(t.c.id).where(t.c.next_step_at <= now).order_by(t.c.next_step_at).limit(_SWEEP_BATCH)
                    .with_for_update(skip_locked=True)
                )  # fmt: skip
                claimed = (
                    sa.update(t).where(t.c.id.in_(due.scalar_subquery())).values(next_step_at=now + self.lease)
                    .returning(t.c.id)
                )  # fmt: skip
                ids = list((await tx.scalars(claimed)).all())
                if ids:
                    await self._enqueue(tx, step.name, ids, [f"{step.name}:{row_id}" for row_id in ids])
            total += len(ids)
        return total

    async def with_due_rows(self, db: Database, by: datetime) -> set[str]:
        """Names of the tables that have rows due by then: asked every second, so one statement for all of them."""
        limit = sa.literal(by, sa.DateTime(timezone=True))
        tables = {step.table.name: step.table for step in self.steps.values()}
        looks = [
            sa.select(sa.literal(name)).where(sa.exists().where(table.c.next_step_at <= limit))
            for name, table in tables.items()
        ]
        if not looks:
            return set()
        async with db.read() as tx:
            return set((await tx.scalars(sa.union_all(*looks))).all())

    async def take_over(self, db: Database) -> int:
        """End the leases of dead workers and hand out their jobs at once; returns how many leases. Only for a moment in
        which no worker can be alive: a living one would run its step beside the next."""
        ended = 0
        async with db.begin() as tx:
            for step in self.steps.values():
                leased = sa.update(step.table).where(step.table.c.step_lease_until.is_not(None))
                ended += (await tx.execute(leased.values(step_lease_until=None))).rowcount
            queue = sa.table(db_settings().queue_table, sa.column("status"), sa.column("heartbeat"))
            picked = sa.cast(queue.c.status, sa.Text) == "picked"
            long_ago = sa.func.now() - timedelta(days=1)
            # To PgQueuer they are jobs of a worker not heard of for long, as they would be a while later.
            await tx.execute(sa.update(queue).where(picked).values(heartbeat=long_ago))
        return ended

    async def _enqueue(self, tx: Tx, step: str, ids: list[str], dedupe: list[str | None]) -> None:
        count = len(ids)
        await tx.exec_driver_sql(
            self._enqueue_sql,
            ([0] * count, [step] * count, [i.encode() for i in ids], [timedelta(0)] * count, dedupe, [None] * count),
        )

    async def run_step(self, services: Services, name: str, object_id: str) -> bool:
        """Claim, run, and record how it went. False when another worker holds the row."""
        step = self.steps[name]
        claim = await self._claim(services.db, step.table, object_id)
        if claim is None:
            return False
        structlog.contextvars.bind_contextvars(step=name, object_id=object_id)
        outcome = "done"
        with STEP_SECONDS.labels(name).time():
            try:
                after = await step.run(services, object_id)
                runs = 1
                while after is not None and after <= timedelta(0) and self._may_run_on(step, claim, runs):
                    after = await step.run(services, object_id)
                    runs += 1
                await self._release(services.db, step, object_id, claim, after)
            except Again as again:
                outcome = "again"
                await self._postpone(services.db, step.table, object_id, claim, again.after, again.problem)
            except Problem as problem:
                outcome = "problem"
                log.warning("step refused", code=problem.code, reason=problem.message)
                await self._postpone(services.db, step.table, object_id, claim, None, problem)
            except (asyncio.CancelledError, KeyboardInterrupt):
                raise
            # A mistake in one step must neither stop the worker nor lose the row: it is logged whole and retried later.
            except Exception:
                outcome = "failed"
                log.exception("step failed")
                await self._postpone(services.db, step.table, object_id, claim, None, None)
        STEPS_TOTAL.labels(name, outcome).inc()
        structlog.contextvars.unbind_contextvars("step", "object_id")
        return True

    def _may_run_on(self, step: Step, claim: Claim, runs: int) -> bool:
        return step.runs_on and runs < _MOST_RUNS and self.clock.now() <= claim.lease_until - self.lease / 2

    async def run_waiting(self, services: Services, name: str, ids: Sequence[str]) -> list[bool]:
        """Run a step that takes along: the first of these rows, then those it did not take. One answer each, in order;
        False where another worker holds the row."""
        t = self.steps[name].table
        ran = dict.fromkeys(ids, True)
        left = list(ran)
        while left:
            ran[left[0]] = await self.run_step(services, name, left[0])
            if not left[1:]:
                break
            async with services.db.read() as tx:
                still = is_one_of(t.c.id, left[1:]) & t.c.next_step_at.is_not(None)
                left = list((await tx.scalars(sa.select(t.c.id).where(still).order_by(t.c.id))).all())
        return [ran[row_id] for row_id in ids]

    async def _claim(self, db: Database, table: sa.Table, object_id: str) -> Claim | None:
        """The row with a fresh lease; None while another worker holds it. A row that is gone is claimed by everybody:
        its step finds nothing to do."""
        now = self.clock.now()
        free = sa.or_(
            table.c.step_lease_until.is_(None),
            table.c.step_lease_until <= now,
            # A lease from "the future" was written before the clock was set back; nobody can hold one that long.
            table.c.step_lease_until > now + self.lease,
        )
        async with db.single() as tx:
            row = (
                await tx.execute(
                    sa.update(table)
                    .where(table.c.id == object_id, free)
                    .values(step_lease_until=now + self.lease)
                    .returning(table.c.next_step_at)
                )
            ).one_or_none()
            if row is not None:
                return Claim(now + self.lease, row.next_step_at)
            exists = await tx.scalar(sa.select(sa.exists().where(table.c.id == object_id)))
        return None if exists else Claim(now + self.lease, None)

    async def _release(self, db: Database, step: Step, object_id: str, claim: Claim, after: Next) -> None:
        at = None if after is None else self.clock.now() + after
        given_back = self._give_back(step.table, object_id, claim, at).values(step_attempts=0, step_problem=None)
        if after is None or after > timedelta(0):
            async with db.single() as tx:
                await tx.execute(given_back)
            return
        async with db.begin() as tx:
            if (await tx.execute(given_back)).rowcount:
                await self.start(tx, step.name, object_id)

    async def _postpone(
        self,
        db: Database,
        table: sa.Table,
        object_id: str,
        claim: Claim,
        after: timedelta | None,
        problem: Problem | None,
    ) -> None:
        said = problem.as_dict() if problem else {"code": "internal", "message": "An internal error; see the log."}
        async with db.begin() as tx:
            attempts = await tx.scalar(sa.select(table.c.step_attempts).where(table.c.id == object_id)) or 0
            at = self.clock.now() + (after if after is not None else backoff(attempts + 1))
            await tx.execute(
                self._give_back(table, object_id, claim, at).values(step_attempts=attempts + 1, step_problem=said)
            )

    def _give_back(self, table: sa.Table, object_id: str, claim: Claim, at: datetime | None) -> sa.Update:
        """End the lease, if it is still ours: a step slower than its lease must not end its successor's.

        What somebody planned for the row while the step ran (`next_step_at` differs from what was claimed) stands,
        unless `at` comes sooner.
        """
        t = table.c
        untouched = t.next_step_at.is_not_distinct_from(sa.literal(claim.next_step_at, t.next_step_at.type))
        planned = sa.literal(at, t.next_step_at.type)
        return (
            sa.update(table)
            .where(t.id == object_id, t.step_lease_until == claim.lease_until)
            .values(
                step_lease_until=None,
                next_step_at=sa.case((untouched, planned), else_=sa.func.least(t.next_step_at, planned)),
            )
        )


def backoff(attempts: int) -> timedelta:
    """5 s, 10 s, 20 s … one hour, each ± 20 % so that many rows failing together don't come back together."""
    seconds = min(5 * 2 ** min(attempts - 1, 20), _LONGEST_BACKOFF.total_seconds())
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311  # spreads load, guards nothing


class Worker:
    """Runs jobs, sweeps and chores until stopped; reconnects when the database went away."""

    def __init__(self, services: Services, *, concurrency: int = 8) -> None:
        self._services = services
        self._concurrency = concurrency
        self._stopping = asyncio.Event()
        self._manager: QueueManager | None = None

    def stop(self) -> None:
        self._stopping.set()
        if self._manager is not None:
            self._manager.shutdown.set()

    async def run(self) -> None:
        loops = [asyncio.create_task(self._sweeping()), asyncio.create_task(self._queue())]
        loops += [asyncio.create_task(self._chore(chore)) for chore in self._services.jobs.chores]
        try:
            await asyncio.gather(*loops)
        finally:
            self.stop()
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _queue(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = await self._services.db.connect_raw()
            except (OSError, PostgresError, InterfaceError, TimeoutError) as error:
                log.warning("jobs wait for the database", reason=type(error).__name__)
                await self._pause(2)
                continue
            try:
                await self._consume(connection)
            except (OSError, PostgresError, InterfaceError, TimeoutError) as error:
                log.warning("the job queue lost the database", reason=type(error).__name__)
                await self._pause(1)
            finally:
                if not connection.is_closed():
                    await connection.close(timeout=5)

    async def _consume(self, connection: Any) -> None:
        jobs, settings = self._services.jobs, self._services.settings
        manager = QueueManager(Queries(AsyncpgDriver(connection)))
        self._manager = manager
        lost = asyncio.Event()

        def connection_lost(*_: object) -> None:
            lost.set()
            manager.shutdown.set()

        connection.add_termination_listener(connection_lost)

        async def run_waiting(name: str, ids: Sequence[str]) -> list[bool]:
            return await jobs.run_waiting(self._services, name, ids)

        waiting: Coalescer[str, str, bool] = Coalescer(run_waiting)

        def entrypoint(name: str) -> None:
            takes_along = jobs.steps[name].takes_along

            async def handle(job: Job) -> None:
                object_id = (job.payload or b"").decode()
                ran = (
                    await waiting.submit(name, object_id)
                    if takes_along
                    else await jobs.run_step(self._services, name, object_id)
                )
                if not ran:
                    raise RetryRequested(delay=timedelta(seconds=1), reason="the row is held by another worker")

            manager.entrypoint(name)(handle)

        for name in jobs.steps:
            entrypoint(name)
        if self._stopping.is_set():
            return
        # A delayed retry can miss its wake-up, hence the short dequeue time-out.
        await manager.run(
            dequeue_timeout=timedelta(seconds=1),
            batch_size=self._concurrency,
            max_concurrent_tasks=2 * self._concurrency,
            heartbeat_timeout=timedelta(seconds=settings.worker_heartbeat),
            log_aggregation_interval=timedelta(seconds=60),
        )
        if lost.is_set():
            raise ConnectionResetError("the job connection was closed")

    async def _sweeping(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._services.jobs.sweep(self._services.db)
            except Problem as problem:
                log.warning("sweep refused", code=problem.code)
            # A deadlock, say, is the database's way of asking for another try; the worker must live to make it.
            except Exception:
                log.exception("sweep failed")
            await self._pause(self._services.settings.sweep_interval)

    async def _chore(self, chore: Chore) -> None:
        while not self._stopping.is_set():
            try:
                await chore.run(self._services)
            except Problem as problem:
                log.warning("chore refused", chore=chore.name, code=problem.code)
            # As with steps: one chore's mistake is logged and must not stop the others.
            except Exception:
                log.exception("chore failed", chore=chore.name)
            await self._pause(chore.every.total_seconds())

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


class _NoDriver:
    """Queries needs a driver only to run SQL; we take nothing but the text from it."""


_NO_DRIVER: Any = _NoDriver()


async def drain(services: Services, *, until: datetime | None = None, rounds: int = 50) -> None:
    """Run everything due in this process, in order of due time, without the queue."""
    jobs = services.jobs

    def limit() -> datetime:
        # Rows started by an action carry now + lease, hence the lease is added to what counts as due.
        return (until or jobs.clock.now()) + jobs.lease

    for _ in range(rounds):
        due = await jobs.with_due_rows(services.db, limit())
        if not due:
            return
        for step in jobs.steps.values():
            if step.table.name not in due:
                continue
            t = step.table
            async with services.db.begin() as tx:
                rows = (
                    await tx.scalars(
                        sa.select(t.c.id).where(t.c.next_step_at <= limit()).order_by(t.c.next_step_at)
                        .limit(_SWEEP_BATCH)
                    )
                ).all()  # fmt: skip
                if rows:
                    await tx.execute(sa.update(t).where(t.c.id.in_(rows)).values(next_step_at=None))
            for row_id in rows:
                await jobs.run_step(services, step.name, row_id)
            if rows:
                due = await jobs.with_due_rows(services.db, limit())
