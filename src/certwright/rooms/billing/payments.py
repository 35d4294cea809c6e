"""Paying: built-in methods in one transaction with the delivery, external ones by a step that may be repeated.

A payment's row is the intention. Whatever happens in between, the books take one posting under the order's key, and
the order is delivered once: both are guarded in the transaction that does them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.money import Money
from certwright.kernel.problems import Invalid, NotFound, Refused, Unavailable
from certwright.platform.db import Tx, assert_no_transaction
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.billing import ledger, lookup, rules, store, views
from certwright.rooms.billing.ports import (
    Charge,
    Charged,
    Declined,
    Delivery,
    Fulfilment,
    PaymentProviders,
    Predecessors,
    Waiting,
)
from certwright.rooms.billing.tables import orders
from certwright.rooms.billing.words import (
    BALANCE,
    INVOICE,
    NOTHING,
    AccountKind,
    CouponKind,
    OrderStatus,
    Policy,
)

CHARGE_STEP = "billing.charge"
MOST_VOUCHERS = 10

_PROVIDER_GONE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PayWith:
    """`vouchers` (codes) pay first, as far as they go; `method` pays the rest."""

    method: str = BALANCE
    vouchers: tuple[str, ...] = ()


async def pay_order(services: Services, actor: Actor, order_id: str, pay: PayWith) -> views.OrderDetail:
    """Pay an order that waits for its payment. An external method leaves it in `payment_running` until the provider
    has answered."""
    async with services.db.begin() as tx:
        await lookup.visible(tx, actor, "bss:order:pay", order_id)
        await pay_in(tx, services, actor, order_id, pay)
        return await lookup.detail(tx, services, await store.order(tx, order_id))


async def pay_in(tx: Tx, services: Services, actor: Actor, order_id: str, pay: PayWith) -> None:
    """Pay in the caller's transaction. Raises Refused before anything is written when it can't be paid."""
    row = await store.order(tx, order_id, lock=True)
    assert row is not None
    facts = store.order_facts(row)
    rules.judge_payable(facts, services.clock.now())
    await _ca(tx, services, row)
    _judge_method(services, pay)
    if pay.method in services.port(PaymentProviders).by_name:
        await _begin_external(tx, services, actor, row, pay.method, facts.total)
        return
    vouchers = await _vouchers(tx, services, row, pay.vouchers, facts.total)
    legs, rest = rules.payment_legs(facts.total, [(voucher.id, has) for voucher, has in vouchers], pay.method)
    balances = await ledger.lock(tx, services, row.account_id, [ledger.key_of(leg) for leg in legs])
    if rest:
        available = balances[ledger.key_of(rules.method_leg(pay.method, -rest))][1]
        if pay.method == BALANCE:
            if available < rest:
                raise ledger.too_low(rest, available)
        else:
            _judge_invoice(await store.policy(tx, row.account_id), rest, available)
    # What a voucher held may have been spent between our look and the lock.
    for leg in legs:
        if leg.kind is AccountKind.VOUCHER and balances[ledger.key_of(leg)][1] < -leg.amount:
            raise rules.coupon_unusable("it was used by another order meanwhile").at("vouchers")
    await ledger.post(
        tx, services, account_id=row.account_id, key=f"payment:{order_id}", kind="payment", legs=legs,
        actor_id=actor.id, order_id=order_id, memo=row.product["name"],
    )  # fmt: skip
    codes = {voucher.id: voucher.code for voucher, _ in vouchers}
    used = [
        {"id": leg.reference, "code": codes[leg.reference], "amount": (-leg.amount).as_dict()}
        for leg in legs if leg.kind is AccountKind.VOUCHER
    ]  # fmt: skip
    payment_id = await _insert(
        tx, services, actor, row, pay.method if rest else NOTHING, rest, facts.total - rest, used, settled=True
    )
    await _deliver(tx, services, actor, row, payment_id)


async def _ca(tx: Tx, services: Services, row: Any) -> str:
    """The id of the CA that fulfils an order. Raises Refused `product_not_orderable`."""
    ca = row.product["ca"]
    offered = await services.port(Fulfilment).offered(tx, services, row.account_id, [ca])
    if ca not in offered:
        raise Refused(
            "product_not_orderable", f"{row.product['name']} can't be delivered: its CA is no longer configured.",
            fix="Configure the CA again, or cancel the order and choose another product.",
        )  # fmt: skip
    return offered[ca]


async def settle_free(tx: Tx, services: Services, actor: Actor, order_id: str) -> None:
    """An order that costs nothing is paid as it is placed; the books have nothing to say about it."""
    row = await store.order(tx, order_id, lock=True)
    assert row is not None
    zero = Money.zero(row.currency)
    payment_id = await _insert(tx, services, actor, row, NOTHING, zero, zero, [], settled=True)
    await _deliver(tx, services, actor, row, payment_id)


def _judge_method(services: Services, pay: PayWith) -> None:
    external = services.port(PaymentProviders).by_name
    if pay.method not in (BALANCE, INVOICE, *external):
        raise Invalid(
            "payment_method_unknown", f"There is no payment method {pay.method[:40]!r}.", field="method",
            fix=f"Use one of: {', '.join((BALANCE, INVOICE, *sorted(external)))}.",
        )  # fmt: skip
    if len(pay.vouchers) > MOST_VOUCHERS:
        raise Invalid(
            "too_many_vouchers", f"An order is paid with at most {MOST_VOUCHERS} vouchers.", field="vouchers",
            fix="Leave some out.",
        )  # fmt: skip
    if pay.vouchers and pay.method in external:
        raise Invalid(
            "vouchers_not_combinable", "Vouchers can't be combined with a payment outside.", field="vouchers",
            fix="Pay the rest from the balance or on invoice.",
        )  # fmt: skip


def _judge_invoice(policy: Policy, rest: Money, payable: Money) -> None:
    limit = (policy.invoice_limits or {}).get(rest.currency)
    if limit is None:
        raise Refused(
            "invoice_not_offered", f"This account doesn't buy on invoice in {rest.currency}.", field="method",
            fix="Pay from the balance, or ask an administrator to set a limit for invoices.",
        )  # fmt: skip
    if -(payable - rest) > Money.of(limit, rest.currency):
        raise Refused(
            "invoice_limit_reached", f"{rest} more on invoice would be over the limit of {limit} {rest.currency}.",
            field="method", fix="Settle what is owed first, or pay from the balance.",
            extra={"owed": (-payable).as_dict()},
        )  # fmt: skip


async def _vouchers(
    tx: Tx, services: Services, row: Any, codes: Sequence[str], total: Money
) -> list[tuple[Any, Money]]:
    """The row of each voucher with what is left on it. Raises Invalid, Refused for one that can't pay this order."""
    found = []
    for code in dict.fromkeys(lookup.normal_code(code) for code in codes):
        voucher = await store.coupon_by_code(tx, row.account_id, code, CouponKind.VOUCHER)
        if voucher is None:
            raise lookup.unknown_code(code).at("vouchers")
        found.append(voucher)
    keys = [(AccountKind.VOUCHER, voucher.id, voucher.currency) for voucher in found]
    left = await ledger.peek(tx, row.account_id, keys)
    usable = [(voucher, left.get(key, Money.zero(voucher.currency))) for voucher, key in zip(found, keys, strict=True)]
    for voucher, has in usable:
        facts = store.coupon_facts(voucher)
        rules.judge_voucher(facts, has, row.product_code, total.currency, services.clock.now())
    return usable


async def _insert(
    tx: Tx,
    services: Services,
    actor: Actor,
    row: Any,
    method: str,
    amount: Money,
    voucher_amount: Money,
    used: Sequence[dict[str, Any]],
    *,
    settled: bool,
) -> str:
    now = services.clock.now()
    payment_id = new_id("pay", now)
    await store.insert_payment(
        tx, id=payment_id, account_id=row.account_id, project_id=row.project_id, order_id=row.id, method=method,
        currency=amount.currency, amount=amount.amount, voucher_amount=voucher_amount.amount, vouchers=list(used),
        payer={"kind": actor.kind, "id": actor.id, "name": actor.name, "user_id": actor.user_id},
        begun_at=now, settled_at=now if settled else None,
    )  # fmt: skip
    return payment_id


async def _deliver(tx: Tx, services: Services, actor: Actor, row: Any, payment_id: str) -> None:
    """Mark a locked order paid and have its certificates made, together with the posting that paid for it."""
    now = services.clock.now()
    ca = await _ca(tx, services, row)
    days = await _inherited_days(tx, services, row, ca)
    paid = {"paid_at": now, "payment_id": payment_id, "inherited_days": days, "next_step_at": None}
    if not await store.move_order(tx, row.id, *store.UNDECIDED, **paid):
        raise Refused("state_changed", "The order was changed by someone else meanwhile.", fix="Look at it again.")
    made = await services.port(Fulfilment).deliver(
        tx, services, actor,
        Delivery(
            order_id=row.id, account_id=row.account_id, project_id=row.project_id, ca=ca, product=row.product,
            quantity=row.quantity, names=row.names, wildcards=row.wildcards, years=row.years,
            paid=not row.product["free"], renews_certificate_id=row.renews_certificate_id, inherited_days=days,
            primary_name=row.primary_name,
        ),
    )  # fmt: skip
    if len(made) != row.quantity:
        raise RuntimeError(f"order {row.id} was to get {row.quantity} certificates and got {len(made)}")
    await audit.record(
        tx, services, actor, "bss:order:pay", "order", row.id, project_id=row.project_id,
        before={"status": OrderStatus.PENDING_PAYMENT.value},
        after={"status": OrderStatus.PAID.value, "payment": payment_id, "certificates": list(made)},
    )  # fmt: skip
    await services.events.publish(
        tx, "billing.order_paid", account_id=row.account_id, object_id=row.id,
        payload={"certificates": list(made), "total": Money.of(row.total, row.currency).as_dict()},
    )  # fmt: skip


async def _inherited_days(tx: Tx, services: Services, row: Any, ca: str) -> int:
    """Days left of the certificate that is renewed, at the moment of paying; none if it is gone by now."""
    if row.renews_certificate_id is None:
        return 0
    try:
        old = await services.port(Predecessors).predecessor(
            tx, system_actor(row.account_id, "billing"), row.renews_certificate_id
        )
    except NotFound:
        return 0
    bought = lookup.subscription(row.product, ca, row.names, row.wildcards, row.primary_name)
    return lookup.inherited_days(old, bought, services.clock.now())


# --- providers outside ----------------------------------------------------------------------------------------------


async def _begin_external(tx: Tx, services: Services, actor: Actor, row: Any, method: str, amount: Money) -> None:
    zero = Money.zero(amount.currency)
    payment_id = await _insert(tx, services, actor, row, method, amount, zero, [], settled=False)
    await store.move_order(tx, row.id, *store.UNDECIDED, payment_id=payment_id)
    await services.jobs.start(tx, CHARGE_STEP, payment_id)
    await audit.record(
        tx, services, actor, "bss:order:pay", "order", row.id, project_id=row.project_id,
        before={"status": OrderStatus.PENDING_PAYMENT.value},
        after={"status": OrderStatus.PAYMENT_RUNNING.value, "payment": payment_id, "method": method},
    )  # fmt: skip


def provider_gone(method: str) -> Again:
    return Again(
        _PROVIDER_GONE,
        Unavailable(
            "payment_provider_missing", f"The payment provider {method} is not configured any more.",
            fix="Configure it again, so that what was begun can be finished.",
        ),
    )  # fmt: skip


async def charge_step(services: Services, payment_id: str) -> Next:
    """Bring one external payment to its end: charged and delivered, or declined."""
    async with services.db.begin() as tx:
        row = await store.payment(tx, payment_id)
    if row is None or row.settled_at or row.failed_at:
        return None
    provider = services.port(PaymentProviders).by_name.get(row.method)
    if provider is None:
        raise provider_gone(row.method)
    assert_no_transaction()
    amount = Money.of(row.amount, row.currency)
    match await provider.charge(Charge(payment_id, row.order_id, row.account_id, amount)):
        case Waiting(again):
            return again
        case Declined(reason):
            await _declined(services, row, reason)
        case Charged(reference):
            await _charged(services, row, amount, reference)
    return None


def _payer(row: Any) -> Actor:
    payer = row.payer
    return Actor(payer["kind"], payer["id"], payer["name"], row.account_id, (), payer["user_id"])


async def _charged(services: Services, payment: Any, amount: Money, reference: str) -> None:
    actor, now = _payer(payment), services.clock.now()
    async with services.db.begin() as tx:
        row = await store.order(tx, payment.order_id, lock=True)
        assert row is not None
        if not await store.end_payment(tx, payment.id, settled_at=now, provider_reference=reference):
            return
        await ledger.post(
            tx, services, account_id=row.account_id, key=f"payment:{row.id}", kind="payment",
            legs=rules.payment_legs(amount, (), payment.method)[0],
            actor_id=actor.id, order_id=row.id, memo=row.product["name"],
        )  # fmt: skip
        await _deliver(tx, services, actor, row, payment.id)


async def _declined(services: Services, payment: Any, reason: str) -> None:
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await store.order(tx, payment.order_id, lock=True)
        assert row is not None
        if not await store.end_payment(tx, payment.id, failed_at=now, failure=reason[:500]):
            return
        # The order waits again, and lapses at its time.
        await store.move_order(tx, row.id, orders.c.payment_id == payment.id, payment_id=None, next_step_at=row.pay_by)
        await audit.record(
            tx, services, _payer(payment), "bss:order:pay", "order", row.id, project_id=row.project_id,
            before={"status": OrderStatus.PAYMENT_RUNNING.value}, reason=reason[:500],
            after={"status": OrderStatus.PENDING_PAYMENT.value, "payment": payment.id},
        )  # fmt: skip
        await services.events.publish(
            tx, "billing.payment_declined", account_id=row.account_id, object_id=row.id,
            payload={"payment_id": payment.id},
        )  # fmt: skip
