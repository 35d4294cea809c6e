"""Signing requests kept on their own, and the applications made with them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "csrs",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("subject", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("key_algorithm", sa.Text(), nullable=False),
        sa.Column("spki_sha256", sa.Text(), nullable=False),
        sa.Column("csr_der", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(collation="C"), nullable=True),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint("origin IN ('generated', 'uploaded')", name=op.f("ck_csrs_origin")),
        sa.CheckConstraint("origin = 'uploaded' OR key_id IS NOT NULL", name=op.f("ck_csrs_generated_has_key")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_csrs_account_id")),
        sa.ForeignKeyConstraint(["key_id"], ["private_keys.id"], name=op.f("fk_csrs_key_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_csrs_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_csrs")),
        sa.UniqueConstraint("account_id", "name", name=op.f("uq_csrs_account_id_name")),
    )
    op.create_index("ix_csrs_newest", "csrs", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_csrs_search",
        "csrs",
        ["search_text"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"search_text": "gin_trgm_ops"},
    )
    op.add_column("applications", sa.Column("csr_id", sa.Text(collation="C"), nullable=True))
    op.add_column("applications", sa.Column("key_pinned", sa.Boolean(), server_default="false", nullable=False))
    op.create_index(op.f("ix_applications_csr_id"), "applications", ["csr_id"], unique=False)
    op.create_foreign_key(
        op.f("fk_applications_csr_id"), "applications", "csrs", ["csr_id"], ["id"], ondelete="SET NULL"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_applications_csr_id"), "applications", type_="foreignkey")
    op.drop_index(op.f("ix_applications_csr_id"), table_name="applications")
    op.drop_column("applications", "key_pinned")
    op.drop_column("applications", "csr_id")
    op.drop_index(
        "ix_csrs_search",
        table_name="csrs",
        postgresql_using="gin",
        postgresql_ops={"search_text": "gin_trgm_ops"},
    )
    op.drop_index("ix_csrs_newest", table_name="csrs")
    op.drop_table("csrs")
