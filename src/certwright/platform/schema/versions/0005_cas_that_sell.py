"""CAs that sell certificates, and what was bought there"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cas", sa.Column("api_key", sa.LargeBinary(), nullable=True))
    op.add_column(
        "cas", sa.Column("settings", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True)
    )
    op.alter_column("cas", "key_id", nullable=True)
    op.alter_column("cas", "key_algorithm", nullable=True)
    op.drop_constraint(op.f("ck_cas_kind"), "cas")
    op.create_check_constraint(op.f("ck_cas_kind"), "cas", "kind IN ('acme', 'certcentral')")
    op.create_check_constraint(
        op.f("ck_cas_account_key"), "cas", "(kind = 'acme') = (key_id IS NOT NULL AND key_algorithm IS NOT NULL)"
    )
    op.create_check_constraint(
        op.f("ck_cas_api_key"), "cas", "(kind = 'certcentral') = (api_key IS NOT NULL AND settings IS NOT NULL)"
    )
    op.create_table(
        "ca_purchases",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("ca_id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("csr_der", sa.LargeBinary(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("validation", sa.Text(), nullable=False),
        sa.Column("years", sa.Integer(), nullable=False),
        sa.Column("reissue_of", sa.Text(), nullable=True),
        sa.Column("organisation_number", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("placing_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("order_number", sa.Text(), nullable=True),
        sa.Column("certificate_number", sa.Text(), nullable=True),
        sa.Column("shown_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("go_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("said", sa.Text(), server_default="", nullable=False),
        sa.Column("leaf_sha256", sa.Text(), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("order_number IS NULL OR placing_at IS NOT NULL", name=op.f("ck_ca_purchases_placed")),
        sa.CheckConstraint("validation IN ('dv', 'ov', 'ev')", name=op.f("ck_ca_purchases_validation")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ca_purchases_account_id")),
        sa.ForeignKeyConstraint(["ca_id"], ["cas.id"], name=op.f("fk_ca_purchases_ca_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ca_purchases")),
        sa.UniqueConstraint("reference", name=op.f("uq_ca_purchases_reference")),
    )
    op.create_index(op.f("ix_ca_purchases_ca_id"), "ca_purchases", ["ca_id"], unique=False)
    op.create_index("ix_ca_purchases_leaf", "ca_purchases", ["ca_id", "leaf_sha256"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_ca_purchases_leaf", table_name="ca_purchases")
    op.drop_index(op.f("ix_ca_purchases_ca_id"), table_name="ca_purchases")
    op.drop_table("ca_purchases")
    op.execute("DELETE FROM cas WHERE kind = 'certcentral'")
    op.drop_constraint(op.f("ck_cas_api_key"), "cas")
    op.drop_constraint(op.f("ck_cas_account_key"), "cas")
    op.drop_constraint(op.f("ck_cas_kind"), "cas")
    op.create_check_constraint(op.f("ck_cas_kind"), "cas", "kind IN ('acme')")
    op.alter_column("cas", "key_algorithm", nullable=False)
    op.alter_column("cas", "key_id", nullable=False)
    op.drop_column("cas", "settings")
    op.drop_column("cas", "api_key")
