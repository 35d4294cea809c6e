"""Targets, the sites found on them, bindings of certificates to sites, and rollouts with their steps."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns
from certwright.rooms.deployment.words import Health, RolloutState, Step, Trigger


def _one_of(column: str, words: type[Health | RolloutState | Step | Trigger]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{word.value}'" for word in words)
    return sa.CheckConstraint(f"{column} IN ({listed})", column)


targets = sa.Table(
    "targets",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("region", sa.Text, nullable=False, server_default=""),
    json_column("config", nullable=False),
    # Digest of what tells the server from others (`TargetKind.identity`). Unique across accounts and projects: whoever
    # has a server as a target sees and replaces what it serves.
    sa.Column("server", sa.Text, nullable=False, unique=True),
    sa.Column("health", sa.Text, nullable=False, server_default=Health.UNKNOWN.value),
    _one_of("health", Health),
    json_column("health_problem"),
    sa.Column("software", sa.Text, nullable=False, server_default=""),
    at_column("discovered_at"),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.UniqueConstraint("account_id", "name"),
    sa.Index("ix_targets_newest", "account_id", "id"),
)

sites = sa.Table(
    "sites",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("target_id", sa.ForeignKey("targets.id", ondelete="CASCADE"), nullable=False),
    # What the connector calls it; changes when the site's names or addresses do.
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    # The whole discovered site, in the connector's words (listeners, slots, addresses).
    json_column("facts", nullable=False),
    at_column("first_seen_at", nullable=False),
    at_column("last_seen_at", nullable=False),
    at_column("gone_at"),
    sa.UniqueConstraint("target_id", "key"),
)

bindings = sa.Table(
    "bindings",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("target_id", sa.ForeignKey("targets.id"), nullable=False, index=True),
    id_column("site_id", sa.ForeignKey("sites.id"), nullable=False),
    # Which of the site's certificates: `only`, or the key type where a site has several.
    sa.Column("slot", sa.Text, nullable=False),
    # No ON DELETE: a bound certificate can't go, whoever deletes it.
    id_column("certificate_id", sa.ForeignKey("certificates.id"), nullable=False, index=True),
    id_column("deployed_version_id"),
    id_column("rollout_id"),
    at_column("deployed_at"),
    sa.Column("auto_deploy", sa.Boolean, nullable=False, server_default="true"),
    # Set when bringing a new version here failed by itself; cleared when it is there.
    at_column("retry_at"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    at_column("created_at", nullable=False),
    sa.UniqueConstraint("site_id", "slot"),
    sa.Index("ix_bindings_retry", "retry_at", postgresql_where=sa.text("retry_at IS NOT NULL")),
)

rollouts = sa.Table(
    "rollouts",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("target_id", sa.ForeignKey("targets.id", ondelete="CASCADE"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    _one_of("state", RolloutState),
    sa.Column("trigger", sa.Text, nullable=False),
    _one_of("trigger", Trigger),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("next_step", sa.Text),
    _one_of("next_step", Step),
    json_column("plan"),
    json_column("problem"),
    at_column("created_at", nullable=False),
    at_column("started_at"),
    at_column("undo_asked_at"),
    at_column("finished_at"),
    *step_columns(),
    # A started rollout has its target to itself; this index keeps that promise, the connector's lock its own.
    sa.Index(
        "uq_rollouts_under_way",
        "target_id",
        unique=True,
        postgresql_where=sa.text("started_at IS NOT NULL AND finished_at IS NULL"),
    ),
    sa.CheckConstraint("(finished_at IS NULL) = (next_step IS NOT NULL)", "next_step_until_finished"),
    sa.Index("ix_rollouts_newest", "account_id", "id"),
    sa.Index("ix_rollouts_target", "target_id", "id"),
    sa.Index("ix_rollouts_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

rollout_items = sa.Table(
    "rollout_items",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("rollout_id", sa.ForeignKey("rollouts.id", ondelete="CASCADE"), nullable=False),
    id_column("binding_id", sa.ForeignKey("bindings.id", ondelete="SET NULL")),
    id_column("site_id", sa.ForeignKey("sites.id", ondelete="SET NULL")),
    sa.Column("site_label", sa.Text, nullable=False),
    # History outlives the certificate, hence no foreign keys.
    id_column("certificate_id", nullable=False, index=True),
    id_column("version_id", nullable=False),
    # What the binding was before, so that undoing puts that back, too.
    id_column("previous_certificate_id"),
    id_column("previous_version_id"),
    sa.Column("made_binding", sa.Boolean, nullable=False, server_default="false"),
    sa.UniqueConstraint("rollout_id", "binding_id"),
)

rollout_steps = sa.Table(
    "rollout_steps",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("rollout_id", sa.ForeignKey("rollouts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    _one_of("step", Step),
    at_column("started_at", nullable=False),
    at_column("finished_at"),
    sa.Column("outcome", sa.Text),
    sa.CheckConstraint("outcome IN ('done', 'failed')", "outcome"),
    json_column("details"),
    json_column("problem"),
    sa.Index("ix_rollout_steps_rollout", "rollout_id", "id"),
)
