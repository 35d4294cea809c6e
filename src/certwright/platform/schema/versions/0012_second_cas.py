"""A second CA for a certificate, and who issued what"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("applications", sa.Column("ca", sa.Text(), nullable=True))
    op.add_column("applications", sa.Column("ca_away_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("applications", sa.Column("takes_over_id", sa.Text(collation="C"), nullable=True))
    op.add_column("versions", sa.Column("ca", sa.Text(), nullable=True))


def downgrade() -> None:
    for table, column in (
        ("applications", "ca"), ("applications", "ca_away_since"), ("applications", "takes_over_id"), ("versions", "ca"),
    ):  # fmt: skip
        op.drop_column(table, column)
