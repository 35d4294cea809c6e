"""Custom policies and what is attached to whom. System policies are data in `system.py`, not rows."""

from __future__ import annotations

import sqlalchemy as sa

from certwright.platform.db import at_column, id_column, json_column, metadata

policies = sa.Table(
    "policies",
    metadata,
    id_column(primary_key=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    json_column("document", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    info={"resource": "policy"},
)
sa.Index("uq_policies_name", policies.c.account_id, sa.func.lower(policies.c.name), unique=True)

policy_attachments = sa.Table(
    "policy_attachments",
    metadata,
    id_column(primary_key=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    # Exactly one of: a row of policies, or the id of a system policy.
    id_column("policy_id", sa.ForeignKey("policies.id")),
    sa.Column("system_policy", sa.Text),
    id_column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE")),
    id_column("group_id", sa.ForeignKey("groups.id", ondelete="CASCADE")),
    id_column("scope_project_id", sa.ForeignKey("projects.id")),
    at_column("created_at", nullable=False),
    sa.CheckConstraint("num_nonnulls(policy_id, system_policy) = 1", name="one_policy"),
    sa.CheckConstraint("num_nonnulls(user_id, group_id) = 1", name="one_holder"),
    sa.Index("ix_policy_attachments_user", "user_id", postgresql_where=sa.text("user_id IS NOT NULL")),
    sa.Index("ix_policy_attachments_group", "group_id", postgresql_where=sa.text("group_id IS NOT NULL")),
    sa.Index("ix_policy_attachments_policy", "policy_id", postgresql_where=sa.text("policy_id IS NOT NULL")),
    sa.Index(
        "uq_policy_attachments_once", "policy_id", "system_policy", "user_id", "group_id", "scope_project_id",
        unique=True, postgresql_nulls_not_distinct=True,
    ),
    info={"resource": "attachment"},
)  # fmt: skip
