"""`/api/v1/products`, `/quotes`, `/orders`, `/unsubscriptions`, `/balance`, `/coupons`: ordering and the books."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import (
    CALLER,
    Caller,
    Cursor,
    Limit,
    Moment,
    Page,
    Router,
    check_if_match,
    etag,
    json_response,
    page_of,
    read_cursor,
)
from certwright.kernel.actor import Actor
from certwright.kernel.money import Money
from certwright.platform.services import Services
from certwright.rooms import billing
from certwright.rooms.billing import (
    CertificateType,
    CouponKind,
    DomainType,
    LineKind,
    OrderStatus,
    Review,
    WildcardRule,
)

router = Router(tags=["ordering"])

Id = Annotated[str, Field(max_length=64)]
Code = Annotated[str, Field(max_length=64)]
Amount = Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,4})?$", description="a decimal number: 19.99")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")]
Percentage = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,2})?$")]
CsvResponse: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}, "description": "The list as CSV"}}


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MoneyIn(_In):
    amount: Amount
    currency: Currency

    def value(self, field: str = "amount") -> Money:
        return Money.of(self.amount, self.currency, field=field)


class MoneyOut(BaseModel):
    """`amount` is an exact decimal with all places of its currency."""

    amount: str
    currency: str


class PricesIn(_In):
    base: Amount = "0"
    additional_name: Amount = "0"
    wildcard: Amount = "0"


class ReviewDaysIn(_In):
    least: Annotated[int, Field(ge=0, le=60)] = 0
    most: Annotated[int, Field(ge=0, le=60)] = 0


class ProductIn(_In):
    """A product of your own; docs/guide/ordering.md says what each field means."""

    code: Code
    name: Annotated[str, Field(max_length=100)]
    brand: Annotated[str, Field(max_length=100)]
    type: CertificateType
    domain_type: DomainType
    ca: Annotated[str, Field(max_length=64, description="id or name of the configured CA that fulfils it")]
    public: bool = True
    free: bool = False
    available: bool = True
    currency: Currency
    prices: PricesIn = PricesIn()
    included_names: Annotated[int, Field(ge=0, le=250)] = 1
    max_names: Annotated[int, Field(ge=1, le=250)] = 1
    wildcards: WildcardRule = WildcardRule.NONE
    years: Annotated[
        dict[str, Percentage], Field(max_length=5, description="years that can be bought, with percent off")
    ] = Field(default_factory=lambda: {"1": "0"})
    quantity_discounts: Annotated[
        dict[str, Percentage], Field(max_length=20, description="from so many certificates on: percent off")
    ] = Field(default_factory=dict)
    reissue_days: Annotated[int, Field(ge=1, le=400)] | None = None
    methods: Annotated[list[Annotated[str, Field(max_length=20)]], Field(max_length=10)] = Field(
        default_factory=lambda: ["dns", "file"]
    )
    review_days: ReviewDaysIn = ReviewDaysIn()


class ProductPatch(_In):
    """Only what is given is changed, as a new version; orders keep what they were sold at."""

    name: Annotated[str, Field(max_length=100)] | None = None
    brand: Annotated[str, Field(max_length=100)] | None = None
    ca: Annotated[str, Field(max_length=64)] | None = None
    free: bool | None = None
    available: bool | None = None
    currency: Currency | None = None
    prices: PricesIn | None = None
    included_names: Annotated[int, Field(ge=0, le=250)] | None = None
    max_names: Annotated[int, Field(ge=1, le=250)] | None = None
    wildcards: WildcardRule | None = None
    years: Annotated[dict[str, Percentage], Field(max_length=5)] | None = None
    quantity_discounts: Annotated[dict[str, Percentage], Field(max_length=20)] | None = None
    reissue_days: Annotated[int, Field(ge=1, le=400)] | None = None
    methods: Annotated[list[Annotated[str, Field(max_length=20)]], Field(max_length=10)] | None = None
    review_days: ReviewDaysIn | None = None


class ProductOut(BaseModel):
    """`version` 0 is a product as shipped. `not_orderable` says why it can't be ordered now, if it can't."""

    code: str
    name: str
    brand: str
    type: CertificateType
    domain_type: DomainType
    ca: str
    public: bool
    free: bool
    available: bool
    currency: str
    prices: dict[str, str]
    included_names: int
    max_names: int
    wildcards: WildcardRule
    years: dict[str, str]
    quantity_discounts: dict[str, str]
    reissue_days: int | None
    methods: list[str]
    review_days: dict[str, int]
    version: int
    not_orderable: str | None


class ProductList(BaseModel):
    items: list[ProductOut]


class ProductEditOut(BaseModel):
    version: int
    document: dict[str, Any]
    created_at: datetime
    created_by: str


class ProductEdits(BaseModel):
    items: list[ProductEditOut]


class AskedIn(_In):
    """What is wanted. The numbers of names may be left out where the product leaves no choice."""

    product: Code
    names: Annotated[int, Field(ge=0, le=1000, description="ordinary names, the primary one included")] | None = None
    wildcards: Annotated[int, Field(ge=0, le=1000)] | None = None
    years: Annotated[int, Field(ge=1, le=100)] = 1
    quantity: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    coupon: Annotated[str, Field(max_length=100)] | None = None

    def value(self) -> billing.Asked:
        return billing.Asked(
            self.product, self.names, self.wildcards, self.years, self.quantity, self.coupon
        )  # fmt: skip


class LineOut(BaseModel):
    """`quantity` × `unit` = `amount`; a discount is negative, and its `percent` is of all that stands above it."""

    kind: LineKind
    quantity: int
    unit: MoneyOut
    amount: MoneyOut
    percent: str | None


class QuoteOut(BaseModel):
    """A price with its breakdown: the lines add up to the total. `statement_version` is what an order agrees to."""

    product_code: str
    product_version: int
    names: int
    wildcards: int
    years: int
    quantity: int
    coupon: str | None
    lines: list[LineOut]
    unit_price: MoneyOut
    total: MoneyOut
    free: bool
    statement_version: str


class StatementOut(BaseModel):
    """`text`: paragraphs parted by empty lines; a line that begins with "# " is a heading."""

    version: str
    text: str


class PayIn(_In):
    """Vouchers pay first, `method` the rest."""

    method: Annotated[str, Field(max_length=64, description="balance, invoice, or a configured provider")] = "balance"
    vouchers: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=billing.MOST_VOUCHERS)] = Field(
        default_factory=list
    )

    def value(self) -> billing.PayWith:
        return billing.PayWith(self.method, tuple(self.vouchers))


class OrderIn(AskedIn):
    """With `pay` the order is placed and paid in one go, or not at all."""

    agree: bool = Field(default=False, description="agreement to the service statement; must be true")
    statement_version: Annotated[str, Field(max_length=40)] = ""
    project_id: Id | None = None
    renews: Id | None = Field(default=None, description="the certificate this order renews")
    primary_name: Annotated[str, Field(max_length=300)] = Field(
        default="", description="of a renewal: the primary name, if it is to be another one"
    )
    expected_total: MoneyIn | None = Field(default=None, description="refuse the order if this isn't the price")
    pay: PayIn | None = None


class OrderSummaryOut(BaseModel):
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
    total: MoneyOut
    renews_certificate_id: str | None
    placed_at: datetime
    placed_by_name: str
    pay_by: datetime
    paid_at: datetime | None
    cancelled_at: datetime | None
    lapsed_at: datetime | None
    refunded_at: datetime | None
    revision: int


class PaymentOut(BaseModel):
    id: str
    method: str
    amount: MoneyOut
    voucher_amount: MoneyOut
    begun_at: datetime
    settled_at: datetime | None
    failed_at: datetime | None
    failure: str
    waiting_for: dict[str, Any] | None


class BoughtOut(BaseModel):
    id: str
    name: str
    state: str


class OrderOut(OrderSummaryOut):
    """`why_no_refund` is null while the order may be unsubscribed from."""

    product: dict[str, Any]
    breakdown: list[LineOut]
    coupon: str | None
    primary_name: str
    inherited_days: int
    statement_version: str
    statement_agreed_at: datetime
    payments: list[PaymentOut]
    certificates: list[BoughtOut]
    refund_until: datetime | None
    why_no_refund: dict[str, Any] | None
    unsubscription_id: str | None


class UnsubscribeIn(_In):
    acknowledge: bool = Field(default=False, description="that the certificates are deleted and can't be restored")
    reason: Annotated[str, Field(max_length=1000)] = ""


class UnsubscriptionOut(BaseModel):
    """`amount` is what goes back to `method`: without vouchers and coupons."""

    id: str
    project_id: str
    order_id: str
    state: Literal["review", "refunding", "refunded", "rejected"]
    reason: str
    amount: MoneyOut
    method: str
    review: Review
    certificates: list[dict[str, Any]]
    acknowledged_at: datetime
    asked_at: datetime
    asked_by_name: str
    approved_at: datetime | None
    rejected_at: datetime | None
    decided_by_name: str | None
    note: str
    refunded_at: datetime | None
    waiting_for: dict[str, Any] | None


class NoteIn(_In):
    note: Annotated[str, Field(max_length=1000)] = ""


class BalanceOut(BaseModel):
    available: MoneyOut
    owed: MoneyOut


class BalancesOut(BaseModel):
    """One for each currency."""

    items: list[BalanceOut]


class BookIn(MoneyIn):
    """`reference` (of the bank transfer, say) is booked once, however often it is sent."""

    reference: Annotated[str, Field(max_length=200)]
    memo: Annotated[str, Field(max_length=400)] = ""


class PostingOut(BaseModel):
    """Debit is positive."""

    kind: str
    reference: str
    amount: MoneyOut


class TransactionOut(BaseModel):
    id: str
    kind: str
    idempotency_key: str
    order_id: str | None
    memo: str
    at: datetime
    actor_id: str
    postings: list[PostingOut]


class CouponIn(_In):
    """A coupon takes `percent` or `amount` off; a voucher holds `amount`. Without `code` one is made up."""

    kind: CouponKind
    code: Annotated[str, Field(max_length=100)] | None = None
    percent: Percentage | None = None
    amount: MoneyIn | None = None
    products: Annotated[list[Code], Field(max_length=200)] = Field(default_factory=list)
    max_uses: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    valid_from: Moment | None = None
    valid_until: Moment | None = None


class CouponOut(BaseModel):
    """`left` is what remains on a voucher."""

    id: str
    kind: CouponKind
    code: str
    percent: str | None
    amount: MoneyOut | None
    left: MoneyOut | None
    products: list[str]
    max_uses: int | None
    uses: int
    valid_from: datetime | None
    valid_until: datetime | None
    disabled_at: datetime | None
    created_at: datetime


class PolicyPatch(_In):
    review: Review | None = None
    unpaid_days: Annotated[int, Field(ge=1, le=90)] | None = None
    invoice_limits: Annotated[dict[str, Amount], Field(max_length=20)] | None = Field(
        default=None, description="how much may be owed on invoice, by currency; empty: nothing is sold on invoice"
    )


class PolicyOut(BaseModel):
    review: Review
    unpaid_days: int
    invoice_limits: dict[str, str]
    revision: int
    statement_version: str


def document(value: Any) -> Any:
    """A view as its JSON document: money as {amount, currency}, percentages as text."""
    match value:
        case Money():
            return value.as_dict()
        case Decimal():
            return format(value, "f")
        case BaseModel():
            return value.model_dump(mode="json")
        case Mapping():
            return {key: document(inner) for key, inner in value.items()}
        case list() | tuple():
            return [document(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: document(getattr(value, f.name)) for f in fields(value)}
    return value


# --- products and prices --------------------------------------------------------------------------------------------


def _product_json(view: billing.ProductView) -> dict[str, Any]:
    return {**document(view.product), "version": view.version, "not_orderable": view.not_orderable}


def _product(view: billing.ProductView, status: int = 200) -> Response:
    headers = {"ETag": etag(view.version)}
    if status == 201:
        headers["Location"] = f"/api/v1/products/{view.product.code}"
    return json_response(_product_json(view), status, headers)


@router.get("/products", action="bss:product:list", response_model=ProductList)
async def list_products(
    call: Caller = CALLER,
    brand: Annotated[str | None, Query(max_length=100)] = None,
    type: Annotated[CertificateType | None, Query()] = None,
    domain_type: Annotated[DomainType | None, Query()] = None,
    orderable: Annotated[bool | None, Query(description="only what can be ordered now, or only what can't")] = None,
) -> Response:
    """The catalogue: what is shipped, with this account's own changes."""
    found = await billing.list_products(call.services, call.actor)
    return json_response({
        "items": [
            _product_json(view)
            for view in found
            if (brand is None or view.product.brand.lower() == brand.lower())
            and type in (None, view.product.type)
            and domain_type in (None, view.product.domain_type)
            and orderable in (None, view.not_orderable is None)
        ]
    })  # fmt: skip


@router.post("/products", action="bss:product:create", status_code=201, response_model=ProductOut)
async def create_product(body: ProductIn, call: Caller = CALLER) -> Response:
    return _product(await billing.create_product(call.services, call.actor, body.model_dump(mode="json")), 201)


@router.get("/products/{code}", action="bss:product:get", response_model=ProductOut)
async def get_product(code: str, call: Caller = CALLER) -> Response:
    return _product(await billing.get_product(call.services, call.actor, code))


@router.patch("/products/{code}", action="bss:product:update", response_model=ProductOut)
async def update_product(code: str, body: ProductPatch, request: Request, call: Caller = CALLER) -> Response:
    """Write a new version of a product; needs If-Match. Orders keep the product and price they were sold at."""
    revision = check_if_match(request)
    given = body.model_dump(mode="json", exclude_unset=True)
    # Only reissue_days has a null that says something.
    changes = {key: value for key, value in given.items() if value is not None or key == "reissue_days"}
    return _product(await billing.update_product(call.services, call.actor, code, revision=revision, changes=changes))


@router.get("/products/{code}/versions", action="bss:product:get", response_model=ProductEdits)
async def product_history(code: str, call: Caller = CALLER) -> Response:
    """This account's changes of a product, newest first, at most fifty."""
    return json_response({"items": await billing.product_history(call.services, call.actor, code)})


@router.post("/quotes", action="bss:product:get", response_model=QuoteOut)
async def quote(body: AskedIn, call: Caller = CALLER) -> Response:
    """What it costs now, with the breakdown; nothing is ordered."""
    found = await billing.price(call.services, call.actor, body.value())
    return json_response({
        "product_code": found.product_code, "product_version": found.product_version,
        **document(found.selection), "coupon": found.coupon, **document(found.quote),
        "statement_version": billing.current_statement(call.services).version,
    })  # fmt: skip


@router.get("/service-statement", action="bss:product:get", response_model=StatementOut)
async def service_statement(
    call: Caller = CALLER,
    version: Annotated[
        str | None, Query(max_length=64, description="one that an order agreed to; else today's")
    ] = None,
) -> Response:
    """What an order agrees to."""
    return json_response(document(await billing.service_statement(call.services, version)))


# --- orders ---------------------------------------------------------------------------------------------------------


def _order(detail: billing.OrderDetail, status: int = 200) -> Response:
    shown = document(detail)
    headers = {"ETag": etag(detail.summary.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/orders/{detail.summary.id}"
    return json_response({**shown.pop("summary"), **shown}, status, headers)


Statuses = Annotated[list[OrderStatus] | None, Query()]
Search = Annotated[str | None, Query(max_length=200, description="part of an order's id, product or primary name")]
IdFilter = Annotated[str | None, Query(max_length=64)]


def _filter(
    status: list[OrderStatus] | None,
    search: str | None,
    project_id: str | None,
    product: str | None,
    since: datetime | None,
    until: datetime | None,
) -> billing.OrderFilter:
    return billing.OrderFilter(tuple(status or ()), search, project_id, product, since, until)


@router.get("/orders", action="bss:order:list", response_model=Page[OrderSummaryOut])
async def list_orders(
    call: Caller = CALLER,
    status: Statuses = None,
    search: Search = None,
    project_id: IdFilter = None,
    product: IdFilter = None,
    since: Annotated[Moment | None, Query(description="placed then or later")] = None,
    until: Annotated[Moment | None, Query(description="placed before")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Orders you may see, newest first."""
    wanted = _filter(status, search, project_id, product, since, until)
    rows = await billing.list_orders(
        call.services, call.actor, wanted, before=read_cursor(cursor), limit=limit + 1
    )  # fmt: skip
    return page_of(rows, limit, lambda row: row.id, document)


@router.get("/orders.csv", action="bss:order:list", response_class=Response, responses=CsvResponse)
async def export_orders(
    call: Caller = CALLER,
    status: Statuses = None,
    search: Search = None,
    project_id: IdFilter = None,
    product: IdFilter = None,
    since: Annotated[Moment | None, Query()] = None,
    until: Annotated[Moment | None, Query()] = None,
) -> Response:
    """The same list whole, as CSV; at most 50,000 lines."""
    wanted = _filter(status, search, project_id, product, since, until)
    return await orders_csv(call.services, call.actor, wanted)


@router.post("/orders", action="bss:order:create", status_code=201, response_model=OrderOut)
async def place_order(body: OrderIn, call: Caller = CALLER) -> Response:
    """Place an order. What costs nothing, and what `pay` pays, is delivered at once."""
    detail = await billing.place_order(
        call.services,
        call.actor,
        body.value(),
        agree=body.agree,
        statement_version=body.statement_version,
        project_id=body.project_id,
        renews=body.renews,
        primary_name=body.primary_name,
        expected_total=body.expected_total.value("expected_total") if body.expected_total else None,
        pay=body.pay.value() if body.pay else None,
    )
    return _order(detail, 201)


@router.get("/orders/{order_id}", action="bss:order:get", response_model=OrderOut)
async def get_order(order_id: str, call: Caller = CALLER) -> Response:
    return _order(await billing.get_order(call.services, call.actor, order_id))


@router.post("/orders/{order_id}/pay", action="bss:order:pay", response_model=OrderOut)
async def pay_order(order_id: str, body: PayIn, call: Caller = CALLER) -> Response:
    """Pay it; its certificates are there at once. With a provider outside it is `payment_running` until that is
    done."""
    return _order(await billing.pay_order(call.services, call.actor, order_id, body.value()))


@router.post("/orders/{order_id}/cancel", action="bss:order:cancel", response_model=OrderOut)
async def cancel_order(order_id: str, call: Caller = CALLER) -> Response:
    """Give up an order that was not paid."""
    return _order(await billing.cancel_order(call.services, call.actor, order_id))


@router.post(
    "/orders/{order_id}/unsubscribe", action="bss:order:refund", status_code=201, response_model=UnsubscriptionOut
)
async def unsubscribe(order_id: str, body: UnsubscribeIn, call: Caller = CALLER) -> Response:
    """Ask for the money back within seven days of paying. The certificates can't be used meanwhile, and are deleted
    once it is approved."""
    view = await billing.unsubscribe(
        call.services, call.actor, order_id, acknowledge=body.acknowledge, reason=body.reason
    )
    return json_response(document(view), 201, {"Location": f"/api/v1/unsubscriptions/{view.id}"})


# --- unsubscriptions ------------------------------------------------------------------------------------------------

UnsubscriptionState = Annotated[Literal["review", "refunding", "refunded", "rejected"] | None, Query()]


@router.get("/unsubscriptions", action="bss:refund:list", response_model=Page[UnsubscriptionOut])
async def list_unsubscriptions(
    call: Caller = CALLER, state: UnsubscriptionState = None, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """What was asked back, newest first."""
    rows = await billing.list_unsubscriptions(
        call.services, call.actor, state=state, before=read_cursor(cursor), limit=limit + 1
    )
    return page_of(rows, limit, lambda row: row.id, document)


@router.get("/unsubscriptions.csv", action="bss:refund:list", response_class=Response, responses=CsvResponse)
async def export_unsubscriptions(call: Caller = CALLER, state: UnsubscriptionState = None) -> Response:
    """The same list whole, as CSV."""
    return await unsubscriptions_csv(call.services, call.actor, state)


@router.get("/unsubscriptions/{unsubscription_id}", action="bss:refund:get", response_model=UnsubscriptionOut)
async def get_unsubscription(unsubscription_id: str, call: Caller = CALLER) -> Response:
    return json_response(document(await billing.get_unsubscription(call.services, call.actor, unsubscription_id)))


@router.post(
    "/unsubscriptions/{unsubscription_id}/approve", action="bss:refund:review", response_model=UnsubscriptionOut
)
async def approve(unsubscription_id: str, body: NoteIn, call: Caller = CALLER) -> Response:
    """Give the money back and delete the certificates. Can't be undone."""
    return json_response(document(await billing.approve(call.services, call.actor, unsubscription_id, body.note)))


@router.post(
    "/unsubscriptions/{unsubscription_id}/reject", action="bss:refund:review", response_model=UnsubscriptionOut
)
async def reject(unsubscription_id: str, body: NoteIn, call: Caller = CALLER) -> Response:
    """Refuse it; `note` says why. The certificates are what they were before."""
    return json_response(document(await billing.reject(call.services, call.actor, unsubscription_id, body.note)))


# --- the books ------------------------------------------------------------------------------------------------------


@router.get("/balance", action="bss:balance:get", response_model=BalancesOut)
async def get_balance(call: Caller = CALLER) -> Response:
    """What can be spent, and what is owed on invoice."""
    return json_response({"items": document(await billing.get_balances(call.services, call.actor))})


@router.post("/balance/top-ups", action="bss:balance:top_up", status_code=201, response_model=TransactionOut)
async def top_up(body: BookIn, call: Caller = CALLER) -> Response:
    """Record money paid in."""
    made = await billing.top_up(
        call.services, call.actor, body.value(), reference=body.reference, memo=body.memo
    )  # fmt: skip
    return json_response(document(made), 201)


@router.post("/invoice-settlements", action="bss:invoice:settle", status_code=201, response_model=TransactionOut)
async def settle_invoice(body: BookIn, call: Caller = CALLER) -> Response:
    """Record that what is owed on invoice was paid, in whole or in part."""
    made = await billing.settle_invoice(
        call.services, call.actor, body.value(), reference=body.reference, memo=body.memo
    )
    return json_response(document(made), 201)


@router.get("/ledger-transactions", action="bss:transaction:list", response_model=Page[TransactionOut])
async def list_transactions(
    call: Caller = CALLER, order_id: IdFilter = None, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """The account's books, newest first: every transaction's postings sum to zero."""
    rows = await billing.list_transactions(
        call.services, call.actor, order_id=order_id, before=read_cursor(cursor), limit=limit + 1
    )
    return page_of(rows, limit, lambda row: row.id, document)


# --- coupons and vouchers -------------------------------------------------------------------------------------------


@router.get("/coupons", action="bss:coupon:list", response_model=Page[CouponOut])
async def list_coupons(
    call: Caller = CALLER,
    kind: Annotated[CouponKind | None, Query()] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    rows = await billing.list_coupons(
        call.services, call.actor, kind=kind, before=read_cursor(cursor), limit=limit + 1
    )  # fmt: skip
    return page_of(rows, limit, lambda row: row.id, document)


@router.post("/coupons", action="bss:coupon:create", status_code=201, response_model=CouponOut)
async def create_coupon(body: CouponIn, call: Caller = CALLER) -> Response:
    """Make a coupon or a voucher."""
    view = await billing.create_coupon(
        call.services, call.actor, kind=body.kind, code=body.code,
        percent=Decimal(body.percent) if body.percent is not None else None,
        amount=body.amount.value() if body.amount is not None else None, products=body.products,
        max_uses=body.max_uses, valid_from=body.valid_from, valid_until=body.valid_until,
    )  # fmt: skip
    return json_response(document(view), 201, {"Location": f"/api/v1/coupons/{view.id}"})


@router.get("/coupons/{coupon_id}", action="bss:coupon:get", response_model=CouponOut)
async def get_coupon(coupon_id: str, call: Caller = CALLER) -> Response:
    return json_response(document(await billing.get_coupon(call.services, call.actor, coupon_id)))


@router.post("/coupons/{coupon_id}/disable", action="bss:coupon:disable", response_model=CouponOut)
async def disable_coupon(coupon_id: str, call: Caller = CALLER) -> Response:
    """Nobody can use it from now on."""
    return json_response(document(await billing.disable_coupon(call.services, call.actor, coupon_id)))


# --- how the account orders -----------------------------------------------------------------------------------------


def _policy(call: Caller, found: billing.Policy) -> Response:
    shown = document(found) | {"statement_version": billing.current_statement(call.services).version}
    return json_response(shown, headers={"ETag": etag(found.revision)})


@router.get("/billing-policy", action="bss:setting:get", response_model=PolicyOut)
async def get_policy(call: Caller = CALLER) -> Response:
    """Who reviews unsubscriptions, when unpaid orders lapse, and how much may be owed on invoice."""
    return _policy(call, await billing.get_policy(call.services, call.actor))


@router.patch("/billing-policy", action="bss:setting:update", response_model=PolicyOut)
async def set_policy(body: PolicyPatch, request: Request, call: Caller = CALLER) -> Response:
    """Change what is given; needs If-Match."""
    limits = body.invoice_limits
    changed = await billing.set_policy(
        call.services, call.actor, revision=check_if_match(request), review=body.review, unpaid_days=body.unpaid_days,
        invoice_limits={c: Decimal(a) for c, a in limits.items()} if limits is not None else None,
    )  # fmt: skip
    return _policy(call, changed)


# --- CSV ------------------------------------------------------------------------------------------------------------

# What a spreadsheet would take for a formula (OWASP: CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case Money():
            return str(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


async def orders_csv(services: Services, actor: Actor, wanted: billing.OrderFilter) -> Response:
    """For the console, too: there an ended session leads to signing in instead of a file with a refusal in it."""
    rows = [row async for row in billing.export_orders(services, actor, wanted)]
    return _csv("orders.csv", list(OrderSummaryOut.model_fields), rows)


async def unsubscriptions_csv(services: Services, actor: Actor, state: str | None) -> Response:
    rows = [row async for row in billing.export_unsubscriptions(services, actor, state=state)]
    left_out = ("certificates", "waiting_for")
    return _csv("unsubscriptions.csv", [n for n in UnsubscriptionOut.model_fields if n not in left_out], rows)


def _csv(file_name: str, columns: Sequence[str], rows: Iterable[Any]) -> Response:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_cell(getattr(row, column)) for column in columns)
    headers = {"Content-Disposition": f'attachment; filename="{file_name}"'}
    return Response(out.getvalue(), media_type="text/csv", headers=headers)
