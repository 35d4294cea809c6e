"""Accounts with CAs outside, their orders, and the mirror of their limits"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cas",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("directory_url", sa.Text(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("contacts", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("terms_agreed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.Column("preferred_chain", sa.Text(), nullable=True),
        sa.Column("root_pem", sa.Text(), nullable=True),
        sa.Column("key_id", sa.Text(collation="C"), nullable=False),
        sa.Column("key_algorithm", sa.Text(), nullable=False),
        sa.Column("next_key_id", sa.Text(collation="C"), nullable=True),
        sa.Column("account_url", sa.Text(), nullable=True),
        sa.Column("contacts_told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("eab_kid", sa.Text(), nullable=True),
        sa.Column("eab_key", sa.LargeBinary(), nullable=True),
        sa.Column("limits", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("offers", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("kind IN ('acme')", name=op.f("ck_cas_kind")),
        sa.CheckConstraint("(eab_kid IS NULL) = (eab_key IS NULL)", name=op.f("ck_cas_eab")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_cas_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_cas_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cas")),
        sa.UniqueConstraint("account_id", "name", name=op.f("uq_cas_account_id_name")),
        info={"resource": "ca"},
    )
    op.create_table(
        "ca_orders",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("ca_id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("methods", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("csr_der", sa.LargeBinary(), nullable=False),
        sa.Column("replaces", sa.Text(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.Column("order_url", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("go_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answers", sa.Integer(), server_default="0", nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finalize_intended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ca_orders_account_id")),
        sa.ForeignKeyConstraint(["ca_id"], ["cas.id"], name=op.f("fk_ca_orders_ca_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ca_orders")),
        sa.UniqueConstraint("reference", name=op.f("uq_ca_orders_reference")),
    )
    op.create_index(op.f("ix_ca_orders_ca_id"), "ca_orders", ["ca_id"], unique=False)
    op.create_table(
        "ca_uses",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("ca_id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(collation="C"), server_default="", nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('orders', 'certificates_per_domain', 'duplicates', 'failed_validations')",
            name=op.f("ck_ca_uses_kind"),
        ),
        sa.ForeignKeyConstraint(["ca_id"], ["cas.id"], name=op.f("fk_ca_uses_ca_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ca_uses")),
    )
    op.create_index("ix_ca_uses_recent", "ca_uses", ["ca_id", "kind", "subject", "at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_ca_uses_recent", table_name="ca_uses")
    op.drop_table("ca_uses")
    op.drop_index(op.f("ix_ca_orders_ca_id"), table_name="ca_orders")
    op.drop_table("ca_orders")
    op.drop_table("cas")
