"""Alembic's entry: runs revisions on the connection `platform.migrations` hands over."""

from alembic import context

from certwright.platform.db import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
