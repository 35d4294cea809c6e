"""Texts agreed to, the technical contact, and what became of a withdrawal"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "privacy_statements",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("first_agreed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_privacy_statements")),
    )
    op.add_column("applications", sa.Column("technical_contact", JSONB(none_as_null=True), nullable=True))
    op.add_column("applications", sa.Column("root_hash", sa.Text(), server_default="default", nullable=False))
    op.create_check_constraint(
        op.f("ck_applications_root_hash"), "applications", "root_hash IN ('default', 'sha256')"
    )  # fmt: skip
    op.add_column(
        "applications", sa.Column("revokes_replaced", sa.Boolean(), server_default="false", nullable=False)
    )  # fmt: skip
    op.add_column("applications", sa.Column("withdrawal_refused", sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("withdrawal_refused", "revokes_replaced", "root_hash", "technical_contact"):
        op.drop_column("applications", column)
    op.drop_table("privacy_statements")
