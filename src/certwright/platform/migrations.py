"""Bring a database to the schema of this release: Alembic revisions in `platform/schema`, and PgQueuer's own tables.

Run by one process at a time (advisory lock), so that N web and N worker processes may start together.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.queries import Queries

from certwright.kernel.problems import Unavailable
from certwright.platform.db import Database

_LOCK = 0x63657274  # "cert"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("certwright.platform") / "schema"))
    return config


@lru_cache(maxsize=1)
def _head() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def is_current(db: Database) -> bool:
    """Whether the database has this release's schema."""
    async with db.begin() as tx:
        return await tx.run_sync(_revision) == _head()


async def migrate(db: Database) -> None:
    """Upgrade to the newest revision; raises Unavailable `schema_newer` if the database belongs to a later release."""
    async with db.engine.connect() as connection:
        await connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        await connection.commit()
        try:
            current = await connection.run_sync(_revision)
            await connection.commit()
            if current != _head():
                await connection.run_sync(_upgrade)
                await connection.commit()
            raw = await connection.get_raw_connection()
            queries = Queries(AsyncpgDriver(_asyncpg(raw)))
            if not await queries.schema_is_installed():
                await queries.install()
        finally:
            # What failed may have left its transaction broken; the unlock must not hide the reason.
            await connection.rollback()
            await connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            await connection.commit()


def _asyncpg(raw: Any) -> Any:
    return raw.driver_connection


def _upgrade(connection: sa.Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    current = _revision(connection)
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise Unavailable(
            "schema_newer",
            "The database was made by a later release of Certwright.",
            fix="Start that release, or restore a backup made by this one.",
        )
    command.upgrade(config, "head")
