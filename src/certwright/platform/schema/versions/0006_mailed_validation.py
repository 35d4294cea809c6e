"""Links mailed to a domain's mailboxes, and until when evidence must last"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mailed_links",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("subject_id", sa.Text(collation="C"), nullable=False),
        sa.Column("domain", sa.Text(collation="C"), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("mailing", sa.Integer(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_mailed_links_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_mailed_links_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailed_links")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_mailed_links_token_hash")),
        sa.UniqueConstraint(
            "subject_id", "domain", "address", "mailing", name=op.f("uq_mailed_links_subject_id_domain_address_mailing")
        ),
        info={"resource": "validation"},
    )
    op.create_table(
        "foreseen_renewals",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("subject_id", sa.Text(collation="C"), nullable=False),
        sa.Column("needed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_foreseen_renewals_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_foreseen_renewals_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_foreseen_renewals")),
        info={"resource": "validation"},
    )
    op.create_index(
        "ix_foreseen_renewals_due", "foreseen_renewals", ["next_step_at"],
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )  # fmt: skip
    op.create_index("ix_foreseen_renewals_subject_id", "foreseen_renewals", ["subject_id"])
    op.drop_constraint(op.f("ck_challenges_value"), "challenges", type_="check")
    op.create_check_constraint(
        op.f("ck_challenges_value"), "challenges", "evidence_id IS NOT NULL OR value IS NOT NULL OR method = 'email'"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_challenges_value"), "challenges", type_="check")
    op.execute("DELETE FROM challenges WHERE method = 'email' AND evidence_id IS NULL AND value IS NULL")
    op.create_check_constraint(
        op.f("ck_challenges_value"), "challenges", "evidence_id IS NOT NULL OR value IS NOT NULL"
    )
    op.drop_table("foreseen_renewals")
    op.drop_table("mailed_links")
