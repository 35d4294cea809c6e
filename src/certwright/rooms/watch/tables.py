"""Endpoints, what was seen at them, and the alarms.

`endpoints.next_probe_at` is the regular round, taken in batches; the step columns are for probes asked for at once.
An observation is a period during which an address served the same thing; the open one has no `superseded_at`.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns

endpoints = sa.Table(
    "endpoints",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.CheckConstraint("port BETWEEN 1 AND 65535", "port"),
    # The name sent and expected; empty: the host itself is expected and, if it is an address, no name is sent.
    sa.Column("sni", sa.Text, nullable=False, server_default=""),
    sa.Column("starttls", sa.Text, nullable=False, server_default="none"),
    sa.Column("origin", sa.Text, nullable=False),
    sa.CheckConstraint("origin IN ('manual', 'binding')", "origin"),
    id_column("binding_id"),
    id_column("site_id"),
    id_column("certificate_id"),
    sa.Column("expected_fingerprint", sa.Text),
    at_column("settle_until"),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    at_column("next_probe_at"),
    # of the last probe, kept for lists and metrics
    at_column("last_probe_at"),
    sa.Column("reachable", sa.Boolean),
    sa.Column("fingerprint", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("issuer", sa.Text),
    sa.Column("serial", sa.Text),
    at_column("not_before"),
    at_column("not_after"),
    at_column("chain_not_after"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    *step_columns(),
    sa.UniqueConstraint("project_id", "host", "port", "sni", "starttls"),
    sa.Index("uq_endpoints_binding", "binding_id", unique=True, postgresql_where=sa.text("binding_id IS NOT NULL")),
    sa.Index("ix_endpoints_certificate", "certificate_id"),
    sa.Index("ix_endpoints_account", "account_id", "id"),
    sa.Index("ix_endpoints_probe", "next_probe_at", postgresql_where=sa.text("next_probe_at IS NOT NULL")),
    sa.Index("ix_endpoints_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

observations = sa.Table(
    "observations",
    metadata,
    id_column(primary_key=True),
    id_column("endpoint_id", sa.ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
    *tenant_columns(),
    sa.Column("address", sa.Text, nullable=False),
    at_column("first_seen", nullable=False),
    at_column("last_seen", nullable=False),
    at_column("superseded_at"),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("reachable", sa.Boolean, nullable=False),
    sa.Column("intended", sa.Boolean),
    sa.Column("problem", sa.Text),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Column("fingerprint", sa.Text),
    sa.Column("names", ARRAY(sa.Text), nullable=False, server_default="{}"),
    at_column("not_before"),
    at_column("not_after"),
    sa.Column("chain_state", sa.Text),
    sa.Column("trusted", sa.Boolean),
    sa.Column("links", JSONB, nullable=False, server_default="[]"),
    sa.Column("chain_ders", ARRAY(sa.LargeBinary), nullable=False, server_default="{}"),
    sa.Column("tls_version", sa.Text),
    sa.Column("cipher", sa.Text),
    sa.Column("key_exchange_group", sa.Text),
    sa.Column("latency_ms", sa.Float),
    sa.Index(
        "uq_observations_open", "endpoint_id", "address", unique=True, postgresql_where=sa.text("superseded_at IS NULL")
    ),
    sa.Index("ix_observations_history", "endpoint_id", "id"),
)

alarms = sa.Table(
    "alarms",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("object_type", sa.Text, nullable=False),
    id_column("object_id", nullable=False),
    sa.Column("object_name", sa.Text, nullable=False),
    sa.Column(
        "severity", sa.Text, nullable=False,
    ),
    sa.CheckConstraint("severity IN ('critical', 'major', 'minor', 'warning')", "severity"),
    sa.Column("threshold", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    json_column("params", nullable=False),
    sa.Column("identity", ARRAY(sa.Text), nullable=False),
    sa.Column("addresses", ARRAY(sa.Text), nullable=False),
    json_column("location", nullable=False),
    # Of the latest periods, oldest first: {"at", "value"}.
    json_column("recent_values", nullable=False),
    at_column("raised_at", nullable=False),
    at_column("changed_at", nullable=False),
    at_column("cleared_at"),
    sa.Column("cleared_by", sa.Text),
    at_column("acknowledged_at"),
    sa.Column("acknowledged_by", sa.Text),
    # Promise: one open alarm per object and kind.
    sa.Index("uq_alarms_open", "object_id", "kind", unique=True, postgresql_where=sa.text("cleared_at IS NULL")),
    sa.Index("ix_alarms_account", "account_id", "id"),
    sa.Index("ix_alarms_open_account", "account_id", "severity", postgresql_where=sa.text("cleared_at IS NULL")),
)  # fmt: skip

alarm_history = sa.Table(
    "alarm_history",
    metadata,
    id_column(primary_key=True),
    # Ids of the same millisecond have no order.
    sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
    id_column("alarm_id", sa.ForeignKey("alarms.id", ondelete="CASCADE"), nullable=False, index=True),
    at_column("at", nullable=False),
    sa.Column(
        "what", sa.Text,
        nullable=False,
    ),
    sa.CheckConstraint("what IN ('raised', 'changed', 'cleared', 'acknowledged', 'unacknowledged')", "what"),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("threshold", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    json_column("params", nullable=False),
    sa.Column("by", sa.Text, nullable=False),
)  # fmt: skip

watched_versions = sa.Table(
    "watched_versions",
    metadata,
    id_column(primary_key=True),
    id_column("certificate_id", nullable=False, index=True),
    *tenant_columns(),
    *step_columns(),
    sa.Index("ix_watched_versions_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)
