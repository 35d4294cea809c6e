"""Certificates issued elsewhere: what they are for, what was found when they were uploaded, and what an account admits"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("certificates", sa.Column("purpose", sa.Text(), server_default="server", nullable=False))
    op.create_check_constraint(op.f("ck_certificates_purpose"), "certificates", "purpose IN ('server', 'client_ca')")
    op.create_index(
        "ix_certificates_uploaded", "certificates", ["account_id", "purpose"], postgresql_where=sa.text("uploaded")
    )
    op.create_index("ix_versions_issuer", "versions", ["account_id", "issuer"])
    op.create_index("ix_versions_key", "versions", ["account_id", "spki_sha256"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("certificate_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("strict", sa.Boolean(), nullable=False),
        sa.Column("repaired", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("findings", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_uploads_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_uploads_project_id")),
        sa.ForeignKeyConstraint(
            ["certificate_id"], ["certificates.id"], name=op.f("fk_uploads_certificate_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_uploads_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("version_id", name=op.f("uq_uploads_version_id")),
    )
    op.create_index(op.f("ix_uploads_certificate_id"), "uploads", ["certificate_id"])
    op.create_table(
        "upload_policies",
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("legacy_rsa", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_upload_policies_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_upload_policies")),
    )


def downgrade() -> None:
    op.drop_table("upload_policies")
    op.drop_index(op.f("ix_uploads_certificate_id"), table_name="uploads")
    op.drop_table("uploads")
    op.drop_index("ix_versions_key", table_name="versions")
    op.drop_index("ix_versions_issuer", table_name="versions")
    op.drop_index("ix_certificates_uploaded", table_name="certificates")
    op.drop_constraint(op.f("ck_certificates_purpose"), "certificates", type_="check")
    op.drop_column("certificates", "purpose")
