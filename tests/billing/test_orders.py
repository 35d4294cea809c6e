"""Ordering and paying on a real database: what is delivered, what it costs, what is refused before anything happens."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.money import Money
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Refused, Stale, Unavailable
from certwright.platform.events import events
from certwright.rooms import audit, billing, certificates
from certwright.rooms.billing import Asked, OrderFilter, OrderStatus, PayWith
from certwright.rooms.billing.ports import Declined, Waiting
from certwright.rooms.billing.tables import orders, payments
from certwright.rooms.certificates.tables import certificates as certificate_table

from .conftest import MULTI, PRODUCT, Shop, eur

CODE = PRODUCT["code"]


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_the_catalogue_shows_what_can_t_be_ordered_and_why(shop: Shop) -> None:
    found = {v.product.code: v for v in shop.world.run(billing.list_products(shop.services, shop.actor))}
    assert found[CODE].not_orderable is None
    assert found["private-single"].not_orderable is None
    assert found["digicert-ev-single"].not_orderable == "the CA digicert is not configured"
    with pytest.raises(Refused) as refused:
        shop.place("digicert-ev-single")
    assert refused.value.code == "product_not_orderable"


def test_an_edited_product_is_a_new_version_and_orders_keep_theirs(shop: Shop) -> None:
    before = shop.place()
    changed = shop.world.run(
        billing.update_product(
            shop.services, shop.actor, CODE, revision=1, changes={"prices": {"base": "250"}, "name": "Dearer"}
        )
    )
    assert (changed.version, changed.product.prices.base) == (2, Decimal(250))
    kept = shop.order(before.summary.id)
    assert (kept.summary.total, kept.summary.product_name, kept.summary.product_version) == (eur(100), "House OV", 1)
    assert shop.place().summary.total == eur(250)
    history = shop.world.run(billing.product_history(shop.services, shop.actor, CODE))
    assert [edit.version for edit in history] == [2, 1]
    with pytest.raises(Stale):
        shop.world.run(billing.update_product(shop.services, shop.actor, CODE, revision=1, changes={"name": "X"}))


def test_a_shipped_product_is_edited_for_one_account_only(shop: Shop) -> None:
    shop.world.run(
        billing.update_product(shop.services, shop.actor, "private-single", revision=0, changes={"available": False})
    )
    ours = shop.world.run(billing.get_product(shop.services, shop.actor, "private-single"))
    theirs = shop.world.run(billing.get_product(shop.services, shop.world.other_actor, "private-single"))
    assert (ours.not_orderable, theirs.not_orderable) == ("it is not for sale", None)
    with pytest.raises(NotFound):
        shop.world.run(billing.get_product(shop.services, shop.world.other_actor, CODE))


def test_a_product_can_t_be_made_twice_nor_change_its_code(shop: Shop) -> None:
    for document in (PRODUCT, PRODUCT | {"code": "private-single"}):
        with pytest.raises(Refused) as refused:
            shop.world.run(billing.create_product(shop.services, shop.actor, document))
        assert refused.value.code == "product_exists"
    with pytest.raises(Invalid) as invalid:
        shop.world.run(billing.update_product(shop.services, shop.actor, CODE, revision=1, changes={"code": "other"}))
    assert invalid.value.code == "product_code_fixed"


# --- placing and paying ---------------------------------------------------------------------------------------------


def test_paying_makes_as_many_certificates_as_were_bought(shop: Shop) -> None:
    shop.fund()
    placed = shop.place(MULTI["code"], asked={"names": 3, "wildcards": 1, "quantity": 2, "years": 2})
    assert placed.summary.status is OrderStatus.PENDING_PAYMENT
    # (150 + 40 + 90) × 2 years − 5 % × 2 certificates
    assert placed.summary.total == eur(1064)
    shop.fund(eur(100), "transfer-2")
    paid = shop.pay(placed.summary.id)
    assert paid.summary.status is OrderStatus.PAID
    assert shop.available() == eur(36)
    assert [c["state"] for c in paid.certificates] == ["pending_application"] * 2
    row = shop.rows(sa.select(certificate_table).order_by(certificate_table.c.order_line))[1]
    assert (row.order_id, row.order_line, row.product_id, row.brand) == (placed.summary.id, 1, MULTI["code"], "House")
    assert (row.certificate_type, row.domain_type, row.domain_quota, row.wildcard_quota) == ("dv", "multi", 3, 1)
    assert (row.paid, row.coverage_years, row.coverage_starts_at, row.ca) == (True, 2, None, "builtin")
    assert row.product["reissue_days"] is None
    shop.books_are_right()


def test_the_price_shown_is_the_price_ordered(shop: Shop) -> None:
    shop.coupon(percent=Decimal("12.5"))
    asked = Asked(MULTI["code"], names=5, years=2, quantity=3, coupon="less")
    shown = shop.world.run(billing.price(shop.services, shop.actor, asked))
    wanted = {"names": 5, "years": 2, "quantity": 3, "coupon": " LESS "}
    placed = shop.place(MULTI["code"], asked=wanted, expected_total=shown.quote.total)
    assert placed.summary.total == shown.quote.total
    assert [(line["kind"], line["amount"]) for line in placed.breakdown] == [
        (line.kind.value, line.amount.as_dict()) for line in shown.quote.lines
    ]
    with pytest.raises(Refused) as refused:
        shop.place(MULTI["code"], asked=wanted, expected_total=shown.quote.total + eur("0.01"))
    assert (refused.value.code, refused.value.field) == ("price_changed", "expected_total")


def test_a_free_order_is_delivered_at_once_and_leaves_the_books_alone(shop: Shop) -> None:
    placed = shop.place("private-single", asked={"quantity": 2})
    assert (placed.summary.status, len(placed.certificates)) == (OrderStatus.PAID, 2)
    assert placed.payments[0].method == "none"
    assert shop.world.run(billing.list_transactions(shop.services, shop.actor))[:1] == []
    shop.books_are_right()


def test_without_enough_balance_nothing_is_created(shop: Shop) -> None:
    shop.fund(eur("99.99"))
    with pytest.raises(Refused) as refused:
        shop.place(pay=PayWith())
    assert refused.value.code == "balance_too_low"
    assert refused.value.extra == {"needed": eur(100).as_dict(), "available": eur("99.99").as_dict()}
    assert not shop.rows(sa.select(orders.c.id))
    placed = shop.place()
    with pytest.raises(Refused) as refused:
        shop.pay(placed.summary.id)
    assert refused.value.code == "balance_too_low"
    assert shop.order(placed.summary.id).summary.status is OrderStatus.PENDING_PAYMENT
    assert not shop.rows(sa.select(payments.c.id))
    assert not shop.rows(sa.select(certificate_table.c.id))
    shop.books_are_right()


def test_an_order_is_paid_once(shop: Shop) -> None:
    shop.fund()
    paid = shop.buy()
    for method in ("balance", "card", "invoice"):
        with pytest.raises(Refused) as refused:
            shop.pay(paid.summary.id, method)
        assert refused.value.code == "order_not_payable"
    assert shop.available() == eur(900)
    shop.books_are_right()


def test_paying_one_order_many_times_at_once_pays_it_once(shop: Shop) -> None:
    shop.fund()
    placed = shop.place(asked={"quantity": 2})
    answers = shop.world.run(_together(*(_pay(shop, placed.summary.id) for _ in range(6))))
    assert sum(answer is None for answer in answers) == 1
    assert {answer.code for answer in answers if answer is not None} == {"order_not_payable"}
    assert shop.available() == eur(800)
    shop.books_are_right()


def test_orders_racing_for_one_balance_never_overdraw_it(shop: Shop) -> None:
    shop.fund(eur(250))
    placed = [shop.place().summary.id for _ in range(6)]
    answers = shop.world.run(_together(*(_pay(shop, order_id) for order_id in placed)))
    assert sum(answer is None for answer in answers) == 2
    assert {answer.code for answer in answers if answer is not None} == {"balance_too_low"}
    assert shop.available() == eur(50)
    shop.books_are_right()


async def _pay(shop: Shop, order_id: str, *vouchers: str) -> Problem | None:
    try:
        await billing.pay_order(shop.services, shop.actor, order_id, PayWith("balance", vouchers))
    except Problem as problem:
        return problem
    return None


async def _together(*work: Any) -> list[Any]:
    return list(await asyncio.gather(*work))


# --- vouchers, coupons, invoices ------------------------------------------------------------------------------------


def test_vouchers_pay_first_and_keep_what_is_left(shop: Shop) -> None:
    shop.fund()
    one, two = shop.voucher("30", "GIFT-1"), shop.voucher("90", "GIFT-2")
    placed = shop.place()
    paid = shop.pay(placed.summary.id, "balance", "gift-1", "GIFT-2", "GIFT-1")
    assert (paid.payments[0].amount, paid.payments[0].voucher_amount) == (eur(0), eur(100))
    assert paid.payments[0].method == "none"
    left = {c.id: c.left for c in shop.world.run(billing.list_coupons(shop.services, shop.actor))}
    assert left == {one.id: eur(0), two.id: eur(20)}
    assert shop.available() == eur(1000)
    second = shop.pay(shop.place().summary.id, "balance", "GIFT-2")
    assert (second.payments[0].method, second.payments[0].amount) == ("balance", eur(80))
    with pytest.raises(Refused, match="used up"):
        shop.pay(shop.place().summary.id, "balance", "GIFT-2")
    shop.books_are_right()


def test_one_voucher_spent_by_many_at_once_is_spent_once(shop: Shop) -> None:
    shop.voucher("100")
    placed = [shop.place().summary.id for _ in range(4)]
    answers = shop.world.run(_together(*(_pay(shop, order_id, "GIFT-1") for order_id in placed)))
    assert sum(answer is None for answer in answers) == 1
    assert {answer.code for answer in answers if answer is not None} <= {"coupon_unusable", "balance_too_low"}
    shop.books_are_right()


def test_the_last_use_of_a_coupon_goes_to_one_order(shop: Shop) -> None:
    shop.coupon(percent=Decimal(50), max_uses=1)

    async def place() -> Problem | None:
        try:
            await billing.place_order(shop.services, shop.actor, Asked(CODE, coupon="LESS"), agree=True)
        except Problem as problem:
            return problem
        return None

    answers = shop.world.run(_together(*(place() for _ in range(4))))
    assert sum(answer is None for answer in answers) == 1
    assert {answer.code for answer in answers if answer is not None} == {"coupon_unusable"}


def test_a_cancelled_or_lapsed_order_gives_its_coupon_back(shop: Shop) -> None:
    view = shop.coupon(percent=Decimal(50), max_uses=1)
    shop.cancel(shop.place(asked={"coupon": "LESS"}).summary.id)
    second = shop.place(asked={"coupon": "LESS"})
    shop.world.later(days=8)
    shop.world.drain()
    assert shop.order(second.summary.id).summary.status is OrderStatus.LAPSED
    assert shop.world.run(billing.get_coupon(shop.services, shop.actor, view.id)).uses == 0


def test_a_disabled_code_and_an_unknown_one_are_refused(shop: Shop) -> None:
    view, voucher = shop.coupon(percent=Decimal(50)), shop.voucher("10")
    for coupon_id in (view.id, voucher.id):
        shop.world.run(billing.disable_coupon(shop.services, shop.actor, coupon_id))
    with pytest.raises(Refused, match="it was disabled"):
        shop.place(asked={"coupon": "LESS"})
    placed = shop.place()
    with pytest.raises(Refused, match="it was disabled"):
        shop.pay(placed.summary.id, "balance", "GIFT-1")
    for code in ("NOPE", "LESS' OR '1'='1", "%", ""):
        with pytest.raises(Invalid) as invalid:
            shop.place(asked={"coupon": code})
        assert invalid.value.code == "coupon_unknown"


def test_an_order_on_invoice_is_owed_up_to_the_limit(shop: Shop) -> None:
    placed = shop.place()
    with pytest.raises(Refused) as refused:
        shop.pay(placed.summary.id, "invoice")
    assert refused.value.code == "invoice_not_offered"
    shop.policy(invoice_limits={"EUR": Decimal(150)})
    shop.pay(placed.summary.id, "invoice")
    assert (shop.available(), shop.owed()) == (eur(0), eur(100))
    with pytest.raises(Refused) as refused:
        shop.place(pay=PayWith("invoice"))
    assert refused.value.code == "invoice_limit_reached"
    with pytest.raises(Refused) as refused:
        shop.world.run(billing.settle_invoice(shop.services, shop.actor, eur("100.01"), reference="bill-1"))
    assert refused.value.code == "more_than_owed"
    shop.world.run(billing.settle_invoice(shop.services, shop.actor, eur(100), reference="bill-1"))
    assert shop.owed() == eur(0)
    assert shop.place(pay=PayWith("invoice")).summary.status is OrderStatus.PAID
    shop.books_are_right()


# --- a provider outside ---------------------------------------------------------------------------------------------


def test_an_external_payment_is_charged_outside_any_transaction_and_then_delivered(shop: Shop) -> None:
    shop.provider.answers = [Waiting(timedelta(minutes=1)), Unavailable("gone", "The provider is away."), "lost"]
    running = shop.pay(shop.place().summary.id, "card")
    assert (running.summary.status, running.certificates) == (OrderStatus.PAYMENT_RUNNING, ())
    for _ in range(4):
        shop.world.drain()
        shop.world.later(hours=1)
    paid = shop.order(running.summary.id)
    assert (paid.summary.status, len(paid.certificates)) == (OrderStatus.PAID, 1)
    assert list(shop.provider.charged.values()) == [eur(100)]
    assert shop.provider.calls == 4
    shop.books_are_right()


def test_a_declined_payment_leaves_the_order_to_be_paid_otherwise(shop: Shop) -> None:
    shop.fund()
    shop.provider.answers = [Declined("no money")]
    running = shop.pay(shop.place().summary.id, "card")
    shop.world.drain()
    waiting = shop.order(running.summary.id)
    assert (waiting.summary.status, waiting.payments[0].failure) == (OrderStatus.PENDING_PAYMENT, "no money")
    assert shop.pay(running.summary.id).summary.status is OrderStatus.PAID
    shop.books_are_right()


def test_while_a_payment_runs_the_order_neither_lapses_nor_is_cancelled_nor_paid_again(shop: Shop) -> None:
    shop.fund()
    shop.provider.answers = [Waiting(timedelta(days=30))]
    running = shop.pay(shop.place().summary.id, "card")
    shop.world.drain()
    for wrong in (lambda: shop.cancel(running.summary.id), lambda: shop.pay(running.summary.id)):
        with pytest.raises(Refused):
            wrong()
    shop.world.later(days=20)
    shop.world.drain()
    assert shop.order(running.summary.id).summary.status is OrderStatus.PAYMENT_RUNNING
    shop.world.later(days=11)
    shop.world.drain()
    assert shop.order(running.summary.id).summary.status is OrderStatus.PAID
    shop.books_are_right()


def test_a_declined_payment_of_an_order_whose_time_is_over_lets_it_lapse(shop: Shop) -> None:
    shop.provider.answers = [Waiting(timedelta(days=8)), Declined("no")]
    running = shop.pay(shop.place().summary.id, "card")
    shop.world.drain()
    shop.world.later(days=9)
    shop.world.drain()
    shop.world.drain()
    assert shop.order(running.summary.id).summary.status is OrderStatus.LAPSED


@pytest.mark.parametrize(
    ("pay", "code"),
    [
        (PayWith("bitcoin"), "payment_method_unknown"),
        (PayWith("none"), "payment_method_unknown"),
        (PayWith("card", ("GIFT-1",)), "vouchers_not_combinable"),
        (PayWith("balance", tuple(f"GIFT-{n}" for n in range(11))), "too_many_vouchers"),
        (PayWith("balance", ("NOPE",)), "coupon_unknown"),
    ],
)
def test_a_way_of_paying_that_isn_t_one_is_refused(shop: Shop, pay: PayWith, code: str) -> None:
    shop.voucher("10")
    with pytest.raises(Invalid) as refused:
        shop.place(pay=pay)
    assert refused.value.code == code
    assert not shop.rows(sa.select(orders.c.id))


# --- time -----------------------------------------------------------------------------------------------------------


def test_an_unpaid_order_lapses_after_the_days_the_account_chose(shop: Shop) -> None:
    shop.fund()
    shop.policy(unpaid_days=3)
    placed = shop.place()
    shop.world.later(days=3, seconds=-1)
    shop.world.drain()
    assert shop.order(placed.summary.id).summary.status is OrderStatus.PENDING_PAYMENT
    shop.world.later(seconds=1)
    with pytest.raises(Refused, match="not paid in time"):
        shop.pay(placed.summary.id)
    shop.world.drain()
    assert shop.order(placed.summary.id).summary.status is OrderStatus.LAPSED
    with pytest.raises(Refused):
        shop.pay(placed.summary.id)
    shop.books_are_right()


# --- looking --------------------------------------------------------------------------------------------------------


def test_orders_are_listed_newest_first_filtered_and_searched_without_surprises(shop: Shop) -> None:
    shop.fund()
    paid = shop.buy()
    shop.world.later(seconds=1)
    waiting = shop.place(MULTI["code"])
    shop.world.later(seconds=1)
    cancelled = shop.cancel(shop.place().summary.id)

    def ids(**wanted: Any) -> list[str]:
        found = shop.world.run(billing.list_orders(shop.services, shop.actor, OrderFilter(**wanted)))
        return [row.id for row in found]

    assert ids() == [cancelled.summary.id, waiting.summary.id, paid.summary.id]
    assert ids(statuses=(OrderStatus.PAID, OrderStatus.CANCELLED)) == [cancelled.summary.id, paid.summary.id]
    assert ids(search="OV MULTI") == [waiting.summary.id]
    assert ids(search=paid.summary.id[-8:]) == [paid.summary.id]
    assert ids(product=MULTI["code"]) == [waiting.summary.id]
    assert ids(since=waiting.summary.placed_at) == [cancelled.summary.id, waiting.summary.id]
    for text in ("%", "o_d", "\\", "' OR 1=1 --", "House%OV"):
        assert ids(search=text) == [], text
    page = shop.world.run(billing.list_orders(shop.services, shop.actor, OrderFilter(), limit=1))
    rest = shop.world.run(billing.list_orders(shop.services, shop.actor, OrderFilter(), before=page[0].id))
    assert [row.id for row in (*page, *rest)] == ids()


def test_the_status_in_sql_is_the_status_of_the_rules(shop: Shop) -> None:
    shop.fund()
    shop.buy()
    shop.place()
    shop.cancel(shop.place().summary.id)
    shop.pay(shop.place().summary.id, "card")
    shop.unsubscribe(shop.buy().summary.id)
    shop.approve(shop.unsubscribe(shop.buy().summary.id).id)
    shop.reject(shop.unsubscribe(shop.buy().summary.id).id)
    shop.policy(unpaid_days=1)
    shop.place()
    seen = set()
    for status in OrderStatus:
        wanted = OrderFilter(statuses=(status,))
        found = shop.world.run(billing.list_orders(shop.services, shop.actor, wanted))
        assert {row.status for row in found} <= {status}
        seen |= {row.id for row in found}
    everything = shop.world.run(billing.list_orders(shop.services, shop.actor, OrderFilter()))
    assert seen == {row.id for row in everything}
    assert {row.status for row in everything} == set(OrderStatus) - {OrderStatus.LAPSED}


def test_every_change_is_audited_and_told(shop: Shop) -> None:
    shop.services.events.subscribe("billing.order_paid", "test", _hear)
    shop.services.events.subscribe("billing.order_placed", "test", _hear)
    shop.fund()
    paid = shop.buy()

    async def read() -> Any:
        async with shop.services.db.begin() as tx:
            where = audit.audit_events.c.account_id == shop.actor.account_id
            return await audit.list_events(tx, where, audit.Filter(action="*"), limit=50, before_id=None)

    found = [(e.action, e.object_id) for e in shop.world.run(read())]
    assert ("bss:order:create", paid.summary.id) in found
    assert ("bss:order:pay", paid.summary.id) in found
    assert ("scm:cert:buy", paid.certificates[0]["id"]) in found
    assert "bss:balance:top_up" in [action for action, _ in found]
    told = shop.rows(sa.select(events.c.kind, events.c.object_id))
    assert {tuple(row) for row in told} >= {
        ("billing.order_placed", paid.summary.id), ("billing.order_paid", paid.summary.id),
    }  # fmt: skip


async def _hear(services: Any, event: Any) -> None:
    return


# --- doors ----------------------------------------------------------------------------------------------------------


def test_another_accounts_orders_coupons_and_products_don_t_exist(shop: Shop) -> None:
    shop.fund()
    paid, stranger, run = shop.buy(), shop.world.other_actor, shop.world.run
    asked, coupon = shop.unsubscribe(paid.summary.id), shop.coupon(percent=Decimal(5))
    services, order_id = shop.services, paid.summary.id
    for trying in (
        billing.get_order(services, stranger, order_id),
        billing.pay_order(services, stranger, order_id, PayWith()),
        billing.cancel_order(services, stranger, order_id),
        billing.unsubscribe(services, stranger, order_id, acknowledge=True),
        billing.get_unsubscription(services, stranger, asked.id),
        billing.approve(services, stranger, asked.id),
        billing.reject(services, stranger, asked.id, "no"),
        billing.get_coupon(services, stranger, coupon.id),
        billing.disable_coupon(services, stranger, coupon.id),
        billing.place_order(services, stranger, Asked(CODE), agree=True),
    ):
        with pytest.raises(NotFound):
            run(trying)
    assert run(billing.list_orders(services, stranger, OrderFilter())) == []
    assert run(billing.list_unsubscriptions(services, stranger)) == []
    assert run(billing.list_coupons(services, stranger)) == []
    assert run(billing.get_balances(services, stranger)) == []
    assert run(billing.list_transactions(services, stranger)) == []
    with pytest.raises(Invalid, match="no code"):
        run(billing.price(services, stranger, Asked("test-dv-single", coupon="LESS")))


SEEING = ("bss:order:get", "bss:order:list", "bss:product:get", "bss:refund:get", "bss:coupon:get")


@pytest.mark.parametrize(
    ("needed", "trying"),
    [
        ("bss:order:create", lambda s, a, o, u, c: billing.place_order(s, a, Asked(CODE), agree=True)),
        ("bss:order:pay", lambda s, a, o, u, c: billing.pay_order(s, a, o, PayWith())),
        ("bss:order:cancel", lambda s, a, o, u, c: billing.cancel_order(s, a, o)),
        ("bss:order:refund", lambda s, a, o, u, c: billing.unsubscribe(s, a, o, acknowledge=True)),
        ("bss:refund:review", lambda s, a, o, u, c: billing.approve(s, a, u)),
        ("bss:refund:review", lambda s, a, o, u, c: billing.reject(s, a, u, "no")),
        ("bss:product:create", lambda s, a, o, u, c: billing.create_product(s, a, PRODUCT | {"code": "another"})),
        ("bss:product:update",
         lambda s, a, o, u, c: billing.update_product(s, a, CODE, revision=1, changes={"name": "X"})),
        ("bss:balance:get", lambda s, a, o, u, c: billing.get_balances(s, a)),
        ("bss:balance:top_up", lambda s, a, o, u, c: billing.top_up(s, a, eur(5), reference="x")),
        ("bss:invoice:settle", lambda s, a, o, u, c: billing.settle_invoice(s, a, eur(5), reference="x")),
        ("bss:transaction:list", lambda s, a, o, u, c: billing.list_transactions(s, a)),
        ("bss:coupon:create",
         lambda s, a, o, u, c: billing.create_coupon(s, a, kind=billing.CouponKind.COUPON, percent=Decimal(5))),
        ("bss:coupon:disable", lambda s, a, o, u, c: billing.disable_coupon(s, a, c)),
        ("bss:setting:get", lambda s, a, o, u, c: billing.get_policy(s, a)),
        ("bss:setting:update", lambda s, a, o, u, c: billing.set_policy(s, a, revision=0, unpaid_days=1)),
    ],
)  # fmt: skip
def test_everything_needs_an_action_of_its_own(shop: Shop, needed: str, trying: Any) -> None:
    shop.fund()
    order_id, coupon = shop.place().summary.id, shop.coupon(percent=Decimal(5))
    asked = shop.unsubscribe(shop.buy().summary.id)
    every = {a for a in access_actions() if a.startswith("bss:")} - {needed}
    weak = shop.world.actor_with(*every)
    with pytest.raises(Forbidden) as forbidden:
        shop.world.run(trying(shop.services, weak, order_id, asked.id, coupon.id))
    assert forbidden.value.extra["action"] == needed


def access_actions() -> list[str]:
    from certwright.rooms import access

    return list(access.ACTIONS)


def test_who_may_order_but_not_pay_can_t_pay_while_ordering(shop: Shop) -> None:
    shop.fund()
    buyer = shop.world.actor_with("bss:order:create", *SEEING)
    with pytest.raises(Forbidden):
        shop.place(actor=buyer, pay=PayWith())
    assert not shop.rows(sa.select(orders.c.id))
    assert shop.place(actor=buyer).summary.status is OrderStatus.PENDING_PAYMENT


def test_a_permission_for_one_project_ends_at_its_border(shop: Shop) -> None:
    from certwright.rooms import access

    other = shop.world.run(access.people.create_project(shop.services, shop.actor, name="other"))
    shop.fund()
    ours, theirs = shop.buy(), shop.place(pay=PayWith(), project_id=other.id)
    limited = shop.world.actor_with("bss:*", project_id=other.id)
    found = shop.world.run(billing.list_orders(shop.services, limited, OrderFilter()))
    assert [row.id for row in found] == [theirs.summary.id]
    with pytest.raises(NotFound):
        shop.world.run(billing.get_order(shop.services, limited, ours.summary.id))
    with pytest.raises(Forbidden):
        shop.place(actor=limited, project_id=shop.world.project_id)
    # Money is the account's, not a project's.
    with pytest.raises(Forbidden):
        shop.world.run(billing.get_balances(shop.services, limited))


def test_a_top_up_sent_again_books_once_and_a_changed_one_is_refused(shop: Shop) -> None:
    shop.fund(eur(10), "bank 4711")
    shop.fund(eur(10), "bank 4711")
    with pytest.raises(Refused) as refused:
        shop.fund(eur(11), "bank 4711")
    assert refused.value.code == "reference_used"
    assert shop.available() == eur(10)
    answers = shop.world.run(
        _together(*(billing.top_up(shop.services, shop.actor, eur(5), reference="race") for _ in range(5)))
    )
    assert len({answer.id for answer in answers}) == 1
    assert shop.available() == eur(15)


@pytest.mark.parametrize(
    ("amount", "reference", "code"),
    [
        (eur(0), "a", "amount_not_positive"),
        (eur("-1"), "a", "amount_not_positive"),
        (eur(1), "", "reference_invalid"),
        (eur(1), "a\nb", "reference_invalid"),
        (eur(1), "x" * 101, "reference_invalid"),
        (eur(1), "=cmd()", "reference_invalid"),
    ],
)
def test_a_top_up_that_makes_no_sense_is_refused(shop: Shop, amount: Money, reference: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        shop.fund(amount, reference)
    assert refused.value.code == code


def test_amounts_beyond_what_can_be_booked_are_refused_not_wrapped(shop: Shop) -> None:
    dear = MULTI | {"code": "dear", "prices": {"base": "1000000000", "additional_name": "1000000000"}}
    shop.world.run(billing.create_product(shop.services, shop.actor, dear))
    quote = shop.world.run(billing.price(shop.services, shop.actor, Asked("dear", names=10, years=2, quantity=100)))
    assert quote.quote.total == eur("1710000000000.00")
    top = eur("9000000000000")
    shop.fund(top, "one")
    with pytest.raises(Invalid) as refused:
        shop.fund(top, "two")
    assert refused.value.code == "amount_too_large"
    assert shop.available() == top


# --- renewal orders -------------------------------------------------------------------------------------------------


def _issued(shop: Shop, days_left: float, **changes: Any) -> str:
    """A bought certificate whose coverage is made to end soon, without a CA."""
    certificate_id = shop.buy().certificates[0]["id"]
    now = shop.services.clock.now()
    values = {
        "stage": "issued", "primary_name": "a.example", "coverage_starts_at": now - timedelta(days=340),
        "coverage_ends_at": now + timedelta(days=days_left),
    } | changes  # fmt: skip

    async def write(tx: Any) -> None:
        await tx.execute(sa.update(certificate_table).where(certificate_table.c.id == certificate_id).values(**values))

    shop.raw(write)
    return str(certificate_id)


def test_a_renewal_order_makes_a_linked_certificate_that_inherits_the_days_left_when_it_is_paid(shop: Shop) -> None:
    shop.fund()
    old = _issued(shop, 20.5)
    placed = shop.place(renews=old)
    assert (placed.summary.renews_certificate_id, placed.inherited_days, placed.primary_name) == (old, 20, "a.example")
    shop.world.later(days=3)
    paid = shop.pay(placed.summary.id)
    assert paid.inherited_days == 17
    row = shop.rows(sa.select(certificate_table).where(certificate_table.c.order_id == placed.summary.id))[0]
    assert (row.renews_certificate_id, row.inherited_days, row.inherits_for_name) == (old, 17, "a.example")
    assert row.draft["names"] == ["a.example"]


def test_another_name_type_or_term_of_a_renewal_inherits_nothing_or_is_refused(shop: Shop) -> None:
    shop.fund()
    old = _issued(shop, 20)
    other_name = shop.place(renews=old, primary_name="b.example")
    assert other_name.inherited_days == 0
    with pytest.raises(Refused) as refused:
        shop.place(renews=old)
    assert refused.value.code == "renewal_ordered"
    shop.cancel(other_name.summary.id)
    other_type = shop.place(MULTI["code"], renews=old)
    assert other_type.inherited_days == 0
    shop.cancel(other_type.summary.id)
    assert shop.place(renews=old, asked={"years": 2}).inherited_days == 20
    with pytest.raises(Invalid) as invalid:
        shop.place(renews=_issued(shop, 20), asked={"quantity": 2})
    assert invalid.value.code == "renewal_quantity"


@pytest.mark.parametrize(
    ("changes", "days"),
    [({"stage": "revoked"}, 20), ({"paid": False}, 20), ({"uploaded": True}, 20), ({}, 40), ({}, -1)],
)
def test_a_certificate_that_can_t_be_renewed_is_refused(shop: Shop, changes: dict[str, Any], days: float) -> None:
    shop.fund()
    with pytest.raises(Refused) as refused:
        shop.place(renews=_issued(shop, days, **changes))
    assert refused.value.code == "renewal_not_allowed"


def test_a_renewal_needs_the_right_to_renew_that_certificate(shop: Shop) -> None:
    shop.fund()
    old = _issued(shop, 20)
    with pytest.raises(NotFound):
        shop.place(renews=old, actor=shop.world.actor_with("bss:*"))
    with pytest.raises(Forbidden):
        shop.place(renews=old, actor=shop.world.actor_with("bss:*", "scm:cert:get"))
    with pytest.raises(NotFound):
        shop.place("private-single", renews=old, actor=shop.world.other_actor)


def test_a_renewal_whose_certificate_is_gone_when_it_is_paid_is_delivered_without_days(shop: Shop) -> None:
    shop.fund()
    old = _issued(shop, 20, stage="revoked")

    async def issue(tx: Any) -> None:
        await tx.execute(sa.update(certificate_table).where(certificate_table.c.id == old).values(stage="issued"))

    shop.raw(issue)
    placed = shop.place(renews=old)
    shop.world.run(certificates.delete_certificate(shop.services, shop.actor, old))
    assert shop.pay(placed.summary.id).inherited_days == 0


def test_domain_types_are_spelt_as_the_certificates_room_spells_them() -> None:
    assert {str(kind) for kind in billing.DomainType} == {str(kind) for kind in certificates.DomainType}


def test_a_policy_of_the_account_is_changed_on_the_revision_read(shop: Shop) -> None:
    shop.policy(unpaid_days=5)
    found = shop.world.run(billing.get_policy(shop.services, shop.actor))
    assert found == replace(found, unpaid_days=5, revision=1)
    for changes, kind in (
        ({"revision": 0, "unpaid_days": 6}, Stale),
        ({"revision": 1, "unpaid_days": 0}, Invalid),
        ({"revision": 1, "invoice_limits": {"XXX": Decimal(1)}}, Invalid),
        ({"revision": 1, "invoice_limits": {"EUR": Decimal(-1)}}, Invalid),
    ):
        with pytest.raises(kind):
            shop.world.run(billing.set_policy(shop.services, shop.actor, **changes))
