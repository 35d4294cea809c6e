"""DNS connections, what must be shown for each name of an application, and the ledger of what was seen."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns

dns_connections = sa.Table(
    "dns_connections",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("zones", ARRAY(sa.Text), nullable=False),
    json_column("settings", nullable=False),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    at_column("checked_at"),
    # NULL with checked_at set: the last test went well.
    json_column("problem"),
    sa.CheckConstraint("cardinality(zones) > 0", "zones"),
    sa.UniqueConstraint("account_id", "project_id", "name"),
    info={"resource": "dns-connection"},
)

# Insert only. `method` is open text, so that e-mail, ACME's methods and persistent records need no new columns; `seen`
# holds what was looked at, at which servers and resolvers, in the method's own terms.
evidence = sa.Table(
    "evidence",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("domain", sa.Text(collation="C"), nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.CheckConstraint("scope IN ('exact', 'subtree')", "scope"),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("ca", sa.Text, nullable=False),
    sa.Column("ca_kind", sa.Text, nullable=False),
    sa.CheckConstraint("ca_kind IN ('public', 'private')", "ca_kind"),
    id_column("subject_id", nullable=False),
    id_column("challenge_id", nullable=False),
    at_column("validated_at", nullable=False),
    json_column("seen", nullable=False),
    sa.Index("ix_evidence_reuse", "account_id", "project_id", "domain", "validated_at"),
    info={"resource": "evidence"},
)

challenges = sa.Table(
    "challenges",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("subject_id", nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("name", sa.Text(collation="C"), nullable=False),
    sa.Column("domain", sa.Text(collation="C"), nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("ca", sa.Text, nullable=False),
    sa.Column("ca_kind", sa.Text, nullable=False),
    sa.CheckConstraint("ca_kind IN ('public', 'private')", "ca_kind"),
    # Empty where evidence was re-used: then nothing has to be published.
    sa.Column("value", sa.Text),
    sa.Column("record_name", sa.Text),
    sa.Column("record_type", sa.Text),
    # Where the record goes when `record_name` is a CNAME that leads there.
    sa.Column("leads_to", sa.Text(collation="C")),
    sa.Column("file_name", sa.Text),
    id_column("connection_id", sa.ForeignKey("dns_connections.id", ondelete="SET NULL"), index=True),
    at_column("created_at", nullable=False),
    at_column("expires_at", nullable=False),
    # The intention stands before the update is sent, so that a crash never leaves a record nobody removes.
    at_column("write_intended_at"),
    at_column("written_at"),
    at_column("released_at"),
    at_column("removed_at"),
    sa.Column("checks", sa.Integer, nullable=False, server_default="0"),
    at_column("checked_at"),
    json_column("explanation"),
    at_column("validated_at"),
    at_column("cancelled_at"),
    id_column("evidence_id", sa.ForeignKey("evidence.id")),
    *step_columns(),
    sa.UniqueConstraint("subject_id", "name"),
    sa.CheckConstraint("(validated_at IS NULL) = (evidence_id IS NULL)", "evidence"),
    sa.CheckConstraint("evidence_id IS NOT NULL OR value IS NOT NULL OR method = 'email'", "value"),
    sa.Index(
        "ix_challenges_tls_alpn", "id", postgresql_where=sa.text("method = 'tls-alpn-01' AND released_at IS NULL")
    ),
    sa.Index("ix_challenges_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
    info={"resource": "validation"},
)

# One mailed link each. Every mailing to a domain's mailboxes makes one row per mailbox; the first that is followed and
# confirmed shows all names of the application below the domain, and the others are of no use any more.
mailed_links = sa.Table(
    "mailed_links",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("subject_id", nullable=False),
    sa.Column("domain", sa.Text(collation="C"), nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("mailing", sa.Integer, nullable=False),
    at_column("sent_at", nullable=False),
    at_column("expires_at", nullable=False),
    at_column("used_at"),
    sa.UniqueConstraint("subject_id", "domain", "address", "mailing"),
    info={"resource": "validation"},
)

# Until when the evidence must last that the version of an application rests on: the moment its renewal is planned for.
# `told_at`: others were told that it won't.
foreseen = sa.Table(
    "foreseen_renewals",
    metadata,
    # The certificate's id: a newer version takes the place of the one before.
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("subject_id", nullable=False),
    at_column("needed_at", nullable=False),
    at_column("not_after", nullable=False),
    at_column("told_at"),
    *step_columns(),
    sa.Index("ix_foreseen_renewals_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
    sa.Index("ix_foreseen_renewals_subject_id", "subject_id"),
    info={"resource": "validation"},
)

# Rules that administrators put in the place of the shipped ones; those replaced are kept.
rule_packs = sa.Table(
    "rule_packs",
    metadata,
    id_column(primary_key=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    at_column("uploaded_at", nullable=False),
    sa.Column("uploaded_by", sa.Text, nullable=False),
    at_column("replaced_at"),
    sa.Index("uq_rule_packs_in_force", "account_id", unique=True, postgresql_where=sa.text("replaced_at IS NULL")),
)
