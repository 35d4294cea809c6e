"""A certificate is a subscription; applications are attempts to get a version; versions are immutable.

`stage` is the stored part of the state, moved only by guarded updates that name the stage they leave. The columns under
"of the current version" repeat facts of one version so that a page of the list is one index scan.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns
from certwright.rooms.certificates.words import DomainType, State

_STAGES = ", ".join(f"'{state.value}'" for state in State if state is not State.EXPIRED)
_TYPES = ", ".join(f"'{kind.value}'" for kind in DomainType)

certificates = sa.Table(
    "certificates",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("tags", sa.dialects.postgresql.JSONB, nullable=False, server_default="{}"),
    sa.Column("ca", sa.Text, nullable=False),
    sa.Column("uploaded", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("stage", sa.Text, sa.CheckConstraint(f"stage IN ({_STAGES})", "stage"), nullable=False),
    sa.Column("auto_renew", sa.Boolean, nullable=False, server_default="true"),
    sa.Column("notify", sa.Boolean, nullable=False, server_default="true"),
    json_column("draft"),
    sa.Column("primary_name", sa.Text, nullable=False, server_default=""),
    sa.Column("names", ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("search_text", sa.Text, nullable=False, server_default=""),
    # of the current version
    id_column("current_version_id"),
    id_column("key_id"),
    sa.Column("key_algorithm", sa.Text),
    sa.Column("sha256", sa.Text),
    sa.Column("serial", sa.Text),
    at_column("not_before"),
    at_column("not_after"),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.CheckConstraint("(current_version_id IS NULL) = (not_after IS NULL)", "version_dates"),
    sa.UniqueConstraint("account_id", "name"),
    sa.Index("ix_certificates_newest", "account_id", "id"),
    sa.Index("ix_certificates_expiry", "account_id", "not_after", "id"),
    sa.Index("ix_certificates_stage", "account_id", "stage", "not_after"),
    sa.Index("ix_certificates_updated", "account_id", "updated_at", "id"),
    sa.Index(
        "ix_certificates_search", "search_text", postgresql_using="gin", postgresql_ops={"search_text": "gin_trgm_ops"}
    ),
    sa.Index("ix_certificates_sha256", "sha256"),
)

_current = sa.select(
    certificates.c.id.label("certificate_id"),
    certificates.c.account_id,
    certificates.c.project_id,
    certificates.c.current_version_id.label("version_id"),
).subquery("current")
CURRENT = _current.c
"""Which version of each certificate is the current one, for statements of other rooms."""

applications = sa.Table(
    "applications",
    metadata,
    id_column(primary_key=True),
    id_column("certificate_id", sa.ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False, index=True),
    *tenant_columns(),
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('apply', 'reissue')", "kind"), nullable=False),
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    sa.Column("domain_type", sa.Text, sa.CheckConstraint(f"domain_type IN ({_TYPES})", "domain_type"), nullable=False),
    sa.Column("validation_method", sa.Text, nullable=False),
    json_column("per_name_methods", nullable=False),
    sa.Column("key_algorithm", sa.Text, nullable=False),
    sa.Column("csr_der", sa.LargeBinary),
    sa.Column("csr_uploaded", sa.Boolean, nullable=False),
    id_column("key_id"),
    json_column("applicant"),
    at_column("consent_at"),
    sa.Column("consent_version", sa.Text, nullable=False, server_default=""),
    at_column("submitted_at", nullable=False),
    at_column("validated_at"),
    # The intention to order is on record before the CA is called.
    at_column("order_intended_at"),
    sa.Column("order_id", sa.Text),
    at_column("issued_at"),
    at_column("withdrawn_at"),
    at_column("failed_at"),
    json_column("failure"),
    *step_columns(),
    # One attempt at a time: this index, not care, keeps a certificate from being ordered twice.
    sa.Index(
        "uq_applications_open",
        "certificate_id",
        unique=True,
        postgresql_where=sa.text("issued_at IS NULL AND withdrawn_at IS NULL AND failed_at IS NULL"),
    ),
    sa.Index("ix_applications_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

versions = sa.Table(
    "versions",
    metadata,
    id_column(primary_key=True),
    id_column("certificate_id", sa.ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False),
    *tenant_columns(),
    sa.Column("number", sa.Integer, nullable=False),
    id_column("application_id", sa.ForeignKey("applications.id", ondelete="CASCADE"), unique=True),
    id_column("key_id"),
    sa.Column("leaf_der", sa.LargeBinary, nullable=False),
    sa.Column("chain_ders", ARRAY(sa.LargeBinary), nullable=False),
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("serial", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("sha1", sa.Text, nullable=False),
    sa.Column("spki_sha256", sa.Text, nullable=False),
    sa.Column("key_algorithm", sa.Text, nullable=False),
    sa.Column("signature_algorithm", sa.Text, nullable=False),
    at_column("not_before", nullable=False),
    at_column("not_after", nullable=False),
    at_column("issued_at", nullable=False),
    at_column("superseded_at"),
    at_column("revoke_asked_at"),
    sa.Column("revocation_reason", sa.Text),
    at_column("revoked_at"),
    *step_columns(),
    sa.UniqueConstraint("certificate_id", "number"),
    sa.Index("ix_versions_sha256", "sha256"),
    sa.Index(
        "uq_versions_current",
        "certificate_id",
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL"),
    ),
    sa.Index("ix_versions_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)
