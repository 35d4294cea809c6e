"""Private keys of certificates. The keys of certificate authorities are not here: only their signer reaches them."""

from __future__ import annotations

import sqlalchemy as sa

from certwright.platform.db import at_column, id_column, metadata, tenant_columns

private_keys = sa.Table(
    "private_keys",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("algorithm", sa.Text, nullable=False),
    sa.Column("spki_sha256", sa.Text, nullable=False),
    sa.Column("sealed", sa.LargeBinary),
    sa.Column("origin", sa.Text, nullable=False),
    sa.CheckConstraint("origin IN ('generated', 'uploaded')", "origin"),
    at_column("created_at", nullable=False),
    at_column("erased_at"),
    sa.CheckConstraint("(sealed IS NULL) = (erased_at IS NOT NULL)", "erased"),
    sa.Index("ix_private_keys_spki", "account_id", "spki_sha256"),
)
