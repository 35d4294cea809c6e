"""Directories for ACME clients, their keys for binding, accounts, orders, authorizations, and the nonces in use."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns

# One ACME service of one CA. What is issued through it belongs to its project, or to that of the key for binding.
acme_directories = sa.Table(
    "acme_directories",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("authority_id", sa.ForeignKey("authorities.id"), nullable=False),
    # Part of every address clients keep, so it never changes.
    sa.Column("slug", sa.Text(collation="C"), nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("eab_required", sa.Boolean, nullable=False, server_default=sa.true()),
    # Patterns of names that may be ordered; empty: whatever the project's policy allows.
    sa.Column("allowed_names", ARRAY(sa.Text), nullable=False, server_default="{}"),
    # Kinds of certificates a client may name; the first is the usual one.
    sa.Column("profiles", ARRAY(sa.Text), nullable=False),
    sa.CheckConstraint("cardinality(profiles) BETWEEN 1 AND 20", "profiles"),
    sa.Column("challenges", ARRAY(sa.Text), nullable=False),
    sa.CheckConstraint(
        "cardinality(challenges) > 0 AND challenges <@ ARRAY['http-01', 'dns-01', 'tls-alpn-01']", "challenges"
    ),
    # Lives of certificates in days; empty: the profile's usual one.
    sa.Column("days", sa.Integer),
    sa.CheckConstraint("days BETWEEN 1 AND 3650", "days"),
    # How long a proof of control is good for further orders, in days; 0: each order proves anew.
    sa.Column("reuse_days", sa.Integer, nullable=False, server_default="0"),
    sa.CheckConstraint("reuse_days BETWEEN 0 AND 30", "reuse_days"),
    sa.Column("terms_url", sa.Text),
    sa.Column("website", sa.Text),
    at_column("disabled_at"),
    at_column("created_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.Index("ix_acme_directories_authority", "authority_id"),
    info={"resource": "acme-directory"},
)

# Which account's an address part is, for good: what clients keep must not lead them to a stranger's CA one day.
acme_slugs = sa.Table(
    "acme_slugs",
    metadata,
    sa.Column("slug", sa.Text(collation="C"), primary_key=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    at_column("created_at", nullable=False),
)

# Keys for external account binding (RFC 8555 section 7.3.4); the id is what clients call the key id.
acme_eab_keys = sa.Table(
    "acme_eab_keys",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("directory_id", sa.ForeignKey("acme_directories.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("sealed", sa.LargeBinary),
    sa.Column("allowed_names", ARRAY(sa.Text), nullable=False, server_default="{}"),
    # Binds any number of accounts, not just one.
    sa.Column("reusable", sa.Boolean, nullable=False),
    at_column("expires_at"),
    at_column("used_at"),
    at_column("revoked_at"),
    at_column("created_at", nullable=False),
    sa.CheckConstraint("(sealed IS NULL) = (revoked_at IS NOT NULL)", "revoked_is_erased"),
    sa.Index("ix_acme_eab_keys_directory", "directory_id", "id"),
)

acme_accounts = sa.Table(
    "acme_accounts",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("directory_id", sa.ForeignKey("acme_directories.id"), nullable=False),
    sa.Column("thumbprint", sa.Text(collation="C"), nullable=False),
    json_column("jwk", nullable=False),
    sa.Column("contacts", ARRAY(sa.Text), nullable=False, server_default="{}"),
    id_column("eab_key_id", sa.ForeignKey("acme_eab_keys.id")),
    at_column("terms_agreed_at"),
    at_column("created_at", nullable=False),
    at_column("deactivated_at"),
    # By the client itself (deactivated), or by somebody here (revoked): RFC 8555 section 7.1.6.
    sa.Column("revoked", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("directory_id", "thumbprint"),
    sa.Index("ix_acme_accounts_directory", "directory_id", "id"),
    sa.Index("ix_acme_accounts_eab_key", "eab_key_id", postgresql_where=sa.text("eab_key_id IS NOT NULL")),
)

# One name an account shows that it controls, with the one token that all its challenges share.
acme_authorizations = sa.Table(
    "acme_authorizations",
    metadata,
    id_column(primary_key=True),
    id_column("acme_account_id", sa.ForeignKey("acme_accounts.id"), nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("value", sa.Text(collation="C"), nullable=False),
    sa.Column("wildcard", sa.Boolean, nullable=False),
    sa.Column("token", sa.Text(collation="C"), nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    sa.CheckConstraint("status IN ('pending', 'valid', 'invalid', 'deactivated')", "status"),
    # The kind of challenge the client asked to have looked at, how often it was, and what was wrong.
    sa.Column("challenge", sa.Text),
    sa.Column("looks", sa.Integer, nullable=False, server_default="0"),
    json_column("error"),
    at_column("validated_at"),
    at_column("created_at", nullable=False),
    at_column("expires_at", nullable=False),
    *step_columns(),
    sa.CheckConstraint("status NOT IN ('valid', 'invalid') OR challenge IS NOT NULL", "challenge"),
    sa.CheckConstraint("(status = 'valid') <= (validated_at IS NOT NULL)", "validated"),
    sa.Index(
        "ix_acme_authorizations_valid",
        "acme_account_id",
        "value",
        postgresql_where=sa.text("status = 'valid'"),
    ),
    sa.Index("ix_acme_authorizations_expired", "expires_at"),
    sa.Index("ix_acme_authorizations_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

acme_orders = sa.Table(
    "acme_orders",
    metadata,
    id_column(primary_key=True),
    id_column("acme_account_id", sa.ForeignKey("acme_accounts.id"), nullable=False),
    id_column("directory_id", sa.ForeignKey("acme_directories.id"), nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    sa.CheckConstraint("status IN ('pending', 'valid', 'invalid')", "status"),
    # Names as ordered, wildcards with their star; addresses among them.
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    sa.Column("authorization_ids", ARRAY(sa.Text(collation="C")), nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    # Whether the client named the profile: only then the order says so.
    sa.Column("profile_asked", sa.Boolean, nullable=False, server_default=sa.false()),
    # The certificate this order replaces, as RFC 9773 names it.
    sa.Column("replaces", sa.Text(collation="C")),
    id_column("issued_id", sa.ForeignKey("issued_certificates.id")),
    json_column("error"),
    at_column("created_at", nullable=False),
    at_column("expires_at", nullable=False),
    sa.CheckConstraint("(status = 'valid') = (issued_id IS NOT NULL)", "issued"),
    sa.Index("ix_acme_orders_account", "acme_account_id", "id"),
    sa.Index("ix_acme_orders_open", "acme_account_id", postgresql_where=sa.text("status = 'pending'")),
    sa.Index("ix_acme_orders_failed", "acme_account_id", "created_at", postgresql_where=sa.text("status = 'invalid'")),
    sa.Index("ix_acme_orders_directory", "directory_id", "id"),
    sa.Index("ix_acme_orders_names", "names", postgresql_using="gin"),
    sa.Index("uq_acme_orders_issued", "issued_id", unique=True, postgresql_where=sa.text("issued_id IS NOT NULL")),
    sa.Index(
        "uq_acme_orders_replaces",
        "directory_id",
        "replaces",
        unique=True,
        postgresql_where=sa.text("replaces IS NOT NULL AND status <> 'invalid'"),
    ),
    sa.Index("ix_acme_orders_expired", "expires_at", postgresql_where=sa.text("status <> 'valid'")),
)

# Both without a log, so a nonce costs no flush to disk. After a crash PostgreSQL empties them together: with the
# record of what was used goes the key, and every nonce given out before is refused.
acme_nonce_keys = sa.Table(
    "acme_nonce_keys",
    metadata,
    sa.Column("id", sa.Text(collation="C"), primary_key=True),
    sa.Column("key", sa.LargeBinary, nullable=False),
    at_column("created_at", nullable=False),
    prefixes=["UNLOGGED"],
)

acme_used_nonces = sa.Table(
    "acme_used_nonces",
    metadata,
    sa.Column("nonce", sa.Text(collation="C"), primary_key=True),
    at_column("used_at", nullable=False),
    sa.Index("ix_acme_used_nonces_at", "used_at"),
    prefixes=["UNLOGGED"],
)
