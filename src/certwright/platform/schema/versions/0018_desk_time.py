"""Since when the desk has a case, for how long its product lets it, and cases approved by who applied"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TABLE = "organisation_cases"
_NOT_ONES_OWN = "approved_by <> applied_by AND seconded_by <> applied_by"


def upgrade() -> None:
    op.add_column(_TABLE, sa.Column("desk_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column(_TABLE, sa.Column("review_days", sa.Integer(), server_default="0", nullable=False))
    op.add_column(_TABLE, sa.Column("alone", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.drop_constraint(op.f("ck_organisation_cases_not_ones_own"), _TABLE)
    op.create_check_constraint(op.f("ck_organisation_cases_not_ones_own"), _TABLE, f"alone OR {_NOT_ONES_OWN}")
    op.create_check_constraint(op.f("ck_organisation_cases_alone"), _TABLE, "NOT alone OR level = 'ov'")
    # Those at the desk already are counted from the upgrade: when they came there wasn't kept.
    op.execute(
        "UPDATE organisation_cases SET desk_since = now() WHERE way IS NOT NULL AND waiting_since IS NULL"
        " AND verified_at IS NULL AND refused_at IS NULL AND cancelled_at IS NULL"
    )


def downgrade() -> None:
    op.execute("DELETE FROM organisation_cases WHERE alone")
    op.drop_constraint(op.f("ck_organisation_cases_alone"), _TABLE)
    op.drop_constraint(op.f("ck_organisation_cases_not_ones_own"), _TABLE)
    op.create_check_constraint(op.f("ck_organisation_cases_not_ones_own"), _TABLE, _NOT_ONES_OWN)
    for column in ("alone", "review_days", "desk_since"):
        op.drop_column(_TABLE, column)
