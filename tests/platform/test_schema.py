"""The database the migrations make is the one the tables say."""

from __future__ import annotations

import sqlalchemy as sa

from certwright.platform.db import metadata
from tests.conftest import World

_PREPARER = sa.dialects.postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]  # as SQLAlchemy has it


def read(world: World, query: str) -> set[str]:
    async def go() -> set[str]:
        async with world.services.db.begin() as tx:
            return {str(row[0]) for row in await tx.execute(sa.text(query))}

    return world.run(go())


def test_every_promise_of_the_tables_is_kept_by_the_database(world: World) -> None:
    there = read(world, "SELECT conname FROM pg_constraint")
    told = {
        f"{table.name}: {_PREPARER.format_constraint(constraint)}"
        for table in metadata.sorted_tables
        for constraint in table.constraints
        if constraint.name
    }
    assert {name for name in told if name.split(": ")[1].strip('"') not in there} == set()


def test_no_column_hides_a_check_of_its_own() -> None:
    # What is written inside a column is not made by migrations.
    hidden = [column for table in metadata.sorted_tables for column in table.columns if column.constraints]
    assert hidden == []


def test_every_column_and_index_of_the_tables_is_in_the_database(world: World) -> None:
    columns = read(world, "SELECT table_name || '.' || column_name FROM information_schema.columns")
    told = {f"{table.name}.{column.name}" for table in metadata.sorted_tables for column in table.columns}
    assert told - columns == set()
    indexes = read(world, "SELECT indexname FROM pg_indexes")
    assert {str(index.name) for table in metadata.sorted_tables for index in table.indexes} - indexes == set()
