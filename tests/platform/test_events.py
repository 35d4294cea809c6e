"""Events: told with the change or not at all, to every listener, until each has heard."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from certwright.platform.events import Event, events
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
