"""What was found when a certificate was uploaded, and what an account admits."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, tenant_columns

uploads = sa.Table(
    "uploads",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("certificate_id", sa.ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False, index=True),
    id_column("version_id", sa.ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, unique=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("strict", sa.Boolean, nullable=False),
    sa.Column("repaired", ARRAY(sa.Text), nullable=False),
    json_column("findings", nullable=False),
    at_column("created_at", nullable=False),
    info={"resource": "certificate", "resource_id": "certificate_id"},
)

# No row: as strict as everybody.
upload_policies = sa.Table(
    "upload_policies",
    metadata,
    id_column("account_id", sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("legacy_rsa", sa.Boolean, nullable=False, server_default="false"),
    at_column("updated_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
)
