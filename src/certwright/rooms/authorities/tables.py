"""Certificate authorities, their keys, what they issued, and their revocation lists."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns

# Only rooms/authorities/signer.py reads `sealed`; nothing returns it.
ca_keys = sa.Table(
    "ca_keys",
    metadata,
    id_column(primary_key=True),
    sa.Column("algorithm", sa.Text, nullable=False),
    sa.Column("spki_sha256", sa.Text, nullable=False, unique=True),
    sa.Column("sealed", sa.LargeBinary),
    at_column("created_at", nullable=False),
    at_column("erased_at"),
    sa.CheckConstraint("(sealed IS NULL) = (erased_at IS NOT NULL)", "erased"),
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
    sa.Column("origin", sa.Text, nullable=False, server_default="made"),
    sa.CheckConstraint("origin IN ('made', 'outside', 'imported')", "origin"),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("key_algorithm", sa.Text, nullable=False),
    sa.Column("hash_name", sa.Text, nullable=False, server_default="sha256"),
    sa.CheckConstraint("hash_name IN ('sha256', 'sha384', 'sha512')", "hash_name"),
    # What an outside parent signs; the columns of the certificate stay empty until it has.
    sa.Column("csr_der", sa.LargeBinary),
    sa.Column("serial", sa.Text),
    sa.Column("sha256", sa.Text),
    sa.Column("certificate_der", sa.LargeBinary),
    at_column("not_before"),
    at_column("not_after"),
    sa.CheckConstraint(
        "num_nulls(serial, sha256, certificate_der, not_before, not_after) IN (0, 5)", "whole_certificate"
    ),
    sa.CheckConstraint("certificate_der IS NOT NULL OR csr_der IS NOT NULL", "certificate_or_request"),
    # Certificates above this one that aren't ours, nearest first.
    sa.Column("outside_chain", ARRAY(sa.LargeBinary), nullable=False, server_default="{}"),
    at_column("created_at", nullable=False),
    at_column("disabled_at"),
    at_column("revoked_at"),
    # Set while it waits to be deleted: when its key will be erased.
    at_column("delete_at"),
    at_column("erased_at"),
    sa.Column("crl_days", sa.Integer, nullable=False),
    sa.CheckConstraint("crl_days BETWEEN 1 AND 30", "crl_days"),
    sa.Column("crl_enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    # How many lists what it issues from now on is spread over.
    sa.Column("crl_shards", sa.Integer, nullable=False, server_default="1"),
    sa.CheckConstraint("crl_shards BETWEEN 1 AND 1000", "crl_shards"),
    sa.Column("ocsp_enabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    *step_columns(),
    sa.CheckConstraint("kind <> 'root' OR parent_id IS NULL", "parent"),
    sa.CheckConstraint("kind = 'root' OR parent_id IS NOT NULL OR origin <> 'made'", "made_below_a_parent"),
    # First start may be interrupted and repeated: one built-in root and one built-in issuing CA per account.
    sa.Index("uq_authorities_builtin", "account_id", "kind", unique=True, postgresql_where=sa.text("builtin")),
    sa.Index(
        "uq_authorities_name",
        "account_id",
        sa.text("lower(name)"),
        unique=True,
        postgresql_where=sa.text("erased_at IS NULL"),
    ),
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
    # Which of the CA's lists would name it; its own pointer says so too.
    sa.Column("shard", sa.Integer, nullable=False, server_default="0"),
    # The key made here for it, where one was asked for with it.
    id_column("key_id", sa.ForeignKey("private_keys.id")),
    at_column("revoked_at"),
    sa.Column("revocation_reason", sa.Text),
    at_column("deleted_at"),
    sa.UniqueConstraint("authority_id", "serial"),
    sa.Index(
        "ix_issued_revoked", "authority_id", "shard", "not_after", postgresql_where=sa.text("revoked_at IS NOT NULL")
    ),
    sa.Index("ix_issued_newest", "authority_id", "id"),
)

# One row for each list of a CA: what has to be in it, and the number of the newest made.
crl_shards = sa.Table(
    "crl_shards",
    metadata,
    id_column("authority_id", sa.ForeignKey("authorities.id"), primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False, server_default="0"),
    # Rises with every revocation; a list that has seen less of them is out of date.
    sa.Column("revocations", sa.BigInteger, nullable=False, server_default="0"),
)

crls = sa.Table(
    "crls",
    metadata,
    id_column("authority_id", sa.ForeignKey("authorities.id"), primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True, server_default="0"),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("der", sa.LargeBinary, nullable=False),
    sa.Column("revocations", sa.BigInteger, nullable=False),
    at_column("this_update", nullable=False),
    at_column("next_update", nullable=False),
)

# Certificates a CA gave itself for answering OCSP; the newest answers.
ocsp_responders = sa.Table(
    "ocsp_responders",
    metadata,
    id_column(primary_key=True),
    id_column("authority_id", sa.ForeignKey("authorities.id"), nullable=False),
    id_column("ca_key_id", sa.ForeignKey("ca_keys.id"), nullable=False),
    sa.Column("certificate_der", sa.LargeBinary, nullable=False),
    at_column("not_before", nullable=False),
    at_column("not_after", nullable=False),
    sa.Index("ix_ocsp_responders_newest", "authority_id", "not_after"),
)

# Kinds of certificates people described themselves; `body` as in `profiles.read`.
ca_profiles = sa.Table(
    "ca_profiles",
    metadata,
    id_column(primary_key=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("name", sa.Text(collation="C"), nullable=False),
    json_column("body", nullable=False),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.UniqueConstraint("account_id", "name"),
)
