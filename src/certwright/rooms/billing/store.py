"""All SQL of the billing room but the books' (ledger.py). Transitions are guarded updates; zero rows is an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert

from certwright.kernel.money import Money
from certwright.platform.db import Tx
from certwright.rooms.billing.tables import (
    billing_policies,
    coupons,
    orders,
    payments,
    product_versions,
    service_statements,
    unsubscriptions,
)
from certwright.rooms.billing.words import CouponFacts, CouponKind, OrderFacts, OrderStatus, Policy, Review

Row = Any
"""A SQLAlchemy row; its columns are the table's."""

_O, _P, _C, _U, _V = orders.c, payments.c, coupons.c, unsubscriptions.c, product_versions.c


# --- products -------------------------------------------------------------------------------------------------------


async def product_rows(tx: Tx, account_id: str, code: str | None = None) -> list[Row]:
    """The newest version of each product the account edited or added."""
    query = (
        sa.select(product_versions).where(_V.account_id == account_id).ext(distinct_on(_V.code))
        .order_by(_V.code, _V.number.desc())
    )  # fmt: skip
    return list((await tx.execute(query if code is None else query.where(_V.code == code))).all())


async def product_history(tx: Tx, account_id: str, code: str, limit: int) -> list[Row]:
    query = (
        sa.select(product_versions).where(_V.account_id == account_id, _V.code == code)
        .order_by(_V.number.desc()).limit(limit)
    )  # fmt: skip
    return list((await tx.execute(query)).all())


async def insert_product_version(tx: Tx, **values: Any) -> bool:
    """False when somebody else has just written a version of this number."""
    result = await tx.execute(
        insert(product_versions).values(**values).on_conflict_do_nothing(
            index_elements=["account_id", "code", "number"]
        )
    )  # fmt: skip
    return bool(result.rowcount)


# --- service statements --------------------------------------------------------------------------------------------


async def keep_statement(tx: Tx, version: str, text: str, now: datetime) -> None:
    """Keep a text somebody agrees to, once."""
    made = insert(service_statements).values(version=version, text=text, first_agreed_at=now)
    await tx.execute(made.on_conflict_do_nothing())


async def statement_text(tx: Tx, version: str) -> str | None:
    table = service_statements.c
    text: str | None = await tx.scalar(sa.select(table.text).where(table.version == version))
    return text


# --- policy ---------------------------------------------------------------------------------------------------------


async def policy(tx: Tx, account_id: str) -> Policy:
    """How the account orders; the defaults while nobody has set anything."""
    row = (
        await tx.execute(sa.select(billing_policies).where(billing_policies.c.account_id == account_id))
    ).one_or_none()
    if row is None:
        return Policy(invoice_limits={})
    limits = {currency: Decimal(text) for currency, text in row.invoice_limits.items()}
    return Policy(Review(row.review), row.unpaid_days, limits, row.revision)


async def set_policy(tx: Tx, account_id: str, wanted: Policy, revision: int, now: datetime) -> bool:
    """False when it isn't at this revision any more."""
    values = {
        "review": wanted.review.value, "unpaid_days": wanted.unpaid_days, "revision": revision + 1, "updated_at": now,
        "invoice_limits": {currency: str(limit) for currency, limit in (wanted.invoice_limits or {}).items()},
    }  # fmt: skip
    if revision == 0:
        made = insert(billing_policies).values(account_id=account_id, **values).on_conflict_do_nothing()
        return bool((await tx.execute(made)).rowcount)
    changed = (
        sa.update(billing_policies)
        .where(billing_policies.c.account_id == account_id, billing_policies.c.revision == revision)
        .values(**values)
    )
    return bool((await tx.execute(changed)).rowcount)


# --- coupons --------------------------------------------------------------------------------------------------------


def coupon_facts(row: Row) -> CouponFacts:
    return CouponFacts(
        code=row.code,
        percent=row.percent,
        amount=Money.of(row.amount, row.currency) if row.amount is not None else None,
        products=tuple(row.products),
        uses_left=None if row.max_uses is None else row.max_uses - row.uses,
        valid_from=row.valid_from,
        valid_until=row.valid_until,
        disabled=row.disabled_at is not None,
    )


async def insert_coupon(tx: Tx, **values: Any) -> bool:
    """False when the account has this code already."""
    made = insert(coupons).values(**values).on_conflict_do_nothing(index_elements=["account_id", "code"])
    return bool((await tx.execute(made)).rowcount)


async def coupon_by_code(tx: Tx, account_id: str, code: str, kind: CouponKind) -> Row | None:
    query = sa.select(coupons).where(_C.account_id == account_id, _C.code == code, _C.kind == kind.value)
    return (await tx.execute(query)).one_or_none()


async def coupon(tx: Tx, coupon_id: str, where: sa.ColumnElement[bool]) -> Row | None:
    return (await tx.execute(sa.select(coupons).where(_C.id == coupon_id, where))).one_or_none()


async def coupon_page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], before: str | None, limit: int) -> list[Row]:
    query = sa.select(coupons).where(*where).order_by(_C.id.desc()).limit(limit)
    return list(await tx.execute(query if before is None else query.where(_C.id < before)))


async def use_coupon(tx: Tx, coupon_id: str) -> bool:
    """Take one use; False when none is left. Concurrent orders queue on the row."""
    result = await tx.execute(
        sa.update(coupons)
        .where(_C.id == coupon_id, _C.disabled_at.is_(None), sa.or_(_C.max_uses.is_(None), _C.uses < _C.max_uses))
        .values(uses=_C.uses + 1)
    )
    return bool(result.rowcount)


async def give_back_coupon(tx: Tx, coupon_id: str) -> None:
    await tx.execute(sa.update(coupons).where(_C.id == coupon_id).values(uses=_C.uses - 1))


async def disable_coupon(tx: Tx, coupon_id: str, now: datetime) -> bool:
    result = await tx.execute(
        sa.update(coupons)
        .where(_C.id == coupon_id, _C.disabled_at.is_(None))
        .values(disabled_at=now, revision=_C.revision + 1)
    )
    return bool(result.rowcount)


# --- orders ---------------------------------------------------------------------------------------------------------

STATUS: sa.ColumnElement[str] = sa.case(
    (_O.refunded_at.is_not(None), OrderStatus.REFUNDED.value),
    (_O.refund_rejected_at.is_not(None), OrderStatus.REFUND_REJECTED.value),
    (_O.refund_asked_at.is_not(None), OrderStatus.REFUND_REVIEW.value),
    (_O.paid_at.is_not(None), OrderStatus.PAID.value),
    (_O.cancelled_at.is_not(None), OrderStatus.CANCELLED.value),
    (_O.lapsed_at.is_not(None), OrderStatus.LAPSED.value),
    (_O.payment_id.is_not(None), OrderStatus.PAYMENT_RUNNING.value),
    else_=OrderStatus.PENDING_PAYMENT.value,
)
"""The SQL twin of rules.status, for filters."""


def order_facts(row: Row) -> OrderFacts:
    return OrderFacts(
        total=Money.of(row.total, row.currency),
        free_product=bool(row.product["free"]),
        pay_by=row.pay_by,
        payment_open=row.payment_id is not None and row.paid_at is None,
        paid_at=row.paid_at,
        cancelled_at=row.cancelled_at,
        lapsed_at=row.lapsed_at,
        refund_asked_at=row.refund_asked_at,
        refund_rejected_at=row.refund_rejected_at,
        refunded_at=row.refunded_at,
    )


async def insert_order(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(orders).values(**values))


async def order(
    tx: Tx, order_id: str, where: sa.ColumnElement[bool] | None = None, *, lock: bool = False
) -> Row | None:
    select = sa.select(orders).where(_O.id == order_id)
    if where is not None:
        select = select.where(where)
    return (await tx.execute(select.with_for_update() if lock else select)).one_or_none()


async def move_order(tx: Tx, order_id: str, *guards: sa.ColumnElement[bool], **values: Any) -> bool:
    """Write facts of an order, if the guards hold."""
    result = await tx.execute(
        sa.update(orders).where(_O.id == order_id, *guards).values(revision=_O.revision + 1, **values)
    )
    return bool(result.rowcount)


UNDECIDED = (_O.paid_at.is_(None), _O.cancelled_at.is_(None), _O.lapsed_at.is_(None))
"""Guards: the order has come to no end yet."""
UNDER_REVIEW = (_O.refund_asked_at.is_not(None), _O.refunded_at.is_(None), _O.refund_rejected_at.is_(None))


async def order_page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], before: str | None, limit: int) -> list[Row]:
    """Newest first, by keyset."""
    query = sa.select(orders).where(*where).order_by(_O.id.desc()).limit(limit)
    return list(await tx.execute(query if before is None else query.where(_O.id < before)))


def order_filters(
    *,
    statuses: Sequence[OrderStatus] = (),
    search: str | None = None,
    project_id: str | None = None,
    product: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = []
    if statuses:
        where.append(STATUS.in_([status.value for status in statuses]))
    if search:
        where.append(_O.search_text.contains(search.lower(), autoescape=True))
    if project_id:
        where.append(_O.project_id == project_id)
    if product:
        where.append(_O.product_code == product)
    if since is not None:
        where.append(_O.placed_at >= since)
    if until is not None:
        where.append(_O.placed_at < until)
    return where


# --- payments and unsubscriptions -----------------------------------------------------------------------------------


async def insert_payment(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(payments).values(**values))


async def payment(tx: Tx, payment_id: str, *, lock: bool = False) -> Row | None:
    select = sa.select(payments).where(_P.id == payment_id)
    return (await tx.execute(select.with_for_update() if lock else select)).one_or_none()


async def payments_of(tx: Tx, order_id: str) -> list[Row]:
    return list(await tx.execute(sa.select(payments).where(_P.order_id == order_id).order_by(_P.id)))


async def end_payment(tx: Tx, payment_id: str, **values: Any) -> bool:
    """Write how a running payment ended; False when it had ended before."""
    result = await tx.execute(
        sa.update(payments).where(_P.id == payment_id, _P.settled_at.is_(None), _P.failed_at.is_(None)).values(**values)
    )
    return bool(result.rowcount)


async def insert_unsubscription(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(unsubscriptions).values(**values))


async def unsubscription(
    tx: Tx, unsubscription_id: str, where: sa.ColumnElement[bool] | None = None, *, lock: bool = False
) -> Row | None:
    select = sa.select(unsubscriptions).where(_U.id == unsubscription_id)
    if where is not None:
        select = select.where(where)
    return (await tx.execute(select.with_for_update() if lock else select)).one_or_none()


async def unsubscription_of(tx: Tx, order_id: str) -> Row | None:
    return (await tx.execute(sa.select(unsubscriptions).where(_U.order_id == order_id))).one_or_none()


async def unsubscription_page(
    tx: Tx, where: Sequence[sa.ColumnElement[bool]], before: str | None, limit: int
) -> list[Row]:
    query = sa.select(unsubscriptions).where(*where).order_by(_U.id.desc()).limit(limit)
    return list(await tx.execute(query if before is None else query.where(_U.id < before)))


async def record_unsubscription(tx: Tx, unsubscription_id: str, missing: Sequence[str], **values: Any) -> bool:
    """Write facts that were missing until now; False if one of them was there."""
    result = await tx.execute(
        sa.update(unsubscriptions)
        .where(_U.id == unsubscription_id, *(unsubscriptions.c[name].is_(None) for name in missing))
        .values(**values)
    )
    return bool(result.rowcount)


def unsubscription_filters(state: str | None) -> list[sa.ColumnElement[bool]]:
    match state:
        case "review":
            return [_U.approved_at.is_(None), _U.rejected_at.is_(None)]
        case "refunding":
            return [_U.approved_at.is_not(None), _U.refunded_at.is_(None)]
        case "refunded":
            return [_U.refunded_at.is_not(None)]
        case "rejected":
            return [_U.rejected_at.is_not(None)]
    return []


def breakdown_json(lines: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The lines of a quote as they are kept on the order and shown."""
    return [
        {
            "kind": line.kind.value, "quantity": line.quantity, "unit": line.unit.as_dict(),
            "amount": line.amount.as_dict(), "percent": None if line.percent is None else format(line.percent, "f"),
        }
        for line in lines
    ]  # fmt: skip
