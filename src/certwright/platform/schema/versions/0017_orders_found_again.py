"""Orders at ACME CAs whose answer was lost, tls-alpn-01, and how a revocation was believed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ca_orders", sa.Column("placing_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("ca_orders", "csr_der", existing_type=sa.LargeBinary(), nullable=True)
    # Two orders at one place: only the older one can ever be finalized.
    op.execute(
        "UPDATE ca_orders AS later SET failed_at = created_at, failure = ARRAY['Another order was at its place.'] "
        "WHERE failed_at IS NULL AND order_url IS NOT NULL AND EXISTS (SELECT FROM ca_orders AS first "
        "WHERE first.ca_id = later.ca_id AND first.order_url = later.order_url AND first.failed_at IS NULL "
        "AND first.id < later.id)"
    )
    op.create_index(
        "uq_ca_orders_order_url", "ca_orders", ["ca_id", "order_url"], unique=True,
        postgresql_where=sa.text("failed_at IS NULL"),
    )  # fmt: skip
    op.create_index(
        "ix_challenges_tls_alpn", "challenges", ["id"], unique=False,
        postgresql_where=sa.text("method = 'tls-alpn-01' AND released_at IS NULL"),
    )  # fmt: skip
    op.add_column("versions", sa.Column("control_id", sa.Text(collation="C"), nullable=True))
    op.create_unique_constraint(op.f("uq_versions_control_id"), "versions", ["control_id"])
    op.add_column("versions", sa.Column("revoked_by", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_versions_revoked_by"), "versions", "revoked_by IN ('account', 'key', 'control')"
    )  # fmt: skip


def downgrade() -> None:
    for column in ("revoked_by", "control_id"):
        op.drop_column("versions", column)
    op.drop_index("ix_challenges_tls_alpn", table_name="challenges")
    op.drop_index("uq_ca_orders_order_url", table_name="ca_orders")
    op.execute("DELETE FROM ca_orders WHERE csr_der IS NULL")
    op.alter_column("ca_orders", "csr_der", existing_type=sa.LargeBinary(), nullable=False)
    op.drop_column("ca_orders", "placing_at")
