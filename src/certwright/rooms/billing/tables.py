"""Orders, what they were paid with and given back, coupons, edited products, and the books.

The books are double-entry and can only be added to; the database itself keeps what they promise (GUARD_SQL): every
transaction sums to zero in each currency, no posting is changed, removed or added later, a key posts once, a kept
balance is moved by postings alone, and what a customer paid in or holds on a voucher never falls below zero.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.platform.db import at_column, id_column, json_column, metadata, step_columns, tenant_columns
from certwright.rooms.billing.words import MOST_CERTIFICATES, NEVER_NEGATIVE, AccountKind, CouponKind, Review


def _money(name: str, **kwargs: object) -> sa.Column[object]:
    return sa.Column(name, sa.Numeric(18, 4), **kwargs)  # type: ignore[arg-type]  # passed through to Column


def _account() -> sa.Column[str]:
    return id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False)


def _one_of(name: str, values: Iterable[str]) -> sa.CheckConstraint:
    listed = ", ".join(repr(str(value)) for value in values)
    return sa.CheckConstraint(f"{name} IN ({listed})", name)


product_versions = sa.Table(
    "product_versions",
    metadata,
    id_column(primary_key=True),
    _account(),
    sa.Column("code", sa.Text(collation="C"), nullable=False),
    # 1 is the first edit; a product as it is shipped has no row and counts as version 0.
    sa.Column("number", sa.Integer, nullable=False),
    json_column("document", nullable=False),
    at_column("created_at", nullable=False),
    id_column("created_by", nullable=False),
    sa.UniqueConstraint("account_id", "code", "number"),
    sa.CheckConstraint("number > 0", "number"),
    info={"resource": "product"},
)

billing_policies = sa.Table(
    "billing_policies",
    metadata,
    id_column("account_id", sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("review", sa.Text, nullable=False),
    _one_of("review", Review),
    sa.Column("unpaid_days", sa.Integer, nullable=False),
    json_column("invoice_limits", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    at_column("updated_at", nullable=False),
    sa.CheckConstraint("unpaid_days BETWEEN 1 AND 90", "unpaid_days"),
)

coupons = sa.Table(
    "coupons",
    metadata,
    id_column(primary_key=True),
    _account(),
    sa.Column("kind", sa.Text, nullable=False),
    _one_of("kind", CouponKind),
    sa.Column("code", sa.Text(collation="C"), nullable=False),
    sa.Column("percent", sa.Numeric(5, 2)),
    _money("amount"),
    sa.Column("currency", sa.Text),
    sa.Column("products", ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("max_uses", sa.Integer),
    sa.Column("uses", sa.Integer, nullable=False, server_default="0"),
    at_column("valid_from"),
    at_column("valid_until"),
    at_column("disabled_at"),
    at_column("created_at", nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.UniqueConstraint("account_id", "code"),
    sa.CheckConstraint("num_nonnulls(percent, amount) = 1 AND (amount IS NULL) = (currency IS NULL)", "value"),
    sa.CheckConstraint("percent > 0 AND percent <= 100", "percent"),
    sa.CheckConstraint("amount > 0", "amount"),
    sa.CheckConstraint("uses >= 0 AND (max_uses IS NULL OR uses <= max_uses)", "uses"),
    sa.CheckConstraint("kind = 'coupon' OR amount IS NOT NULL", "voucher_amount"),
    sa.Index("ix_coupons_newest", "account_id", "id"),
)

orders = sa.Table(
    "orders",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    sa.Column("product_code", sa.Text(collation="C"), nullable=False),
    sa.Column("product_version", sa.Integer, nullable=False),
    # What was sold, at what price: later edits of the catalogue change nothing here.
    json_column("product", nullable=False),
    sa.Column("names", sa.Integer, nullable=False),
    sa.Column("wildcards", sa.Integer, nullable=False),
    sa.Column("years", sa.Integer, nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    _money("total", nullable=False),
    json_column("breakdown", nullable=False),
    id_column("coupon_id", sa.ForeignKey("coupons.id")),
    # No foreign keys to certificates: they belong to a room above and may be deleted.
    id_column("renews_certificate_id"),
    sa.Column("primary_name", sa.Text, nullable=False, server_default=""),
    sa.Column("inherited_days", sa.Integer, nullable=False, server_default="0"),
    sa.Column("statement_version", sa.Text, nullable=False),
    at_column("statement_agreed_at", nullable=False),
    at_column("placed_at", nullable=False),
    id_column("placed_by", nullable=False),
    sa.Column("placed_by_name", sa.Text, nullable=False),
    at_column("pay_by", nullable=False),
    # The payment that is under way or went through; a declined one is taken off again.
    id_column("payment_id"),
    at_column("paid_at"),
    at_column("cancelled_at"),
    at_column("lapsed_at"),
    at_column("refund_asked_at"),
    at_column("refund_rejected_at"),
    at_column("refunded_at"),
    sa.Column("search_text", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    *step_columns(),
    sa.CheckConstraint(f"quantity BETWEEN 1 AND {MOST_CERTIFICATES}", "quantity"),
    sa.CheckConstraint("total >= 0", "total"),
    sa.CheckConstraint("num_nonnulls(paid_at, cancelled_at, lapsed_at) <= 1", "one_end"),
    sa.CheckConstraint("refund_asked_at IS NULL OR paid_at IS NOT NULL", "refund_of_paid"),
    sa.CheckConstraint("num_nonnulls(refunded_at, refund_rejected_at) <= 1", "one_verdict"),
    sa.CheckConstraint(
        "refund_asked_at IS NOT NULL OR num_nonnulls(refunded_at, refund_rejected_at) = 0", "verdict_of_asked"
    ),
    sa.Index("ix_orders_newest", "account_id", "id"),
    sa.Index("ix_orders_search", "search_text", postgresql_using="gin", postgresql_ops={"search_text": "gin_trgm_ops"}),
    sa.Index("ix_orders_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
    # One renewal order at a time for a certificate.
    sa.Index(
        "uq_orders_renewal",
        "renews_certificate_id",
        unique=True,
        postgresql_where=sa.text("cancelled_at IS NULL AND lapsed_at IS NULL AND refunded_at IS NULL"),
    ),
)

# Every text buyers agreed to, by the version that is stored with their orders; of the whole installation.
service_statements = sa.Table(
    "service_statements",
    metadata,
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    at_column("first_agreed_at", nullable=False),
)

payments = sa.Table(
    "payments",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    id_column("order_id", sa.ForeignKey("orders.id"), nullable=False, index=True),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    # What the method pays; vouchers paid the rest.
    _money("amount", nullable=False),
    _money("voucher_amount", nullable=False),
    json_column("vouchers", nullable=False),
    # Who pays, for the step that finishes an external payment.
    json_column("payer", nullable=False),
    at_column("begun_at", nullable=False),
    at_column("settled_at"),
    at_column("failed_at"),
    sa.Column("failure", sa.Text, nullable=False, server_default=""),
    sa.Column("provider_reference", sa.Text),
    *step_columns(),
    sa.CheckConstraint("amount >= 0 AND voucher_amount >= 0", "amounts"),
    sa.CheckConstraint("num_nonnulls(settled_at, failed_at) <= 1", "one_end"),
    # One payment of an order at a time, and one for good.
    sa.Index("uq_payments_open", "order_id", unique=True, postgresql_where=sa.text("failed_at IS NULL")),
    sa.Index("ix_payments_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
    info={"resource": "order", "resource_id": "order_id"},
)

unsubscriptions = sa.Table(
    "unsubscriptions",
    metadata,
    id_column(primary_key=True),
    *tenant_columns(),
    # An order is unsubscribed from once; a rejected one is not asked for again.
    id_column("order_id", sa.ForeignKey("orders.id"), nullable=False, unique=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    # What goes back: what was actually paid, without vouchers and coupons.
    _money("amount", nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("review", sa.Text, nullable=False),
    _one_of("review", Review),
    # What will be gone, for people who look later.
    json_column("certificates", nullable=False),
    at_column("acknowledged_at", nullable=False),
    at_column("asked_at", nullable=False),
    id_column("asked_by", nullable=False),
    sa.Column("asked_by_name", sa.Text, nullable=False),
    at_column("approved_at"),
    at_column("rejected_at"),
    id_column("decided_by"),
    sa.Column("decided_by_name", sa.Text),
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    at_column("refunded_at"),
    sa.Column("provider_reference", sa.Text),
    *step_columns(),
    sa.CheckConstraint("num_nonnulls(approved_at, rejected_at) <= 1", "one_verdict"),
    sa.CheckConstraint("refunded_at IS NULL OR approved_at IS NOT NULL", "refund_of_approved"),
    sa.Index("ix_unsubscriptions_newest", "account_id", "id"),
    sa.Index("ix_unsubscriptions_due", "next_step_at", postgresql_where=sa.text("next_step_at IS NOT NULL")),
)

_FLOOR = ", ".join(f"'{kind}'" for kind in NEVER_NEGATIVE)

ledger_accounts = sa.Table(
    "ledger_accounts",
    metadata,
    id_column(primary_key=True),
    _account(),
    sa.Column("kind", sa.Text, nullable=False),
    _one_of("kind", AccountKind),
    # Which voucher, which provider; empty for accounts there is one of.
    sa.Column("reference", sa.Text(collation="C"), nullable=False, server_default=""),
    sa.Column("currency", sa.Text, nullable=False),
    _money("balance", nullable=False, server_default="0"),
    at_column("created_at", nullable=False),
    sa.UniqueConstraint("account_id", "kind", "reference", "currency"),
    # What postings refer to, so that a posting can't be in another currency or of another tenant than its account.
    sa.UniqueConstraint("id", "account_id", "currency"),
    sa.CheckConstraint(f"kind NOT IN ({_FLOOR}) OR balance >= 0", "never_negative"),
    info={"resource": "ledger"},
)

ledger_transactions = sa.Table(
    "ledger_transactions",
    metadata,
    id_column(primary_key=True),
    _account(),
    # A payment, refund or top-up that is tried again finds its key taken.
    sa.Column("idempotency_key", sa.Text(collation="C"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    id_column("order_id", sa.ForeignKey("orders.id")),
    sa.Column("memo", sa.Text, nullable=False, server_default=""),
    at_column("at", nullable=False),
    id_column("actor_id", nullable=False),
    # The database transaction it was written in: postings may only be added in the same one.
    sa.Column(
        "written_in", sa.BigInteger, nullable=False, server_default=sa.text("(pg_current_xact_id()::text)::bigint")
    ),
    sa.UniqueConstraint("account_id", "idempotency_key"),
    sa.UniqueConstraint("id", "account_id"),
    sa.Index("ix_ledger_transactions_newest", "account_id", "id"),
    sa.Index("ix_ledger_transactions_order", "order_id"),
    info={"resource": "ledger"},
)

ledger_postings = sa.Table(
    "ledger_postings",
    metadata,
    id_column(primary_key=True),
    _account(),
    id_column("transaction_id", nullable=False),
    id_column("ledger_account_id", nullable=False, index=True),
    sa.Column("currency", sa.Text, nullable=False),
    _money("amount", nullable=False),
    sa.ForeignKeyConstraint(
        ["transaction_id", "account_id"], ["ledger_transactions.id", "ledger_transactions.account_id"],
        name="fk_ledger_postings_transaction",
    ),
    sa.ForeignKeyConstraint(
        ["ledger_account_id", "account_id", "currency"],
        ["ledger_accounts.id", "ledger_accounts.account_id", "ledger_accounts.currency"],
        name="fk_ledger_postings_ledger_account",
    ),
    # One posting on an account for each key: a key names a transaction, a transaction posts once on each account.
    sa.UniqueConstraint("transaction_id", "ledger_account_id"),
    sa.CheckConstraint("amount <> 0", "amount"),
    info={"resource": "ledger", "resource_id": "transaction_id"},
)  # fmt: skip

_FUNCTIONS = (
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
)


def _append_only(table: str, operations: str = "UPDATE OR DELETE") -> tuple[str, ...]:
    return (
        f"CREATE TRIGGER {table}_no_change BEFORE {operations} ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change()",
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()",
    )


def _balanced(table: str) -> str:
    return (
        f"CREATE CONSTRAINT TRIGGER {table}_balanced AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION ledger_check_balanced()"
    )


GUARD_SQL: tuple[str, ...] = (
    *_FUNCTIONS,
    *_append_only("ledger_transactions"),
    *_append_only("ledger_postings"),
    *_append_only("ledger_accounts", "DELETE"),
    *_append_only("product_versions"),
    "CREATE TRIGGER ledger_accounts_guard BEFORE INSERT OR UPDATE ON ledger_accounts"
    " FOR EACH ROW EXECUTE FUNCTION ledger_guard_account()",
    "CREATE TRIGGER ledger_postings_apply AFTER INSERT ON ledger_postings"
    " FOR EACH ROW EXECUTE FUNCTION ledger_apply_posting()",
    _balanced("ledger_transactions"),
    _balanced("ledger_postings"),
)
"""What a migration runs after creating these tables."""
