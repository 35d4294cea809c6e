"""Steps: started in a transaction, run once by whoever claims them, found again after every kind of loss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Refused
from certwright.platform.db import id_column, json_column, step_columns
from certwright.platform.jobs import Again, Jobs, Next, Worker, backoff, drain
from certwright.platform.services import Services
from tests.conftest import World

toys = sa.Table(
    "toys",
    sa.MetaData(),
    id_column(primary_key=True),
    sa.Column("runs", sa.Integer, nullable=False, server_default="0"),
    json_column("note"),
    *step_columns(),
)


@pytest.fixture
def toybox(world: World) -> Any:
    async def make() -> None:
        async with world.services.db.begin() as tx:
            await tx.run_sync(toys.create, checkfirst=True)

    async def drop() -> None:
        async with world.services.db.begin() as tx:
            await tx.run_sync(toys.drop)
            await tx.execute(sa.text("DELETE FROM pgqueuer"))

    world.run(make())
    yield world
    world.run(drop())


async def add(world: World, *ids: str, start: bool = True) -> None:
    async with world.services.db.begin() as tx:
        await tx.execute(sa.insert(toys), [{"id": i} for i in ids])
        if start:
            await world.services.jobs.start(tx, "toy", *ids)


async def row(services: Services, toy: str = "a") -> Any:
    async with services.db.begin() as tx:
        return (await tx.execute(sa.select(toys).where(toys.c.id == toy))).one()


async def count_run(services: Services, toy: str) -> None:
    async with services.db.begin() as tx:
        await tx.execute(sa.update(toys).where(toys.c.id == toy).values(runs=toys.c.runs + 1))


async def until(fact: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await fact():
            await asyncio.sleep(0.02)


async def working(world: World, fact: Callable[[], Awaitable[bool]], *, workers: int = 1) -> None:
    """Run real workers until the fact holds."""
    running = [Worker(world.services) for _ in range(workers)]
    tasks = [asyncio.create_task(worker.run()) for worker in running]
    try:
        await until(fact)
    finally:
        for worker in running:
            worker.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 60)


def test_a_started_step_runs_after_the_commit_and_is_over_when_it_says_so(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return None

    toybox.services.jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a"))

    async def ran() -> bool:
        found = await row(toybox.services)
        return found.runs == 1 and found.next_step_at is None

    toybox.run(working(toybox, ran))


def test_a_step_that_runs_on_keeps_its_row_until_there_is_nothing_more(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return timedelta(0) if (await row(services, toy)).runs < 4 else None

    toybox.services.jobs.register("toy", toys, step, runs_on=True)
    toybox.run(add(toybox, "a"))
    assert toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))
    after = toybox.run(row(toybox.services))
    assert (after.runs, after.next_step_at, after.step_lease_until) == (4, None, None)


def test_a_step_that_runs_on_without_end_gives_its_row_back_and_starts_again(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return timedelta(0)

    toybox.services.jobs.register("toy", toys, step, runs_on=True)
    toybox.run(add(toybox, "a"))
    assert toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))
    after = toybox.run(row(toybox.services))
    assert 1 < after.runs < 100
    assert after.step_lease_until is None
    assert after.next_step_at is not None


def test_a_step_that_runs_on_gives_its_row_back_when_half_of_its_lease_is_over(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        toybox.clock.move(services.jobs.lease * 0.3)
        return timedelta(0)

    toybox.services.jobs.register("toy", toys, step, runs_on=True)
    toybox.run(add(toybox, "a"))
    assert toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))
    assert toybox.run(row(toybox.services)).runs == 2


def test_other_steps_give_their_row_back_after_each_run(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return timedelta(0)

    toybox.services.jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a"))
    assert toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))
    assert toybox.run(row(toybox.services)).runs == 1


def test_a_step_started_in_a_transaction_that_rolls_back_never_runs(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return None

    toybox.services.jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a", "b", start=False))

    async def roll_back() -> None:
        async with toybox.services.db.begin() as tx:
            await toybox.services.jobs.start(tx, "toy", "a")
            raise ZeroDivisionError

    async def start_b() -> None:
        async with toybox.services.db.begin() as tx:
            await toybox.services.jobs.start(tx, "toy", "b")

    with pytest.raises(ZeroDivisionError):
        toybox.run(roll_back())
    toybox.run(start_b())

    async def b_ran() -> bool:
        return bool((await row(toybox.services, "b")).runs)

    toybox.run(working(toybox, b_ran))
    assert toybox.run(row(toybox.services, "a")).runs == 0


def test_a_due_row_whose_job_was_lost_is_found_by_the_sweeper(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return None

    toybox.services.jobs.register("toy", toys, step)

    async def lose() -> None:
        await add(toybox, "a")
        async with toybox.services.db.begin() as tx:
            await tx.execute(sa.text("DELETE FROM pgqueuer"))
            await tx.execute(sa.update(toys).values(next_step_at=toybox.clock.now()))

    toybox.run(lose())

    async def ran() -> bool:
        return bool((await row(toybox.services)).runs)

    toybox.run(working(toybox, ran))


def test_two_workers_never_run_one_row_together(toybox: World) -> None:
    inside, most = 0, 0

    async def step(services: Services, toy: str) -> Next:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await count_run(services, toy)
        inside -= 1
        return timedelta(0) if (await row(services, toy)).runs < 20 else None

    toybox.services.jobs.register("toy", toys, step)

    async def start_twice() -> None:
        await add(toybox, "a")
        async with toybox.services.db.begin() as tx:
            await toybox.services.jobs.start(tx, "toy", "a")

    toybox.run(start_twice())

    async def done() -> bool:
        return (await row(toybox.services)).runs >= 20

    toybox.run(working(toybox, done, workers=3))
    assert most == 1


def test_a_row_held_by_another_worker_is_not_claimed_until_its_lease_runs_out(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return None

    jobs = toybox.services.jobs
    jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a"))

    async def held() -> None:
        async with toybox.services.db.begin() as tx:
            await tx.execute(sa.update(toys).values(step_lease_until=toybox.clock.now() + jobs.lease))

    toybox.run(held())
    assert not toybox.run(jobs.run_step(toybox.services, "toy", "a"))
    toybox.clock.move(jobs.lease)
    assert toybox.run(jobs.run_step(toybox.services, "toy", "a"))
    assert toybox.run(row(toybox.services)).runs == 1


def test_a_lease_from_a_clock_that_was_a_year_ahead_does_not_hold_the_row_for_a_year(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return None

    toybox.services.jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a"))

    async def from_the_future() -> None:
        async with toybox.services.db.begin() as tx:
            await tx.execute(sa.update(toys).values(step_lease_until=toybox.clock.now() + timedelta(days=365)))

    toybox.run(from_the_future())
    assert toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))


def test_again_keeps_the_reason_and_the_time_on_the_row(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        raise Again(timedelta(minutes=5), Refused("not_yet", "Not yet.", fix="Wait."))

    toybox.services.jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a"))
    toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))
    found = toybox.run(row(toybox.services))
    assert found.next_step_at == toybox.clock.now() + timedelta(minutes=5)
    assert found.step_problem["code"] == "not_yet"
    assert found.step_attempts == 1
    assert found.step_lease_until is None


def test_a_mistake_in_a_step_is_retried_later_and_said_to_be_internal(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        raise ZeroDivisionError("secret detail")

    toybox.services.jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a"))
    for _ in range(3):
        toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))
    found = toybox.run(row(toybox.services))
    assert found.step_attempts == 3
    assert found.step_problem == {"code": "internal", "message": "An internal error; see the log."}
    assert found.next_step_at > toybox.clock.now()


def test_success_clears_what_went_wrong_before(toybox: World) -> None:
    fail = True

    async def step(services: Services, toy: str) -> Next:
        if fail:
            raise Refused("no", "No.", fix="Later.")
        return timedelta(hours=1)

    toybox.services.jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a"))
    toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))
    fail = False
    toybox.run(toybox.services.jobs.run_step(toybox.services, "toy", "a"))
    found = toybox.run(row(toybox.services))
    assert (found.step_attempts, found.step_problem) == (0, None)
    assert found.next_step_at == toybox.clock.now() + timedelta(hours=1)


def test_drain_runs_everything_due_and_leaves_what_is_not(toybox: World) -> None:
    async def step(services: Services, toy: str) -> Next:
        await count_run(services, toy)
        return timedelta(days=1)

    toybox.services.jobs.register("toy", toys, step)
    toybox.run(add(toybox, "a", "b"))
    toybox.run(drain(toybox.services))
    assert toybox.run(row(toybox.services, "a")).runs == 1
    toybox.later(days=1)
    toybox.run(drain(toybox.services))
    assert toybox.run(row(toybox.services, "b")).runs == 2


def test_backoff_grows_to_an_hour_and_varies() -> None:
    assert timedelta(seconds=4) <= backoff(1) <= timedelta(seconds=6)
    assert timedelta(minutes=48) <= backoff(50) <= timedelta(minutes=72)
    assert len({backoff(3) for _ in range(10)}) > 1


def test_a_step_name_is_registered_once() -> None:
    from certwright.kernel.clock import SystemClock

    jobs = Jobs(SystemClock(), lease=timedelta(seconds=1))

    async def step(services: Services, toy: str) -> Next:
        return None

    jobs.register("toy", toys, step)
    with pytest.raises(RuntimeError, match="registered twice"):
        jobs.register("toy", toys, step)
