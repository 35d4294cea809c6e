"""Two sessions at one step of the books, each in a connection of its own, in both orders of arrival.

Neither gets further than the row they race for before both stand there: a third connection holds it until the database
says that they wait. Then the row goes to whoever came first, and the other meets what that one did.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.money import Money
from certwright.kernel.problems import Problem
from certwright.rooms import billing, certificates
from certwright.rooms.billing import OrderStatus, PayWith, jobs, payments, refunds
from certwright.rooms.billing.tables import ledger_transactions
from certwright.rooms.certificates import State

from .conftest import PRODUCT, Shop, eur
from .test_refunds import application

Work = Coroutine[Any, Any, Any]
ORDER = "SELECT id FROM orders WHERE id = '{}' FOR UPDATE"
ACCOUNT = "SELECT id FROM ledger_accounts WHERE kind = '{}' FOR UPDATE"
COUPON = "SELECT id FROM coupons WHERE id = '{}' FOR UPDATE"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def race(shop: Shop, held: str, *runners: Work, meanwhile: Callable[[], None] | None = None) -> list[str]:
    """`done` or the code of the refusal, in the order they arrive; `meanwhile` happens while all of them wait."""

    async def answer(work: Work) -> str:
        try:
            await work
        except Problem as problem:
            return problem.code
        return "done"

    async def run() -> list[str]:
        db = shop.services.db
        started: list[asyncio.Task[str]] = []
        outside = contextvars.copy_context()  # of the holder's transaction, which is none of theirs
        async with asyncio.timeout(60), db.begin() as holder:
            assert (await holder.exec_driver_sql(held)).rowcount > 0, "nothing to race for"
            for work in runners:
                started.append(asyncio.create_task(answer(work), context=outside.copy()))
                waiting = 0
                while waiting < len(started):
                    assert not any(task.done() for task in started), "it did not wait for the row"
                    async with db.begin() as look:
                        waiting = int((await look.exec_driver_sql(_WAITING)).scalar_one())
            if meanwhile is not None:
                meanwhile()
        return [await task for task in started]

    found = shop.world.run(run())
    shop.books_are_right()
    return found


def _order(shop: Shop, code: str = PRODUCT["code"]) -> str:
    return shop.place(code).summary.id


def _pay(shop: Shop, order_id: str, method: str = "balance", *vouchers: str) -> Work:
    return billing.pay_order(shop.services, shop.actor, order_id, PayWith(method, vouchers))


def _cancel(shop: Shop, order_id: str) -> Work:
    return billing.cancel_order(shop.services, shop.actor, order_id)


def _posted(shop: Shop, kind: str) -> int:
    t = ledger_transactions.c
    return int(shop.rows(sa.select(sa.func.count()).where(t.kind == kind))[0][0])


def test_two_pay_one_order(shop: Shop) -> None:
    shop.fund()
    order_id = _order(shop)
    assert race(shop, ORDER.format(order_id), _pay(shop, order_id), _pay(shop, order_id)) == [
        "done", "order_not_payable",
    ]  # fmt: skip
    assert (_posted(shop, "payment"), shop.available()) == (1, eur(900))


def test_one_pays_from_the_balance_and_one_on_invoice(shop: Shop) -> None:
    shop.fund()
    shop.policy(invoice_limits={"EUR": eur(1000).amount})
    for first, second in (("balance", "invoice"), ("invoice", "balance")):
        order_id = _order(shop)
        found = race(shop, ORDER.format(order_id), _pay(shop, order_id, first), _pay(shop, order_id, second))
        assert found == ["done", "order_not_payable"]
        assert [p.method for p in shop.order(order_id).payments] == [first]
    assert (shop.available(), shop.owed()) == (eur(900), eur(100))


def test_one_pays_and_one_cancels(shop: Shop) -> None:
    shop.fund()
    paid, cancelled = _order(shop), _order(shop)
    assert race(shop, ORDER.format(paid), _pay(shop, paid), _cancel(shop, paid)) == ["done", "order_not_cancellable"]
    found = race(shop, ORDER.format(cancelled), _cancel(shop, cancelled), _pay(shop, cancelled))
    assert found == ["done", "order_not_payable"]
    assert shop.order(paid).summary.status is OrderStatus.PAID
    assert shop.order(cancelled).summary.status is OrderStatus.CANCELLED
    assert shop.available() == eur(900)


def test_who_waits_until_the_time_to_pay_is_over_does_not_pay(shop: Shop) -> None:
    shop.fund()
    for lapse_first in (False, True):
        order_id = _order(shop)
        works = [_pay(shop, order_id), jobs.lapse_step(shop.services, order_id)]
        works = works[::-1] if lapse_first else works
        left = shop.order(order_id).summary.pay_by - shop.world.clock.now()
        shop.world.clock.move(left - timedelta(seconds=1))
        found = race(
            shop, ORDER.format(order_id), *works, meanwhile=lambda: shop.world.clock.move(timedelta(seconds=1))
        )
        assert sorted(found) == ["done", "order_not_payable"]
        assert shop.order(order_id).summary.status is OrderStatus.LAPSED
    assert shop.available() == eur(1000)


def test_an_order_paid_at_the_last_moment_does_not_lapse(shop: Shop) -> None:
    shop.fund()
    order_id = _order(shop)
    shop.world.clock.move(shop.order(order_id).summary.pay_by - shop.world.clock.now() - timedelta(seconds=1))
    assert race(shop, ORDER.format(order_id), _pay(shop, order_id), jobs.lapse_step(shop.services, order_id)) == [
        "done", "done",
    ]  # fmt: skip
    assert shop.order(order_id).summary.status is OrderStatus.PAID


def test_one_cancels_while_it_lapses(shop: Shop) -> None:
    for lapse_first in (False, True):
        shop.coupon(f"LESS-{lapse_first}".upper(), percent=Decimal(10), max_uses=1)
        order_id = shop.place(asked={"coupon": f"LESS-{lapse_first}"}).summary.id
        shop.world.clock.move(shop.order(order_id).summary.pay_by - shop.world.clock.now())
        works = [_cancel(shop, order_id), jobs.lapse_step(shop.services, order_id)]
        found = race(shop, ORDER.format(order_id), *(works[::-1] if lapse_first else works))
        assert found == (["done", "order_not_cancellable"] if lapse_first else ["done", "done"])
        expected = OrderStatus.LAPSED if lapse_first else OrderStatus.CANCELLED
        assert shop.order(order_id).summary.status is expected
    coupons = shop.world.run(billing.list_coupons(shop.services, shop.actor))
    assert [coupon.uses for coupon in coupons] == [0, 0], "the coupon came back once"


def test_two_ask_for_the_same_money_back(shop: Shop) -> None:
    shop.fund()
    for automatic in (False, True):
        if automatic:
            shop.automatic()
        order_id = shop.buy().summary.id
        asking = [billing.unsubscribe(shop.services, shop.actor, order_id, acknowledge=True) for _ in range(2)]
        assert race(shop, ORDER.format(order_id), *asking) == ["done", "order_not_refundable"]
    assert _posted(shop, "refund") == 1


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [("approve", "approve", "refunded"), ("approve", "reject", "refunded"), ("reject", "approve", "rejected"),
     ("reject", "reject", "rejected")],
)  # fmt: skip
def test_two_reviewers_decide(shop: Shop, first: str, second: str, state: str) -> None:
    shop.fund()
    order_id = shop.buy().summary.id
    asked = shop.unsubscribe(order_id)
    decide: dict[str, Callable[[], Work]] = {
        "approve": lambda: billing.approve(shop.services, shop.actor, asked.id),
        "reject": lambda: billing.reject(shop.services, shop.actor, asked.id, "used"),
    }
    found = race(shop, ORDER.format(order_id), decide[first](), decide[second]())
    assert found == ["done", "refund_decided"]
    assert shop.world.run(billing.get_unsubscription(shop.services, shop.actor, asked.id)).state == state
    assert (_posted(shop, "refund"), shop.available()) == ((1, eur(1000)) if state == "refunded" else (0, eur(900)))


def test_two_orders_redeem_one_voucher(shop: Shop) -> None:
    shop.voucher("100")
    shop.fund(eur(5))
    orders = [_order(shop), _order(shop)]
    found = race(shop, ACCOUNT.format("voucher"), *(_pay(shop, order_id, "balance", "GIFT-1") for order_id in orders))
    assert found == ["done", "coupon_unusable"]
    assert [shop.order(o).summary.status for o in orders] == [OrderStatus.PAID, OrderStatus.PENDING_PAYMENT]
    assert shop.available() == eur(5)


def test_two_orders_want_the_last_of_the_balance(shop: Shop) -> None:
    shop.fund(eur(150))
    orders = [_order(shop), _order(shop)]
    found = race(shop, ACCOUNT.format("balance"), *(_pay(shop, order_id) for order_id in orders))
    assert found == ["done", "balance_too_low"]
    assert shop.available() == eur(50)


def test_two_orders_want_the_last_of_the_invoice_limit(shop: Shop) -> None:
    shop.policy(invoice_limits={"EUR": eur(250).amount})
    shop.pay(_order(shop), "invoice")
    orders = [_order(shop), _order(shop)]
    found = race(shop, ACCOUNT.format("payable"), *(_pay(shop, order_id, "invoice") for order_id in orders))
    assert found == ["done", "invoice_limit_reached"]
    assert shop.owed() == eur(200)


def test_two_record_the_same_transfer(shop: Shop) -> None:
    shop.fund()
    for amount, answer in ((50, "done"), (60, "reference_used")):
        reference = f"bank {amount}"
        booking = [
            billing.top_up(shop.services, shop.actor, eur(some), reference=reference) for some in (50, amount)
        ]  # fmt: skip
        assert race(shop, ACCOUNT.format("balance"), *booking) == ["done", answer]
    assert shop.available() == eur(1100)


def test_two_settle_what_is_owed_once(shop: Shop) -> None:
    shop.policy(invoice_limits={"EUR": eur(250).amount})
    shop.pay(_order(shop), "invoice")
    settling = [
        billing.settle_invoice(shop.services, shop.actor, eur(100), reference=f"bank {n}") for n in range(2)
    ]  # fmt: skip
    assert race(shop, ACCOUNT.format("payable"), *settling) == ["done", "more_than_owed"]
    assert (shop.owed(), _posted(shop, "settlement")) == (Money.zero("EUR"), 1)


def test_an_order_is_given_back_while_it_is_settled(shop: Shop) -> None:
    shop.policy(invoice_limits={"EUR": eur(250).amount})
    shop.automatic()
    for refund_first, owed in ((False, -100), (True, -100)):
        bought = shop.pay(_order(shop), "invoice").summary.id
        works = [
            billing.settle_invoice(shop.services, shop.actor, eur(100), reference=f"bank {refund_first}"),
            billing.unsubscribe(shop.services, shop.actor, bought, acknowledge=True),
        ]
        found = race(shop, ACCOUNT.format("payable"), *(works[::-1] if refund_first else works))
        # What was settled first is owed to the buyer then; what is not owed any more can't be settled.
        assert found == (["done", "more_than_owed"] if refund_first else ["done", "done"])
        assert shop.owed() == eur(owed)


def test_two_orders_take_the_last_use_of_a_coupon(shop: Shop) -> None:
    coupon = shop.coupon(percent=Decimal(10), max_uses=1)
    asked = billing.Asked(PRODUCT["code"], coupon="LESS")
    placing = [billing.place_order(shop.services, shop.actor, asked, agree=True) for _ in range(2)]
    assert race(shop, COUPON.format(coupon.id), *placing) == ["done", "coupon_unusable"]
    assert len(shop.world.run(billing.list_orders(shop.services, shop.actor, billing.OrderFilter()))) == 1


def test_two_workers_finish_one_payment_outside(shop: Shop) -> None:
    order_id = _order(shop)
    shop.pay(order_id, "card")
    payment_id = shop.order(order_id).payments[0].id
    charging = [payments.charge_step(shop.services, payment_id) for _ in range(2)]
    assert race(shop, ORDER.format(order_id), *charging) == ["done", "done"]
    assert (_posted(shop, "payment"), list(shop.provider.charged.values())) == (1, [eur(100)])
    assert len(shop.order(order_id).certificates) == 1


def test_two_workers_give_back_one_payment_outside(shop: Shop) -> None:
    order_id = _order(shop)
    shop.pay(order_id, "card")
    shop.world.drain()
    asked = shop.unsubscribe(order_id)
    shop.approve(asked.id)
    giving = [refunds.refund_step(shop.services, asked.id) for _ in range(2)]
    assert race(shop, ORDER.format(order_id), *giving) == ["done", "done"]
    assert (_posted(shop, "refund"), list(shop.provider.refunded.values())) == (1, [eur(100)])


def test_one_applies_for_what_another_gives_back(shop: Shop) -> None:
    shop.fund()
    for apply_first in (False, True):
        bought = shop.buy()
        certificate_id, order_id = bought.certificates[0]["id"], bought.summary.id
        works = [
            billing.unsubscribe(shop.services, shop.actor, order_id, acknowledge=True),
            certificates.apply(shop.services, shop.actor, certificate_id, application()),
        ]
        held = f"SELECT id FROM certificates WHERE id = '{certificate_id}' FOR UPDATE"
        first, second = race(shop, held, *(works[::-1] if apply_first else works))
        assert (first, second) == ("done", "refund_certificate_used" if apply_first else "operation_not_allowed")
        expected = State.PENDING_DOMAIN_VALIDATION if apply_first else State.REFUND_REVIEW
        assert shop.certificate(certificate_id).summary.state is expected
