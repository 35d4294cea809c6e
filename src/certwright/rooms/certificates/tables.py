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
    # Asked instead when `ca` can't be reached for long or refuses for reasons of its own.
    sa.Column("fallback_ca", sa.Text),
    sa.Column("uploaded", sa.Boolean, nullable=False, server_default="false"),
    # Only uploaded ones are for anything but servers.
    sa.Column("purpose", sa.Text, nullable=False, server_default="server"),
    sa.CheckConstraint("purpose IN ('server', 'client_ca')", "purpose"),
    sa.Column("stage", sa.Text, nullable=False),
    sa.CheckConstraint(f"stage IN ({_STAGES})", "stage"),
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
    # of the order it was bought with; empty for certificates that were not ordered
    id_column("order_id", sa.ForeignKey("orders.id")),
    sa.Column("order_line", sa.Integer),
    sa.Column("product_id", sa.Text),
    sa.Column("brand", sa.Text),
    sa.Column("certificate_type", sa.Text),
    sa.Column("domain_type", sa.Text),
    # How many ordinary and how many wildcard names were bought; can't be raised later.
    sa.Column("domain_quota", sa.Integer),
    sa.Column("wildcard_quota", sa.Integer),
    sa.Column("paid", sa.Boolean),
    # The product as it was sold: reissue window, methods, review days.
    json_column("product"),
    # Coverage begins with the first issue; it is longer than one version lives.
    sa.Column("coverage_years", sa.Integer),
    at_column("coverage_starts_at"),
    at_column("coverage_ends_at"),
    # The certificate this one renews (it may be deleted), the days it had left, and the name they are inherited for.
    id_column("renews_certificate_id"),
    sa.Column("inherited_days", sa.Integer),
    sa.Column("inherits_for_name", sa.Text),
    # Where it goes back to when an unsubscription is rejected.
    sa.Column("stage_before_review", sa.Text),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.CheckConstraint("(current_version_id IS NULL) = (not_after IS NULL)", "version_dates"),
    sa.CheckConstraint(f"domain_type IN ({_TYPES})", "domain_type"),
    sa.CheckConstraint("(coverage_starts_at IS NULL) = (coverage_ends_at IS NULL)", "coverage"),
    sa.UniqueConstraint("account_id", "name"),
    # An order is delivered once, whatever happens.
    sa.UniqueConstraint("order_id", "order_line"),
    sa.Index("ix_certificates_newest", "account_id", "id"),
    sa.Index("ix_certificates_expiry", "account_id", "not_after", "id"),
    sa.Index("ix_certificates_stage", "account_id", "stage", "not_after"),
    sa.Index("ix_certificates_updated", "account_id", "updated_at", "id"),
    sa.Index(
        "ix_certificates_renews",
        "renews_certificate_id",
        postgresql_where=sa.text("renews_certificate_id IS NOT NULL"),
    ),
    sa.Index(
        "ix_certificates_search", "search_text", postgresql_using="gin", postgresql_ops={"search_text": "gin_trgm_ops"}
    ),
    sa.Index("ix_certificates_sha256", "sha256"),
    sa.Index("ix_certificates_uploaded", "account_id", "purpose", postgresql_where=sa.text("uploaded")),
)

_current = sa.select(
    certificates.c.id.label("certificate_id"),
    certificates.c.account_id,
    certificates.c.project_id,
    certificates.c.current_version_id.label("version_id"),
    certificates.c.name,
    certificates.c.ca,
    certificates.c.stage,
    certificates.c.uploaded,
    certificates.c.auto_renew,
).subquery("current")
CURRENT = _current.c
"""Each certificate with its current version, for statements of other rooms."""


def followed(table: sa.Table, certificate_column: sa.Column[str], certificate_id: str) -> sa.Update:
    """The statement by which rows about a certificate go to the project it is in now."""
    return (
        sa.update(table)
        .where(certificate_column == CURRENT.certificate_id, CURRENT.certificate_id == certificate_id)
        .values(project_id=CURRENT.project_id)
    )


applications = sa.Table(
    "applications",
    metadata,
    id_column(primary_key=True),
    id_column("certificate_id", sa.ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False, index=True),
    *tenant_columns(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.CheckConstraint("kind IN ('apply', 'reissue', 'add')", "kind"),
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    sa.Column("domain_type", sa.Text, nullable=False),
    sa.CheckConstraint(f"domain_type IN ({_TYPES})", "domain_type"),
    sa.Column("validation_method", sa.Text, nullable=False),
    json_column("per_name_methods", nullable=False),
    sa.Column("key_algorithm", sa.Text, nullable=False),
    sa.Column("csr_der", sa.LargeBinary),
    sa.Column("csr_uploaded", sa.Boolean, nullable=False),
    # The kept CSR it was made with, as long as that exists; `key_id` is a copy of its key.
    id_column("csr_id", sa.ForeignKey("csrs.id", ondelete="SET NULL"), index=True),
    # Later versions keep the key.
    sa.Column("key_pinned", sa.Boolean, nullable=False, server_default="false"),
    id_column("key_id"),
    sa.Column("certificate_type", sa.Text, nullable=False, server_default="dv"),
    id_column("organisation_id"),
    # What the organisation's verification said: the subject is made of it.
    json_column("organisation"),
    at_column("organisation_ok_at"),
    json_column("applicant"),
    json_column("technical_contact"),
    # Hash of the chain up to the root: what the CA takes by default, or SHA-256.
    sa.Column("root_hash", sa.Text, nullable=False, server_default="default"),
    sa.CheckConstraint("root_hash IN ('default', 'sha256')", "root_hash"),
    # Somebody's wish, not a renewal: the version it replaces is revoked as superseded.
    sa.Column("revokes_replaced", sa.Boolean, nullable=False, server_default="false"),
    at_column("consent_at"),
    sa.Column("consent_version", sa.Text, nullable=False, server_default=""),
    at_column("submitted_at", nullable=False),
    at_column("validated_at"),
    # Withdrawal is asked for before the CA hears of it; `withdrawn_at` says that it is done.
    at_column("withdraw_asked_at"),
    # What the CA said to a withdrawal that came too late.
    sa.Column("withdrawal_refused", sa.Text),
    # Whom it is ordered from; the certificate's CA may have changed since.
    sa.Column("ca", sa.Text),
    at_column("ca_away_since"),
    # The attempt at the other CA that this one takes over from; nobody falls over twice.
    id_column("takes_over_id"),
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
    # Who issued it, and so who revokes it.
    sa.Column("ca", sa.Text),
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
    # Replaced at somebody's wish: revoked as superseded from then on, if nothing served it for so long.
    at_column("revoke_replaced_at"),
    at_column("revoke_asked_at"),
    sa.Column("revocation_reason", sa.Text),
    # Neither our account nor a key of ours may revoke it: control of its names is being shown, under this id.
    id_column("control_id", unique=True),
    sa.Column("revoked_by", sa.Text),
    sa.CheckConstraint("revoked_by IN ('account', 'key', 'control')", "revoked_by"),
    at_column("revoked_at"),
    *step_columns(),
    sa.UniqueConstraint("certificate_id", "number"),
    sa.Index("ix_versions_sha256", "sha256"),
    sa.Index("ix_versions_issuer", "account_id", "issuer"),
    sa.Index("ix_versions_key", "account_id", "spki_sha256"),
    sa.Index(
        "uq_versions_current",
        "certificate_id",
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL"),
    ),
    sa.Index("ix_versions_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

# Links mailed to applicants who are to agree to a revocation; only a hash of the token is kept.
confirmations = sa.Table(
    "confirmations",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("certificate_id", sa.ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False, index=True),
    id_column("version_id", sa.ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    at_column("created_at", nullable=False),
    at_column("expires_at", nullable=False),
    at_column("confirmed_at"),
    info={"resource": "certificate"},
)

# Every text applicants agreed to, by the version that is stored with their consent; of the whole installation.
privacy_statements = sa.Table(
    "privacy_statements",
    metadata,
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    at_column("first_agreed_at", nullable=False),
)
