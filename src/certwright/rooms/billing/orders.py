"""Quoting, placing and cancelling orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.money import Money
from certwright.kernel.problems import Invalid, Refused
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.billing import lookup, payments, products, rules, statements, store, views
from certwright.rooms.billing.catalogue import Product
from certwright.rooms.billing.ports import Predecessors
from certwright.rooms.billing.tables import orders
from certwright.rooms.billing.words import CouponKind, OrderStatus, Predecessor, Quote, Selection


@dataclass(frozen=True, slots=True)
class Asked:
    """What a buyer asks for, as typed; the same for the live price and for the order."""

    product: str
    names: int | None = None
    wildcards: int | None = None
    years: int = 1
    quantity: int = 1
    coupon: str | None = None


@dataclass(frozen=True, slots=True)
class _Priced:
    product: Product
    version: int
    selection: Selection
    quote: Quote
    coupon_id: str | None
    coupon_code: str | None


# --- quoting --------------------------------------------------------------------------------------------------------


async def price(services: Services, actor: Actor, asked: Asked) -> views.QuoteView:
    """What it costs now, with the breakdown. Promises nothing about tomorrow's price."""
    async with services.db.begin() as tx:
        found = await _price(tx, services, actor, asked)
    return views.QuoteView(found.product.code, found.version, found.selection, found.quote, found.coupon_code)


async def _price(tx: Tx, services: Services, actor: Actor, asked: Asked) -> _Priced:
    product, version = await products.product(tx, actor, asked.product)
    selection = rules.selection_of(
        product, names=asked.names, wildcards=asked.wildcards, years=asked.years, quantity=asked.quantity
    )
    row = None
    if asked.coupon is not None:
        code = lookup.normal_code(asked.coupon)
        row = await store.coupon_by_code(tx, actor.account_id, code, CouponKind.COUPON)
        if row is None:
            raise lookup.unknown_code(code)
    coupon = store.coupon_facts(row) if row is not None else None
    quote = rules.quote(product, selection, coupon, services.clock.now())
    return _Priced(product, version, selection, quote, row.id if row else None, row.code if row else None)


# --- placing --------------------------------------------------------------------------------------------------------


async def place_order(
    services: Services,
    actor: Actor,
    asked: Asked,
    *,
    agree: bool,
    statement_version: str = "",
    project_id: str | None = None,
    renews: str | None = None,
    primary_name: str = "",
    expected_total: Money | None = None,
    pay: payments.PayWith | None = None,
) -> views.OrderDetail:
    """Place an order, and pay it in the same transaction if `pay` says how: then either all of it happens or nothing.

    An order that costs nothing is paid at once. `expected_total` is the price the buyer saw; Refused `price_changed`
    if it isn't the price any more. `renews` makes it a renewal order for that certificate, whose days left the new one
    may inherit.
    """
    statement = statements.current(services)
    rules.judge_agreement(agree, statement_version, statement.version)
    now = services.clock.now()
    order_id = new_id("ord", now)
    try:
        async with services.db.begin() as tx:
            project = await access.project_for(tx, actor, "bss:order:create", project_id)
            if pay is not None:
                access.require(actor, "bss:order:pay", project_id=project)
            priced = await _price(tx, services, actor, asked)
            ca = await products.orderable_from(tx, services, actor, priced.product, project)
            if expected_total is not None and expected_total != priced.quote.total:
                raise Refused(
                    "price_changed", f"The price is {priced.quote.total} now, not {expected_total}.",
                    field="expected_total", fix="Look at the new price and order again.",
                    extra={"total": priced.quote.total.as_dict()},
                )  # fmt: skip
            old = await _predecessor(tx, services, actor, priced, renews) if renews is not None else None
            if priced.coupon_id is not None and not await store.use_coupon(tx, priced.coupon_id):
                raise rules.coupon_unusable("it has been used up")
            await store.keep_statement(tx, statement.version, statement.text, now)
            await _insert(tx, services, actor, order_id, project, priced, ca, statement.version, old, primary_name)
            if not priced.quote.total:
                await payments.settle_free(tx, services, actor, order_id)
            elif pay is not None:
                await payments.pay_in(tx, services, actor, order_id, pay)
            row = await store.order(tx, order_id)
            return await lookup.detail(tx, services, row)
    except IntegrityError as error:
        if "uq_orders_renewal" not in str(error.orig):
            raise
        raise Refused(
            "renewal_ordered", "This certificate has been ordered anew already.", field="renews",
            fix="Pay or cancel that order.",
        ) from error  # fmt: skip


async def _predecessor(tx: Tx, services: Services, actor: Actor, priced: _Priced, certificate_id: str) -> Predecessor:
    old = await services.port(Predecessors).predecessor(tx, actor, certificate_id)
    refused = rules.why_no_renewal(old, services.clock.now())
    if refused is not None:
        raise refused
    if priced.selection.quantity != 1:
        raise Invalid(
            "renewal_quantity", "A renewal order buys one certificate.", field="quantity", fix="Set quantity to 1."
        )
    return old


async def _insert(
    tx: Tx,
    services: Services,
    actor: Actor,
    order_id: str,
    project_id: str,
    priced: _Priced,
    ca: str,
    statement_version: str,
    old: Predecessor | None,
    primary_name: str,
) -> None:
    now = services.clock.now()
    policy = await store.policy(tx, actor.account_id)
    product = priced.product.model_dump(mode="json")
    chosen, total = priced.selection, priced.quote.total
    primary = (primary_name or old.primary_name) if old is not None else ""
    bought = lookup.subscription(product, ca, chosen.names, chosen.wildcards, primary)
    pay_by = now + timedelta(days=policy.unpaid_days)
    await store.insert_order(
        tx, id=order_id, account_id=actor.account_id, project_id=project_id, product_code=priced.product.code,
        product_version=priced.version, product=product, names=chosen.names, wildcards=chosen.wildcards,
        years=chosen.years, quantity=chosen.quantity, currency=total.currency, total=total.amount,
        breakdown=store.breakdown_json(priced.quote.lines), coupon_id=priced.coupon_id,
        renews_certificate_id=old.certificate_id if old else None, primary_name=primary,
        inherited_days=lookup.inherited_days(old, bought, now) if old else 0, statement_version=statement_version,
        statement_agreed_at=now, placed_at=now, placed_by=actor.user_id or actor.id, placed_by_name=actor.name,
        pay_by=pay_by, next_step_at=pay_by,
        search_text=f"{order_id} {priced.product.code} {priced.product.name} {primary}".lower(),
    )  # fmt: skip
    await audit.record(
        tx, services, actor, "bss:order:create", "order", order_id, project_id=project_id,
        after={
            "product": priced.product.code, "product_version": priced.version, "quantity": chosen.quantity,
            "total": str(total), "statement_version": statement_version, "status": OrderStatus.PENDING_PAYMENT.value,
            "renews": old.certificate_id if old else None,
        },
    )  # fmt: skip
    await services.events.publish(
        tx, "billing.order_placed", account_id=actor.account_id, object_id=order_id, payload={"total": total.as_dict()}
    )


# --- cancelling and lapsing -----------------------------------------------------------------------------------------


async def cancel_order(services: Services, actor: Actor, order_id: str) -> views.OrderDetail:
    """Give up an order that waits for its payment."""
    async with services.db.begin() as tx:
        row = await lookup.visible(tx, actor, "bss:order:cancel", order_id, lock=True)
        rules.judge_cancellable(store.order_facts(row))
        await end_unpaid(tx, services, actor, row, OrderStatus.CANCELLED)
        return await lookup.detail(tx, services, await store.order(tx, order_id))


async def end_unpaid(tx: Tx, services: Services, actor: Actor, row: Any, status: OrderStatus) -> None:
    """Cancel or lapse a locked order that was not paid; its coupon may be used again."""
    now = services.clock.now()
    lapsed = status is OrderStatus.LAPSED
    values = {"lapsed_at" if lapsed else "cancelled_at": now, "next_step_at": None}
    if not await store.move_order(tx, row.id, *store.UNDECIDED, orders.c.payment_id.is_(None), **values):
        raise Refused("state_changed", "The order was changed by someone else meanwhile.", fix="Look at it again.")
    if row.coupon_id is not None:
        await store.give_back_coupon(tx, row.coupon_id)
    await audit.record(
        tx, services, actor, f"bss:order:{'lapse' if lapsed else 'cancel'}", "order", row.id,
        project_id=row.project_id, before={"status": OrderStatus.PENDING_PAYMENT.value},
        after={"status": status.value},
    )  # fmt: skip
    await services.events.publish(
        tx, f"billing.order_{status.value}", account_id=row.account_id, object_id=row.id, payload={}
    )
