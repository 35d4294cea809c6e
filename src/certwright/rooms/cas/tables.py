"""Accounts with CAs outside, the orders placed there, and what was used of their limits."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, tenant_columns
from certwright.rooms.cas.words import CaKind, Use

_KINDS = ", ".join(f"'{kind.value}'" for kind in CaKind)
_USES = ", ".join(f"'{use.value}'" for use in Use)

cas = sa.Table(
    "cas",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.CheckConstraint(f"kind IN ({_KINDS})", "kind"),
    sa.Column("directory_url", sa.Text, nullable=False),
    # Whether browsers trust it: then the Baseline Requirements' rules bind (names, methods, reuse).
    sa.Column("public", sa.Boolean, nullable=False),
    sa.Column("contacts", ARRAY(sa.Text), nullable=False, server_default="{}"),
    at_column("terms_agreed_at"),
    sa.Column("profile", sa.Text),
    sa.Column("preferred_chain", sa.Text),
    sa.Column("root_pem", sa.Text),
    # The account's key is made and stored before the CA hears of it. Of ACME CAs only.
    id_column("key_id"),
    sa.Column("key_algorithm", sa.Text),
    # A roll-over under way: either key may be the one the CA knows.
    id_column("next_key_id"),
    sa.Column("account_url", sa.Text),
    # NULL after the contacts were changed here and not yet there.
    at_column("contacts_told_at"),
    sa.Column("eab_kid", sa.Text),
    sa.Column("eab_key", sa.LargeBinary),
    # Of CAs that sell, which know us by a key they gave us.
    sa.Column("api_key", sa.LargeBinary),
    json_column("settings"),
    json_column("limits", nullable=False),
    json_column("offers"),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    at_column("checked_at"),
    json_column("problem"),
    sa.CheckConstraint("(eab_kid IS NULL) = (eab_key IS NULL)", "eab"),
    sa.CheckConstraint("(kind = 'acme') = (key_id IS NOT NULL AND key_algorithm IS NOT NULL)", "account_key"),
    sa.CheckConstraint("(kind = 'certcentral') = (api_key IS NOT NULL AND settings IS NOT NULL)", "api_key"),
    sa.UniqueConstraint("account_id", "name"),
    info={"resource": "ca"},
)

ca_orders = sa.Table(
    "ca_orders",
    metadata,
    id_column(primary_key=True),
    id_column("ca_id", sa.ForeignKey("cas.id", ondelete="CASCADE"), nullable=False, index=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    # Whoever asked: the same reference never yields two orders that are used.
    sa.Column("reference", sa.Text, nullable=False, unique=True),
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    json_column("methods", nullable=False),
    # NULL: only the names are to be shown, nothing is ever issued for it.
    sa.Column("csr_der", sa.LargeBinary),
    sa.Column("replaces", sa.Text),
    sa.Column("profile", sa.Text),
    # The CA may have heard of it from here on; without `order_url` its answer was lost.
    at_column("placing_at"),
    sa.Column("order_url", sa.Text),
    at_column("created_at", nullable=False),
    at_column("go_at"),
    # How often, and when last, the CA was told to look: a failed look counts against its limits.
    sa.Column("answers", sa.Integer, nullable=False, server_default="0"),
    at_column("answered_at"),
    # The certificate counts against the limits from here on, whether or not the CA's answer arrives.
    at_column("finalize_intended_at"),
    at_column("failed_at"),
    sa.Column("failure", ARRAY(sa.Text), nullable=False, server_default="{}"),
    # Some CAs answer a second order for the same names with the first one's address; only one can be finalized.
    sa.Index(
        "uq_ca_orders_order_url", "ca_id", "order_url", unique=True, postgresql_where=sa.text("failed_at IS NULL")
    ),
)

ca_purchases = sa.Table(
    "ca_purchases",
    metadata,
    id_column(primary_key=True),
    id_column("ca_id", sa.ForeignKey("cas.id", ondelete="CASCADE"), nullable=False, index=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    # Whoever asked; the CA is told it too, so that an order whose answer was lost is found again.
    sa.Column("reference", sa.Text, nullable=False, unique=True),
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("csr_der", sa.LargeBinary, nullable=False),
    sa.Column("product", sa.Text, nullable=False),
    sa.Column("validation", sa.Text, nullable=False),
    sa.CheckConstraint("validation IN ('dv', 'ov', 'ev')", "validation"),
    sa.Column("years", sa.Integer, nullable=False),
    sa.Column("reissue_of", sa.Text),
    sa.Column("organisation_number", sa.Text),
    at_column("created_at", nullable=False),
    at_column("placing_at"),
    sa.Column("order_number", sa.Text),
    sa.Column("certificate_number", sa.Text),
    # Until when the value is good that was given out to be published.
    at_column("shown_until"),
    at_column("go_at"),
    sa.Column("looks", sa.Integer, nullable=False, server_default="0"),
    at_column("looked_at"),
    sa.Column("said", sa.Text, nullable=False, server_default=""),
    sa.Column("leaf_sha256", sa.Text),
    at_column("failed_at"),
    sa.Column("failure", ARRAY(sa.Text), nullable=False, server_default="{}"),
    at_column("cancelled_at"),
    sa.CheckConstraint("order_number IS NULL OR placing_at IS NOT NULL", "placed"),
    sa.Index("ix_ca_purchases_leaf", "ca_id", "leaf_sha256"),
)  # fmt: skip

ca_uses = sa.Table(
    "ca_uses",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    id_column("ca_id", sa.ForeignKey("cas.id", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.CheckConstraint(f"kind IN ({_USES})", "kind"),
    sa.Column("subject", sa.Text(collation="C"), nullable=False, server_default=""),
    at_column("at", nullable=False),
    sa.Index("ix_ca_uses_recent", "ca_id", "kind", "subject", "at"),
)
