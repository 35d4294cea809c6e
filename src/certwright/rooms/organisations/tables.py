"""Organisations, the cases that verify them, and what was found. The database itself keeps the four eyes."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns
from certwright.rooms.organisations.words import CertificateType, Item, Kind, Outcome, Way


def _among(column: str, values: type[CertificateType | Item | Kind | Outcome | Way]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


organisations = sa.Table(
    "organisations",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.CheckConstraint(_among("kind", Kind), "kind"),
    sa.Column("legal_name", sa.Text, nullable=False),
    sa.Column("registration_number", sa.Text, nullable=False),
    sa.Column("jurisdiction_country", sa.Text, nullable=False),
    sa.Column("jurisdiction_region", sa.Text, nullable=False),
    sa.Column("street", sa.Text, nullable=False),
    sa.Column("city", sa.Text, nullable=False),
    sa.Column("province", sa.Text, nullable=False),
    sa.Column("postal_code", sa.Text, nullable=False),
    sa.Column("country", sa.Text, nullable=False),
    sa.Column("phone", sa.Text, nullable=False),
    sa.Column("phone_source", sa.Text, nullable=False),
    json_column("contacts", nullable=False),
    # A verification counts for the facts it was made of: other facts, another hash, no verification.
    sa.Column("facts_hash", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    sa.Index("ix_organisations_newest", "account_id", "id"),
    info={"resource": "organisation"},
)

organisation_cases = sa.Table(
    "organisation_cases",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    # The application that waits for it.
    id_column("subject_id", nullable=False, unique=True),
    id_column("organisation_id", sa.ForeignKey("organisations.id", ondelete="SET NULL"), index=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.CheckConstraint(_among("type", CertificateType), "type"),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("ca", sa.Text, nullable=False),
    # As they were when verification began; NULL once privacy authorisation was withdrawn.
    json_column("facts"),
    sa.Column("facts_hash", sa.Text),
    sa.Column("applicant_name", sa.Text),
    sa.Column("applicant_email", sa.Text),
    sa.Column("applicant_phone", sa.Text),
    sa.Column("locale", sa.Text, nullable=False),
    id_column("applied_by"),
    sa.Column("way", sa.Text),
    sa.CheckConstraint(_among("way", Way), "way"),
    id_column("chosen_by"),
    sa.Column("asked", sa.Text),
    # Set while it is the applicant's turn; reminders and the end of patience count from here.
    at_column("waiting_since"),
    sa.Column("reminders", sa.Integer, nullable=False, server_default="0"),
    # Since when it is the desk's turn, and the working days the product promises for that; 0: none was bought.
    at_column("desk_since"),
    sa.Column("review_days", sa.Integer, nullable=False, server_default="0"),
    id_column("claimed_by"),
    sa.Column("claimed_by_name", sa.Text),
    at_column("claimed_at"),
    at_column("worked_at"),
    id_column("approved_by"),
    sa.Column("approved_by_name", sa.Text),
    at_column("approved_at"),
    # An applicant approved it, as the operator's setting allowed at that moment.
    sa.Column("alone", sa.Boolean, nullable=False, server_default=sa.false()),
    id_column("seconded_by"),
    sa.Column("seconded_by_name", sa.Text),
    # What the second person asked the first to mend.
    sa.Column("returned", sa.Text),
    id_column("reused_from", sa.ForeignKey("organisation_cases.id"), index=True),
    at_column("verified_at"),
    # When the oldest fact was looked up that the verification rests on: reuse counts from here.
    at_column("evidence_at"),
    at_column("refused_at"),
    sa.Column("reasons", ARRAY(sa.Text), nullable=False, server_default="{}"),
    at_column("cancelled_at"),
    at_column("forgotten_at"),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    *step_columns(),
    sa.CheckConstraint("level = split_part(type, '_', 1)", "level"),
    sa.CheckConstraint("(verified_at IS NULL) = (evidence_at IS NULL)", "evidence"),
    sa.CheckConstraint("num_nonnulls(verified_at, refused_at, cancelled_at) <= 1", "one_end"),
    sa.CheckConstraint(
        "verified_at IS NULL OR reused_from IS NOT NULL"
        " OR (approved_by IS NOT NULL AND (level = 'ov' OR seconded_by IS NOT NULL))",
        "approved",
    ),
    sa.CheckConstraint("seconded_by IS NULL OR approved_by IS NOT NULL AND seconded_by <> approved_by", "four_eyes"),
    sa.CheckConstraint("alone OR approved_by <> applied_by AND seconded_by <> applied_by", "not_ones_own"),
    sa.CheckConstraint("NOT alone OR level = 'ov'", "alone"),
    sa.CheckConstraint(
        "forgotten_at IS NULL OR num_nonnulls(facts, facts_hash, applicant_name, applicant_email, applicant_phone) = 0",
        "forgotten",
    ),
    sa.Index("ix_organisation_cases_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
    sa.Index("ix_organisation_cases_newest", "account_id", "id"),
    sa.Index(
        "ix_organisation_cases_reuse", "account_id", "organisation_id", "ca", "evidence_at",
        postgresql_where=sa.text("verified_at IS NOT NULL AND reused_from IS NULL"),
    ),
    sa.Index(
        "ix_organisation_cases_open", "id",
        postgresql_where=sa.text("verified_at IS NULL AND refused_at IS NULL AND cancelled_at IS NULL"),
    ),
    info={"resource": "organisation-case"},
)  # fmt: skip

# Insert only, but for the erasing of texts: the newest of an item counts.
organisation_checks = sa.Table(
    "organisation_checks",
    metadata,
    id_column(primary_key=True),
    id_column("case_id", sa.ForeignKey("organisation_cases.id"), nullable=False, index=True),
    sa.Column("item", sa.Text, nullable=False),
    sa.CheckConstraint(_among("item", Item), "item"),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.CheckConstraint(_among("outcome", Outcome), "outcome"),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    id_column("by_user", nullable=False),
    sa.Column("by_name", sa.Text, nullable=False),
    at_column("at", nullable=False),
)

organisation_documents = sa.Table(
    "organisation_documents",
    metadata,
    id_column(primary_key=True),
    id_column("case_id", sa.ForeignKey("organisation_cases.id"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("from_applicant", sa.Boolean, nullable=False),
    id_column("by_user", nullable=False),
    sa.Column("by_name", sa.Text, nullable=False),
    at_column("at", nullable=False),
    # The content's own key, sealed by the vault: rotation re-wraps this and never reads the files.
    sa.Column("sealed_key", sa.LargeBinary),
    sa.Column("content", sa.LargeBinary),
    at_column("erased_at"),
    sa.CheckConstraint("(sealed_key IS NULL) = (erased_at IS NOT NULL) AND (content IS NULL) = (sealed_key IS NULL)",
                       "erased"),
)  # fmt: skip

organisation_links = sa.Table(
    "organisation_links",
    metadata,
    sa.Column("secret_hash", sa.LargeBinary, primary_key=True),
    id_column("case_id", sa.ForeignKey("organisation_cases.id"), nullable=False, index=True),
    at_column("created_at", nullable=False),
    at_column("expires_at", nullable=False),
    at_column("used_at"),
)
