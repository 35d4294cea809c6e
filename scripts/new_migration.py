"""Write the next Alembic revision from the difference between the rooms' tables and a database at the last revision.

Starts a throw-away PostgreSQL of its own. Read what it wrote before committing: extensions, triggers and data moves are
yours to add. Usage: python scripts/new_migration.py "what changes"
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from certwright.entry import wiring
from certwright.platform.db import Database
from certwright.platform.migrations import migrate
from certwright.platform.postgres import EmbeddedPostgres

SCHEMA = Path(__file__).resolve().parent.parent / "src" / "certwright" / "platform" / "schema"


def _write(connection: sa.Connection, message: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SCHEMA))
    config.attributes["connection"] = connection
    number = f"{len(list((SCHEMA / 'versions').glob('[0-9]*.py'))) + 1:04d}"
    command.revision(config, message, autogenerate=True, rev_id=number)


async def main(message: str) -> None:
    assert wiring.ROOMS, "the rooms' tables are in the metadata once they are imported"
    with tempfile.TemporaryDirectory() as directory:
        cluster = EmbeddedPostgres(Path(directory) / "postgres", durable=False)
        db = Database((await cluster.start()).url)
        try:
            await migrate(db)
            async with db.engine.connect() as connection:
                await connection.run_sync(lambda c: _write(c, message))
        finally:
            await db.close()
            await cluster.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
