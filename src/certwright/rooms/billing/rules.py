"""Pure decisions about ordering: prices, statuses, what may be paid, refunded and renewed, and what is inherited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from certwright.kernel.money import Money, Rounding, total
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused
from certwright.rooms.billing.catalogue import Product
from certwright.rooms.billing.words import (
    MOST_CERTIFICATES,
    AccountKind,
    BoughtCertificate,
    CouponFacts,
    DomainType,
    Leg,
    Line,
    LineKind,
    OrderFacts,
    OrderStatus,
    Predecessor,
    Quote,
    Selection,
    Subscription,
    WildcardRule,
)

REFUND_WINDOW = timedelta(days=7)
"""7 × 24 h of payment: paid at 12:00 on day 1, the last moment is just before 12:00 on day 8."""

RENEWAL_DAYS = 30

_STATEMENT_LENGTH = 40


# --- prices ---------------------------------------------------------------------------------------------------------


def quote(product: Product, selection: Selection, coupon: CouponFacts | None, now: datetime) -> Quote:
    """The price with its breakdown; used for the price shown while choosing and for the order itself.

    Percentages are rounded half up to the currency's smallest unit, each line once. Raises InvalidFields naming every
    wrong part of the selection, and a problem of its own for a coupon that can't be used.
    """
    judge_selection(product, selection)
    zero = Money.zero(product.currency)
    base = product.price(product.prices.base)
    lines = [Line(LineKind.BASE, 1, base, base)]
    extra = max(0, selection.names - product.included_names)
    if product.domain_type is DomainType.MULTI:
        for kind, number, price in (
            (LineKind.ADDITIONAL_NAMES, extra, product.prices.additional_name),
            (LineKind.WILDCARDS, selection.wildcards, product.prices.wildcard),
        ):
            if number:
                unit = product.price(price)
                lines.append(Line(kind, number, unit, unit * number))
    one_year = total((line.amount for line in lines), product.currency)
    if selection.years > 1:
        further = selection.years - 1
        lines.append(Line(LineKind.FURTHER_YEARS, further, one_year, one_year * further))
    percent = product.years[selection.years]
    if percent:
        lines.append(_discount(LineKind.YEARS_DISCOUNT, one_year * selection.years, percent))
    unit_price = total((line.amount for line in lines), product.currency)
    if selection.quantity > 1:
        further = selection.quantity - 1
        lines.append(Line(LineKind.FURTHER_CERTIFICATES, further, unit_price, unit_price * further))
    steps = [from_ for from_ in product.quantity_discounts if from_ <= selection.quantity]
    percent = product.quantity_discounts[max(steps)] if steps else Decimal(0)
    if percent:
        lines.append(_discount(LineKind.QUANTITY_DISCOUNT, unit_price * selection.quantity, percent))
    to_pay = total((line.amount for line in lines), product.currency)
    if coupon is not None:
        judge_coupon(coupon, product, now)
        if coupon.percent is not None:
            lines.append(_discount(LineKind.COUPON, to_pay, coupon.percent))
        elif coupon.amount is not None:
            off = -min(coupon.amount, to_pay)
            lines.append(Line(LineKind.COUPON, 1, off, off))
    result = total((line.amount for line in lines), product.currency)
    assert result >= zero, "no discount takes off more than there is"
    return Quote(tuple(lines), unit_price, result, product.free)


def _discount(kind: LineKind, of: Money, percent: Decimal) -> Line:
    off = -of.share(percent, Rounding.HALF_UP)
    return Line(kind, 1, off, off, percent)


def judge_selection(product: Product, selection: Selection) -> None:
    """Raises InvalidFields with one problem per part of the selection that the product doesn't offer."""
    problems: list[Problem] = []
    if not 1 <= selection.quantity <= MOST_CERTIFICATES:
        problems.append(
            Invalid("quantity_invalid", f"An order buys 1 to {MOST_CERTIFICATES} certificates.", field="quantity",
                    fix="Place several orders for more.")
        )  # fmt: skip
    if selection.years not in product.years:
        offered = ", ".join(str(years) for years in sorted(product.years))
        problems.append(
            Invalid("years_not_offered", f"{product.name} is not sold for {selection.years} years.", field="years",
                    fix=f"Choose one of: {offered}.")
        )  # fmt: skip
    names, wildcards = selection.names, selection.wildcards
    match product.domain_type:
        case DomainType.SINGLE if (names, wildcards) != (1, 0):
            problems.append(
                Invalid("single_takes_one_name", "A single-domain product holds exactly one name and no wildcard.",
                        field="names", fix="Leave the numbers out, or choose a multi-domain product.")
            )  # fmt: skip
        case DomainType.WILDCARD if (names, wildcards) != (0, 1):
            problems.append(
                Invalid("wildcard_takes_one_wildcard", "A wildcard product holds exactly one wildcard name.",
                        field="wildcards", fix="Leave the numbers out, or choose a multi-domain product.")
            )  # fmt: skip
        case DomainType.MULTI:
            if names < 1 or wildcards < 0 or not 2 <= names + wildcards <= product.max_names:
                problems.append(
                    Invalid(
                        "domain_quota_invalid",
                        f"{product.name} holds 2 to {product.max_names} names, at least one of them no wildcard.",
                        field="names", fix="Choose how many names you need; the number can't be raised later.",
                    )
                )  # fmt: skip
            if wildcards > 0 and product.wildcards is WildcardRule.NONE:
                problems.append(
                    Invalid("wildcards_not_offered", f"{product.name} holds no wildcard names.", field="wildcards",
                            fix="Choose an OV or OV Pro product, or a wildcard product for that name.")
                )  # fmt: skip
    if problems:
        raise InvalidFields(problems)


def selection_of(product: Product, *, names: int | None, wildcards: int | None, years: int, quantity: int) -> Selection:
    """What was asked for, with the numbers of names filled in that the product leaves no choice about."""
    if product.domain_type is DomainType.WILDCARD:
        default_names, default_wildcards = 0, 1
    elif product.domain_type is DomainType.MULTI:
        default_names, default_wildcards = max(2 - (wildcards or 0), 1), 0
    else:
        default_names, default_wildcards = 1, 0
    return Selection(
        default_names if names is None else names,
        default_wildcards if wildcards is None else wildcards,
        years,
        quantity,
    )


def coupon_unusable(reason: str) -> Refused:
    return Refused(
        "coupon_unusable", f"The code can't be used: {reason}.", field="coupon", fix="Leave it out, or use another."
    )


def judge_coupon(coupon: CouponFacts, product: Product, now: datetime) -> None:
    """Raises Refused `coupon_unusable` with the reason."""
    reason = _why_not_now(coupon, now)
    if reason is None and coupon.products and product.code not in coupon.products:
        reason = "it isn't for this product"
    if reason is None and product.free:
        reason = "the product is free"
    if reason is None and coupon.amount is not None and coupon.amount.currency != product.currency:
        reason = f"it is in {coupon.amount.currency}, the price in {product.currency}"
    if reason is None and coupon.uses_left is not None and coupon.uses_left < 1:
        reason = "it has been used up"
    if reason is not None:
        raise coupon_unusable(reason)


def _why_not_now(coupon: CouponFacts, now: datetime) -> str | None:
    if coupon.disabled:
        return "it was disabled"
    if coupon.valid_from is not None and now < coupon.valid_from:
        return "it isn't valid yet"
    if coupon.valid_until is not None and now >= coupon.valid_until:
        return "it is no longer valid"
    return None


def judge_voucher(voucher: CouponFacts, left: Money, product_code: str, currency: str, now: datetime) -> None:
    """Raises Refused `coupon_unusable` unless this voucher can pay for that product now."""
    reason = _why_not_now(voucher, now)
    if reason is None and left.currency != currency:
        reason = f"it is in {left.currency}, the price in {currency}"
    if reason is None and voucher.products and product_code not in voucher.products:
        reason = "it isn't for this product"
    if reason is None and not left:
        reason = "it has been used up"
    if reason is not None:
        raise coupon_unusable(reason).at("vouchers")


# --- postings -------------------------------------------------------------------------------------------------------


def method_leg(method: str, change: Money) -> Leg:
    """The posting on the account a payment method draws on; `change` is negative when it pays."""
    match method:
        case "balance":
            return Leg(AccountKind.BALANCE, change)
        case "invoice":
            return Leg(AccountKind.PAYABLE, change)
    return Leg(AccountKind.EXTERNAL, change, method)


def payment_legs(price: Money, vouchers: Sequence[tuple[str, Money]], method: str) -> tuple[list[Leg], Money]:
    """The postings that pay `price`, and what `method` pays of it. Vouchers (id, what is left on it) pay first, in the
    order given, as far as they go."""
    rest, legs = price, []
    for voucher_id, left in vouchers:
        part = min(left, rest)
        if part:
            legs.append(Leg(AccountKind.VOUCHER, -part, voucher_id))
            rest = rest - part
    if rest:
        legs.append(method_leg(method, -rest))
    return [*legs, Leg(AccountKind.PURCHASES, price)], rest


def refund_legs(method: str, amount: Money) -> list[Leg]:
    """The postings that give back what a method paid; none when it paid nothing."""
    return [method_leg(method, amount), Leg(AccountKind.PURCHASES, -amount)] if amount else []


# --- orders ---------------------------------------------------------------------------------------------------------


def judge_agreement(agreed: bool, version: str, current: str) -> None:
    """Agreed, and to the `current` version of the service statement; no version means that one. Raises Invalid."""
    if not agreed:
        raise Invalid(
            "statement_not_agreed", "The service statement has not been agreed to.", field="agree",
            fix=f"Read version {current} (`certwright orders statement`) and agree to it.",
        )  # fmt: skip
    if version and version != current:
        raise Invalid(
            "statement_outdated", f"{version[:_STATEMENT_LENGTH]!r} is not the current service statement.",
            field="statement_version", fix=f"Read version {current} and agree to that.",
        )  # fmt: skip


def status(facts: OrderFacts) -> OrderStatus:
    """The order's status, from what has happened to it. `store.STATUS` is its twin in SQL."""
    if facts.refunded_at is not None:
        return OrderStatus.REFUNDED
    if facts.refund_rejected_at is not None:
        return OrderStatus.REFUND_REJECTED
    if facts.refund_asked_at is not None:
        return OrderStatus.REFUND_REVIEW
    if facts.paid_at is not None:
        return OrderStatus.PAID
    if facts.cancelled_at is not None:
        return OrderStatus.CANCELLED
    if facts.lapsed_at is not None:
        return OrderStatus.LAPSED
    return OrderStatus.PAYMENT_RUNNING if facts.payment_open else OrderStatus.PENDING_PAYMENT


_NOT_PAYABLE = {
    OrderStatus.PAYMENT_RUNNING: "a payment of it is under way",
    OrderStatus.CANCELLED: "it was cancelled",
    OrderStatus.LAPSED: "it was not paid in time",
}


def judge_payable(facts: OrderFacts, now: datetime) -> None:
    """Raises Refused `order_not_payable` unless the order waits for its payment."""
    found = status(facts)
    reason = _NOT_PAYABLE.get(found)
    if found is OrderStatus.PENDING_PAYMENT and now >= facts.pay_by:
        reason = "it was not paid in time"
    elif found is not OrderStatus.PENDING_PAYMENT and reason is None:
        reason = "it has been paid already"
    if reason is not None:
        raise Refused(
            "order_not_payable", f"The order can't be paid: {reason}.", fix="Look at the order; order again if needed.",
            extra={"status": found.value},
        )  # fmt: skip


def judge_cancellable(facts: OrderFacts) -> None:
    """Raises Refused `order_not_cancellable`."""
    found = status(facts)
    if found is not OrderStatus.PENDING_PAYMENT:
        raise Refused(
            "order_not_cancellable", f"Only an order that waits for its payment can be cancelled; this one is {found}.",
            fix="Unsubscribe from a paid order instead." if facts.paid_at else "There is nothing left to cancel.",
            extra={"status": found.value},
        )  # fmt: skip


# --- refunds --------------------------------------------------------------------------------------------------------


def refund_until(paid_at: datetime) -> datetime:
    """The first moment at which it is too late."""
    return paid_at + REFUND_WINDOW


def why_no_refund(
    facts: OrderFacts, quantity: int, bought: Sequence[BoughtCertificate], now: datetime
) -> Refused | None:
    """None when the order may be unsubscribed from now, else the reason.

    Every certificate of the order must qualify: never submitted (or withdrawn), or its revocation completed within
    the window.
    """
    found = status(facts)
    if found is not OrderStatus.PAID or facts.paid_at is None:
        return Refused(
            "order_not_refundable", f"Only a paid order can be unsubscribed from; this one is {found}.",
            fix="Look at the order.", extra={"status": found.value},
        )  # fmt: skip
    if facts.free_product:
        return Refused(
            "order_free", "The order was free, so there is nothing to give back.", fix="Delete the certificate instead."
        )
    if now >= refund_until(facts.paid_at):
        return Refused(
            "refund_too_late", "The seven days in which the order could be unsubscribed from are over.",
            fix="The certificate stays usable until its coverage ends.",
            extra={"until": refund_until(facts.paid_at).isoformat()},
        )  # fmt: skip
    if len(bought) < quantity:
        return Refused(
            "refund_certificate_deleted", "A certificate of this order was deleted, so the order can't be given back.",
            fix="Unsubscribe before deleting next time.",
        )  # fmt: skip
    for certificate in bought:
        reason = _why_not_given_back(certificate, facts.paid_at)
        if reason is not None:
            return Refused(
                "refund_certificate_used", f"The certificate {certificate.name} can't be given back: {reason}.",
                fix="Withdraw its application, or revoke it and wait until the revocation is completed.",
                extra={"certificate_id": certificate.certificate_id, "state": certificate.state},
            )  # fmt: skip
        if certificate.bound_to:
            return Refused(
                "certificate_bound",
                f"The certificate {certificate.name} is bound to {', '.join(certificate.bound_to[:5])}.",
                fix="Unbind it, or bind another certificate there first.",
                extra={"certificate_id": certificate.certificate_id},
            )  # fmt: skip
    return None


def _why_not_given_back(certificate: BoughtCertificate, paid_at: datetime) -> str | None:
    if not certificate.ever_issued:
        return None if certificate.pending_application else f"its application was submitted ({certificate.state})"
    if certificate.revoked_at is None:
        return f"it was issued and is not revoked ({certificate.state})"
    if certificate.revoked_at >= refund_until(paid_at):
        return "it was revoked after the seven days"
    if certificate.state != "revoked":
        return f"it was applied for again ({certificate.state})"
    if certificate.earlier_live:
        return "an earlier version of it is still valid"
    return None


# --- renewal --------------------------------------------------------------------------------------------------------


def why_no_renewal(old: Predecessor, now: datetime) -> Refused | None:
    """None when a renewal order may be placed for this certificate today, else the reason (spec: renew)."""
    reason, fix = None, "Order a new certificate."
    if old.uploaded:
        reason = "it was uploaded"
    elif not old.paid:
        reason, fix = "it is free or was not bought here", "It is renewed by itself; or order a new certificate."
    elif not old.issued or old.ends_at is None or old.ends_at <= now:
        reason = "only an issued certificate that has not expired can be"
    elif (old.ends_at.date() - now.date()).days > RENEWAL_DAYS:
        reason = f"it ends on {old.ends_at.date()}, more than {RENEWAL_DAYS} days from now"
        fix = "Wait until 30 days before that day."
    if reason is None:
        return None
    return Refused("renewal_not_allowed", f"The certificate can't be renewed: {reason}.", field="renews", fix=fix)


def inherits(old: Subscription, new: Subscription) -> bool:
    """Whether a renewed certificate gets the days its predecessor has left: CA, type, domain type, quantity and
    primary domain are equal."""
    return old == new


def remaining_days(ends_at: datetime | None, now: datetime) -> int:
    """Whole days left, those begun not counted; 0 when there are none."""
    return max(0, (ends_at - now).days) if ends_at is not None else 0


def coverage_end(starts_at: datetime, years: int, inherited_days: int) -> datetime:
    """Coverage runs calendar years from the first issue (29 February becomes the 28th), and the inherited days."""
    try:
        end = starts_at.replace(year=starts_at.year + years)
    except ValueError:
        end = starts_at.replace(year=starts_at.year + years, day=28)
    return end + timedelta(days=inherited_days)
