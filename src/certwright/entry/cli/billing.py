"""`certwright products|orders|unsubscriptions|balance|coupons …`: ordering and the books."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from certwright.entry.cli import certificates, output
from certwright.entry.cli.common import (
    Everything,
    Json,
    Limit,
    Project,
    Yes,
    confirm,
    group,
    key_values,
    open_api,
    present,
    project_id,
    read_file,
    show_list,
    the_one,
)
from certwright.entry.cli.errors import USAGE, CliError

products = group("products", "What can be ordered, and what it costs.")
orders = group("orders", "Order, pay, follow, unsubscribe.")
unsubscriptions = group("unsubscriptions", "Orders whose money was asked back, and their review.")
balance = group("balance", "What can be spent, what is owed, and the books.")
coupons = group("coupons", "Coupons that lower prices, and vouchers that pay.")

PRODUCTS = (
    ("CODE", "code"), ("BRAND", "brand"), ("TYPE", "type"), ("DOMAINS", "domain_type"), ("BASE", "prices.base"),
    ("CURRENCY", "currency"), ("NOT ORDERABLE", "not_orderable"),
)  # fmt: skip
VERSIONS = (
    ("VERSION", "version"), ("WRITTEN", "created_at"), ("BY", "created_by"), ("BASE", "document.prices.base"),
    ("FOR SALE", "document.available"),
)  # fmt: skip
LINES = (
    ("FOR", "kind"), ("NUMBER", "quantity"), ("EACH", "unit.amount"), ("PERCENT", "percent"),
    ("AMOUNT", "amount.amount"),
)  # fmt: skip
ORDERS = (
    ("ID", "id"), ("STATUS", "status"), ("PRODUCT", "product_code"), ("NUMBER", "quantity"), ("YEARS", "years"),
    ("TOTAL", "total.amount"), ("CURRENCY", "total.currency"), ("PLACED", "placed_at"), ("BY", "placed_by_name"),
)  # fmt: skip
UNSUBSCRIPTIONS = (
    ("ID", "id"), ("STATE", "state"), ("ORDER", "order_id"), ("AMOUNT", "amount.amount"),
    ("CURRENCY", "amount.currency"), ("TO", "method"), ("ASKED", "asked_at"), ("BY", "asked_by_name"),
)  # fmt: skip
BALANCES = (("CURRENCY", "available.currency"), ("AVAILABLE", "available.amount"), ("OWED", "owed.amount"))
TRANSACTIONS = (
    ("ID", "id"), ("WHEN", "at"), ("KIND", "kind"), ("KEY", "idempotency_key"), ("ORDER", "order_id"),
    ("NOTE", "memo"),
)  # fmt: skip
COUPONS = (
    ("ID", "id"), ("CODE", "code"), ("KIND", "kind"), ("PERCENT", "percent"), ("AMOUNT", "amount.amount"),
    ("LEFT", "left.amount"), ("USED", "uses"), ("UNTIL", "valid_until"), ("DISABLED", "disabled_at"),
)  # fmt: skip

ProductCode = Annotated[str, typer.Argument(help="Code of the product.")]
OrderId = Annotated[str, typer.Argument(help="Id of the order.")]
Names = Annotated[int | None, typer.Option(min=0, help="Ordinary names of each certificate, the primary one included.")]
Wildcards = Annotated[int | None, typer.Option(min=0, help="Wildcard names of each certificate.")]
Years = Annotated[int, typer.Option(min=1, help="Years of coverage.")]
Quantity = Annotated[int, typer.Option(min=1, help="How many certificates.")]
Coupon = Annotated[str | None, typer.Option(help="Code of a coupon.")]
Vouchers = Annotated[list[str] | None, typer.Option("--voucher", help="Code of a voucher that pays first; repeatable.")]
Method = Annotated[str, typer.Option(help="balance, invoice, or a configured provider.")]
Currency = Annotated[str, typer.Option(help="ISO 4217 code.")]
Reference = Annotated[str, typer.Option(help="Of the bank transfer or receipt; booked once, however often it is sent.")]


def _asked(
    product: str, names: int | None, wildcards: int | None, years: int, quantity: int, coupon: str | None
) -> dict[str, Any]:
    return {
        "product": product, "names": names, "wildcards": wildcards, "years": years, "quantity": quantity,
        "coupon": coupon,
    }  # fmt: skip


def _filters(
    status: list[str] | None, search: str | None, product: str | None, project: str | None, since: str | None,
    until: str | None,
) -> dict[str, Any]:  # fmt: skip
    """What the list and its export are narrowed by."""
    found: str | None = None
    if project is not None:
        with open_api() as api:
            found = project_id(api, project)
    return {
        "status": status, "search": search, "product": product, "project_id": found, "since": since, "until": until,
    }  # fmt: skip


def _show_quote(found: dict[str, Any]) -> None:
    output.rows(found["lines"], LINES)
    output.say(f"Total: {found['total']['amount']} {found['total']['currency']}")


# --- products -------------------------------------------------------------------------------------------------------


@products.command(name="list")
def list_products(
    brand: Annotated[str | None, typer.Option(help="Only this CA brand.")] = None,
    type: Annotated[str | None, typer.Option(help="dv_basic, dv, ov, ov_pro, ev or ev_pro.")] = None,
    domain_type: Annotated[str | None, typer.Option(help="single, multi or wildcard.")] = None,
    orderable: Annotated[bool, typer.Option("--orderable", help="Only what can be ordered now.")] = False,
    as_json: Json = False,
) -> None:
    """List the catalogue."""
    with open_api() as api:
        found = api.get(
            "/products", brand=brand, type=type, domain_type=domain_type, orderable="true" if orderable else None
        )
    if as_json:
        output.document(found)
    else:
        output.rows(found["items"], PRODUCTS)


@products.command(name="show")
def show_product(code: ProductCode, as_json: Json = False) -> None:
    """Show a product with its prices and rules."""
    with open_api() as api:
        present(api.get(f"/products/{code}"), as_json=as_json)


@products.command()
def price(
    code: ProductCode,
    names: Names = None,
    wildcards: Wildcards = None,
    years: Years = 1,
    quantity: Quantity = 1,
    coupon: Coupon = None,
    as_json: Json = False,
) -> None:
    """What it costs, line by line; nothing is ordered."""
    with open_api() as api:
        found = api.post("/quotes", _asked(code, names, wildcards, years, quantity, coupon))
    if as_json:
        output.document(found)
    else:
        _show_quote(found)


def _document(file: str) -> dict[str, Any]:
    import json

    try:
        found = json.loads(read_file(file))
    except ValueError as error:
        raise CliError("json_invalid", f"{file} is not JSON: {error}.", exit_code=USAGE) from error
    if not isinstance(found, dict):
        raise CliError("json_invalid", f"{file} doesn't hold an object.", exit_code=USAGE)
    return found


@products.command()
def versions(code: ProductCode, as_json: Json = False) -> None:
    """What was changed of a product, by whom and when; newest first."""
    with open_api() as api:
        found = api.get(f"/products/{code}/versions")
    if as_json:
        output.document(found)
    else:
        output.rows(found["items"], VERSIONS)


@products.command(name="create")
def create_product(
    file: Annotated[str, typer.Argument(help="JSON document of the product, - for standard input.")],
    as_json: Json = False,
) -> None:
    """Add a product of your own."""
    with open_api() as api:
        present(api.post("/products", _document(file)), as_json=as_json)


@products.command(name="update")
def update_product(
    code: ProductCode,
    file: Annotated[str, typer.Argument(help="JSON document of what changes, - for standard input.")],
    as_json: Json = False,
) -> None:
    """Change a product; orders keep what they were sold at."""
    with open_api() as api:
        present(api.patch(f"/products/{code}", _document(file)), as_json=as_json)


# --- orders ---------------------------------------------------------------------------------------------------------


OrderStatuses = Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")]
Search = Annotated[str | None, typer.Option(help="Part of the id, product or primary name.")]
OfProduct = Annotated[str | None, typer.Option("--product", help="Only orders of this product, by its code.")]
Since = Annotated[str | None, typer.Option(help="Placed then or later: 2026-12-01T00:00:00Z.")]
Until = Annotated[str | None, typer.Option(help="Placed before.")]


@orders.command(name="list")
def list_orders(
    status: OrderStatuses = None,
    search: Search = None,
    product: OfProduct = None,
    project: Project = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List orders, newest first."""
    wanted = _filters(status, search, product, project, since, until)
    show_list("/orders", ORDERS, as_json=as_json, limit=limit, everything=everything, **wanted)


@orders.command(name="show")
def show_order(order: OrderId, as_json: Json = False) -> None:
    """Show an order: what was bought, at what price, how it was paid, its certificates."""
    with open_api() as api:
        present(api.get(f"/orders/{order}"), as_json=as_json, skip=("product",))


@orders.command()
def place(
    code: ProductCode,
    names: Names = None,
    wildcards: Wildcards = None,
    years: Years = 1,
    quantity: Quantity = 1,
    coupon: Coupon = None,
    project: Project = None,
    renews: Annotated[str | None, typer.Option(help="The certificate this order renews.")] = None,
    primary_name: Annotated[
        str,
        typer.Option(help="Of a renewal: the primary name, if it is to be another one; then no days are inherited."),
    ] = "",
    agree: Annotated[
        bool, typer.Option("--agree", help="I agree to the service statement (`orders statement` prints it).")
    ] = False,
    pay: Annotated[
        str | None, typer.Option("--pay", help="Pay at once: balance, invoice, or a configured provider.")
    ] = None,
    vouchers: Vouchers = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Order certificates. Shows the price and asks, then orders at exactly that price."""
    if vouchers and pay is None:
        raise CliError("usage", "--voucher goes with --pay.", "Add --pay balance.", exit_code=USAGE)
    asked = _asked(code, names, wildcards, years, quantity, coupon)
    with open_api() as api:
        found = api.post("/quotes", asked)
        if not as_json:
            _show_quote(found)
            output.say(f"Service statement: version {found['statement_version']}")
        confirm(f"Order for {found['total']['amount']} {found['total']['currency']}?", yes=yes)
        body = asked | {
            "agree": agree, "statement_version": found["statement_version"], "primary_name": primary_name,
            "expected_total": found["total"], "project_id": project_id(api, project),
            "renews": certificates.find(api, renews) if renews else None,
            "pay": {"method": pay, "vouchers": vouchers or []} if pay else None,
        }  # fmt: skip
        present(api.post("/orders", body), as_json=as_json, skip=("product", "breakdown"))


@orders.command(name="pay")
def pay_order(order: OrderId, method: Method = "balance", vouchers: Vouchers = None, as_json: Json = False) -> None:
    """Pay an order."""
    with open_api() as api:
        paid = api.post(f"/orders/{order}/pay", {"method": method, "vouchers": vouchers or []})
        present(paid, as_json=as_json, skip=("product", "breakdown"))


@orders.command()
def cancel(order: OrderId, as_json: Json = False) -> None:
    """Give up an order that was not paid."""
    with open_api() as api:
        present(api.post(f"/orders/{order}/cancel"), as_json=as_json, skip=("product", "breakdown"))


@orders.command()
def unsubscribe(
    order: OrderId,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Ask for the money back, within seven days of paying. The certificates are deleted for good."""
    confirm(f"Give {order} back? Its certificates are deleted and can't be restored.", yes=yes)
    with open_api() as api:
        body = {"acknowledge": True, "reason": reason}
        present(api.post(f"/orders/{order}/unsubscribe", body), as_json=as_json)


def _print_csv(path: str, wanted: dict[str, Any]) -> None:
    import sys

    with open_api() as api:
        reply = api.call("GET", path, params=wanted)
    sys.stdout.write(reply.content.decode())


@orders.command()
def export(
    status: OrderStatuses = None,
    search: Search = None,
    product: OfProduct = None,
    project: Project = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Print the whole list as CSV."""
    _print_csv("/orders.csv", _filters(status, search, product, project, since, until))


@orders.command()
def statement(
    version: Annotated[str | None, typer.Option(help="One that an order agreed to; else today's.")] = None,
    as_json: Json = False,
) -> None:
    """Print the service statement that orders agree to."""
    with open_api() as api:
        found = api.get("/service-statement", version=version)
    if as_json:
        output.document(found)
    else:
        output.say(f"Version {found['version']}\n\n{found['text'].rstrip()}")


# --- unsubscriptions ------------------------------------------------------------------------------------------------

UnsubscriptionId = Annotated[str, typer.Argument(help="Id of the unsubscription.")]


@unsubscriptions.command(name="list")
def list_unsubscriptions(
    state: Annotated[str | None, typer.Option(help="review, refunding, refunded or rejected.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List what was asked back, newest first."""
    show_list("/unsubscriptions", UNSUBSCRIPTIONS, as_json=as_json, limit=limit, everything=everything, state=state)


@unsubscriptions.command(name="show")
def show_unsubscription(unsubscription: UnsubscriptionId, as_json: Json = False) -> None:
    """Show what was asked back, by whom, and what was decided."""
    with open_api() as api:
        present(api.get(f"/unsubscriptions/{unsubscription}"), as_json=as_json)


@unsubscriptions.command(name="export")
def export_unsubscriptions(
    state: Annotated[str | None, typer.Option(help="review, refunding, refunded or rejected.")] = None,
) -> None:
    """Print the whole list as CSV."""
    _print_csv("/unsubscriptions.csv", {"state": state})


@unsubscriptions.command()
def approve(
    unsubscription: UnsubscriptionId,
    note: Annotated[str, typer.Option(help="For the record.")] = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give the money back and delete the certificates."""
    confirm("Give the money back and delete the certificates for good?", yes=yes)
    with open_api() as api:
        present(api.post(f"/unsubscriptions/{unsubscription}/approve", {"note": note}), as_json=as_json)


@unsubscriptions.command()
def reject(
    unsubscription: UnsubscriptionId,
    note: Annotated[str, typer.Option(help="Why it is rejected.")],
    as_json: Json = False,
) -> None:
    """Refuse it; the certificates are what they were before."""
    with open_api() as api:
        present(api.post(f"/unsubscriptions/{unsubscription}/reject", {"note": note}), as_json=as_json)


# --- balance --------------------------------------------------------------------------------------------------------


@balance.command(name="show")
def show_balance(as_json: Json = False) -> None:
    """Show what can be spent and what is owed."""
    with open_api() as api:
        found = api.get("/balance")
    if as_json:
        output.document(found)
    else:
        output.rows(found["items"], BALANCES)


def _book(path: str, amount: str, currency: str, reference: str, note: str, as_json: bool) -> None:
    body = {"amount": amount, "currency": currency, "reference": reference, "memo": note}
    with open_api() as api:
        present(api.post(path, body), as_json=as_json)


Amount = Annotated[str, typer.Argument(help="How much: 100 or 99.50.")]
Note = Annotated[str, typer.Option(help="For the record.")]


@balance.command(name="top-up")
def top_up(
    amount: Amount, reference: Reference, currency: Currency = "EUR", note: Note = "", as_json: Json = False
) -> None:
    """Record money paid in."""
    _book("/balance/top-ups", amount, currency, reference, note, as_json)


@balance.command(name="settle-invoice")
def settle_invoice(
    amount: Amount, reference: Reference, currency: Currency = "EUR", note: Note = "", as_json: Json = False
) -> None:
    """Record that what is owed on invoice was paid."""
    _book("/invoice-settlements", amount, currency, reference, note, as_json)


@balance.command(name="transactions")
def list_transactions(
    order: Annotated[str | None, typer.Option(help="Only those of this order.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List the account's books, newest first."""
    show_list("/ledger-transactions", TRANSACTIONS, as_json=as_json, limit=limit, everything=everything, order_id=order)


@balance.command()
def policy(
    review: Annotated[str | None, typer.Option(help="Who decides on unsubscriptions: automatic or manual.")] = None,
    unpaid_days: Annotated[int | None, typer.Option(min=1, max=90, help="Unpaid orders lapse after so long.")] = None,
    invoice_limit: Annotated[
        list[str] | None, typer.Option(help="CURRENCY=AMOUNT that may be owed on invoice; repeatable, replaces all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how the account orders, or change what is given."""
    changes: dict[str, Any] = {"review": review, "unpaid_days": unpaid_days}
    if invoice_limit:
        changes["invoice_limits"] = key_values(invoice_limit, "--invoice-limit")
    given = {key: value for key, value in changes.items() if value is not None}
    with open_api() as api:
        found = api.patch("/billing-policy", given) if given else api.get("/billing-policy")
    present(found, as_json=as_json)


# --- coupons --------------------------------------------------------------------------------------------------------


@coupons.command(name="list")
def list_coupons(
    kind: Annotated[str | None, typer.Option(help="coupon or voucher.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List coupons and vouchers, newest first."""
    show_list("/coupons", COUPONS, as_json=as_json, limit=limit, everything=everything, kind=kind)


@coupons.command(name="create")
def create_coupon(
    kind: Annotated[str, typer.Argument(help="coupon or voucher.")],
    code: Annotated[str | None, typer.Option(help="The code; made up if left out.")] = None,
    percent: Annotated[str | None, typer.Option(help="Percent off the price.")] = None,
    amount: Annotated[str | None, typer.Option(help="Amount off the price, or held by the voucher.")] = None,
    currency: Currency = "EUR",
    product: Annotated[list[str] | None, typer.Option(help="Only for this product; repeatable.")] = None,
    max_uses: Annotated[int | None, typer.Option(min=1, help="How often it can be used.")] = None,
    until: Annotated[str | None, typer.Option(help="Not valid from then on: 2026-12-31T00:00:00Z.")] = None,
    as_json: Json = False,
) -> None:
    """Make a coupon or a voucher."""
    body = {
        "kind": kind, "code": code, "percent": percent, "products": product or [], "max_uses": max_uses,
        "amount": {"amount": amount, "currency": currency} if amount is not None else None, "valid_until": until,
    }  # fmt: skip
    with open_api() as api:
        present(api.post("/coupons", body), as_json=as_json)


@coupons.command()
def disable(coupon: Annotated[str, typer.Argument(help="Id or code.")], as_json: Json = False) -> None:
    """Nobody can use it from now on."""
    with open_api() as api:
        coupon_id = the_one(api, "/coupons", "cpn", coupon, "code")
        present(api.post(f"/coupons/{coupon_id}/disable"), as_json=as_json)
