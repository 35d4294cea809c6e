"""One CA a key"""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_unique_constraint(op.f("uq_authorities_ca_key_id"), "authorities", ["ca_key_id"])


def downgrade() -> None:
    op.drop_constraint(op.f("uq_authorities_ca_key_id"), "authorities", type_="unique")
