"""Events: told with the change or not at all, to every listener, until each has heard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
import sqlalchemy as sa

from certwright.platform.events import DELIVER, Event, events
from certwright.platform.services import Services
from tests.conftest import World


async def publish(world: World, kind: str = "toy.made", *, fail: bool = False) -> None:
    async with world.services.db.begin() as tx:
        await world.services.events.publish(
            tx, kind, account_id=world.account.id, object_id="toy_1", payload={"colour": "red"}
        )
        if fail:
            raise ZeroDivisionError


async def rows(world: World) -> list[sa.Row[tuple[object, ...]]]:
    async with world.services.db.begin() as tx:
        return list((await tx.execute(sa.select(events).where(events.c.kind.like("toy.%")))).all())


def test_every_listener_hears_what_happened_once(world: World) -> None:
    heard: list[tuple[str, Event]] = []

    def listener(name: str) -> None:
        async def hear(services: Services, event: Event) -> None:
            heard.append((name, event))

        world.services.events.subscribe("toy.made", name, hear)

    listener("one")
    listener("two")
    world.run(publish(world))
    world.drain()
    world.drain()
    assert [name for name, _ in heard] == ["one", "two"]
    assert heard[0][1].payload == {"colour": "red"}
    assert heard[0][1].object_id == "toy_1"


def test_what_rolls_back_is_never_told(world: World) -> None:
    heard = []

    async def hear(services: Services, event: Event) -> None:
        heard.append(event)

    world.services.events.subscribe("toy.made", "one", hear)
    with pytest.raises(ZeroDivisionError):
        world.run(publish(world, fail=True))
    world.drain()
    assert heard == []


def test_a_listener_that_fails_hears_it_again_and_the_others_do_not(world: World) -> None:
    heard: list[str] = []
    broken = True

    async def stubborn(services: Services, event: Event) -> None:
        if broken:
            raise ZeroDivisionError
        heard.append("stubborn")

    async def good(services: Services, event: Event) -> None:
        heard.append("good")

    world.services.events.subscribe("toy.made", "stubborn", stubborn)
    world.services.events.subscribe("toy.made", "good", good)
    world.run(publish(world))
    world.drain()
    assert set(heard) == {"good"}
    broken = False
    world.later(hours=2)
    world.drain()
    assert heard.count("stubborn") == 1
    assert heard.count("good") == 1


def test_nobody_listening_leaves_no_row(world: World) -> None:
    world.run(publish(world, "toy.nobody_cares"))
    assert world.run(rows(world)) == []


def test_delivered_events_are_forgotten_after_a_week(world: World) -> None:
    from certwright.platform.events import forget_delivered

    async def hear(services: Services, event: Event) -> None:
        return

    world.services.events.subscribe("toy.made", "one", hear)
    world.run(publish(world))
    world.drain()
    world.clock.move(timedelta(days=6))
    world.run(forget_delivered(world.services))
    assert len(world.run(rows(world))) == 1
    world.clock.move(timedelta(days=2))
    world.run(forget_delivered(world.services))
    assert world.run(rows(world)) == []


async def deliver(world: World, event_id: str) -> bool:
    return await world.services.jobs.run_step(world.services, DELIVER, event_id)


def crowd(world: World, size: int, kind: str = "toy.crowd") -> list[str]:
    """Ids of events published together."""

    async def publish_crowd() -> None:
        async with world.services.db.begin() as tx:
            await world.services.events.publish_many(
                tx, kind, [(world.account.id, f"toy_{number}", {}) for number in range(size)]
            )

    world.run(publish_crowd())
    return sorted(str(row.id) for row in world.run(rows(world)) if row.delivered_at is None)


def test_events_that_wait_together_are_told_together_and_once(world: World) -> None:
    told: list[list[str]] = []

    async def hear(services: Services, batch: Sequence[Event]) -> None:
        told.append([event.object_id for event in batch])

    world.services.events.subscribe_batch("toy.crowd", "one", hear)
    ids = crowd(world, 130)
    for event_id in ids:
        world.run(deliver(world, event_id))
    assert [len(batch) for batch in told] == [100, 30]
    assert len({object_id for batch in told for object_id in batch}) == 130
    assert all(row.delivered_at and row.next_step_at is None for row in world.run(rows(world)))


def test_a_crowd_larger_than_one_batch_needs_no_other_job_than_the_first(world: World) -> None:
    told: list[int] = []

    async def hear(services: Services, batch: Sequence[Event]) -> None:
        told.append(len(batch))

    async def left() -> list[str]:
        """Events with a job in the queue."""
        async with world.services.db.read() as tx:
            return [bytes(row.payload).decode() for row in await tx.execute(sa.text("SELECT payload FROM pgqueuer"))]

    async def forget_jobs() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.text("DELETE FROM pgqueuer"))

    world.services.events.subscribe_batch("toy.crowd", "one", hear)
    first = crowd(world, 230)[0]
    world.run(forget_jobs())
    waiting = [first]
    while waiting:
        for event_id in waiting:
            world.run(deliver(world, event_id))
        waiting = world.run(left())
        world.run(forget_jobs())
    assert told == [100, 100, 30]


def test_other_kinds_are_not_taken_along(world: World) -> None:
    told: list[str] = []

    async def hear(services: Services, batch: Sequence[Event]) -> None:
        told.extend(event.kind for event in batch)

    for kind in ("toy.crowd", "toy.else"):
        world.services.events.subscribe_batch(kind, "one", hear)
    first, *_ = crowd(world, 2)
    crowd(world, 2, "toy.else")
    world.run(deliver(world, first))
    assert told == ["toy.crowd", "toy.crowd"]


def test_a_batch_with_a_failure_falls_apart_and_the_good_ones_are_told(world: World) -> None:
    heard: list[str] = []
    deaf_to = {"toy_3"}

    async def hear(services: Services, batch: Sequence[Event]) -> None:
        if deaf_to & {event.object_id for event in batch}:
            raise ZeroDivisionError
        heard.extend(event.object_id for event in batch)

    world.services.events.subscribe_batch("toy.crowd", "one", hear)
    ids = crowd(world, 5)
    world.run(deliver(world, ids[0]))
    assert heard == []
    world.later(hours=2)
    world.drain()
    assert sorted(heard) == ["toy_0", "toy_1", "toy_2", "toy_4"]
    deaf_to.clear()
    world.later(hours=2)
    world.drain()
    assert sorted(heard) == ["toy_0", "toy_1", "toy_2", "toy_3", "toy_4"]


def test_events_of_a_killed_worker_are_told_by_the_next_when_its_lease_ends(world: World) -> None:
    async def killed(services: Services, batch: Sequence[Event]) -> None:
        raise KeyboardInterrupt

    world.services.events.subscribe_batch("toy.crowd", "one", killed)
    ids = crowd(world, 3)
    with pytest.raises(KeyboardInterrupt):
        world.run(deliver(world, ids[0]))
    told: list[str] = []

    async def hear(services: Services, batch: Sequence[Event]) -> None:
        told.extend(event.object_id for event in batch)

    world.services.events.subscribe_batch("toy.crowd", "one", hear)
    assert not world.run(deliver(world, ids[1]))
    world.later(seconds=world.services.settings.step_lease + 1)
    world.run(deliver(world, ids[1]))
    assert sorted(told) == ["toy_0", "toy_1", "toy_2"]


def test_a_job_for_an_event_told_already_takes_care_of_what_waits(world: World) -> None:
    told: list[list[str]] = []

    async def hear(services: Services, batch: Sequence[Event]) -> None:
        told.append([event.object_id for event in batch])

    world.services.events.subscribe_batch("toy.crowd", "one", hear)
    first, _ = crowd(world, 2)
    world.run(deliver(world, first))
    crowd(world, 1)
    world.run(deliver(world, first))
    assert [len(batch) for batch in told] == [2, 1]
