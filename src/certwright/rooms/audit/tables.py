"""The audit log's tables: events that can only be added, the queue of events not sealed yet, and the chain."""

from __future__ import annotations

import sqlalchemy as sa

from certwright.platform.db import at_column, id_column, json_column, metadata

audit_events = sa.Table(
    "audit_events",
    metadata,
    id_column(primary_key=True),
    at_column("at", nullable=False),
    # No foreign keys: what was done outlives the project, the user and the object it was done to.
    id_column("account_id", nullable=False),
    id_column("project_id"),
    sa.Column("actor_kind", sa.Text, nullable=False),
    id_column("actor_id", nullable=False),
    sa.Column("actor_name", sa.Text, nullable=False),
    id_column("user_id"),
    sa.Column("request_id", sa.Text),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("object_type", sa.Text, nullable=False),
    id_column("object_id", nullable=False),
    json_column("before"),
    json_column("after"),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Index("ix_audit_events_account", "account_id", "id"),
    sa.Index("ix_audit_events_object", "account_id", "object_id", "id"),
    info={"resource": "audit"},
)

audit_unsealed = sa.Table(
    "audit_unsealed",
    metadata,
    id_column("event_id", primary_key=True),
)
"""Written together with each event, emptied by the sealing chore: a transaction that commits late is sealed late."""

audit_chain = sa.Table(
    "audit_chain",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    id_column("event_id", nullable=False, unique=True),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("position > 0 AND octet_length(hash) = 32", name="position_hash"),
)

_REFUSE_FUNCTION = """
CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log can only be added to (% on %)', TG_OP, TG_TABLE_NAME USING ERRCODE = '42501';
END $$
"""


def _guards(table: str) -> tuple[str, ...]:
    return (
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION audit_refuse_change()",
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()",
    )


GUARD_SQL: dict[str, tuple[str, ...]] = {
    table: (_REFUSE_FUNCTION, *_guards(table)) for table in ("audit_events", "audit_chain")
}
"""What a migration runs after creating each table: the database itself refuses to change or remove what was logged."""

for _table in (audit_events, audit_chain):
    for _statement in GUARD_SQL[_table.name]:
        sa.event.listen(_table, "after_create", sa.DDL(_statement.replace("%", "%%")))  # type: ignore[no-untyped-call]  # SQLAlchemy has no types there
