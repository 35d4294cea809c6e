"""Certificate authorities, their keys, what they issued, and their revocation lists."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns

# Only rooms/authorities/signer.py reads `sealed`; nothing returns it. The row of a key in an HSM is written before the
# key is made, and gets its fingerprint in the transaction that uses it.
ca_keys = sa.Table(
    "ca_keys",
    metadata,
    id_column(primary_key=True),
    sa.Column("algorithm", sa.Text, nullable=False),
    sa.Column("spki_sha256", sa.Text, unique=True),
    sa.Column("store", sa.Text, nullable=False, server_default="software"),
    sa.CheckConstraint("store IN ('software', 'hsm')", "store"),
    sa.Column("sealed", sa.LargeBinary),
    # Which token of the HSM has it, and under which CKA_ID (hex).
    sa.Column("token_label", sa.Text),
    sa.Column("token_key", sa.Text(collation="C"), unique=True),
    at_column("created_at", nullable=False),
    at_column("erased_at"),
    sa.CheckConstraint("(sealed IS NULL) = (store = 'hsm' OR erased_at IS NOT NULL)", "erased"),
    sa.CheckConstraint("num_nulls(token_label, token_key) = CASE store WHEN 'hsm' THEN 0 ELSE 2 END", "in_a_token"),
    sa.CheckConstraint("store = 'hsm' OR spki_sha256 IS NOT NULL", "fingerprint"),
)

authorities = sa.Table(
    "authorities",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.CheckConstraint("kind IN ('root', 'issuing')", "kind"),
    sa.Column("builtin", sa.Boolean, nullable=False),
    id_column("parent_id", sa.ForeignKey("authorities.id")),
    id_column("ca_key_id", sa.ForeignKey("ca_keys.id"), nullable=False, unique=True),
    sa.Column("origin", sa.Text, nullable=False, server_default="made"),
    sa.CheckConstraint("origin IN ('made', 'outside', 'imported')", "origin"),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("key_algorithm", sa.Text, nullable=False),
    sa.Column("hash_name", sa.Text, nullable=False, server_default="sha256"),
    sa.CheckConstraint("hash_name IN ('sha256', 'sha384', 'sha512', 'none')", "hash_name"),
    # What an outside parent signs; the columns of the certificate stay empty until it has.
    sa.Column("csr_der", sa.LargeBinary),
    sa.Column("serial", sa.Text),
    sa.Column("sha256", sa.Text),
    sa.Column("certificate_der", sa.LargeBinary),
    at_column("not_before"),
    at_column("not_after"),
    sa.CheckConstraint(
        "num_nulls(serial, sha256, certificate_der, not_before, not_after) IN (0, 5)", "whole_certificate"
    ),
    sa.CheckConstraint("certificate_der IS NOT NULL OR csr_der IS NOT NULL", "certificate_or_request"),
    # Certificates above this one that aren't ours, nearest first.
    sa.Column("outside_chain", ARRAY(sa.LargeBinary), nullable=False, server_default="{}"),
    at_column("created_at", nullable=False),
    at_column("disabled_at"),
    at_column("revoked_at"),
    # Set while it waits to be deleted: when its key will be erased.
    at_column("delete_at"),
    at_column("erased_at"),
    sa.Column("crl_days", sa.Integer, nullable=False),
    sa.CheckConstraint("crl_days BETWEEN 1 AND 30", "crl_days"),
    sa.Column("crl_enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    # Where lists published to a storage are found by everybody; certificates name it beside our own address.
    sa.Column("crl_public_url", sa.Text),
    # How many lists what it issues from now on is spread over.
    sa.Column("crl_shards", sa.Integer, nullable=False, server_default="1"),
    sa.CheckConstraint("crl_shards BETWEEN 1 AND 1000", "crl_shards"),
    sa.Column("ocsp_enabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    *step_columns(),
    sa.CheckConstraint("kind <> 'root' OR parent_id IS NULL", "parent"),
    sa.CheckConstraint("kind = 'root' OR parent_id IS NOT NULL OR origin <> 'made'", "made_below_a_parent"),
    # First start may be interrupted and repeated: one built-in root and one built-in issuing CA per account.
    sa.Index("uq_authorities_builtin", "account_id", "kind", unique=True, postgresql_where=sa.text("builtin")),
    sa.Index(
        "uq_authorities_name",
        "account_id",
        sa.text("lower(name)"),
        unique=True,
        postgresql_where=sa.text("erased_at IS NULL"),
    ),
    sa.Index("ix_authorities_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
    info={"resource": "authority"},
)

issued_certificates = sa.Table(
    "issued_certificates",
    metadata,
    id_column(primary_key=True),
    id_column("authority_id", sa.ForeignKey("authorities.id"), nullable=False),
    *tenant_columns(),
    # Whoever asked: the same reference never yields two certificates.
    sa.Column("reference", sa.Text, nullable=False, unique=True),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("serial", sa.Text, nullable=False),
    sa.Column("names", ARRAY(sa.Text), nullable=False),
    sa.Column("der", sa.LargeBinary, nullable=False),
    at_column("not_before", nullable=False),
    at_column("not_after", nullable=False),
    at_column("issued_at", nullable=False),
    # Which of the CA's lists would name it; its own pointer says so too.
    sa.Column("shard", sa.Integer, nullable=False, server_default="0"),
    # The key made here for it, where one was asked for with it.
    id_column("key_id", sa.ForeignKey("private_keys.id")),
    at_column("revoked_at"),
    sa.Column("revocation_reason", sa.Text),
    at_column("deleted_at"),
    # The product's own: CAs, responders, what the web server shows. Policies neither judge nor count it.
    sa.Column("internal", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("authority_id", "serial"),
    sa.Index(
        "ix_issued_revoked", "authority_id", "shard", "not_after", postgresql_where=sa.text("revoked_at IS NOT NULL")
    ),
    sa.Index("ix_issued_newest", "authority_id", "id"),
    # What counts against a quota.
    sa.Index(
        "ix_issued_good", "authority_id", "project_id", "not_after",
        postgresql_where=sa.text("revoked_at IS NULL AND NOT internal"),
    ),
)  # fmt: skip

# One row for each list of a CA: what has to be in it, and the number of the newest made.
crl_shards = sa.Table(
    "crl_shards",
    metadata,
    id_column("authority_id", sa.ForeignKey("authorities.id"), primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False, server_default="0"),
    # Rises with every revocation; a list that has seen less of them is out of date.
    sa.Column("revocations", sa.BigInteger, nullable=False, server_default="0"),
    # The newest that is in the storage outside, where there is one.
    sa.Column("stored_number", sa.BigInteger, nullable=False, server_default="0"),
)

# An object storage that a CA's lists are published to as well.
crl_storages = sa.Table(
    "crl_storages",
    metadata,
    id_column(primary_key=True),
    id_column("authority_id", sa.ForeignKey("authorities.id"), nullable=False, unique=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("region", sa.Text, nullable=False),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False, server_default=""),
    sa.Column("access_key_id", sa.Text, nullable=False),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    at_column("stored_at"),
    at_column("updated_at", nullable=False),
    *step_columns(),
    sa.Index("ix_crl_storages_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

# `this_update` is when a list was made; the list itself says an hour less, for slow clocks.
crls = sa.Table(
    "crls",
    metadata,
    id_column("authority_id", sa.ForeignKey("authorities.id"), primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True, server_default="0"),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("der", sa.LargeBinary, nullable=False),
    sa.Column("revocations", sa.BigInteger, nullable=False),
    at_column("this_update", nullable=False),
    at_column("next_update", nullable=False),
)

# Certificates a CA gave itself for answering OCSP; the newest answers.
ocsp_responders = sa.Table(
    "ocsp_responders",
    metadata,
    id_column(primary_key=True),
    id_column("authority_id", sa.ForeignKey("authorities.id"), nullable=False),
    id_column("ca_key_id", sa.ForeignKey("ca_keys.id"), nullable=False),
    sa.Column("certificate_der", sa.LargeBinary, nullable=False),
    at_column("not_before", nullable=False),
    at_column("not_after", nullable=False),
    sa.Index("ix_ocsp_responders_newest", "authority_id", "not_after"),
)

# Answers signed before anybody asks. What a certificate's state is, issued_certificates alone says: an answer that says
# otherwise than its row there is not given. `this_update` is when it was signed, as with lists.
ocsp_answers = sa.Table(
    "ocsp_answers",
    metadata,
    id_column("authority_id", sa.ForeignKey("authorities.id"), primary_key=True),
    sa.Column("serial", sa.Text, primary_key=True),
    # What the question named its issuer with; it is in the answer (CertID).
    sa.Column("hash_name", sa.Text, primary_key=True),
    sa.Column("der", sa.LargeBinary, nullable=False),
    # As the answer says it; empty in a good one.
    at_column("revoked_at"),
    at_column("this_update", nullable=False),
    at_column("next_update", nullable=False),
    # When the CA's step signs it anew, or deletes it because the certificate has ended.
    at_column("renew_at", nullable=False),
    at_column("not_after", nullable=False),
    sa.Index("ix_ocsp_answers_due", "authority_id", "renew_at"),
)

# Kinds of certificates people described themselves; `body` as in `profiles.read`.
ca_profiles = sa.Table(
    "ca_profiles",
    metadata,
    id_column(primary_key=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("name", sa.Text(collation="C"), nullable=False),
    json_column("body", nullable=False),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.UniqueConstraint("account_id", "name"),
)

# What private CAs may issue, for a project or all, from a CA or all; see `name_rules` and `policy_rules`.
ca_policies = sa.Table(
    "ca_policies",
    metadata,
    id_column(primary_key=True),
    id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    id_column("project_id", sa.ForeignKey("projects.id")),
    id_column("authority_id", sa.ForeignKey("authorities.id")),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("allowed", ARRAY(sa.Text), nullable=False),
    sa.Column("refused", ARRAY(sa.Text), nullable=False),
    sa.Column("wildcards", sa.Boolean, nullable=False),
    sa.Column("profiles", ARRAY(sa.Text), nullable=False),
    sa.Column("max_days", sa.Integer),
    sa.CheckConstraint("max_days > 0", "max_days"),
    sa.Column("quota", sa.Integer),
    sa.CheckConstraint("quota >= 0", "quota"),
    at_column("created_at", nullable=False),
    at_column("updated_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.Index("uq_ca_policies_name", "account_id", sa.text("lower(name)"), unique=True),
    info={"resource": "ca-policy"},
)
