"""Queues, windows, freezes and CAs' own wishes for renewals; mass replacements; rules put in the place of the shipped"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from certwright.kernel.ids import new_id

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "renewal_queues",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("ca", sa.Text(), nullable=False),
        sa.Column("per_minute", sa.Integer(), nullable=False),
        sa.Column("reserve_percent", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("filled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("per_minute BETWEEN 1 AND 100000", name=op.f("ck_renewal_queues_per_minute")),
        sa.CheckConstraint("reserve_percent BETWEEN 0 AND 90", name=op.f("ck_renewal_queues_reserve_percent")),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_renewal_queues_tokens")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_renewal_queues_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_renewal_queues")),
        sa.UniqueConstraint("account_id", "ca", name=op.f("uq_renewal_queues_account_id_ca")),
    )
    op.create_index(
        "ix_renewal_queues_due",
        "renewal_queues",
        ["next_step_at"],
        unique=False,
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.create_table(
        "renewal_windows",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weekdays", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("from_time", sa.Time(), nullable=False),
        sa.Column("to_time", sa.Time(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("cardinality(weekdays) > 0", name=op.f("ck_renewal_windows_weekdays")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_renewal_windows_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_renewal_windows_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_renewal_windows")),
    )
    op.create_index("ix_renewal_windows_account", "renewal_windows", ["account_id"], unique=False)
    op.create_table(
        "renewal_freezes",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=True),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("to_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("from_at < to_at", name=op.f("ck_renewal_freezes_span")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_renewal_freezes_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_renewal_freezes_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_renewal_freezes")),
    )
    op.create_index("ix_renewal_freezes_account", "renewal_freezes", ["account_id"], unique=False)
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("criteria", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("per_hour", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_by", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("planned_after", sa.Text(collation="C"), nullable=True),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("filled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("waiting", sa.Integer(), server_default="0", nullable=False),
        sa.Column("going", sa.Integer(), server_default="0", nullable=False),
        sa.Column("replaced", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("skipped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("excluded", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("priority IN ('bound_first', 'soonest_end')", name=op.f("ck_campaigns_priority")),
        sa.CheckConstraint(
            "state IN ('planning', 'running', 'paused', 'cancelled', 'finished')", name=op.f("ck_campaigns_state")
        ),
        sa.CheckConstraint("per_hour BETWEEN 1 AND 100000", name=op.f("ck_campaigns_per_hour")),
        sa.CheckConstraint(
            "waiting >= 0 AND going >= 0 AND replaced >= 0 AND failed >= 0 AND skipped >= 0 AND excluded >= 0",
            name=op.f("ck_campaigns_counts"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_campaigns_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_campaigns_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaigns")),
    )
    op.create_index(
        "ix_campaigns_due",
        "campaigns",
        ["next_step_at"],
        unique=False,
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.create_index("ix_campaigns_newest", "campaigns", ["account_id", "id"], unique=False)
    op.create_table(
        "campaign_items",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("campaign_id", sa.Text(collation="C"), nullable=False),
        sa.Column("certificate_id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ca", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Text(collation="C"), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("bound", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("application_before", sa.Text(collation="C"), nullable=True),
        sa.Column("application_id", sa.Text(collation="C"), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'going', 'replaced', 'failed', 'skipped', 'excluded')",
            name=op.f("ck_campaign_items_state"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_campaign_items_account_id")),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("fk_campaign_items_campaign_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_campaign_items_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign_items")),
        sa.UniqueConstraint("campaign_id", "certificate_id", name=op.f("uq_campaign_items_campaign_id_certificate_id")),
    )
    op.create_index("ix_campaign_items_certificate", "campaign_items", ["certificate_id"], unique=False)
    op.create_index(
        "ix_campaign_items_due",
        "campaign_items",
        ["next_step_at"],
        unique=False,
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.create_index(
        "ix_campaign_items_waiting",
        "campaign_items",
        ["campaign_id", "ca"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "rule_packs",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("uploaded_by", sa.Text(), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_rule_packs_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule_packs")),
    )
    op.create_index(
        "uq_rule_packs_in_force",
        "rule_packs",
        ["account_id"],
        unique=True,
        postgresql_where=sa.text("replaced_at IS NULL"),
    )

    _widen_renewals()


def _widen_renewals() -> None:
    """Plans there are go to the queues of their CAs; those of CAs outside are asked about at once."""
    time, text = sa.DateTime(timezone=True), sa.Text()
    for name, kind in (
        ("ca", text), ("fraction_at", time), ("need_by", time), ("ask_at", time), ("asked_at", time),
        ("window_start", time), ("window_end", time), ("window_place", sa.Double()), ("explanation_url", text),
        ("held_until", time), ("admitted_at", time),
    ):  # fmt: skip
        op.add_column("renewals", sa.Column(name, kind, nullable=True))
    op.execute(
        "UPDATE renewals r SET ca = c.ca, fraction_at = r.renew_at, need_by = r.renew_at + (r.not_after - r.renew_at) / 2,"
        " ask_at = CASE WHEN c.ca = 'builtin' THEN NULL ELSE now() END,"
        " next_step_at = CASE WHEN c.ca = 'builtin' OR r.started_at IS NOT NULL THEN NULL ELSE now() END"
        " FROM certificates c WHERE c.id = r.certificate_id"
    )
    for name in ("ca", "fraction_at", "need_by"):
        op.alter_column("renewals", name, nullable=False)
    op.create_index(
        "ix_renewals_queue", "renewals", ["account_id", "ca", "not_after"],
        postgresql_where=sa.text("admitted_at IS NULL AND started_at IS NULL"),
    )  # fmt: skip
    op.create_index("ix_renewals_by_date", "renewals", ["account_id", "renew_at", "id"])
    now = datetime.now(UTC)
    connection = op.get_bind()
    for account_id, ca in connection.execute(sa.text("SELECT DISTINCT account_id, ca FROM renewals")).all():
        connection.execute(
            sa.text(
                "INSERT INTO renewal_queues (id, account_id, ca, per_minute, reserve_percent, tokens, filled_at, "
                "next_step_at) VALUES (:id, :account_id, :ca, :per_minute, 20, 1, :now, :now)"
            ),
            {"id": new_id("rnq", now), "account_id": account_id, "ca": ca,
             "per_minute": 600 if ca == "builtin" else 60, "now": now},
        )  # fmt: skip


def downgrade() -> None:
    op.drop_index("ix_renewals_by_date", table_name="renewals")
    op.drop_index("ix_renewals_queue", table_name="renewals")
    for name in (
        "admitted_at", "held_until", "explanation_url", "window_place", "window_end", "window_start", "asked_at",
        "ask_at", "need_by", "fraction_at", "ca",
    ):  # fmt: skip
        op.drop_column("renewals", name)
    for table in (
        "rule_packs", "campaign_items", "campaigns", "renewal_freezes", "renewal_windows", "renewal_queues",
    ):  # fmt: skip
        op.drop_table(table)
