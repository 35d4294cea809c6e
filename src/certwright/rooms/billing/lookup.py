"""Looking at orders, and what placing, paying and unsubscribing have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Invalid, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access
from certwright.rooms.billing import rules, store, views
from certwright.rooms.billing.ports import Fulfilment
from certwright.rooms.billing.tables import orders
from certwright.rooms.billing.words import OrderStatus, Predecessor, Subscription

EXPORT_PAGE = 500
MOST_EXPORTED = 50_000
_CODE_LENGTH = 64


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """What a listing may be narrowed by; empty means everything the actor may see."""

    statuses: tuple[OrderStatus, ...] = ()
    search: str | None = None
    project_id: str | None = None
    product: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def normal_code(text: str) -> str:
    """Coupon and voucher codes are compared in capitals and without spaces around them."""
    return text.strip().upper()[: _CODE_LENGTH + 1]


def unknown_code(code: str) -> Invalid:
    return Invalid(
        "coupon_unknown", f"There is no code {code[:_CODE_LENGTH]!r}.", field="coupon", fix="Check the spelling."
    )


def subscription(product: Mapping[str, Any], ca: str, names: int, wildcards: int, primary_name: str) -> Subscription:
    """What an order buys, in the form that inheriting days is judged by; `ca` is the id that certificates store."""
    return Subscription(ca, product["type"], product["domain_type"], names, wildcards, primary_name)


def inherited_days(old: Predecessor, new: Subscription, now: datetime) -> int:
    """The days a renewal order takes over, if it were paid now."""
    before = Subscription(old.ca, old.type, old.domain_type, old.names, old.wildcards, old.primary_name)
    return rules.remaining_days(old.ends_at, now) if rules.inherits(before, new) else 0


async def visible(tx: Tx, actor: Actor, action: str, order_id: str, *, lock: bool = False) -> Any:
    """The row, if the actor may do `action` to it. Raises NotFound if it may not be seen, Forbidden otherwise."""
    row = await store.order(tx, order_id, access.visible(orders, actor, "bss:order:get"), lock=lock)
    if row is None:
        raise not_found("order", order_id)
    access.require(actor, action, project_id=row.project_id, resource=f"order:{order_id}")
    return row


async def get_order(services: Services, actor: Actor, order_id: str) -> views.OrderDetail:
    async with services.db.moment() as tx:
        return await detail(tx, services, await visible(tx, actor, "bss:order:get", order_id))


async def detail(tx: Tx, services: Services, row: Any) -> views.OrderDetail:
    facts = store.order_facts(row)
    bought = await services.port(Fulfilment).bought(tx, services, row.id, lock=False)
    refused = rules.why_no_refund(facts, row.quantity, bought, services.clock.now())
    asked = await store.unsubscription_of(tx, row.id)
    coupon = await store.coupon(tx, row.coupon_id, sa.true()) if row.coupon_id is not None else None
    return views.OrderDetail(
        summary=views.order_summary(row),
        product=row.product,
        breakdown=row.breakdown,
        coupon=coupon.code if coupon is not None else None,
        primary_name=row.primary_name,
        inherited_days=row.inherited_days,
        statement_version=row.statement_version,
        statement_agreed_at=row.statement_agreed_at,
        payments=tuple(views.payment_view(p) for p in await store.payments_of(tx, row.id)),
        certificates=tuple({"id": c.certificate_id, "name": c.name, "state": c.state} for c in bought),
        refund_until=rules.refund_until(row.paid_at) if row.paid_at is not None else None,
        why_no_refund=refused.as_dict() if refused is not None else None,
        unsubscription_id=asked.id if asked is not None else None,
    )


async def list_orders(
    services: Services, actor: Actor, wanted: OrderFilter, *, before: str | None = None, limit: int = 20
) -> list[views.OrderSummary]:
    """A page, newest first; `before` is the id of the last line seen."""
    async with services.db.read() as tx:
        rows = await store.order_page(tx, _where(actor, wanted), before, limit)
    return [views.order_summary(row) for row in rows]


def _where(actor: Actor, wanted: OrderFilter) -> Sequence[sa.ColumnElement[bool]]:
    return [
        access.visible(orders, actor, "bss:order:list"),
        *store.order_filters(
            statuses=wanted.statuses, search=wanted.search, project_id=wanted.project_id, product=wanted.product,
            since=wanted.since, until=wanted.until,
        ),
    ]  # fmt: skip


async def export_orders(services: Services, actor: Actor, wanted: OrderFilter) -> AsyncIterator[views.OrderSummary]:
    """All of a filtered list, newest first, page by page; at most MOST_EXPORTED."""
    before, seen = None, 0
    while seen < MOST_EXPORTED:
        page = await list_orders(services, actor, wanted, before=before, limit=EXPORT_PAGE)
        for line in page:
            yield line
        seen += len(page)
        if len(page) < EXPORT_PAGE:
            return
        before = page[-1].id
