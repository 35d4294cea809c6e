"""Hierarchies of private CAs, lists in parts, profiles, responders"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_AT = sa.DateTime(timezone=True)
_ID = sa.Text(collation="C")


def upgrade() -> None:
    op.alter_column("ca_keys", "sealed", nullable=True)
    op.add_column("ca_keys", sa.Column("erased_at", _AT, nullable=True))
    op.create_check_constraint(op.f("ck_ca_keys_erased"), "ca_keys", "(sealed IS NULL) = (erased_at IS NOT NULL)")
    _authorities()
    _issued()
    _lists()
    op.create_table(
        "ocsp_responders",
        sa.Column("id", _ID, nullable=False),
        sa.Column("authority_id", _ID, nullable=False),
        sa.Column("ca_key_id", _ID, nullable=False),
        sa.Column("certificate_der", sa.LargeBinary(), nullable=False),
        sa.Column("not_before", _AT, nullable=False),
        sa.Column("not_after", _AT, nullable=False),
        sa.ForeignKeyConstraint(["authority_id"], ["authorities.id"], name=op.f("fk_ocsp_responders_authority_id")),
        sa.ForeignKeyConstraint(["ca_key_id"], ["ca_keys.id"], name=op.f("fk_ocsp_responders_ca_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ocsp_responders")),
    )
    op.create_index("ix_ocsp_responders_newest", "ocsp_responders", ["authority_id", "not_after"])
    op.create_table(
        "ca_profiles",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("body", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ca_profiles_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ca_profiles")),
        sa.UniqueConstraint("account_id", "name", name=op.f("uq_ca_profiles_account_id_name")),
    )


def _authorities() -> None:
    for column in (
        sa.Column("origin", sa.Text(), server_default="made", nullable=False),
        sa.Column("hash_name", sa.Text(), server_default="sha256", nullable=False),
        sa.Column("csr_der", sa.LargeBinary(), nullable=True),
        sa.Column("outside_chain", postgresql.ARRAY(sa.LargeBinary()), server_default="{}", nullable=False),
        sa.Column("delete_at", _AT, nullable=True),
        sa.Column("erased_at", _AT, nullable=True),
        sa.Column("crl_enabled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("crl_shards", sa.Integer(), server_default="1", nullable=False),
        sa.Column("ocsp_enabled", sa.Boolean(), server_default=sa.false(), nullable=False),
    ):
        op.add_column("authorities", column)
    for name in ("serial", "sha256", "certificate_der", "not_before", "not_after"):
        op.alter_column("authorities", name, nullable=True)
    op.drop_constraint("ck_authorities_parent", "authorities")
    for name, rule in (
        ("parent", "kind <> 'root' OR parent_id IS NULL"),
        ("made_below_a_parent", "kind = 'root' OR parent_id IS NOT NULL OR origin <> 'made'"),
        ("origin", "origin IN ('made', 'outside', 'imported')"),
        ("hash_name", "hash_name IN ('sha256', 'sha384', 'sha512')"),
        ("whole_certificate", "num_nulls(serial, sha256, certificate_der, not_before, not_after) IN (0, 5)"),
        ("certificate_or_request", "certificate_der IS NOT NULL OR csr_der IS NOT NULL"),
        ("crl_shards", "crl_shards BETWEEN 1 AND 1000"),
    ):
        op.create_check_constraint(op.f(f"ck_authorities_{name}"), "authorities", rule)
    op.create_index(
        "uq_authorities_name", "authorities", ["account_id", sa.text("lower(name)")], unique=True,
        postgresql_where=sa.text("erased_at IS NULL"),
    )  # fmt: skip


def _issued() -> None:
    op.add_column("issued_certificates", sa.Column("shard", sa.Integer(), server_default="0", nullable=False))
    op.add_column("issued_certificates", sa.Column("key_id", _ID, nullable=True))
    op.add_column("issued_certificates", sa.Column("deleted_at", _AT, nullable=True))
    op.create_foreign_key(
        op.f("fk_issued_certificates_key_id"), "issued_certificates", "private_keys", ["key_id"], ["id"]
    )
    op.drop_index("ix_issued_revoked", "issued_certificates")
    op.create_index(
        "ix_issued_revoked", "issued_certificates", ["authority_id", "shard", "not_after"],
        postgresql_where=sa.text("revoked_at IS NOT NULL"),
    )  # fmt: skip
    op.create_index("ix_issued_newest", "issued_certificates", ["authority_id", "id"])
    # What a CA certified of CAs is on its books from now on like everything else it signed.
    op.execute(
        """
        INSERT INTO issued_certificates
            (id, authority_id, account_id, project_id, reference, profile, serial, names, der, not_before, not_after,
             issued_at)
        SELECT 'crt' || substr(child.id, 3), child.parent_id, child.account_id, child.project_id, child.id, 'issuing',
               child.serial, '{}', child.certificate_der, child.not_before, child.not_after, child.created_at
        FROM authorities AS child WHERE child.parent_id IS NOT NULL
        """
    )


def _lists() -> None:
    op.create_table(
        "crl_shards",
        sa.Column("authority_id", _ID, nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("revocations", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["authority_id"], ["authorities.id"], name=op.f("fk_crl_shards_authority_id")),
        sa.PrimaryKeyConstraint("authority_id", "shard", name=op.f("pk_crl_shards")),
    )
    op.execute(
        "INSERT INTO crl_shards (authority_id, shard, number, revocations)"
        " SELECT id, 0, crl_number, revocations FROM authorities"
    )
    op.drop_column("authorities", "crl_number")
    op.drop_column("authorities", "revocations")
    op.add_column("crls", sa.Column("shard", sa.Integer(), server_default="0", nullable=False))
    op.drop_constraint("pk_crls", "crls")
    op.create_primary_key(op.f("pk_crls"), "crls", ["authority_id", "shard", "number"])


def downgrade() -> None:
    raise NotImplementedError("CAs without a certificate and lists in parts have no place in the older tables")
