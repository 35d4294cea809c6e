"""Policies of what private CAs issue"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_AT = sa.DateTime(timezone=True)
_ID = sa.Text(collation="C")


def upgrade() -> None:
    op.create_table(
        "ca_policies",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("project_id", _ID, nullable=True),
        sa.Column("authority_id", _ID, nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("allowed", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("refused", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("wildcards", sa.Boolean(), nullable=False),
        sa.Column("profiles", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("max_days", sa.Integer(), nullable=True),
        sa.Column("quota", sa.Integer(), nullable=True),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint("max_days > 0", name=op.f("ck_ca_policies_max_days")),
        sa.CheckConstraint("quota >= 0", name=op.f("ck_ca_policies_quota")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ca_policies_account_id")),
        sa.ForeignKeyConstraint(["authority_id"], ["authorities.id"], name=op.f("fk_ca_policies_authority_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_ca_policies_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ca_policies")),
    )
    op.create_index("uq_ca_policies_name", "ca_policies", ["account_id", sa.text("lower(name)")], unique=True)
    op.add_column("issued_certificates", sa.Column("internal", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute("UPDATE issued_certificates SET internal = true WHERE profile IN ('issuing', 'ocsp_signer')")
    op.create_index(
        "ix_issued_good", "issued_certificates", ["authority_id", "project_id", "not_after"],
        postgresql_where=sa.text("revoked_at IS NULL AND NOT internal"),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_index("ix_issued_good", "issued_certificates")
    op.drop_column("issued_certificates", "internal")
    op.drop_table("ca_policies")
