"""Lists in an object storage"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "crl_storages",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("authority_id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), server_default="", nullable=False),
        sa.Column("access_key_id", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_crl_storages_account_id")),
        sa.ForeignKeyConstraint(["authority_id"], ["authorities.id"], name=op.f("fk_crl_storages_authority_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crl_storages")),
        sa.UniqueConstraint("authority_id", name=op.f("uq_crl_storages_authority_id")),
    )
    op.create_index(
        "ix_crl_storages_due",
        "crl_storages",
        ["next_step_at"],
        unique=False,
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.add_column("authorities", sa.Column("crl_public_url", sa.Text(), nullable=True))
    op.add_column("crl_shards", sa.Column("stored_number", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("crl_shards", "stored_number")
    op.drop_column("authorities", "crl_public_url")
    op.drop_index(
        "ix_crl_storages_due", table_name="crl_storages", postgresql_where=sa.text("next_step_at IS NOT NULL")
    )
    op.drop_table("crl_storages")
