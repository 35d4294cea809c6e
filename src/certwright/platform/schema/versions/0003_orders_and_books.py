"""Orders, what they were paid with, the books, and what certificates were bought with"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


# The database itself keeps what the books promise.
_GUARDS = (
    """
CREATE OR REPLACE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the books can only be added to (% on %)', TG_OP, TG_TABLE_NAME USING ERRCODE = '42501';
END $$
""",
    """
CREATE OR REPLACE FUNCTION ledger_apply_posting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE written bigint;
BEGIN
    SELECT written_in INTO written FROM ledger_transactions WHERE id = NEW.transaction_id;
    IF written IS DISTINCT FROM (pg_current_xact_id()::text)::bigint THEN
        RAISE EXCEPTION 'postings are written together with their transaction' USING ERRCODE = '42501';
    END IF;
    UPDATE ledger_accounts SET balance = balance + NEW.amount WHERE id = NEW.ledger_account_id;
    RETURN NULL;
END $$
""",
    """
CREATE OR REPLACE FUNCTION ledger_check_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE checked text;
BEGIN
    IF TG_TABLE_NAME = 'ledger_transactions' THEN checked := NEW.id; ELSE checked := NEW.transaction_id; END IF;
    IF (SELECT count(*) FROM ledger_postings WHERE transaction_id = checked) < 2 THEN
        RAISE EXCEPTION 'the transaction % has fewer than two postings', checked USING ERRCODE = '23514';
    END IF;
    IF EXISTS (
        SELECT FROM ledger_postings WHERE transaction_id = checked GROUP BY currency HAVING sum(amount) <> 0
    ) THEN
        RAISE EXCEPTION 'the postings of transaction % do not sum to zero', checked USING ERRCODE = '23514';
    END IF;
    RETURN NULL;
END $$
""",
    """
CREATE OR REPLACE FUNCTION ledger_guard_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.balance <> 0 THEN
            RAISE EXCEPTION 'an account begins with nothing' USING ERRCODE = '42501';
        END IF;
    ELSIF pg_trigger_depth() < 2 OR (NEW.id, NEW.account_id, NEW.kind, NEW.reference, NEW.currency, NEW.created_at)
            IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.kind, OLD.reference, OLD.currency, OLD.created_at) THEN
        RAISE EXCEPTION 'a balance is moved by postings alone' USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END $$
""",
    """
CREATE TRIGGER ledger_transactions_no_change BEFORE UPDATE OR DELETE ON ledger_transactions FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change()
""",
    """
CREATE TRIGGER ledger_transactions_no_truncate BEFORE TRUNCATE ON ledger_transactions FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()
""",
    """
CREATE TRIGGER ledger_postings_no_change BEFORE UPDATE OR DELETE ON ledger_postings FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change()
""",
    """
CREATE TRIGGER ledger_postings_no_truncate BEFORE TRUNCATE ON ledger_postings FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()
""",
    """
CREATE TRIGGER ledger_accounts_no_change BEFORE DELETE ON ledger_accounts FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change()
""",
    """
CREATE TRIGGER ledger_accounts_no_truncate BEFORE TRUNCATE ON ledger_accounts FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()
""",
    """
CREATE TRIGGER product_versions_no_change BEFORE UPDATE OR DELETE ON product_versions FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change()
""",
    """
CREATE TRIGGER product_versions_no_truncate BEFORE TRUNCATE ON product_versions FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()
""",
    """
CREATE TRIGGER ledger_accounts_guard BEFORE INSERT OR UPDATE ON ledger_accounts FOR EACH ROW EXECUTE FUNCTION ledger_guard_account()
""",
    """
CREATE TRIGGER ledger_postings_apply AFTER INSERT ON ledger_postings FOR EACH ROW EXECUTE FUNCTION ledger_apply_posting()
""",
    """
CREATE CONSTRAINT TRIGGER ledger_transactions_balanced AFTER INSERT ON ledger_transactions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_check_balanced()
""",
    """
CREATE CONSTRAINT TRIGGER ledger_postings_balanced AFTER INSERT ON ledger_postings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_check_balanced()
""",
)


def upgrade() -> None:
    op.create_table(
        "billing_policies",
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("review", sa.Text(), nullable=False),
        sa.Column("unpaid_days", sa.Integer(), nullable=False),
        sa.Column("invoice_limits", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("review IN ('automatic', 'manual')", name=op.f("ck_billing_policies_review")),
        sa.CheckConstraint("unpaid_days BETWEEN 1 AND 90", name=op.f("ck_billing_policies_unpaid_days")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_billing_policies_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_billing_policies")),
    )
    op.create_table(
        "coupons",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(collation="C"), nullable=False),
        sa.Column("percent", sa.Numeric(precision=5, scale=2), nullable=True),
        sa.Column("amount", sa.Numeric(precision=18, scale=4), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("products", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("max_uses", sa.Integer(), nullable=True),
        sa.Column("uses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint("kind = 'coupon' OR amount IS NOT NULL", name=op.f("ck_coupons_voucher_amount")),
        sa.CheckConstraint("kind IN ('coupon', 'voucher')", name=op.f("ck_coupons_kind")),
        sa.CheckConstraint("amount > 0", name=op.f("ck_coupons_amount")),
        sa.CheckConstraint(
            "num_nonnulls(percent, amount) = 1 AND (amount IS NULL) = (currency IS NULL)", name=op.f("ck_coupons_value")
        ),
        sa.CheckConstraint("percent > 0 AND percent <= 100", name=op.f("ck_coupons_percent")),
        sa.CheckConstraint("uses >= 0 AND (max_uses IS NULL OR uses <= max_uses)", name=op.f("ck_coupons_uses")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_coupons_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coupons")),
        sa.UniqueConstraint("account_id", "code", name=op.f("uq_coupons_account_id_code")),
    )
    op.create_index("ix_coupons_newest", "coupons", ["account_id", "id"], unique=False)
    op.create_table(
        "ledger_accounts",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(collation="C"), server_default="", nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("balance", sa.Numeric(precision=18, scale=4), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('balance', 'voucher', 'payable', 'external', 'purchases', 'paid_in', 'granted')",
            name=op.f("ck_ledger_accounts_kind"),
        ),
        sa.CheckConstraint(
            "kind NOT IN ('balance', 'voucher') OR balance >= 0", name=op.f("ck_ledger_accounts_never_negative")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ledger_accounts_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_accounts")),
        sa.UniqueConstraint(
            "account_id",
            "kind",
            "reference",
            "currency",
            name=op.f("uq_ledger_accounts_account_id_kind_reference_currency"),
        ),
        sa.UniqueConstraint("id", "account_id", "currency", name=op.f("uq_ledger_accounts_id_account_id_currency")),
        info={"resource": "ledger"},
    )
    op.create_table(
        "product_versions",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("code", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(collation="C"), nullable=False),
        sa.CheckConstraint("number > 0", name=op.f("ck_product_versions_number")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_product_versions_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_product_versions")),
        sa.UniqueConstraint("account_id", "code", "number", name=op.f("uq_product_versions_account_id_code_number")),
        info={"resource": "product"},
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("product_code", sa.Text(collation="C"), nullable=False),
        sa.Column("product_version", sa.Integer(), nullable=False),
        sa.Column("product", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("names", sa.Integer(), nullable=False),
        sa.Column("wildcards", sa.Integer(), nullable=False),
        sa.Column("years", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("total", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("breakdown", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("coupon_id", sa.Text(collation="C"), nullable=True),
        sa.Column("renews_certificate_id", sa.Text(collation="C"), nullable=True),
        sa.Column("primary_name", sa.Text(), server_default="", nullable=False),
        sa.Column("inherited_days", sa.Integer(), server_default="0", nullable=False),
        sa.Column("statement_version", sa.Text(), nullable=False),
        sa.Column("statement_agreed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("placed_by", sa.Text(collation="C"), nullable=False),
        sa.Column("placed_by_name", sa.Text(), nullable=False),
        sa.Column("pay_by", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payment_id", sa.Text(collation="C"), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lapsed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refund_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refund_rejected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refunded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("num_nonnulls(paid_at, cancelled_at, lapsed_at) <= 1", name=op.f("ck_orders_one_end")),
        sa.CheckConstraint("num_nonnulls(refunded_at, refund_rejected_at) <= 1", name=op.f("ck_orders_one_verdict")),
        sa.CheckConstraint("quantity BETWEEN 1 AND 100", name=op.f("ck_orders_quantity")),
        sa.CheckConstraint(
            "refund_asked_at IS NOT NULL OR num_nonnulls(refunded_at, refund_rejected_at) = 0",
            name=op.f("ck_orders_verdict_of_asked"),
        ),
        sa.CheckConstraint("refund_asked_at IS NULL OR paid_at IS NOT NULL", name=op.f("ck_orders_refund_of_paid")),
        sa.CheckConstraint("total >= 0", name=op.f("ck_orders_total")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_orders_account_id")),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupons.id"], name=op.f("fk_orders_coupon_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_orders_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index(
        "ix_orders_due", "orders", ["next_step_at"], unique=False, postgresql_where=sa.text("next_step_at IS NOT NULL")
    )
    op.create_index("ix_orders_newest", "orders", ["account_id", "id"], unique=False)
    op.create_index(
        "uq_orders_renewal",
        "orders",
        ["renews_certificate_id"],
        unique=True,
        postgresql_where=sa.text("cancelled_at IS NULL AND lapsed_at IS NULL AND refunded_at IS NULL"),
    )
    op.create_table(
        "ledger_transactions",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("idempotency_key", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(collation="C"), nullable=True),
        sa.Column("memo", sa.Text(), server_default="", nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "written_in",
            sa.BigInteger(),
            server_default=sa.text("(pg_current_xact_id()::text)::bigint"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ledger_transactions_account_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_ledger_transactions_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_transactions")),
        sa.UniqueConstraint(
            "account_id", "idempotency_key", name=op.f("uq_ledger_transactions_account_id_idempotency_key")
        ),
        sa.UniqueConstraint("id", "account_id", name=op.f("uq_ledger_transactions_id_account_id")),
        info={"resource": "ledger"},
    )
    op.create_index("ix_ledger_transactions_newest", "ledger_transactions", ["account_id", "id"], unique=False)
    op.create_index("ix_ledger_transactions_order", "ledger_transactions", ["order_id"], unique=False)
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("order_id", sa.Text(collation="C"), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("voucher_amount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("vouchers", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("payer", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.Text(), server_default="", nullable=False),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("amount >= 0 AND voucher_amount >= 0", name=op.f("ck_payments_amounts")),
        sa.CheckConstraint("num_nonnulls(settled_at, failed_at) <= 1", name=op.f("ck_payments_one_end")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_payments_account_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_payments_order_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_payments_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
    )
    op.create_index(
        "ix_payments_due",
        "payments",
        ["next_step_at"],
        unique=False,
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_payments_order_id"), "payments", ["order_id"], unique=False)
    op.create_index(
        "uq_payments_open", "payments", ["order_id"], unique=True, postgresql_where=sa.text("failed_at IS NULL")
    )
    op.create_table(
        "unsubscriptions",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", sa.Text(collation="C"), nullable=False),
        sa.Column("order_id", sa.Text(collation="C"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("review", sa.Text(), nullable=False),
        sa.Column("certificates", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_by", sa.Text(collation="C"), nullable=False),
        sa.Column("asked_by_name", sa.Text(), nullable=False),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rejected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(collation="C"), nullable=True),
        sa.Column("decided_by_name", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("refunded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("next_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step_problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("review IN ('automatic', 'manual')", name=op.f("ck_unsubscriptions_review")),
        sa.CheckConstraint("num_nonnulls(approved_at, rejected_at) <= 1", name=op.f("ck_unsubscriptions_one_verdict")),
        sa.CheckConstraint(
            "refunded_at IS NULL OR approved_at IS NOT NULL", name=op.f("ck_unsubscriptions_refund_of_approved")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_unsubscriptions_account_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_unsubscriptions_order_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_unsubscriptions_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unsubscriptions")),
        sa.UniqueConstraint("order_id", name=op.f("uq_unsubscriptions_order_id")),
    )
    op.create_index(
        "ix_unsubscriptions_due",
        "unsubscriptions",
        ["next_step_at"],
        unique=False,
        postgresql_where=sa.text("next_step_at IS NOT NULL"),
    )
    op.create_index("ix_unsubscriptions_newest", "unsubscriptions", ["account_id", "id"], unique=False)
    op.create_table(
        "ledger_postings",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("transaction_id", sa.Text(collation="C"), nullable=False),
        sa.Column("ledger_account_id", sa.Text(collation="C"), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_ledger_postings_amount")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_ledger_postings_account_id")),
        sa.ForeignKeyConstraint(
            ["ledger_account_id", "account_id", "currency"],
            ["ledger_accounts.id", "ledger_accounts.account_id", "ledger_accounts.currency"],
            name="fk_ledger_postings_ledger_account",
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id", "account_id"],
            ["ledger_transactions.id", "ledger_transactions.account_id"],
            name="fk_ledger_postings_transaction",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_postings")),
    )
    op.create_index(
        op.f("ix_ledger_postings_ledger_account_id"), "ledger_postings", ["ledger_account_id"], unique=False
    )
    op.create_index(op.f("ix_ledger_postings_transaction_id"), "ledger_postings", ["transaction_id"], unique=False)
    op.add_column("certificates", sa.Column("order_id", sa.Text(collation="C"), nullable=True))
    op.add_column("certificates", sa.Column("order_line", sa.Integer(), nullable=True))
    op.add_column("certificates", sa.Column("product_id", sa.Text(), nullable=True))
    op.add_column("certificates", sa.Column("brand", sa.Text(), nullable=True))
    op.add_column("certificates", sa.Column("certificate_type", sa.Text(), nullable=True))
    op.add_column("certificates", sa.Column("domain_type", sa.Text(), nullable=True))
    op.add_column("certificates", sa.Column("domain_quota", sa.Integer(), nullable=True))
    op.add_column("certificates", sa.Column("wildcard_quota", sa.Integer(), nullable=True))
    op.add_column("certificates", sa.Column("paid", sa.Boolean(), nullable=True))
    op.add_column(
        "certificates", sa.Column("product", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True)
    )
    op.add_column("certificates", sa.Column("coverage_years", sa.Integer(), nullable=True))
    op.add_column("certificates", sa.Column("coverage_starts_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("certificates", sa.Column("coverage_ends_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("certificates", sa.Column("renews_certificate_id", sa.Text(collation="C"), nullable=True))
    op.add_column("certificates", sa.Column("inherited_days", sa.Integer(), nullable=True))
    op.add_column("certificates", sa.Column("inherits_for_name", sa.Text(), nullable=True))
    op.add_column("certificates", sa.Column("stage_before_review", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("uq_certificates_order_id_order_line"), "certificates", ["order_id", "order_line"])
    op.create_foreign_key(op.f("fk_certificates_order_id"), "certificates", "orders", ["order_id"], ["id"])
    op.create_check_constraint(
        op.f("ck_certificates_domain_type"), "certificates", "domain_type IN ('single', 'multi', 'wildcard')"
    )
    op.create_check_constraint(
        op.f("ck_certificates_coverage"), "certificates", "(coverage_starts_at IS NULL) = (coverage_ends_at IS NULL)"
    )

    for statement in _GUARDS:
        op.execute(statement)


def downgrade() -> None:
    op.drop_constraint(op.f("ck_certificates_coverage"), "certificates", type_="check")
    op.drop_constraint(op.f("ck_certificates_domain_type"), "certificates", type_="check")
    op.drop_constraint(op.f("fk_certificates_order_id"), "certificates", type_="foreignkey")
    op.drop_constraint(op.f("uq_certificates_order_id_order_line"), "certificates", type_="unique")
    op.drop_column("certificates", "stage_before_review")
    op.drop_column("certificates", "inherits_for_name")
    op.drop_column("certificates", "inherited_days")
    op.drop_column("certificates", "renews_certificate_id")
    op.drop_column("certificates", "coverage_ends_at")
    op.drop_column("certificates", "coverage_starts_at")
    op.drop_column("certificates", "coverage_years")
    op.drop_column("certificates", "product")
    op.drop_column("certificates", "paid")
    op.drop_column("certificates", "wildcard_quota")
    op.drop_column("certificates", "domain_quota")
    op.drop_column("certificates", "domain_type")
    op.drop_column("certificates", "certificate_type")
    op.drop_column("certificates", "brand")
    op.drop_column("certificates", "product_id")
    op.drop_column("certificates", "order_line")
    op.drop_column("certificates", "order_id")
    op.drop_index(op.f("ix_ledger_postings_transaction_id"), table_name="ledger_postings")
    op.drop_index(op.f("ix_ledger_postings_ledger_account_id"), table_name="ledger_postings")
    op.drop_table("ledger_postings")
    op.drop_index("ix_unsubscriptions_newest", table_name="unsubscriptions")
    op.drop_index(
        "ix_unsubscriptions_due", table_name="unsubscriptions", postgresql_where=sa.text("next_step_at IS NOT NULL")
    )
    op.drop_table("unsubscriptions")
    op.drop_index("uq_payments_open", table_name="payments", postgresql_where=sa.text("failed_at IS NULL"))
    op.drop_index(op.f("ix_payments_order_id"), table_name="payments")
    op.drop_index("ix_payments_due", table_name="payments", postgresql_where=sa.text("next_step_at IS NOT NULL"))
    op.drop_table("payments")
    op.drop_index("ix_ledger_transactions_order", table_name="ledger_transactions")
    op.drop_index("ix_ledger_transactions_newest", table_name="ledger_transactions")
    op.drop_table("ledger_transactions")
    op.drop_index(
        "uq_orders_renewal",
        table_name="orders",
        postgresql_where=sa.text("cancelled_at IS NULL AND lapsed_at IS NULL AND refunded_at IS NULL"),
    )
    op.drop_index("ix_orders_newest", table_name="orders")
    op.drop_index("ix_orders_due", table_name="orders", postgresql_where=sa.text("next_step_at IS NOT NULL"))
    op.drop_table("orders")
    op.drop_table("product_versions")
    op.drop_table("ledger_accounts")
    op.drop_index("ix_coupons_newest", table_name="coupons")
    op.drop_table("coupons")
    op.drop_table("billing_policies")
    for function in ("ledger_refuse_change", "ledger_apply_posting", "ledger_check_balanced", "ledger_guard_account"):
        op.execute(f"DROP FUNCTION {function}()")
