"""Unsubscribing: asked for within seven days, reviewed, and then the money goes back and the certificates go away.

Order, certificates and books change in one transaction. Where the money came from a provider outside, the provider
gives it back first (a step that may be repeated), and then that transaction follows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.money import Money
from certwright.kernel.problems import Invalid, Refused, not_found
from certwright.platform.db import Tx, assert_no_transaction
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.billing import ledger, lookup, payments, rules, store, views
from certwright.rooms.billing.ports import Charge, Charged, Declined, Fulfilment, PaymentProviders, Waiting, Withdrawal
from certwright.rooms.billing.tables import unsubscriptions
from certwright.rooms.billing.words import OrderStatus, Review

REFUND_STEP = "billing.refund"
LONGEST_REASON = 500

_ASK_AGAIN = timedelta(days=1)


async def unsubscribe(
    services: Services, actor: Actor, order_id: str, *, acknowledge: bool, reason: str = ""
) -> views.Unsubscription:
    """Ask for an order's money back. From now on its certificates can't be used for anything.

    `acknowledge`: that the certificates are deleted and can't be restored. Where the account reviews automatically, it
    is approved at once.
    """
    if not acknowledge:
        raise Invalid(
            "deletion_not_acknowledged", "It has not been acknowledged that the certificate is deleted for good.",
            field="acknowledge", fix="Acknowledge that it can't be restored.",
        )  # fmt: skip
    _judge_text(reason, "reason")
    now = services.clock.now()
    unsubscription_id = new_id("uns", now)
    async with services.db.begin() as tx:
        row = await lookup.visible(tx, actor, "bss:order:refund", order_id, lock=True)
        bought = await services.port(Fulfilment).bought(tx, services, order_id, lock=True)
        refused = rules.why_no_refund(store.order_facts(row), row.quantity, bought, now)
        if refused is not None:
            raise refused
        payment = await store.payment(tx, row.payment_id)
        assert payment is not None
        policy = await store.policy(tx, row.account_id)
        await store.insert_unsubscription(
            tx, id=unsubscription_id, account_id=row.account_id, project_id=row.project_id, order_id=order_id,
            reason=reason, currency=payment.currency, amount=payment.amount, method=payment.method,
            review=policy.review.value, certificates=[{"id": c.certificate_id, "name": c.name} for c in bought],
            acknowledged_at=now, asked_at=now, asked_by=actor.user_id or actor.id, asked_by_name=actor.name,
        )  # fmt: skip
        await store.move_order(tx, order_id, refund_asked_at=now)
        if await services.port(Withdrawal).hold(tx, services, actor, order_id) != row.quantity:
            raise _changed()
        await audit.record(
            tx, services, actor, "bss:order:refund", "order", order_id, project_id=row.project_id,
            before={"status": OrderStatus.PAID.value}, reason=reason,
            after={"status": OrderStatus.REFUND_REVIEW.value, "unsubscription": unsubscription_id},
        )  # fmt: skip
        await services.events.publish(
            tx, "billing.refund_asked", account_id=row.account_id, object_id=order_id,
            payload={"unsubscription_id": unsubscription_id, "review": policy.review.value},
        )  # fmt: skip
        if policy.review is Review.AUTOMATIC:
            by = system_actor(row.account_id, "billing")
            await _approve(tx, services, by, await store.unsubscription(tx, unsubscription_id), "automatic review")
        return views.unsubscription(await store.unsubscription(tx, unsubscription_id))


def _changed() -> Refused:
    return Refused("state_changed", "The order was changed by someone else meanwhile.", fix="Look at it again.")


def _judge_text(text: str, field: str) -> None:
    if len(text) > LONGEST_REASON or not text.replace("\n", "").replace("\r", "").isprintable():
        raise Invalid(
            "text_not_usable", f"The text must have at most {LONGEST_REASON} printable characters.", field=field,
            fix="Shorten it.",
        )  # fmt: skip


# --- review ---------------------------------------------------------------------------------------------------------


async def approve(services: Services, actor: Actor, unsubscription_id: str, note: str = "") -> views.Unsubscription:
    """Give the money back and delete the certificates."""
    _judge_text(note, "note")
    async with services.db.begin() as tx:
        row = await _for_review(tx, actor, unsubscription_id)
        await _approve(tx, services, actor, row, note)
        return views.unsubscription(await store.unsubscription(tx, unsubscription_id))


async def reject(services: Services, actor: Actor, unsubscription_id: str, note: str) -> views.Unsubscription:
    """Refuse it, saying why; the certificates are what they were before."""
    _judge_text(note, "note")
    if not note.strip():
        raise Invalid("note_missing", "A rejection needs its reason.", field="note", fix="Say why it is rejected.")
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _for_review(tx, actor, unsubscription_id)
        decided = {"rejected_at": now, "decided_by": actor.id, "decided_by_name": actor.name, "note": note}
        if not await store.record_unsubscription(tx, row.id, ("approved_at", "rejected_at"), **decided):
            raise _decided()
        await store.move_order(tx, row.order_id, *store.UNDER_REVIEW, refund_rejected_at=now)
        await services.port(Withdrawal).release(tx, services, actor, row.order_id)
        await _note(tx, services, actor, row, OrderStatus.REFUND_REJECTED, note)
        return views.unsubscription(await store.unsubscription(tx, unsubscription_id))


async def _for_review(tx: Tx, actor: Actor, unsubscription_id: str) -> Any:
    """The row, with its order locked first like everywhere. Raises NotFound, Forbidden, Refused `refund_decided`."""
    where = access.visible(unsubscriptions, actor, "bss:refund:get")
    row = await store.unsubscription(tx, unsubscription_id, where)
    if row is None:
        raise not_found("unsubscription", unsubscription_id)
    access.require(
        actor, "bss:refund:review", project_id=row.project_id, resource=f"unsubscription:{unsubscription_id}"
    )
    await store.order(tx, row.order_id, lock=True)
    row = await store.unsubscription(tx, unsubscription_id, lock=True)
    assert row is not None
    if row.approved_at is not None or row.rejected_at is not None:
        raise _decided()
    return row


def _decided() -> Refused:
    return Refused("refund_decided", "This unsubscription has been decided already.", fix="Look at it again.")


async def _approve(tx: Tx, services: Services, actor: Actor, row: Any, note: str) -> None:
    decided = {
        "approved_at": services.clock.now(), "decided_by": actor.id, "decided_by_name": actor.name, "note": note,
    }  # fmt: skip
    if not await store.record_unsubscription(tx, row.id, ("approved_at", "rejected_at"), **decided):
        raise _decided()
    await audit.record(
        tx, services, actor, "bss:refund:review", "unsubscription", row.id, project_id=row.project_id,
        before={"state": "review"}, after={"state": "refunding"}, reason=note,
    )  # fmt: skip
    if row.amount and row.method not in ("balance", "invoice"):
        await services.jobs.start(tx, REFUND_STEP, row.id)
    else:
        await _finish(tx, services, actor, row, None)


async def _finish(tx: Tx, services: Services, actor: Actor, row: Any, provider_reference: str | None) -> None:
    """Books, certificates, order: all of it or nothing, once."""
    now = services.clock.now()
    order = await store.order(tx, row.order_id, lock=True)
    assert order is not None
    done = {"refunded_at": now, "provider_reference": provider_reference}
    if not await store.record_unsubscription(tx, row.id, ("refunded_at", "rejected_at"), **done):
        return
    amount = Money.of(row.amount, row.currency)
    if amount:
        await ledger.post(
            tx, services, account_id=row.account_id, key=f"refund:{row.order_id}", kind="refund",
            legs=rules.refund_legs(row.method, amount),
            actor_id=actor.id, order_id=row.order_id, memo=order.product["name"],
        )  # fmt: skip
    if not await store.move_order(tx, row.order_id, *store.UNDER_REVIEW, refunded_at=now):
        raise _changed()
    await services.port(Withdrawal).remove(tx, services, actor, row.order_id)
    await _note(tx, services, actor, row, OrderStatus.REFUNDED, "")


async def _note(tx: Tx, services: Services, actor: Actor, row: Any, status: OrderStatus, reason: str) -> None:
    amount = Money.of(row.amount, row.currency)
    after = {"status": status.value}
    if status is OrderStatus.REFUNDED:
        after["amount"] = str(amount)
    await audit.record(
        tx, services, actor, "bss:order:refund", "order", row.order_id, project_id=row.project_id,
        before={"status": OrderStatus.REFUND_REVIEW.value}, after=after, reason=reason,
    )  # fmt: skip
    kind = "billing.order_refunded" if status is OrderStatus.REFUNDED else "billing.refund_rejected"
    await services.events.publish(
        tx, kind, account_id=row.account_id, object_id=row.order_id,
        payload={"unsubscription_id": row.id, "amount": amount.as_dict()},
    )  # fmt: skip


async def refund_step(services: Services, unsubscription_id: str) -> Next:
    """Have the provider give the money back, then finish."""
    async with services.db.begin() as tx:
        row = await store.unsubscription(tx, unsubscription_id)
        if row is None or row.approved_at is None or row.refunded_at is not None:
            return None
        order = await store.order(tx, row.order_id)
        payment = await store.payment(tx, order.payment_id) if order is not None else None
    assert payment is not None
    provider = services.port(PaymentProviders).by_name.get(row.method)
    if provider is None:
        raise payments.provider_gone(row.method)
    assert_no_transaction()
    charge = Charge(unsubscription_id, row.order_id, row.account_id, Money.of(row.amount, row.currency))
    match await provider.refund(charge, payment.provider_reference):
        case Waiting(again):
            return again
        case Declined(reason):
            problem = Refused(
                "refund_declined", f"The payment provider does not give the money back: {reason[:300]}.",
                fix="Settle it with the provider; it is asked again every day.",
            )  # fmt: skip
            raise Again(_ASK_AGAIN, problem)
        case Charged(reference):
            async with services.db.begin() as tx:
                by = Actor("system", "billing", "billing", row.account_id)
                await _finish(tx, services, by, row, reference)
    return None


# --- looking --------------------------------------------------------------------------------------------------------


async def get_unsubscription(services: Services, actor: Actor, unsubscription_id: str) -> views.Unsubscription:
    async with services.db.begin() as tx:
        where = access.visible(unsubscriptions, actor, "bss:refund:get")
        row = await store.unsubscription(tx, unsubscription_id, where)
    if row is None:
        raise not_found("unsubscription", unsubscription_id)
    return views.unsubscription(row)


async def list_unsubscriptions(
    services: Services, actor: Actor, *, state: str | None = None, before: str | None = None, limit: int = 20
) -> list[views.Unsubscription]:
    """A page, newest first; `state` is review, refunding, refunded or rejected."""
    where = [access.visible(unsubscriptions, actor, "bss:refund:list"), *store.unsubscription_filters(state)]
    async with services.db.read() as tx:
        rows = await store.unsubscription_page(tx, where, before, limit)
    return [views.unsubscription(row) for row in rows]


async def export_unsubscriptions(
    services: Services, actor: Actor, *, state: str | None = None
) -> AsyncIterator[views.Unsubscription]:
    """All of a filtered list, page by page; at most lookup.MOST_EXPORTED."""
    before, seen = None, 0
    while seen < lookup.MOST_EXPORTED:
        page = await list_unsubscriptions(services, actor, state=state, before=before, limit=lookup.EXPORT_PAGE)
        for line in page:
            yield line
        seen += len(page)
        if len(page) < lookup.EXPORT_PAGE:
            return
        before = page[-1].id
