"""What doors show of products, orders, unsubscriptions and coupons: stored facts with the computed status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from certwright.kernel.money import Money
from certwright.rooms.billing import rules, store
from certwright.rooms.billing.catalogue import Product
from certwright.rooms.billing.words import CouponKind, OrderStatus, Quote, Selection


@dataclass(frozen=True, slots=True)
class ProductView:
    """`version` is 0 for a product as shipped. `not_orderable` says why it can't be ordered now, if it can't."""

    product: Product
    version: int
    not_orderable: str | None


@dataclass(frozen=True, slots=True)
class ProductEdit:
    """One version of a product as an administrator wrote it."""

    version: int
    document: Mapping[str, Any]
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class QuoteView:
    """A price with what it is for. `product_version` and `total` may be sent along with the order, which is then
    refused if either has changed."""

    product_code: str
    product_version: int
    selection: Selection
    quote: Quote
    coupon: str | None


@dataclass(frozen=True, slots=True)
class PaymentView:
    id: str
    method: str
    amount: Money
    voucher_amount: Money
    begun_at: datetime
    settled_at: datetime | None
    failed_at: datetime | None
    failure: str
    waiting_for: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class OrderSummary:
    """One line of the list."""

    id: str
    project_id: str
    status: OrderStatus
    product_code: str
    product_version: int
    product_name: str
    brand: str
    type: str
    domain_type: str
    names: int
    wildcards: int
    years: int
    quantity: int
    total: Money
    renews_certificate_id: str | None
    placed_at: datetime
    placed_by_name: str
    pay_by: datetime
    paid_at: datetime | None
    cancelled_at: datetime | None
    lapsed_at: datetime | None
    refunded_at: datetime | None
    revision: int


@dataclass(frozen=True, slots=True)
class OrderDetail:
    summary: OrderSummary
    product: Mapping[str, Any]
    breakdown: Sequence[Mapping[str, Any]]
    coupon: str | None
    primary_name: str
    inherited_days: int
    statement_version: str
    statement_agreed_at: datetime
    payments: tuple[PaymentView, ...]
    certificates: tuple[Mapping[str, str], ...]
    """Those that exist: id, name, state."""
    refund_until: datetime | None
    why_no_refund: Mapping[str, Any] | None
    """None when the order may be unsubscribed from now."""
    unsubscription_id: str | None


@dataclass(frozen=True, slots=True)
class Unsubscription:
    """A refund asked for. `amount` is what goes back to `method`: without vouchers and coupons."""

    id: str
    project_id: str
    order_id: str
    state: str
    reason: str
    amount: Money
    method: str
    review: str
    certificates: Sequence[Mapping[str, Any]]
    acknowledged_at: datetime
    asked_at: datetime
    asked_by_name: str
    approved_at: datetime | None
    rejected_at: datetime | None
    decided_by_name: str | None
    note: str
    refunded_at: datetime | None
    waiting_for: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class CouponView:
    """`left` is what remains on a voucher; None for coupons."""

    id: str
    kind: CouponKind
    code: str
    percent: Decimal | None
    amount: Money | None
    left: Money | None
    products: tuple[str, ...]
    max_uses: int | None
    uses: int
    valid_from: datetime | None
    valid_until: datetime | None
    disabled_at: datetime | None
    created_at: datetime


def order_summary(row: Any) -> OrderSummary:
    product = row.product
    return OrderSummary(
        id=row.id, project_id=row.project_id, status=rules.status(store.order_facts(row)),
        product_code=row.product_code, product_version=row.product_version, product_name=product["name"],
        brand=product["brand"], type=product["type"], domain_type=product["domain_type"], names=row.names,
        wildcards=row.wildcards, years=row.years, quantity=row.quantity, total=Money.of(row.total, row.currency),
        renews_certificate_id=row.renews_certificate_id, placed_at=row.placed_at, placed_by_name=row.placed_by_name,
        pay_by=row.pay_by, paid_at=row.paid_at, cancelled_at=row.cancelled_at, lapsed_at=row.lapsed_at,
        refunded_at=row.refunded_at, revision=row.revision,
    )  # fmt: skip


def payment_view(row: Any) -> PaymentView:
    return PaymentView(
        row.id, row.method, Money.of(row.amount, row.currency), Money.of(row.voucher_amount, row.currency),
        row.begun_at, row.settled_at, row.failed_at, row.failure,
        None if row.settled_at or row.failed_at else row.step_problem,
    )  # fmt: skip


def unsubscription(row: Any) -> Unsubscription:
    if row.refunded_at is not None:
        state = "refunded"
    elif row.rejected_at is not None:
        state = "rejected"
    else:
        state = "refunding" if row.approved_at is not None else "review"
    return Unsubscription(
        id=row.id, project_id=row.project_id, order_id=row.order_id, state=state, reason=row.reason,
        amount=Money.of(row.amount, row.currency), method=row.method, review=row.review,
        certificates=row.certificates, acknowledged_at=row.acknowledged_at, asked_at=row.asked_at,
        asked_by_name=row.asked_by_name, approved_at=row.approved_at, rejected_at=row.rejected_at,
        decided_by_name=row.decided_by_name, note=row.note, refunded_at=row.refunded_at,
        waiting_for=row.step_problem if state == "refunding" else None,
    )  # fmt: skip


def coupon(row: Any, left: Money | None) -> CouponView:
    facts = store.coupon_facts(row)
    return CouponView(
        id=row.id, kind=CouponKind(row.kind), code=row.code, percent=facts.percent, amount=facts.amount, left=left,
        products=facts.products, max_uses=row.max_uses, uses=row.uses, valid_from=row.valid_from,
        valid_until=row.valid_until, disabled_at=row.disabled_at, created_at=row.created_at,
    )  # fmt: skip
