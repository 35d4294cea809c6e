"""Records that go where a CNAME leads"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("challenges", sa.Column("leads_to", sa.Text(collation="C"), nullable=True))


def downgrade() -> None:
    op.drop_column("challenges", "leads_to")
