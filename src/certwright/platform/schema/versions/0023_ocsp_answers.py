"""Answers about certificates (OCSP), signed before anybody asks"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_AT = sa.DateTime(timezone=True)
_ID = sa.Text(collation="C")


def upgrade() -> None:
    op.create_table(
        "ocsp_answers",
        sa.Column("authority_id", _ID, nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("hash_name", sa.Text(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("revoked_at", _AT, nullable=True),
        sa.Column("this_update", _AT, nullable=False),
        sa.Column("next_update", _AT, nullable=False),
        sa.Column("renew_at", _AT, nullable=False),
        sa.Column("not_after", _AT, nullable=False),
        sa.ForeignKeyConstraint(["authority_id"], ["authorities.id"], name=op.f("fk_ocsp_answers_authority_id")),
        sa.PrimaryKeyConstraint("authority_id", "serial", "hash_name", name=op.f("pk_ocsp_answers")),
    )
    op.create_index("ix_ocsp_answers_due", "ocsp_answers", ["authority_id", "renew_at"])


def downgrade() -> None:
    op.drop_table("ocsp_answers")
