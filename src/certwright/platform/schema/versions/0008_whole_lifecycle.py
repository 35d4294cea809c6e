"""OV and EV applications, additions of names, withdrawals a CA decides on, versions to revoke when replaced"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # 0001 forgot it.
    op.execute("ALTER TABLE applications DROP CONSTRAINT IF EXISTS ck_applications_kind")
    op.create_check_constraint(op.f("ck_applications_kind"), "applications", "kind IN ('apply', 'reissue', 'add')")
    op.add_column("applications", sa.Column("certificate_type", sa.Text(), server_default="dv", nullable=False))
    op.add_column("applications", sa.Column("organisation_id", sa.Text(collation="C"), nullable=True))
    op.add_column(
        "applications",
        sa.Column("organisation", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    )
    op.add_column("applications", sa.Column("organisation_ok_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("applications", sa.Column("withdraw_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("versions", sa.Column("revoke_replaced_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("certificates", sa.Column("fallback_ca", sa.Text(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("tables are never taken back; restore a backup instead")
