"""Alembic's entry: runs revisions on the connection `platform.migrations` hands over."""

from __future__ import annotations

from typing import Any

from alembic import context

from certwright.platform.db import metadata


def _is_ours(thing: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    # PgQueuer looks after its own tables.
    return not (kind == "table" and reflected and name not in metadata.tables)


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
    include_object=_is_ours,
)
with context.begin_transaction():
    context.run_migrations()
