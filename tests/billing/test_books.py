"""What the database itself keeps, whatever the code above does: each promise is broken on purpose and must hold."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from certwright.kernel.ids import new_id
from certwright.kernel.money import Money
from certwright.kernel.problems import Refused
from certwright.rooms.audit.tables import audit_events
from certwright.rooms.billing import AccountKind, ledger, store
from certwright.rooms.billing.tables import ledger_accounts, ledger_postings, ledger_transactions, orders
from certwright.rooms.billing.words import Leg

from .conftest import Shop, eur


def _legs(amount: Any) -> list[Leg]:
    return [Leg(AccountKind.BALANCE, eur(amount)), Leg(AccountKind.PAID_IN, -eur(amount))]


def _post(shop: Shop, legs: list[Leg], key: str = "k") -> Any:
    async def work(tx: Any) -> Any:
        return await ledger.post(
            tx, shop.services, account_id=shop.actor.account_id, key=key, kind="test", legs=legs, actor_id="me"
        )

    return shop.raw(work)


def _refused(shop: Shop, statement: str) -> str:
    with pytest.raises(DBAPIError) as refused:
        shop.execute(statement)
    return str(refused.value.orig)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_postings SET amount = amount * 2",
        "UPDATE ledger_transactions SET memo = 'never happened'",
        "UPDATE ledger_transactions SET written_in = 1",
        "DELETE FROM ledger_postings",
        "DELETE FROM ledger_transactions",
        "DELETE FROM ledger_accounts",
        "TRUNCATE ledger_postings",
        "TRUNCATE ledger_transactions CASCADE",
        "TRUNCATE ledger_accounts CASCADE",
        "UPDATE product_versions SET document = '{}'",
        "DELETE FROM product_versions",
    ],
)
def test_what_was_written_is_neither_changed_nor_removed(shop: Shop, statement: str) -> None:
    shop.fund()
    assert "can only be added to" in _refused(shop, statement)
    shop.books_are_right()


@pytest.mark.parametrize(
    "change", ["balance = 1000000", "balance = balance", "currency = 'USD'", "kind = 'purchases'", "reference = 'x'"]
)
def test_a_balance_is_moved_by_postings_alone(shop: Shop, change: str) -> None:
    shop.fund()
    assert "moved by postings alone" in _refused(shop, f"UPDATE ledger_accounts SET {change}")


def test_an_account_begins_with_nothing(shop: Shop) -> None:
    said = _refused(
        shop,
        "INSERT INTO ledger_accounts (id, account_id, kind, currency, balance, created_at)"
        f" VALUES ('lac_x', '{shop.actor.account_id}', 'balance', 'USD', 5, now())",
    )
    assert "begins with nothing" in said


@pytest.mark.parametrize(
    ("sentence", "legs", "said"),
    [
        ("debit without credit", [Leg(AccountKind.BALANCE, eur(5))], "fewer than two postings"),
        ("a cent too much", [Leg(AccountKind.BALANCE, eur(5)), Leg(AccountKind.PAID_IN, eur("-4.99"))], "sum to zero"),
        (
            "balanced over two currencies, in neither",
            [Leg(AccountKind.BALANCE, eur(5)), Leg(AccountKind.PAID_IN, Money.of("-5", "USD"))],
            "sum to zero",
        ),
    ],
)
def test_a_transaction_that_does_not_sum_to_zero_is_not_committed(
    shop: Shop, sentence: str, legs: list[Leg], said: str
) -> None:
    shop.fund()
    with pytest.raises(DBAPIError, match=said):
        _post(shop, legs)
    assert len(shop.rows(sa.select(ledger_transactions.c.id))) == 1, sentence
    shop.books_are_right()


def test_a_transaction_without_postings_is_not_committed(shop: Shop) -> None:
    said = _refused(
        shop,
        "INSERT INTO ledger_transactions (id, account_id, idempotency_key, kind, at, actor_id)"
        f" VALUES ('ltx_y', '{shop.actor.account_id}', 'alone', 'x', now(), 'me')",
    )
    assert "fewer than two postings" in said


def test_two_currencies_in_one_transaction_balance_each_on_its_own(shop: Shop) -> None:
    usd = Money.of("7", "USD")
    _post(shop, [*_legs(5), Leg(AccountKind.BALANCE, usd), Leg(AccountKind.PAID_IN, -usd)])
    found = shop.rows(sa.select(ledger_accounts.c.currency).where(ledger_accounts.c.kind == "balance"))
    assert sorted(row.currency for row in found) == ["EUR", "USD"]
    shop.books_are_right()


def test_postings_are_not_added_to_a_transaction_afterwards_balanced_or_not(shop: Shop) -> None:
    shop.fund()
    shop.voucher("5")
    transaction = shop.rows(sa.select(ledger_transactions.c.id).where(ledger_transactions.c.kind == "top_up"))[0].id
    accounts = {row.kind: row.id for row in shop.rows(sa.select(ledger_accounts.c.kind, ledger_accounts.c.id))}
    now = shop.services.clock.now()

    async def add(tx: Any) -> None:
        for kind, amount in (("voucher", 5), ("granted", -5)):
            await tx.execute(
                sa.insert(ledger_postings).values(
                    id=new_id("lpo", now), account_id=shop.actor.account_id, transaction_id=transaction,
                    ledger_account_id=accounts[kind], currency="EUR", amount=amount,
                )
            )  # fmt: skip

    with pytest.raises(DBAPIError, match="written together with their transaction"):
        shop.raw(add)
    shop.books_are_right()


@pytest.mark.parametrize("whose", ["currency", "account"])
def test_a_posting_is_of_its_accounts_tenant_and_currency(shop: Shop, whose: str) -> None:
    shop.fund()
    accounts = {row.kind: row.id for row in shop.rows(sa.select(ledger_accounts.c.kind, ledger_accounts.c.id))}
    tenant = shop.world.other_actor.account_id if whose == "account" else shop.actor.account_id
    now = shop.services.clock.now()

    async def cross(tx: Any) -> None:
        await tx.execute(
            sa.insert(ledger_transactions).values(
                id="ltx_x", account_id=tenant, idempotency_key="x", kind="test", at=now, actor_id="me"
            )
        )
        for kind, amount in (("balance", 5), ("paid_in", -5)):
            await tx.execute(
                sa.insert(ledger_postings).values(
                    id=new_id("lpo", now), account_id=tenant, transaction_id="ltx_x",
                    ledger_account_id=accounts[kind], currency="USD" if whose == "currency" else "EUR", amount=amount,
                )
            )  # fmt: skip

    with pytest.raises(DBAPIError, match="fk_ledger_postings_ledger_account"):
        shop.raw(cross)


def test_a_key_posts_once(shop: Shop) -> None:
    assert _post(shop, _legs(5), "once") is not None
    assert _post(shop, _legs(5), "once") is None
    assert _post(shop, _legs(500), "once") is None
    assert shop.available() == eur(5)
    with pytest.raises(DBAPIError, match="uq_ledger_transactions_account_id_idempotency_key"):
        shop.execute(
            "INSERT INTO ledger_transactions (id, account_id, idempotency_key, kind, at, actor_id)"
            f" VALUES ('ltx_y', '{shop.actor.account_id}', 'once', 'x', now(), 'me')"
        )


def test_a_key_posts_once_on_each_account(shop: Shop) -> None:
    shop.fund()
    accounts = {row.kind: row.id for row in shop.rows(sa.select(ledger_accounts.c.kind, ledger_accounts.c.id))}

    async def twice(tx: Any) -> None:
        await tx.exec_driver_sql(
            "INSERT INTO ledger_transactions (id, account_id, idempotency_key, kind, at, actor_id)"
            f" VALUES ('ltx_y', '{shop.actor.account_id}', 'twice', 'x', now(), 'me')"
        )
        for number, (kind, amount) in enumerate((("balance", 5), ("balance", 5), ("paid_in", -10))):
            await tx.exec_driver_sql(
                "INSERT INTO ledger_postings (id, account_id, transaction_id, ledger_account_id, currency, amount)"
                f" VALUES ('lpo_{number}', '{shop.actor.account_id}', 'ltx_y', '{accounts[kind]}', 'EUR', {amount})"
            )

    with pytest.raises(DBAPIError, match="uq_ledger_postings_transaction_id_ledger_account_id"):
        shop.raw(twice)
    shop.books_are_right()


def test_the_database_has_the_last_word_about_a_negative_balance(shop: Shop) -> None:
    shop.fund(eur(5))
    for kind, reference in ((AccountKind.BALANCE, ""), (AccountKind.VOUCHER, "cpn_1")):
        taking = [Leg(kind, eur("-5.01"), reference), Leg(AccountKind.PURCHASES, eur("5.01"))]
        with pytest.raises(Refused) as refused:
            _post(shop, taking, f"take {kind}")
        assert refused.value.code == "balance_too_low"
    assert shop.available() == eur(5)
    owing = [Leg(AccountKind.PAYABLE, eur(-5)), Leg(AccountKind.PURCHASES, eur(5))]
    assert _post(shop, owing, "owe") is not None


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("cancelled_at = now()", "ck_orders_one_end"),
        ("refunded_at = now()", "ck_orders_verdict_of_asked"),
        ("quantity = 0", "ck_orders_quantity"),
        ("total = -1", "ck_orders_total"),
        ("paid_at = NULL, refund_asked_at = now()", "ck_orders_refund_of_paid"),
    ],
)
def test_an_order_in_two_minds_is_refused_by_the_database(shop: Shop, change: str, check: str) -> None:
    shop.fund()
    shop.buy()
    assert check in _refused(shop, f"UPDATE orders SET {change}")


def test_an_order_is_delivered_once_by_the_database_too(shop: Shop) -> None:
    shop.fund()
    bought = shop.buy()
    said = _refused(
        shop,
        "INSERT INTO certificates (id, account_id, project_id, name, ca, stage, order_id, order_line, created_at,"
        " updated_at) SELECT 'cert_x', account_id, project_id, 'copy', ca, stage, order_id, order_line, created_at,"
        f" updated_at FROM certificates WHERE order_id = '{bought.summary.id}'",
    )
    assert "uq_certificates_order_id_order_line" in said
    said = _refused(
        shop,
        "INSERT INTO payments (id, account_id, project_id, order_id, method, currency, amount, voucher_amount,"
        " vouchers, payer, begun_at) SELECT 'pay_x', account_id, project_id, order_id, method, currency, amount,"
        " voucher_amount, vouchers, payer, begun_at FROM payments",
    )
    assert "uq_payments_open" in said


def test_the_guards_of_the_tables_are_the_guards_of_the_database(shop: Shop) -> None:
    from certwright.rooms.billing.tables import GUARD_SQL

    named = {s.split()[3] if "CONSTRAINT" in s else s.split()[2] for s in GUARD_SQL if "CREATE TRIGGER" in s
             or "CREATE CONSTRAINT" in s}  # fmt: skip
    there = shop.rows(
        sa.text(
            "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
            " AND (tgrelid::regclass::text LIKE 'ledger_%' OR tgrelid::regclass::text = 'product_versions')"
        )
    )
    assert {row.tgname for row in there} == named
    assert len(named) >= 10


def test_a_status_is_guarded_by_the_update_itself(shop: Shop) -> None:
    order_id = shop.place().summary.id
    now = shop.services.clock.now()

    async def move(tx: Any) -> bool:
        return await store.move_order(tx, order_id, *store.UNDECIDED, cancelled_at=now)

    assert shop.raw(move) is True
    assert shop.raw(move) is False
    assert shop.rows(sa.select(orders.c.revision))[0].revision == 2


def test_neither_the_books_nor_the_audit_log_show_a_vouchers_code(shop: Shop) -> None:
    shop.voucher("25.00", "SECRET-GIFT-1")
    memos = [row[0] for row in shop.rows(sa.select(ledger_transactions.c.memo))]
    audited = [str(row[0]) for row in shop.rows(sa.select(audit_events.c.after))]
    assert "SECR…" in memos
    assert not any("SECRET-GIFT-1" in text for text in [*memos, *audited])
