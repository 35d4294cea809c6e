"""CA keys in an HSM, and of kinds that sign without a hash"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("ca_keys", "spki_sha256", nullable=True)
    op.add_column("ca_keys", sa.Column("store", sa.Text(), server_default="software", nullable=False))
    op.add_column("ca_keys", sa.Column("token_label", sa.Text(), nullable=True))
    op.add_column("ca_keys", sa.Column("token_key", sa.Text(collation="C"), nullable=True))
    op.create_unique_constraint(op.f("uq_ca_keys_token_key"), "ca_keys", ["token_key"])
    op.create_check_constraint(op.f("ck_ca_keys_store"), "ca_keys", "store IN ('software', 'hsm')")
    op.drop_constraint(op.f("ck_ca_keys_erased"), "ca_keys", type_="check")
    op.create_check_constraint(
        op.f("ck_ca_keys_erased"), "ca_keys", "(sealed IS NULL) = (store = 'hsm' OR erased_at IS NOT NULL)"
    )
    op.create_check_constraint(
        op.f("ck_ca_keys_in_a_token"),
        "ca_keys",
        "num_nulls(token_label, token_key) = CASE store WHEN 'hsm' THEN 0 ELSE 2 END",
    )
    op.create_check_constraint(op.f("ck_ca_keys_fingerprint"), "ca_keys", "store = 'hsm' OR spki_sha256 IS NOT NULL")

    op.drop_constraint(op.f("ck_authorities_hash_name"), "authorities", type_="check")
    op.create_check_constraint(
        op.f("ck_authorities_hash_name"), "authorities", "hash_name IN ('sha256', 'sha384', 'sha512', 'none')"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_authorities_hash_name"), "authorities", type_="check")
    op.create_check_constraint(
        op.f("ck_authorities_hash_name"), "authorities", "hash_name IN ('sha256', 'sha384', 'sha512')"
    )
    # Keys in an HSM can't be told any more; a database that has some stays where it is.
    op.drop_constraint(op.f("ck_ca_keys_fingerprint"), "ca_keys", type_="check")
    op.drop_constraint(op.f("ck_ca_keys_in_a_token"), "ca_keys", type_="check")
    op.drop_constraint(op.f("ck_ca_keys_erased"), "ca_keys", type_="check")
    op.create_check_constraint(op.f("ck_ca_keys_erased"), "ca_keys", "(sealed IS NULL) = (erased_at IS NOT NULL)")
    op.drop_constraint(op.f("ck_ca_keys_store"), "ca_keys", type_="check")
    op.drop_constraint(op.f("uq_ca_keys_token_key"), "ca_keys", type_="unique")
    op.drop_column("ca_keys", "token_key")
    op.drop_column("ca_keys", "token_label")
    op.drop_column("ca_keys", "store")
    op.alter_column("ca_keys", "spki_sha256", nullable=False)
