"""Certificate authorities, their keys, what they issued, and their revocation lists."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, metadata, step_columns, tenant_columns

# Only rooms/authorities/signer.py reads `sealed`; nothing returns it.
ca_keys = sa.Table(
    "ca_keys",
    metadata,
    id_column(primary_key=True),
    sa.Column("algorithm", sa.Text, nullable=False),
    sa.Column("spki_sha256", sa.Text, nullable=False, unique=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    at_column("created_at", nullable=False),
)

authorities = sa.Table(
    "authorities",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.CheckConstraint("kind IN ('root', 'issuing')", "kind"),
    sa.Column("builtin", sa.Boolean, nullable=False),
    id_column("parent_id", sa.ForeignKey("authorities.id")),
    id_column("ca_key_id", sa.ForeignKey("ca_keys.id"), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("key_algorithm", sa.Text, nullable=False),
    sa.Column("serial", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("certificate_der", sa.LargeBinary, nullable=False),
    at_column("not_before", nullable=False),
    at_column("not_after", nullable=False),
    at_column("created_at", nullable=False),
    at_column("disabled_at"),
    at_column("revoked_at"),
    sa.Column("crl_days", sa.Integer, nullable=False),
    sa.CheckConstraint("crl_days BETWEEN 1 AND 30", "crl_days"),
    sa.Column("crl_number", sa.BigInteger, nullable=False, server_default="0"),
    # Rises with every revocation; a list that has seen less of them is out of date.
    sa.Column("revocations", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    *step_columns(),
    sa.CheckConstraint("(kind = 'root') = (parent_id IS NULL)", "parent"),
    # First start may be interrupted and repeated: one built-in root and one built-in issuing CA per account.
    sa.Index("uq_authorities_builtin", "account_id", "kind", unique=True, postgresql_where=sa.text("builtin")),
    sa.Index("ix_authorities_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
    info={"resource": "authority"},
)

issued_certificates = sa.Table(
    "issued_certificates",
    metadata,
    id_column(primary_key=True),
    id_column("authority_id", sa.ForeignKey("authorities.id"), nullable=False),
    *tenant_columns(),
    # Whoever asked: the same reference never yields two certificates.
    sa.Column("reference", sa.Text, nullable=False, unique=True),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("serial", sa.Text, nullable=False),
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    sa.Column("der", sa.LargeBinary, nullable=False),
    at_column("not_before", nullable=False),
    at_column("not_after", nullable=False),
    at_column("issued_at", nullable=False),
    at_column("revoked_at"),
    sa.Column("revocation_reason", sa.Text),
    sa.UniqueConstraint("authority_id", "serial"),
    sa.Index("ix_issued_revoked", "authority_id", "not_after", postgresql_where=sa.text("revoked_at IS NOT NULL")),
)

crls = sa.Table(
    "crls",
    metadata,
    id_column("authority_id", sa.ForeignKey("authorities.id"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("der", sa.LargeBinary, nullable=False),
    sa.Column("revocations", sa.BigInteger, nullable=False),
    at_column("this_update", nullable=False),
    at_column("next_update", nullable=False),
)
