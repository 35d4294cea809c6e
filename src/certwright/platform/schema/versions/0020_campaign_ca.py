"""Mass replacements that get the new versions from another CA"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("campaigns", sa.Column("to_ca", sa.Text(collation="C"), nullable=True))


def downgrade() -> None:
    op.drop_column("campaigns", "to_ca")
