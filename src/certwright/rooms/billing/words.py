"""The vocabulary of ordering: products, quotes, orders, payments, refunds, and the facts rules decide on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from certwright.kernel.money import Money

MOST_CERTIFICATES = 100
"""Certificates one order may buy."""


class CertificateType(StrEnum):
    DV_BASIC = "dv_basic"
    DV = "dv"
    OV = "ov"
    OV_PRO = "ov_pro"
    EV = "ev"
    EV_PRO = "ev_pro"


class DomainType(StrEnum):
    """As the certificates room spells them."""

    SINGLE = "single"
    MULTI = "multi"
    WILDCARD = "wildcard"


class WildcardRule(StrEnum):
    """Whether names may be wildcards."""

    NONE = "none"
    ONLY = "only"
    ALLOWED = "allowed"


class OrderStatus(StrEnum):
    PENDING_PAYMENT = "pending_payment"
    PAYMENT_RUNNING = "payment_running"
    PAID = "paid"
    REFUND_REVIEW = "refund_review"
    REFUNDED = "refunded"
    REFUND_REJECTED = "refund_rejected"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"


class LineKind(StrEnum):
    """What a line of a quote is for; in this order they add up to the total."""

    BASE = "base"
    ADDITIONAL_NAMES = "additional_names"
    WILDCARDS = "wildcards"
    FURTHER_YEARS = "further_years"
    YEARS_DISCOUNT = "years_discount"
    FURTHER_CERTIFICATES = "further_certificates"
    QUANTITY_DISCOUNT = "quantity_discount"
    COUPON = "coupon"


@dataclass(frozen=True, slots=True)
class Line:
    """`quantity` × `unit` = `amount`, except for discounts, whose `percent` (if any) is of what stands above."""

    kind: LineKind
    quantity: int
    unit: Money
    amount: Money
    percent: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """A price with its breakdown. `unit_price` is one certificate's, before discounts for quantity and coupons."""

    lines: tuple[Line, ...]
    unit_price: Money
    total: Money
    free: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """What is bought of a product. `names` counts ordinary names, the primary one included; `wildcards` wildcard
    names. Together they are the domain quota of each certificate."""

    names: int = 1
    wildcards: int = 0
    years: int = 1
    quantity: int = 1


class CouponKind(StrEnum):
    COUPON = "coupon"
    """Lowers the price: by percent, or by an amount."""
    VOUCHER = "voucher"
    """Holds value that pays, until it is used up."""


@dataclass(frozen=True, slots=True)
class CouponFacts:
    """A coupon as rules see it. `percent` or `amount` is set; `uses_left` None means any number."""

    code: str
    percent: Decimal | None
    amount: Money | None
    products: tuple[str, ...]
    uses_left: int | None
    valid_from: datetime | None
    valid_until: datetime | None
    disabled: bool


class Review(StrEnum):
    """Who decides on unsubscriptions."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Policy:
    """How an account orders. `invoice_limits` says how much may be owed on invoice, by currency; none: no invoices."""

    review: Review = Review.MANUAL
    unpaid_days: int = 7
    invoice_limits: Mapping[str, Decimal] | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """Facts of an order its status follows from."""

    total: Money
    free_product: bool
    pay_by: datetime
    payment_open: bool = False
    paid_at: datetime | None = None
    cancelled_at: datetime | None = None
    lapsed_at: datetime | None = None
    refund_asked_at: datetime | None = None
    refund_rejected_at: datetime | None = None
    refunded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BoughtCertificate:
    """What the certificates room tells about a bought certificate. `pending_application`: nothing is submitted (or it
    was withdrawn); `revoked_at` is when the revocation of its current version was completed; `earlier_live`: an
    earlier version is neither revoked nor expired."""

    certificate_id: str
    name: str
    state: str
    pending_application: bool
    ever_issued: bool
    revoked_at: datetime | None
    earlier_live: bool = False
    bound_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The certificate a renewal order follows. `ends_at` is when its coverage ends (or the certificate itself, if it
    has no coverage)."""

    certificate_id: str
    issued: bool
    uploaded: bool
    paid: bool
    ca: str
    type: str | None
    domain_type: str | None
    names: int | None
    wildcards: int | None
    primary_name: str
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Subscription:
    """What must be equal for remaining days to be inherited."""

    ca: str
    type: str | None
    domain_type: str | None
    names: int | None
    wildcards: int | None
    primary_name: str


class AccountKind(StrEnum):
    """Accounts of a tenant's books. Postings are positive for debit, negative for credit."""

    BALANCE = "balance"
    """Paid in and not spent yet; never below zero."""
    VOUCHER = "voucher"
    """What is left on one voucher; never below zero."""
    PAYABLE = "payable"
    """Owed on invoice, as a negative balance."""
    EXTERNAL = "external"
    """Paid through one external provider, as a negative balance."""
    PURCHASES = "purchases"
    """What was bought."""
    PAID_IN = "paid_in"
    """Where money came from, as a negative balance."""
    GRANTED = "granted"
    """Where vouchers came from, as a negative balance."""


NEVER_NEGATIVE = (AccountKind.BALANCE, AccountKind.VOUCHER)

BALANCE = "balance"
INVOICE = "invoice"
NOTHING = "none"
"""Payment methods that are built in; NOTHING when vouchers or coupons covered all of it, or it was free."""
BUILT_IN_METHODS = (BALANCE, INVOICE, NOTHING)


@dataclass(frozen=True, slots=True)
class Leg:
    """One posting to be: the account by kind and reference, and its change (debit positive)."""

    kind: AccountKind
    amount: Money
    reference: str = ""
