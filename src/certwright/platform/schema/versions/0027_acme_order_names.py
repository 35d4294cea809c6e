"""ACME orders by name"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_acme_orders_names", "acme_orders", ["names"], unique=False, postgresql_using="gin")


def downgrade() -> None:
    op.drop_index("ix_acme_orders_names", table_name="acme_orders", postgresql_using="gin")
