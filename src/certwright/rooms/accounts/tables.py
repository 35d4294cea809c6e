"""Tenants and the people in them: accounts, projects, users, groups, sessions, tokens and one-time links."""

from __future__ import annotations

import sqlalchemy as sa

from certwright.platform.db import at_column, id_column, metadata


def _account() -> sa.Column[str]:
    return id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False)


accounts = sa.Table(
    "accounts",
    metadata,
    id_column(primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    at_column("set_up_at"),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
)

projects = sa.Table(
    "projects",
    metadata,
    id_column(primary_key=True),
    _account(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("is_default", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    # A project belongs to itself: what is granted in a project holds for it.
    info={"project": "id"},
)
sa.Index("uq_projects_name", projects.c.account_id, sa.func.lower(projects.c.name), unique=True)
sa.Index("uq_projects_default", projects.c.account_id, unique=True, postgresql_where=projects.c.is_default)

users = sa.Table(
    "users",
    metadata,
    id_column(primary_key=True),
    _account(),
    # In lower case; unique everywhere, because signing in names no account.
    sa.Column("email", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text),
    at_column("disabled_at"),
    at_column("last_sign_in_at"),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    sa.Index("ix_users_account", "account_id", "id"),
    sa.CheckConstraint("email = lower(email)", name="email_lower"),
)

groups = sa.Table(
    "groups",
    metadata,
    id_column(primary_key=True),
    _account(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
)
sa.Index("uq_groups_name", groups.c.account_id, sa.func.lower(groups.c.name), unique=True)

group_members = sa.Table(
    "group_members",
    metadata,
    id_column("group_id", sa.ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    id_column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
)

sessions = sa.Table(
    "sessions",
    metadata,
    id_column(primary_key=True),
    id_column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("user_agent", sa.Text, nullable=False),
    at_column("created_at", nullable=False),
    at_column("last_seen_at", nullable=False),
    at_column("expires_at", nullable=False),
)

api_tokens = sa.Table(
    "api_tokens",
    metadata,
    id_column(primary_key=True),
    _account(),
    id_column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    # References of policies that narrow the token; NULL: everything its user may do.
    sa.Column("policies", sa.ARRAY(sa.Text)),
    at_column("expires_at", nullable=False),
    at_column("last_used_at"),
    at_column("revoked_at"),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    sa.Index("ix_api_tokens_account", "account_id", "id"),
    info={"resource": "token"},
)

one_time_links = sa.Table(
    "one_time_links",
    metadata,
    id_column(primary_key=True),
    _account(),
    sa.Column("kind", sa.Text, nullable=False),
    id_column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE")),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False, unique=True),
    at_column("expires_at", nullable=False),
    at_column("used_at"),
    at_column("created_at", nullable=False),
    sa.CheckConstraint(
        "(kind = 'setup' AND user_id IS NULL) OR (kind = 'password' AND user_id IS NOT NULL)", name="kind"
    ),
)

sign_in_failures = sa.Table(
    "sign_in_failures",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    at_column("since", nullable=False),
    at_column("blocked_until"),
)
