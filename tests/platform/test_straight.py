"""Connections for single statements, without SQLAlchemy."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
import sqlalchemy as sa

from certwright.platform.db import Database, Said
from tests.conftest import World

_HERE = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def _others(db: Database) -> set[int]:
    return {row["pid"] for row in await db.fetch(_HERE, [])}


async def _until(db: Database, connections: int, *, besides: set[int]) -> None:
    """Those that were there before may still be ending: a server notices late that a client hung up."""
    async with asyncio.timeout(60):
        while len(await _others(db) - besides) != connections:
            await asyncio.sleep(0.01)


def test_a_statement_that_was_given_up_leaves_its_connection_to_nobody(world: World) -> None:
    async def run() -> None:
        db, other = Database(world.services.db.dsn), Database(world.services.db.dsn)
        others = await _others(other)
        given_up = [asyncio.create_task(db.fetch("SELECT pg_sleep(0.5)", [])) for _ in range(4)]
        waiting = asyncio.create_task(db.fetch("SELECT 1", []))
        await _until(other, 4, besides=others)
        for task in (*given_up, waiting):
            task.cancel()
        await asyncio.gather(*given_up, waiting, return_exceptions=True)
        assert [(await db.fetch("SELECT $1::int AS n", [n]))[0]["n"] for n in range(8)] == list(range(8))
        await db.close()
        await _until(other, 0, besides=others)
        await other.close()

    world.run(run())


def test_a_connection_that_is_given_up_while_it_is_made_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        db = Database(world.services.db.dsn)
        others = await _others(db)
        held = [asyncio.create_task(db.fetch("SELECT pg_sleep(0.5)", []))]
        entered = asyncio.Event()

        async def never(*_: object, **__: object) -> None:
            entered.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.Connection, "set_type_codec", never)
            made = asyncio.create_task(db.fetch("SELECT 1", []))
            await entered.wait()
            made.cancel()
            await asyncio.gather(made, return_exceptions=True)
        await asyncio.gather(*held)
        await _until(db, 0, besides=others)
        await db.close()

    world.run(run())


def test_what_is_under_way_when_all_is_closed_ends_with_its_connection(world: World) -> None:
    async def run() -> None:
        db, other = Database(world.services.db.dsn), Database(world.services.db.dsn)
        others = await _others(other)
        under_way = asyncio.create_task(db.fetch("SELECT pg_sleep(0.2), 7 AS n", []))
        await _until(other, 1, besides=others)
        await db.close()
        assert (await under_way)[0]["n"] == 7
        await _until(other, 0, besides=others)
        await other.close()

    world.run(run())


def test_a_parameter_that_is_forgotten_is_no_null(world: World) -> None:
    said = Said(sa.select(sa.bindparam("given", type_=sa.Text()), sa.literal(1).label("one")))

    assert world.run(said.row(world.services.db, given="x")).one == 1
    with pytest.raises(KeyError):
        world.run(said.row(world.services.db))
