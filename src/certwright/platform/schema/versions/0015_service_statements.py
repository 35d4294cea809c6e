"""Service statements buyers agreed to; orders are searched by an index; a key posts once on each account"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "service_statements",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("first_agreed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_service_statements")),
    )
    op.create_index(
        "ix_orders_search",
        "orders",
        ["search_text"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"search_text": "gin_trgm_ops"},
    )
    op.create_index(
        "ix_certificates_renews",
        "certificates",
        ["renews_certificate_id"],
        unique=False,
        postgresql_where=sa.text("renews_certificate_id IS NOT NULL"),
    )
    op.create_unique_constraint(
        op.f("uq_ledger_postings_transaction_id_ledger_account_id"),
        "ledger_postings",
        ["transaction_id", "ledger_account_id"],
    )
    # The constraint's index begins with the same column.
    op.drop_index(op.f("ix_ledger_postings_transaction_id"), table_name="ledger_postings")


def downgrade() -> None:
    op.create_index(op.f("ix_ledger_postings_transaction_id"), "ledger_postings", ["transaction_id"], unique=False)
    op.drop_constraint(op.f("uq_ledger_postings_transaction_id_ledger_account_id"), "ledger_postings", type_="unique")
    op.drop_index("ix_certificates_renews", table_name="certificates")
    op.drop_index("ix_orders_search", table_name="orders")
    op.drop_table("service_statements")
