"""Recipients, messages on their way (the outbox), and which reminder was sent for which version."""

from __future__ import annotations

import sqlalchemy as sa

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns


def _account() -> sa.Column[str]:
    return id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False)


recipients = sa.Table(
    "recipients",
    metadata,
    id_column(primary_key=True),
    _account(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("locale", sa.Text, nullable=False, server_default="en"),
    # An unverified address gets the message with its code and nothing else.
    at_column("verified_at"),
    sa.Column("code_hash", sa.LargeBinary),
    at_column("code_until"),
    sa.Column("code_tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    sa.UniqueConstraint("account_id", "email"),
    sa.Index("ix_recipients_account", "account_id", "id"),
)

messages = sa.Table(
    "messages",
    metadata,
    id_column(primary_key=True),
    _account(),
    # What makes it this message: the same key is never a second one.
    sa.Column("dedupe_key", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    id_column("object_id", nullable=False),
    id_column("recipient_id", sa.ForeignKey("recipients.id", ondelete="SET NULL"), index=True),
    sa.Column("to_name", sa.Text, nullable=False),
    sa.Column("to_address", sa.Text, nullable=False),
    sa.Column("locale", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("html", sa.Text, nullable=False),
    at_column("created_at", nullable=False),
    # Set before the channel is called; a worker that dies in between leaves it set.
    at_column("trying_since"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("in_doubt", sa.Integer, nullable=False, server_default="0"),
    at_column("sent_at"),
    sa.Column("reply", sa.Text),
    at_column("failed_at"),
    json_column("failure"),
    *step_columns(),
    sa.UniqueConstraint("account_id", "dedupe_key"),
    sa.CheckConstraint("sent_at IS NULL OR failed_at IS NULL", "one_end"),
    sa.Index("ix_messages_account", "account_id", "id"),
    sa.Index("ix_messages_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

expiring_versions = sa.Table(
    "expiring_versions",
    metadata,
    # The version's own id.
    id_column(primary_key=True),
    id_column("certificate_id", nullable=False, index=True),
    *tenant_columns(),
    at_column("not_before", nullable=False),
    at_column("not_after", nullable=False),
    *step_columns(),
    sa.Index("ix_expiring_versions_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

notices = sa.Table(
    "notices",
    metadata,
    id_column("version_id", primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    at_column("at", nullable=False),
    # False: another reminder of the same moment stood for it.
    sa.Column("sent", sa.Boolean, nullable=False),
)
