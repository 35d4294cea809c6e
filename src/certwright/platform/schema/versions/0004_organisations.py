"""Organisations, the cases that verify them, their checks, documents and links"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("legal_name", sa.Text(), nullable=False),
        sa.Column("registration_number", sa.Text(), nullable=False),
        sa.Column("jurisdiction_country", sa.Text(), nullable=False),
        sa.Column("jurisdiction_region", sa.Text(), nullable=False),
        sa.Column("street", sa.Text(), nullable=False),
        sa.Column("city", sa.Text(), nullable=False),
        sa.Column("province", sa.Text(), nullable=False),
        sa.Column("postal_code", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=False),
        sa.Column("phone_source", sa.Text(), nullable=False),
        sa.Column("contacts", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("facts_hash", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('company', 'sole_trader', 'non_profit', 'public_body', 'unlisted')",
            name=op.f("ck_organisations_kind"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_organisations_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_organisations_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisations")),
        info={"resource": "organisation"},
    )
    op.create_index("ix_organisations_newest", "organisations", ["account_id", "id"], unique=False)
    op.create_table(
        "organisation_cases",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("subject_id", sa.Text(collation="C"), nullable=False),
        sa.Column("organisation_id", sa.Text(collation="C"), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("ca", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("facts_hash", sa.Text(), nullable=True),
        sa.Column("applicant_name", sa.Text(), nullable=True),
        sa.Column("applicant_email", sa.Text(), nullable=True),
        sa.Column("applicant_phone", sa.Text(), nullable=True),
        sa.Column("locale", sa.Text(), nullable=False),
        sa.Column("applied_by", sa.Text(collation="C"), nullable=True),
        sa.Column("way", sa.Text(), nullable=True),
        sa.Column("chosen_by", sa.Text(collation="C"), nullable=True),
        sa.Column("asked", sa.Text(), nullable=True),
        sa.Column("waiting_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reminders", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claimed_by", sa.Text(collation="C"), nullable=True),
        sa.Column("claimed_by_name", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("approved_by", sa.Text(collation="C"), nullable=True),
        sa.Column("approved_by_name", sa.Text(), nullable=True),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seconded_by", sa.Text(collation="C"), nullable=True),
        sa.Column("seconded_by_name", sa.Text(), nullable=True),
        sa.Column("returned", sa.Text(), nullable=True),
        sa.Column("reused_from", sa.Text(collation="C"), nullable=True),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("evidence_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reasons", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("type IN ('ov', 'ov_pro', 'ev', 'ev_pro')", name=op.f("ck_organisation_cases_type")),
        sa.CheckConstraint("way IN ('phone', 'documents', 'official_mail')", name=op.f("ck_organisation_cases_way")),
        sa.CheckConstraint("level = split_part(type, '_', 1)", name=op.f("ck_organisation_cases_level")),
        sa.CheckConstraint(
            "verified_at IS NULL OR reused_from IS NOT NULL OR (approved_by IS NOT NULL AND (level = 'ov' OR seconded_by IS NOT NULL))",
            name=op.f("ck_organisation_cases_approved"),
        ),
        sa.CheckConstraint(
            "(verified_at IS NULL) = (evidence_at IS NULL)", name=op.f("ck_organisation_cases_evidence")
        ),
        sa.CheckConstraint(
            "approved_by <> applied_by AND seconded_by <> applied_by", name=op.f("ck_organisation_cases_not_ones_own")
        ),
        sa.CheckConstraint(
            "forgotten_at IS NULL OR num_nonnulls(facts, facts_hash, applicant_name, applicant_email, applicant_phone) = 0",
            name=op.f("ck_organisation_cases_forgotten"),
        ),
        sa.CheckConstraint(
            "num_nonnulls(verified_at, refused_at, cancelled_at) <= 1", name=op.f("ck_organisation_cases_one_end")
        ),
        sa.CheckConstraint(
            "seconded_by IS NULL OR approved_by IS NOT NULL AND seconded_by <> approved_by",
            name=op.f("ck_organisation_cases_four_eyes"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_organisation_cases_account_id")),
        sa.ForeignKeyConstraint(
            ["organisation_id"],
            ["organisations.id"],
            name=op.f("fk_organisation_cases_organisation_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_organisation_cases_project_id")),
        sa.ForeignKeyConstraint(
            ["reused_from"], ["organisation_cases.id"], name=op.f("fk_organisation_cases_reused_from")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisation_cases")),
        sa.UniqueConstraint("subject_id", name=op.f("uq_organisation_cases_subject_id")),
        info={"resource": "organisation-case"},
    )
    op.create_index(
        "ix_organisation_cases_due",
        "organisation_cases",
        ["next_step_at"],
        unique=False,
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.create_index("ix_organisation_cases_newest", "organisation_cases", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_organisation_cases_open",
        "organisation_cases",
        ["id"],
        unique=False,
        postgresql_where=sa.text("verified_at IS NULL AND refused_at IS NULL AND cancelled_at IS NULL"),
    )
    op.create_index(
        op.f("ix_organisation_cases_organisation_id"), "organisation_cases", ["organisation_id"], unique=False
    )
    op.create_index(
        "ix_organisation_cases_reuse",
        "organisation_cases",
        ["account_id", "organisation_id", "ca", "evidence_at"],
        unique=False,
        postgresql_where=sa.text("verified_at IS NOT NULL AND reused_from IS NULL"),
    )
    op.create_index(op.f("ix_organisation_cases_reused_from"), "organisation_cases", ["reused_from"], unique=False)
    op.create_table(
        "organisation_checks",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("case_id", sa.Text(collation="C"), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("by_user", sa.Text(collation="C"), nullable=False),
        sa.Column("by_name", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "item IN ('existence', 'address', 'phone', 'applicant_authority', 'operational_existence', 'requester_authority', 'approver_authority')",
            name=op.f("ck_organisation_checks_item"),
        ),
        sa.CheckConstraint("outcome IN ('passed', 'failed')", name=op.f("ck_organisation_checks_outcome")),
        sa.ForeignKeyConstraint(["case_id"], ["organisation_cases.id"], name=op.f("fk_organisation_checks_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisation_checks")),
    )
    op.create_index(op.f("ix_organisation_checks_case_id"), "organisation_checks", ["case_id"], unique=False)
    op.create_table(
        "organisation_documents",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("case_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("from_applicant", sa.Boolean(), nullable=False),
        sa.Column("by_user", sa.Text(collation="C"), nullable=False),
        sa.Column("by_name", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(sealed_key IS NULL) = (erased_at IS NOT NULL) AND (content IS NULL) = (sealed_key IS NULL)",
            name=op.f("ck_organisation_documents_erased"),
        ),
        sa.ForeignKeyConstraint(["case_id"], ["organisation_cases.id"], name=op.f("fk_organisation_documents_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisation_documents")),
    )
    op.create_index(op.f("ix_organisation_documents_case_id"), "organisation_documents", ["case_id"], unique=False)
    op.create_table(
        "organisation_links",
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("case_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["organisation_cases.id"], name=op.f("fk_organisation_links_case_id")),
        sa.PrimaryKeyConstraint("secret_hash", name=op.f("pk_organisation_links")),
    )
    op.create_index(op.f("ix_organisation_links_case_id"), "organisation_links", ["case_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_organisation_links_case_id"), table_name="organisation_links")
    op.drop_table("organisation_links")
    op.drop_index(op.f("ix_organisation_documents_case_id"), table_name="organisation_documents")
    op.drop_table("organisation_documents")
    op.drop_index(op.f("ix_organisation_checks_case_id"), table_name="organisation_checks")
    op.drop_table("organisation_checks")
    op.drop_index(op.f("ix_organisation_cases_reused_from"), table_name="organisation_cases")
    op.drop_index(
        "ix_organisation_cases_reuse",
        table_name="organisation_cases",
        postgresql_where=sa.text("verified_at IS NOT NULL AND reused_from IS NULL"),
    )
    op.drop_index(op.f("ix_organisation_cases_organisation_id"), table_name="organisation_cases")
    op.drop_index(
        "ix_organisation_cases_open",
        table_name="organisation_cases",
        postgresql_where=sa.text("verified_at IS NULL AND refused_at IS NULL AND cancelled_at IS NULL"),
    )
    op.drop_index("ix_organisation_cases_newest", table_name="organisation_cases")
    op.drop_index(
        "ix_organisation_cases_due",
        table_name="organisation_cases",
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.drop_table("organisation_cases")
    op.drop_index("ix_organisations_newest", table_name="organisations")
    op.drop_table("organisations")
