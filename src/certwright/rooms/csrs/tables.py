"""Signing requests kept on their own."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, tenant_columns
from certwright.rooms.csrs.words import Origin

_ORIGINS = ", ".join(f"'{origin.value}'" for origin in Origin)

csrs = sa.Table(
    "csrs",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.CheckConstraint(f"origin IN ({_ORIGINS})", "origin"),
    # What the request says, read when it was stored.
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    json_column("subject", nullable=False),
    sa.Column("key_algorithm", sa.Text, nullable=False),
    sa.Column("spki_sha256", sa.Text, nullable=False),
    sa.Column("csr_der", sa.LargeBinary, nullable=False),
    # NULL when only the request was uploaded.
    id_column("key_id", sa.ForeignKey("private_keys.id")),
    sa.Column("search_text", sa.Text, nullable=False),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.CheckConstraint("origin = 'uploaded' OR key_id IS NOT NULL", "generated_has_key"),
    sa.UniqueConstraint("account_id", "name"),
    sa.Index("ix_csrs_newest", "account_id", "id"),
    sa.Index("ix_csrs_search", "search_text", postgresql_using="gin", postgresql_ops={"search_text": "gin_trgm_ops"}),
)
