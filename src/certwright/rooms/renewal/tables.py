"""When each certificate's current version is due for renewal. One row per certificate, replaced with each version."""

from __future__ import annotations

import sqlalchemy as sa

from certwright.platform.db import at_column, id_column, metadata, step_columns, tenant_columns

renewals = sa.Table(
    "renewals",
    metadata,
    id_column(primary_key=True),
    id_column("certificate_id", sa.ForeignKey("certificates.id", ondelete="CASCADE"), nullable=False, unique=True),
    *tenant_columns(),
    id_column("version_id", nullable=False),
    at_column("renew_at", nullable=False),
    at_column("not_after", nullable=False),
    id_column("application_id"),
    at_column("started_at"),
    *step_columns(),
    sa.Index("ix_renewals_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)
