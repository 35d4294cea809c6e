"""When each certificate's current version is due, when renewals may run and how fast, and mass replacements."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns
from certwright.rooms.renewal.words import CampaignState, ItemState, Priority

# Policies speak of the certificate.
_OF_CERTIFICATE = {"resource": "certificate", "resource_id": "certificate_id"}


def _one_of(column: str, words: Any) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({', '.join(repr(str(word)) for word in words)})", column)


def _account() -> sa.Column[str]:
    return id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False)


def _due(table: str) -> sa.Index:
    return sa.Index(f"ix_{table}_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL"))


# One row per certificate, replaced with each version.
renewals = sa.Table(
    "renewals",
    metadata,
    id_column(primary_key=True),
    id_column("certificate_id", sa.ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False, unique=True),
    *tenant_columns(),
    id_column("version_id", nullable=False),
    sa.Column("ca", sa.Text, nullable=False),
    # By the fraction of life, and as it is now that the CA was asked.
    at_column("fraction_at", nullable=False),
    at_column("renew_at", nullable=False),
    # The last safe moment: from here on neither windows nor freezes hold it back.
    at_column("need_by", nullable=False),
    at_column("not_after", nullable=False),
    # What the CA said (RFC 9773). The place inside its window is drawn once for a version.
    at_column("ask_at"),
    at_column("asked_at"),
    at_column("window_start"),
    at_column("window_end"),
    sa.Column("window_place", sa.Double),
    sa.Column("explanation_url", sa.Text),
    # A refused attempt waits until here before it queues again.
    at_column("held_until"),
    # It has its token: its step starts the reissue.
    at_column("admitted_at"),
    id_column("application_id"),
    at_column("started_at"),
    *step_columns(),
    _due("renewals"),
    sa.Index(
        "ix_renewals_queue", "account_id", "ca", "not_after",
        postgresql_where=sa.text("admitted_at IS NULL AND started_at IS NULL"),
    ),
    sa.Index("ix_renewals_by_date", "account_id", "renew_at", "id"),
    info=_OF_CERTIFICATE,
)  # fmt: skip

# One row per account and CA: the bucket of tokens, and the step that lets renewals through.
renewal_queues = sa.Table(
    "renewal_queues",
    metadata,
    id_column(primary_key=True),
    _account(),
    sa.Column("ca", sa.Text, nullable=False),
    sa.Column("per_minute", sa.Integer, nullable=False),
    sa.Column("reserve_percent", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Double, nullable=False),
    at_column("filled_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    *step_columns(),
    sa.UniqueConstraint("account_id", "ca"),
    sa.CheckConstraint("per_minute BETWEEN 1 AND 100000", "per_minute"),
    sa.CheckConstraint("reserve_percent BETWEEN 0 AND 90", "reserve_percent"),
    sa.CheckConstraint("tokens >= 0", "tokens"),
    _due("renewal_queues"),
)

# Without a project: of the whole account.
renewal_windows = sa.Table(
    "renewal_windows",
    metadata,
    id_column(primary_key=True),
    _account(),
    id_column("project_id", sa.ForeignKey("projects.id")),
    sa.Column("name", sa.Text, nullable=False),
    # 0 is Monday; the day on which the window begins.
    sa.Column("weekdays", ARRAY(sa.Integer), nullable=False),
    sa.Column("from_time", sa.Time, nullable=False),
    sa.Column("to_time", sa.Time, nullable=False),
    sa.Column("zone", sa.Text, nullable=False),
    at_column("created_at", nullable=False),
    sa.CheckConstraint("cardinality(weekdays) > 0", "weekdays"),
    sa.Index("ix_renewal_windows_account", "account_id"),
    info={"resource": "renewal-window"},
)

renewal_freezes = sa.Table(
    "renewal_freezes",
    metadata,
    id_column(primary_key=True),
    _account(),
    id_column("project_id", sa.ForeignKey("projects.id")),
    at_column("from_at", nullable=False),
    at_column("to_at", nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    at_column("created_at", nullable=False),
    sa.CheckConstraint("from_at < to_at", "span"),
    sa.Index("ix_renewal_freezes_account", "account_id"),
    info={"resource": "renewal-freeze"},
)

campaigns = sa.Table(
    "campaigns",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    json_column("criteria", nullable=False),
    at_column("deadline", nullable=False),
    sa.Column("per_hour", sa.Integer, nullable=False),
    sa.Column("priority", sa.Text, nullable=False),
    _one_of("priority", Priority),
    # Where the new versions come from; null: each from the CA it has.
    id_column("to_ca"),
    sa.Column("state", sa.Text, nullable=False),
    _one_of("state", CampaignState),
    # Whose view of the certificates counts, and how far they were gone through.
    json_column("started_by", nullable=False),
    id_column("planned_after"),
    at_column("planned_at"),
    sa.Column("tokens", sa.Double, nullable=False),
    at_column("filled_at", nullable=False),
    *(sa.Column(state.value, sa.Integer, nullable=False, server_default="0") for state in ItemState),
    at_column("created_at", nullable=False),
    at_column("ended_at"),
    *step_columns(),
    sa.CheckConstraint("per_hour BETWEEN 1 AND 100000", "per_hour"),
    sa.CheckConstraint(" AND ".join(f"{state.value} >= 0" for state in ItemState), "counts"),
    sa.Index("ix_campaigns_newest", "account_id", "id"),
    _due("campaigns"),
    info={"resource": "campaign"},
)

campaign_items = sa.Table(
    "campaign_items",
    metadata,
    id_column(primary_key=True),
    id_column("campaign_id", sa.ForeignKey("campaigns.id", ondelete="CASCADE"), nullable=False),
    id_column("certificate_id", nullable=False),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    # The one asked for the new version, whose tokens it takes.
    sa.Column("ca", sa.Text, nullable=False),
    # The version to be replaced, when it ends, and whether a listener serves it.
    id_column("version_id", nullable=False),
    at_column("not_after", nullable=False),
    sa.Column("bound", sa.Boolean, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    _one_of("state", ItemState),
    sa.Column("reason_code", sa.Text, nullable=False, server_default=""),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    at_column("retry_at"),
    # The intention, with the newest application there was then, before the reissue is asked for.
    at_column("intended_at"),
    id_column("application_before"),
    id_column("application_id"),
    at_column("ended_at"),
    *step_columns(),
    sa.UniqueConstraint("campaign_id", "certificate_id"),
    sa.Index("ix_campaign_items_certificate", "certificate_id"),
    sa.Index("ix_campaign_items_waiting", "campaign_id", "ca", postgresql_where=sa.text("state = 'waiting'")),
    _due("campaign_items"),
    info=_OF_CERTIFICATE,
)
