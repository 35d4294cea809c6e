"""The ACME server"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "acme_nonce_keys",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_nonce_keys")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "acme_used_nonces",
        sa.Column("nonce", sa.Text(collation="C"), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_acme_used_nonces")),
        prefixes=["UNLOGGED"],
    )
    op.create_index("ix_acme_used_nonces_at", "acme_used_nonces", ["used_at"], unique=False)
    op.create_table(
        "acme_directories",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("authority_id", sa.Text(collation="C"), nullable=False),
        sa.Column("slug", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("eab_required", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("allowed_names", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("profiles", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("challenges", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("days", sa.Integer(), nullable=True),
        sa.Column("reuse_days", sa.Integer(), server_default="0", nullable=False),
        sa.Column("terms_url", sa.Text(), nullable=True),
        sa.Column("website", sa.Text(), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint(
            "cardinality(challenges) > 0 AND challenges <@ ARRAY['http-01', 'dns-01', 'tls-alpn-01']",
            name=op.f("ck_acme_directories_challenges"),
        ),
        sa.CheckConstraint("cardinality(profiles) BETWEEN 1 AND 20", name=op.f("ck_acme_directories_profiles")),
        sa.CheckConstraint("days BETWEEN 1 AND 3650", name=op.f("ck_acme_directories_days")),
        sa.CheckConstraint("reuse_days BETWEEN 0 AND 30", name=op.f("ck_acme_directories_reuse_days")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_acme_directories_account_id")),
        sa.ForeignKeyConstraint(["authority_id"], ["authorities.id"], name=op.f("fk_acme_directories_authority_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_acme_directories_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_directories")),
        sa.UniqueConstraint("slug", name=op.f("uq_acme_directories_slug")),
    )
    op.create_index("ix_acme_directories_authority", "acme_directories", ["authority_id"], unique=False)
    op.create_table(
        "acme_slugs",
        sa.Column("slug", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_acme_slugs_account_id")),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_acme_slugs")),
    )
    op.create_table(
        "acme_eab_keys",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("directory_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("allowed_names", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("reusable", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(sealed IS NULL) = (revoked_at IS NOT NULL)", name=op.f("ck_acme_eab_keys_revoked_is_erased")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_acme_eab_keys_account_id")),
        sa.ForeignKeyConstraint(["directory_id"], ["acme_directories.id"], name=op.f("fk_acme_eab_keys_directory_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_acme_eab_keys_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_eab_keys")),
    )
    op.create_index("ix_acme_eab_keys_directory", "acme_eab_keys", ["directory_id", "id"], unique=False)
    op.create_table(
        "acme_accounts",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("directory_id", sa.Text(collation="C"), nullable=False),
        sa.Column("thumbprint", sa.Text(collation="C"), nullable=False),
        sa.Column("jwk", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("contacts", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("eab_key_id", sa.Text(collation="C"), nullable=True),
        sa.Column("terms_agreed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deactivated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_acme_accounts_account_id")),
        sa.ForeignKeyConstraint(["directory_id"], ["acme_directories.id"], name=op.f("fk_acme_accounts_directory_id")),
        sa.ForeignKeyConstraint(["eab_key_id"], ["acme_eab_keys.id"], name=op.f("fk_acme_accounts_eab_key_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_acme_accounts_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_accounts")),
        sa.UniqueConstraint("directory_id", "thumbprint", name=op.f("uq_acme_accounts_directory_id_thumbprint")),
    )
    op.create_index("ix_acme_accounts_directory", "acme_accounts", ["directory_id", "id"], unique=False)
    op.create_index(
        "ix_acme_accounts_eab_key",
        "acme_accounts",
        ["eab_key_id"],
        unique=False,
        postgresql_where=sa.text("eab_key_id IS NOT NULL"),
    )
    op.create_table(
        "acme_authorizations",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("acme_account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(collation="C"), nullable=False),
        sa.Column("wildcard", sa.Boolean(), nullable=False),
        sa.Column("token", sa.Text(collation="C"), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("challenge", sa.Text(), nullable=True),
        sa.Column("looks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("validated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "(status = 'valid') <= (validated_at IS NOT NULL)", name=op.f("ck_acme_authorizations_validated")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'valid', 'invalid', 'deactivated')", name=op.f("ck_acme_authorizations_status")
        ),
        sa.CheckConstraint(
            "status NOT IN ('valid', 'invalid') OR challenge IS NOT NULL", name=op.f("ck_acme_authorizations_challenge")
        ),
        sa.ForeignKeyConstraint(
            ["acme_account_id"], ["acme_accounts.id"], name=op.f("fk_acme_authorizations_acme_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_authorizations")),
    )
    op.create_index(
        "ix_acme_authorizations_due",
        "acme_authorizations",
        ["next_step_at"],
        unique=False,
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.create_index("ix_acme_authorizations_expired", "acme_authorizations", ["expires_at"], unique=False)
    op.create_index(
        "ix_acme_authorizations_valid",
        "acme_authorizations",
        ["acme_account_id", "value"],
        unique=False,
        postgresql_where=sa.text("status = 'valid'"),
    )
    op.create_table(
        "acme_orders",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("acme_account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("directory_id", sa.Text(collation="C"), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("authorization_ids", postgresql.ARRAY(sa.Text(collation="C")), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("profile_asked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("replaces", sa.Text(collation="C"), nullable=True),
        sa.Column("issued_id", sa.Text(collation="C"), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(status = 'valid') = (issued_id IS NOT NULL)", name=op.f("ck_acme_orders_issued")),
        sa.CheckConstraint("status IN ('pending', 'valid', 'invalid')", name=op.f("ck_acme_orders_status")),
        sa.ForeignKeyConstraint(["acme_account_id"], ["acme_accounts.id"], name=op.f("fk_acme_orders_acme_account_id")),
        sa.ForeignKeyConstraint(["directory_id"], ["acme_directories.id"], name=op.f("fk_acme_orders_directory_id")),
        sa.ForeignKeyConstraint(["issued_id"], ["issued_certificates.id"], name=op.f("fk_acme_orders_issued_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_orders")),
    )
    op.create_index("ix_acme_orders_account", "acme_orders", ["acme_account_id", "id"], unique=False)
    op.create_index(
        "ix_acme_orders_failed",
        "acme_orders",
        ["acme_account_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("status = 'invalid'"),
    )
    op.create_index("ix_acme_orders_directory", "acme_orders", ["directory_id", "id"], unique=False)
    op.create_index(
        "ix_acme_orders_expired",
        "acme_orders",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status <> 'valid'"),
    )
    op.create_index(
        "ix_acme_orders_open",
        "acme_orders",
        ["acme_account_id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "uq_acme_orders_issued",
        "acme_orders",
        ["issued_id"],
        unique=True,
        postgresql_where=sa.text("issued_id IS NOT NULL"),
    )
    op.create_index(
        "uq_acme_orders_replaces",
        "acme_orders",
        ["directory_id", "replaces"],
        unique=True,
        postgresql_where=sa.text("replaces IS NOT NULL AND status <> 'invalid'"),
    )


def downgrade() -> None:
    op.drop_index(
        "uq_acme_orders_replaces",
        table_name="acme_orders",
        postgresql_where=sa.text("replaces IS NOT NULL AND status <> 'invalid'"),
    )
    op.drop_index("uq_acme_orders_issued", table_name="acme_orders", postgresql_where=sa.text("issued_id IS NOT NULL"))
    op.drop_index("ix_acme_orders_open", table_name="acme_orders", postgresql_where=sa.text("status = 'pending'"))
    op.drop_index("ix_acme_orders_expired", table_name="acme_orders", postgresql_where=sa.text("status <> 'valid'"))
    op.drop_index("ix_acme_orders_failed", table_name="acme_orders")
    op.drop_index("ix_acme_orders_directory", table_name="acme_orders")
    op.drop_index("ix_acme_orders_account", table_name="acme_orders")
    op.drop_table("acme_orders")
    op.drop_index(
        "ix_acme_authorizations_valid", table_name="acme_authorizations", postgresql_where=sa.text("status = 'valid'")
    )
    op.drop_index("ix_acme_authorizations_expired", table_name="acme_authorizations")
    op.drop_index(
        "ix_acme_authorizations_due",
        table_name="acme_authorizations",
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.drop_table("acme_authorizations")
    op.drop_index(
        "ix_acme_accounts_eab_key", table_name="acme_accounts", postgresql_where=sa.text("eab_key_id IS NOT NULL")
    )
    op.drop_index("ix_acme_accounts_directory", table_name="acme_accounts")
    op.drop_table("acme_accounts")
    op.drop_index("ix_acme_eab_keys_directory", table_name="acme_eab_keys")
    op.drop_table("acme_slugs")
    op.drop_table("acme_eab_keys")
    op.drop_index("ix_acme_directories_authority", table_name="acme_directories")
    op.drop_table("acme_directories")
    op.drop_index("ix_acme_used_nonces_at", table_name="acme_used_nonces")
    op.drop_table("acme_used_nonces")
    op.drop_table("acme_nonce_keys")
