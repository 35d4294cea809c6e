"""Ordering and billing: the catalogue and its editing, buying with a live price, orders, unsubscriptions, money."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import yaml
from starlette.responses import Response

from certwright.entry.api.billing import orders_csv, unsubscriptions_csv
from certwright.entry.console import charts, words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_certificates import ca_name, shown_name
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    PAGE,
    Call,
    Pages,
    changed,
    money,
    number,
    page,
    paged,
    revision_of,
    see,
    whole_number,
    with_query,
)
from certwright.kernel.ids import new_id
from certwright.kernel.money import Money
from certwright.kernel.problems import Invalid, NotFound, Problem
from certwright.platform import idempotency
from certwright.platform.i18n import _, ngettext
from certwright.platform.typed_yaml import TooDeep, tokens
from certwright.rooms import access, billing, certificates, validation
from certwright.rooms.billing import CouponKind, DomainType, LineKind, OrderStatus, Review

pages = Pages()

_LATER = "-"
"""No provider is called so."""
_RUNNING = (OrderStatus.PAYMENT_RUNNING,)
_REFUND_STATES = ("review", "refunding", "refunded", "rejected")


def _options(table: Mapping[str, tuple[str, str]] | Mapping[str, str], everything: str) -> list[tuple[str, str]]:
    return [("", everything), *((code, _(said if isinstance(said, str) else said[0])) for code, said in table.items())]


def _typed(call: Call, problem: Problem | None, stored: Mapping[str, str]) -> Mapping[str, str]:
    """What a form shows: what is stored, or what was just refused."""
    return {**stored, **call.form.values()} if problem else stored


def _day(text: str, field: str, *, end: bool = False) -> datetime | None:
    """Midnight UTC of `YYYY-MM-DD`, or with `end` the midnight that ends it; None for nothing. Raises Invalid."""
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text) + timedelta(days=int(end)), time(), UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(
            "day_invalid", f"{text[:40]!r} is not a day.", field=field, fix="Write it as 2027-01-31."
        ) from error


# --- the catalogue --------------------------------------------------------------------------------------------------


@pages.get("/catalogue", action="bss:product:list")
async def catalogue_page(call: Call) -> Response:
    names = ("brand", "type", "domain_type", "orderable")
    values = {name: call.query.text(name) for name in names}
    everything = await billing.list_products(call.services, call.actor)
    found = [
        view
        for view in everything
        if values["brand"] in ("", view.product.brand)
        and values["type"] in ("", view.product.type)
        and values["domain_type"] in ("", view.product.domain_type)
        and (not values["orderable"] or view.not_orderable is None)
    ]
    view = {
        # What can be ordered comes first; the rest stays visible with its reason.
        "lines": [_product_line(line) for line in sorted(found, key=lambda v: v.not_orderable is not None)],
        "values": values,
        "filtered": any(values.values()),
        "brands": [("", _("All brands")), *((b, b) for b in sorted({v.product.brand for v in everything}))],
        "types": _options(words.CERTIFICATE_TYPES, _("All types")),
        "domain_types": _options(words.DOMAIN_TYPES, _("All domain types")),
        "availability": [("", _("Everything")), ("yes", _("What can be ordered now"))],
    }
    return page(call, "billing/catalogue.html", view)


def _product_line(view: billing.ProductView) -> dict[str, Any]:
    product = view.product
    return {
        "product": product,
        "price": None if product.free else product.price(product.prices.base),
        "years": sorted(product.years),
        "not_orderable": view.not_orderable,
    }


_EXAMPLE: Mapping[str, Any] = {
    "code": "house-ov-single", "name": "House OV, single domain", "brand": "House", "type": "ov",
    "domain_type": "single", "ca": certificates.BUILTIN_CA, "public": False, "currency": "EUR",
    "prices": {"base": "100.00"}, "years": {1: "0", 2: "5"}, "methods": ["dns", "file"],
}  # fmt: skip


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)


def _document(form: Form) -> Mapping[str, Any]:
    """The product that was typed, in YAML or JSON. Raises Invalid `product_unreadable`, which names the line."""
    text = form.text("document")
    try:
        for token in tokens(text):
            # A few lines of aliases make gigabytes.
            if isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)):
                raise _unreadable(_("anchors, aliases and tags are not taken"), token.start_mark.line + 1)
        found = yaml.safe_load(text)
    except TooDeep as error:
        raise _unreadable(_("it is nested too deeply"), error.line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _unreadable(error.problem or error.context or "", mark.line + 1 if mark else 1) from error
    except (yaml.YAMLError, ValueError) as error:
        raise _unreadable(str(error)[:200], 1) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise _unreadable(_("a product is a list of fields with their values"), 1)
    return found


def _unreadable(what: str, line: int) -> Invalid:
    return Invalid(
        "product_unreadable", f"Line {line} of the document can't be read: {what}.", field="document",
        fix="Check indentation, quotes and colons there.",
    )  # fmt: skip


def _edit_page(
    call: Call, values: Mapping[str, str], problem: Problem | None = None, *, view: billing.ProductView | None = None,
    history: Sequence[billing.ProductEdit] = (),
) -> Response:  # fmt: skip
    shown = {
        "view": view,
        "history": history,
        "values": values,
        "title": _("Edit %(name)s") % {"name": view.product.name} if view else _("Add a product"),
        "action": f"/products/{view.product.code}/edit" if view else "/catalogue/new",
    }
    return page(call, "billing/product_edit.html", shown, problem)


@pages.get("/catalogue/new", action="bss:product:create")
async def new_product_page(call: Call) -> Response:
    return _edit_page(call, {"document": _yaml(_EXAMPLE)})


@pages.post("/catalogue/new", action="bss:product:create")
async def create_product(call: Call) -> Response:
    try:
        made = await billing.create_product(call.services, call.actor, _document(call.form))
    except FORM_PROBLEMS as problem:
        return _edit_page(call, call.form.values(), problem)
    return see(f"/products/{made.product.code}", said="created", call=call)


@pages.get("/products/{id}/edit", action="bss:product:update")
async def edit_product_page(call: Call) -> Response:
    return await _edit(call)


async def _edit(call: Call, problem: Problem | None = None) -> Response:
    view = await billing.get_product(call.services, call.actor, call.param("id"))
    history = await billing.product_history(call.services, call.actor, view.product.code)
    document = view.product.model_dump(mode="json")
    stored = {"document": _yaml(document), "revision": str(view.version)}
    return _edit_page(call, _typed(call, problem, stored), problem, view=view, history=history)


@pages.post("/products/{id}/edit", action="bss:product:update")
async def update_product(call: Call) -> Response:
    code = call.param("id")
    try:
        await billing.update_product(
            call.services, call.actor, code, revision=revision_of(call.form), changes=_document(call.form)
        )
    except FORM_PROBLEMS as problem:
        return await _edit(call, problem)
    return see(f"/products/{code}", said="saved", call=call)


# --- choosing and its price -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LineView:
    """A line of a price as people read it; `times` says how it comes about, where that isn't obvious."""

    label: str
    times: str
    amount: Money


def line_view(kind: str, quantity: int, unit: Money, amount: Money, percent: Decimal | None) -> LineView:
    share = "" if percent is None else _("%(percent)s %% off") % {"percent": number(float(percent))}
    match kind:
        case LineKind.BASE:
            label = _("One certificate for one year")
        case LineKind.ADDITIONAL_NAMES:
            label = ngettext("%(num)s additional name", "%(num)s additional names", quantity) % {"num": quantity}
        case LineKind.WILDCARDS:
            label = ngettext("%(num)s wildcard name", "%(num)s wildcard names", quantity) % {"num": quantity}
        case LineKind.FURTHER_YEARS:
            label = ngettext("%(num)s further year", "%(num)s further years", quantity) % {"num": quantity}
        case LineKind.FURTHER_CERTIFICATES:
            label = ngettext("%(num)s further certificate", "%(num)s further certificates", quantity)
            label %= {"num": quantity}
        case _:
            label = words.plain(words.DISCOUNTS, kind)
    return LineView(label, share or (f"{number(quantity)} × {unit.text}" if quantity > 1 else ""), amount)


def _kept_lines(breakdown: Sequence[Mapping[str, Any]]) -> list[LineView]:
    """The lines as an order keeps them."""
    return [
        line_view(
            line["kind"], line["quantity"], _money(line["unit"]), _money(line["amount"]),
            None if line["percent"] is None else Decimal(line["percent"]),
        )
        for line in breakdown
    ]  # fmt: skip


def _money(document: Mapping[str, str]) -> Money:
    return Money.of(document["amount"], document["currency"])


@dataclass(frozen=True, slots=True)
class RuleStep:
    """From `begins` on one certificate lives `days` at most, and this coverage takes about `count` of them."""

    begins: datetime
    days: int
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How coverage that begins at `starts` is served by certificates that may not live as long. `steps` are the limits
    of public trust now and later, each as if it held for all of the coverage; `lives` are the certificates of a
    coverage that begins now. Both are empty for a private CA, which sets its own lives."""

    years: int
    starts: datetime
    ends: datetime
    steps: tuple[RuleStep, ...]
    lives: tuple[charts.Segment, ...]


def plan(pack: validation.RulePack, starts: datetime, years: int, *, public: bool) -> Plan:
    ends = billing.coverage_end(starts, years, 0)
    if not public:
        return Plan(years, starts, ends, (), ())
    begins = [datetime.combine(step.from_, time(), UTC) for step in pack.public_tls.validity_days]
    days = (ends - starts).days
    steps = []
    for at in (starts, *(begin for begin in begins if begin > starts)):
        life = validation.validity(pack, at).ask_days
        steps.append(RuleStep(at, life, -(-days // life)))
    lives, at = [], starts
    while at < ends:
        until = min(at + timedelta(days=validation.validity(pack, at).ask_days), ends)
        lives.append(charts.segment(starts, ends, at, until))
        at = until
    return Plan(years, starts, ends, tuple(steps), tuple(lives))


async def _plan(call: Call, years: int, *, public: bool) -> Plan:
    async with call.services.db.begin() as tx:
        pack = await validation.rules_of(tx, call.actor.account_id)
    return plan(pack, call.now, years, public=public)


def _asked(code: str, form: Form) -> billing.Asked:
    """What was chosen. Numbers that a product leaves no choice about aren't on its form."""
    return billing.Asked(
        code,
        names=whole_number(form, "names") if form.text("names") else None,
        wildcards=whole_number(form, "wildcards") if form.text("wildcards") else None,
        years=whole_number(form, "years") if form.text("years") else 1,
        quantity=whole_number(form, "quantity") if form.text("quantity") else 1,
        coupon=form.optional("coupon"),
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """A product with what was chosen of it; `renewed` is the certificate it shall renew. Without a `quote`, `problem`
    says what is wrong with the choice."""

    view: billing.ProductView
    values: Mapping[str, str]
    renewed: certificates.Detail | None
    quote: billing.QuoteView | None
    problem: Problem | None


async def _chosen(call: Call, form: Form) -> Chosen:
    services, actor = call.services, call.actor
    view = await billing.get_product(services, actor, call.param("id"))
    renews = form.optional("renews")
    renewed = await certificates.get_certificate(services, actor, renews) if renews else None
    product = view.product
    start = {"years": str(min(product.years)), "quantity": "1"}
    if product.domain_type is DomainType.MULTI:
        start |= {"names": str(max(2, product.included_names)), "wildcards": "0"}
    if renewed is not None and renewed.coverage is not None and product.domain_type is DomainType.MULTI:
        start |= {"names": str(renewed.coverage.names), "wildcards": str(renewed.coverage.wildcards)}
    values = {**start, **{key: value for key, value in form.values().items() if value or key not in start}}
    try:
        quote = await billing.price(services, actor, _asked(product.code, Form(list(values.items()))))
    except (*FORM_PROBLEMS, NotFound) as problem:
        return Chosen(view, values, renewed, None, problem)
    return Chosen(view, values, renewed, quote, None)


async def _priced(call: Call, chosen: Chosen) -> dict[str, Any]:
    """What the page of a product, the order to be confirmed and the live price have in common."""
    quote, product = chosen.quote, chosen.view.product
    years = quote.selection.years if quote else min(product.years)
    lines = quote.quote.lines if quote else ()
    return {
        "product": product,
        "ca_name": await ca_name(call, product.ca),
        "not_orderable": chosen.view.not_orderable,
        "values": chosen.values,
        "renewed": chosen.renewed,
        "renewed_name": shown_name(chosen.renewed.summary) if chosen.renewed else "",
        "quote": quote,
        "lines": [line_view(x.kind, x.quantity, x.unit, x.amount, x.percent) for x in lines],
        "plan": await _plan(call, years, public=product.public),
    }


async def _product(call: Call, form: Form, problem: Problem | None = None, *, status: int | None = None) -> Response:
    chosen = await _chosen(call, form)
    view = {
        **await _priced(call, chosen),
        "years": [(str(years), _years(years)) for years in sorted(chosen.view.product.years)],
        "projects": await _projects(call),
        "most": billing.MOST_CERTIFICATES,
        "version": chosen.view.version,
    }
    return page(call, "billing/product.html", view, problem or chosen.problem, status=status)


def _years(years: int) -> str:
    return ngettext("%(num)s year", "%(num)s years", years) % {"num": years}


async def _projects(call: Call) -> list[tuple[str, str]]:
    if not call.allowed("iam:project:list"):
        return []
    found = await access.people.list_projects(call.services, call.actor, limit=100)
    return [(p.id, p.name) for p in sorted(found, key=lambda p: not p.is_default)]


@pages.get("/products/{id}", action="bss:product:get")
async def product_page(call: Call) -> Response:
    return await _product(call, call.query)


@pages.post("/products/{id}/price", action="bss:product:get")
async def price(call: Call) -> Response:
    """The same page with the price of what is chosen now. By POST, because a coupon's code belongs in no address.

    Always 200: a choice with a mistake in it is an answer too, and a script swaps nothing else in.
    """
    return await _product(call, call.form, status=200)


# --- ordering -------------------------------------------------------------------------------------------------------


async def _methods(call: Call, total: Money, *, later: bool) -> list[tuple[str, str, str]]:
    """The ways to pay, each with what the caller may know about it."""
    services, actor = call.services, call.actor
    methods: list[tuple[str, str, str]] = []
    policy = await billing.get_policy(services, actor) if call.allowed("bss:setting:get") else None
    if call.allowed("bss:order:pay"):
        available = owed = None
        if call.allowed("bss:balance:get"):
            zero = billing.Balance(Money.zero(total.currency), Money.zero(total.currency))
            balances = await billing.get_balances(services, actor)
            found = next((b for b in balances if b.available.currency == total.currency), zero)
            available, owed = found.available, found.owed
        methods.append(("balance", _("Balance"), _available(available, total)))
        limit = (policy.invoice_limits or {}).get(total.currency) if policy else None
        if policy is None or limit is not None:
            methods.append(("invoice", _("Invoice"), _owed(owed, limit, total.currency)))
        methods += [(name, name, "") for name in sorted(services.port(billing.PaymentProviders).by_name)]
    if later:
        waits = ""
        if policy is not None:
            days = policy.unpaid_days
            waits = ngettext("It waits %(num)s day.", "It waits %(num)s days.", days) % {"num": days}
        methods.append((_LATER, _("Pay later"), waits))
    return methods


def _available(available: Money | None, total: Money) -> str:
    if available is None:
        return ""
    if available < total:
        return _("%(available)s available: not enough") % {"available": money(available)}
    return _("%(available)s available") % {"available": money(available)}


def _owed(owed: Money | None, limit: Decimal | None, currency: str) -> str:
    if owed is None or limit is None:
        return ""
    top = money(Money.of(limit, currency))
    return _("%(owed)s owed, up to %(limit)s") % {"owed": money(owed), "limit": top}


@pages.post("/products/{id}/order", action="bss:order:create")
async def order(call: Call) -> Response:
    """Look at everything, change something, or place the order: one form, three buttons."""
    form = call.form
    step = form.text("step")
    if step == "edit":
        return await _product(call, form)
    if step != "submit":
        return await _review(call)
    try:
        order_id = await _once(call, form.text("once"), lambda: _placed(call))
    except FORM_PROBLEMS as problem:
        return await _review(call, problem)
    return see(f"/orders/{order_id}", said="ordered", call=call)


@dataclass(frozen=True, slots=True)
class Paragraph:
    heading: bool
    text: str


def paragraphs(text: str) -> list[Paragraph]:
    """A statement's text: lines up to an empty one belong together, a line that begins with "# " is a heading."""
    found: list[Paragraph] = []
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        heading = line.startswith("# ")
        if lines and (heading or not line.strip()):
            found.append(Paragraph(False, " ".join(lines)))
            lines = []
        if heading:
            found.append(Paragraph(True, line.removeprefix("# ").strip()))
        elif line.strip():
            lines.append(line.strip())
    return found


@pages.get("/service-statement", action="bss:product:get")
async def statement_page(call: Call) -> Response:
    """What buyers agree to, or with ?version= what somebody agreed to once."""
    version = call.query.optional("version")
    found = await billing.service_statement(call.services, version)
    now = billing.current_statement(call.services)
    view = {"statement": found, "paragraphs": paragraphs(found.text), "current": found.version == now.version}
    return page(call, "billing/statement.html", view)


async def _review(call: Call, problem: Problem | None = None) -> Response:
    chosen = await _chosen(call, call.form)
    if chosen.quote is None:
        return await _product(call, call.form)
    statement = billing.current_statement(call.services)
    total = chosen.quote.quote.total
    methods = await _methods(call, total, later=True) if total else []
    view = {
        **await _priced(call, chosen),
        "statement": statement,
        "paragraphs": paragraphs(statement.text),
        "methods": methods,
        "vouchers": total and call.allowed("bss:order:pay"),
        "carried": {key: chosen.values.get(key, "") for key in _CARRIED},
        # Kept when the page comes again: what was refused was not done, and what was done is not done twice.
        "once": call.form.text("once") or new_id("once", call.now),
    }
    return page(call, "billing/review.html", view, problem, renamed={"expected_total": "total"})


_CARRIED = (
    "names", "wildcards", "years", "quantity", "coupon", "project_id", "renews", "primary_name",
)  # fmt: skip


async def _placed(call: Call) -> str:
    form = call.form
    method, vouchers = form.text("method"), form.lines("vouchers")
    if vouchers and method in ("", _LATER):
        raise Invalid(
            "vouchers_need_payment", "Vouchers are used when the order is paid, and it is to be paid later.",
            field="vouchers", fix="Choose how the rest is paid now, or leave the vouchers out.",
        )  # fmt: skip
    detail = await billing.place_order(
        call.services, call.actor, _asked(call.param("id"), form), agree=form.checked("agree"),
        statement_version=form.text("statement_version"), project_id=form.optional("project_id"),
        renews=form.optional("renews"), primary_name=form.text("primary_name") if form.optional("renews") else "",
        expected_total=Money.of(form.text("total"), form.text("currency"), field="expected_total"),
        pay=None if method in ("", _LATER) else billing.PayWith(method, vouchers),
    )  # fmt: skip
    return detail.summary.id


async def _once(call: Call, text: str, doing: Callable[[], Awaitable[str]]) -> str:
    """The id of what `doing` made, carried out once for each `text`: a form sent twice makes one order."""
    db = call.services.db
    sent = urlencode(list(call.form)).encode()
    print_ = idempotency.fingerprint("POST", call.path, b"", sent)
    key = idempotency.Key(call.actor.account_id, call.actor.id, idempotency.checked_key(text), print_)
    known = await idempotency.claim(db, key, call.now)
    if known is not None:
        return str(known.object_id)
    try:
        made = await doing()
    except Problem as problem:
        # A server's failure may have come after a commit: only a refusal says that nothing was done.
        await (idempotency.lose if problem.status >= 500 else idempotency.release)(db, key)
        raise
    await idempotency.keep(db, key, idempotency.Answer(303, {}, b"", made))
    return made


# --- orders ---------------------------------------------------------------------------------------------------------


def _wanted_values(query: Form) -> dict[str, str]:
    return {name: query.text(name)[:200] for name in ("search", "status", "product", "project_id", "since", "until")}


def _wanted(values: Mapping[str, str]) -> billing.OrderFilter:
    """Raises Invalid for a day that isn't one."""
    return billing.OrderFilter(
        statuses=(OrderStatus(values["status"]),) if values["status"] in set(OrderStatus) else (),
        search=values["search"] or None, product=values["product"] or None, project_id=values["project_id"] or None,
        since=_day(values["since"], "since"), until=_day(values["until"], "until", end=True),
    )  # fmt: skip


async def _product_names(call: Call) -> list[tuple[str, str]]:
    found = await billing.list_products(call.services, call.actor) if call.allowed("bss:product:list") else []
    return [("", _("All products")), *sorted(((v.product.code, v.product.name) for v in found), key=lambda p: p[1])]


@pages.get("/orders.csv", action="bss:order:list")
async def orders_file(call: Call) -> Response:
    """What the list shows, whole."""
    return await orders_csv(call.services, call.actor, _wanted(_wanted_values(call.query)))


@pages.get("/orders", action="bss:order:list")
async def orders_page(call: Call) -> Response:
    query = call.query
    values = _wanted_values(query)
    lines: Sequence[billing.OrderSummary] = ()
    next_href, export_href, problem = "", "", None
    try:
        wanted = _wanted(values)
        found = await billing.list_orders(
            call.services, call.actor, wanted, before=query.optional("after"), limit=PAGE + 1
        )
        lines, next_href = paged(found, "/orders", **values)
        export_href = with_query("/orders.csv", **values)
    except Invalid as met:
        problem = met
    view = {
        "lines": lines,
        "values": values,
        "filtered": any(values.values()) or "after" in query,
        "statuses": _options(words.ORDER_STATUSES, _("All states")),
        "products": await _product_names(call),
        "projects": [("", _("All projects")), *await _projects(call)],
        "next_href": next_href,
        "first_href": with_query("/orders", **values) if "after" in query else "",
        "export_href": export_href,
    }
    return page(call, "billing/orders.html", view, problem)


@pages.get("/orders/{id}", action="bss:order:get")
async def order_page(call: Call) -> Response:
    return await _order(call)


async def _order(call: Call, problem: Problem | None = None) -> Response:
    services, actor = call.services, call.actor
    detail = await billing.get_order(services, actor, call.param("id"))
    summary = detail.summary
    asked = None
    if detail.unsubscription_id and call.allowed("bss:refund:get"):
        asked = await billing.get_unsubscription(services, actor, detail.unsubscription_id)
    payable = summary.status is OrderStatus.PENDING_PAYMENT and call.allowed("bss:order:pay")
    view = {
        "order": summary,
        "detail": detail,
        "product": detail.product,
        "ca_name": await ca_name(call, detail.product["ca"]),
        "lines": _kept_lines(detail.breakdown),
        "timeline": _timeline(detail, asked),
        "asked": asked,
        "moving": summary.status in _RUNNING or (asked is not None and asked.state == "refunding"),
        "methods": await _methods(call, summary.total, later=False) if payable else [],
        "values": _typed(call, problem, {}),
        "may_cancel": summary.status is OrderStatus.PENDING_PAYMENT and call.allowed("bss:order:cancel"),
        "plan": await _plan(call, summary.years, public=bool(detail.product["public"])),
    }
    return page(call, "billing/order.html", view, problem)


@dataclass(frozen=True, slots=True)
class Moment:
    """An entry of an order's history; `tone` and `icon` are the dot's."""

    text: str
    note: str
    at: datetime
    tone: str
    icon: str


def _timeline(detail: billing.OrderDetail, asked: billing.Unsubscription | None) -> list[Moment]:
    """What happened to the order, oldest first, and what is waited for."""
    summary = detail.summary
    found = [Moment(_("Ordered"), summary.placed_by_name, summary.placed_at, "ok", "check")]
    for payment in detail.payments:
        method = words.plain(words.PAYMENT_METHODS, payment.method)
        if payment.failed_at is not None:
            found.append(Moment(_("Payment declined"), payment.failure, payment.failed_at, "bad", "x"))
        elif payment.settled_at is None:
            found.append(Moment(_("Payment under way"), method, payment.begun_at, "busy", "refresh"))
    if summary.paid_at is not None:
        found.append(Moment(_("Paid"), "", summary.paid_at, "ok", "check"))
    if asked is not None:
        found.append(Moment(_("Unsubscription asked for"), asked.asked_by_name, asked.asked_at, "warn", "clock"))
        if asked.rejected_at is not None:
            by = asked.decided_by_name or ""
            found.append(Moment(_("Unsubscription rejected"), by, asked.rejected_at, "bad", "x"))
        if asked.approved_at is not None:
            by = asked.decided_by_name or ""
            by = _("by the account's policy") if asked.review == Review.AUTOMATIC else by
            found.append(Moment(_("Unsubscription approved"), by, asked.approved_at, "ok", "check"))
    for text, at, tone, icon in (
        (_("Money given back, certificates deleted"), summary.refunded_at, "idle", "arrow-back-up"),
        (_("Cancelled"), summary.cancelled_at, "idle", "x"),
        (_("Lapsed: not paid in time"), summary.lapsed_at, "bad", "x"),
    ):
        if at is not None:
            found.append(Moment(text, "", at, tone, icon))
    if summary.status is OrderStatus.PENDING_PAYMENT:
        found.append(Moment(_("To be paid by then, or it lapses"), "", summary.pay_by, "warn", "hourglass"))
    return sorted(found, key=lambda entry: entry.at)


@pages.post("/orders/{id}/pay", action="bss:order:pay")
async def pay(call: Call) -> Response:
    order_id, form = call.param("id"), call.form
    doing = billing.pay_order(
        call.services, call.actor, order_id, billing.PayWith(form.text("method"), form.lines("vouchers"))
    )
    return await changed(call, doing, _order, f"/orders/{order_id}", "paying")


@pages.post("/orders/{id}/cancel", action="bss:order:cancel", ask="cancel_order")
async def cancel(call: Call) -> Response:
    order_id = call.param("id")
    doing = billing.cancel_order(call.services, call.actor, order_id)
    return await changed(call, doing, _order, f"/orders/{order_id}", "cancelled")


@pages.get("/orders/{id}/unsubscribe", action="bss:order:refund")
async def unsubscribe_page(call: Call) -> Response:
    return await _unsubscribe(call)


async def _unsubscribe(call: Call, problem: Problem | None = None) -> Response:
    detail = await billing.get_order(call.services, call.actor, call.param("id"))
    view = {
        "order": detail.summary,
        "detail": detail,
        "payment": next((p for p in detail.payments if p.settled_at is not None), None),
        "values": _typed(call, problem, {}),
    }
    return page(call, "billing/unsubscribe.html", view, problem)


@pages.post("/orders/{id}/unsubscribe", action="bss:order:refund")
async def unsubscribe(call: Call) -> Response:
    order_id, form = call.param("id"), call.form
    doing = billing.unsubscribe(
        call.services, call.actor, order_id, acknowledge=form.checked("acknowledge"), reason=form.text("reason")
    )
    return await changed(call, doing, _unsubscribe, f"/orders/{order_id}", "unsubscribed")


# --- unsubscriptions ------------------------------------------------------------------------------------------------


@pages.get("/unsubscriptions.csv", action="bss:refund:list")
async def unsubscriptions_file(call: Call) -> Response:
    state = call.query.text("state")
    return await unsubscriptions_csv(call.services, call.actor, state if state in _REFUND_STATES else None)


@pages.get("/unsubscriptions", action="bss:refund:list")
async def unsubscriptions_page(call: Call) -> Response:
    state = call.query.text("state")
    shown = state if state in _REFUND_STATES else ""
    found = await billing.list_unsubscriptions(
        call.services, call.actor, state=shown or None, before=call.query.optional("after"), limit=PAGE + 1
    )
    lines, next_href = paged(found, "/unsubscriptions", state=shown)
    view = {
        "lines": lines,
        "shown": shown,
        "tabs": _options(words.REFUND_STATES, _("All")),
        "next_href": next_href,
        "export_href": with_query("/unsubscriptions.csv", state=shown),
    }
    return page(call, "billing/unsubscriptions.html", view)


@pages.get("/unsubscriptions/{id}", action="bss:refund:get")
async def unsubscription_page(call: Call) -> Response:
    return await _unsubscription(call)


async def _unsubscription(call: Call, problem: Problem | None = None) -> Response:
    found = await billing.get_unsubscription(call.services, call.actor, call.param("id"))
    view = {"asked": found, "values": _typed(call, problem, {})}
    return page(call, "billing/unsubscription.html", view, problem)


@pages.post("/unsubscriptions/{id}/approve", action="bss:refund:review", ask="approve_refund")
async def approve(call: Call) -> Response:
    asked_id = call.param("id")
    doing = billing.approve(call.services, call.actor, asked_id, call.form.text("note"))
    return await changed(call, doing, _unsubscription, f"/unsubscriptions/{asked_id}", "refund_approved")


@pages.post("/unsubscriptions/{id}/reject", action="bss:refund:review")
async def reject(call: Call) -> Response:
    asked_id = call.param("id")
    doing = billing.reject(call.services, call.actor, asked_id, call.form.text("note"))
    return await changed(call, doing, _unsubscription, f"/unsubscriptions/{asked_id}", "refund_rejected")


# --- the books ------------------------------------------------------------------------------------------------------


@pages.get("/balance", action="bss:balance:get")
async def balance_page(call: Call) -> Response:
    return await _balance(call)


async def _balance(call: Call, problem: Problem | None = None) -> Response:
    services, actor = call.services, call.actor
    balances = await billing.get_balances(services, actor)
    order_id = call.query.text("order_id")[:64]
    lines: Sequence[billing.Transaction] = ()
    next_href = ""
    if call.allowed("bss:transaction:list"):
        found = await billing.list_transactions(
            services, actor, order_id=order_id or None, before=call.query.optional("after"), limit=PAGE + 1
        )
        lines, next_href = paged(found, "/balance", order_id=order_id)
    # Two forms with the same fields stand on the page: what was typed goes back into the one that was sent.
    sent = call.path.rpartition("/")[2] if problem else ""
    currency = {"currency": balances[0].available.currency if balances else "EUR"}
    view = {
        "balances": balances,
        "order_id": order_id,
        "lines": lines,
        "next_href": next_href,
        "first_href": with_query("/balance", order_id=order_id) if "after" in call.query else "",
        "sent": sent,
        "values": _typed(call, problem, currency),
        "fresh": currency,
    }
    return page(call, "billing/balance.html", view, problem)


async def _book(call: Call, booking: Callable[..., Awaitable[object]], said: str) -> Response:
    form = call.form
    try:
        amount = Money.of(form.text("amount"), form.text("currency").upper())
        await booking(
            call.services, call.actor, amount, reference=form.text("reference"), memo=form.text("memo")
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return await _balance(call, problem)
    return see("/balance", said=said, call=call)


@pages.post("/balance/top-ups", action="bss:balance:top_up")
async def top_up(call: Call) -> Response:
    return await _book(call, billing.top_up, "booked")


@pages.post("/balance/settlements", action="bss:invoice:settle")
async def settle(call: Call) -> Response:
    return await _book(call, billing.settle_invoice, "booked")


# --- coupons and vouchers -------------------------------------------------------------------------------------------


@pages.get("/coupons", action="bss:coupon:list")
async def coupons_page(call: Call) -> Response:
    return await _coupons(call)


async def _coupons(call: Call, problem: Problem | None = None) -> Response:
    text = call.query.text("kind")
    kind = CouponKind(text) if text in set(CouponKind) else None
    found = await billing.list_coupons(
        call.services, call.actor, kind=kind, before=call.query.optional("after"), limit=PAGE + 1
    )
    shown = kind.value if kind else ""
    lines, next_href = paged(found, "/coupons", kind=shown)
    view = {
        "lines": [_coupon_line(coupon, call.now) for coupon in lines],
        "shown": shown,
        "tabs": _options(words.COUPON_KINDS, _("All")),
        "kinds": [(code, _(said), _(text)) for code, (said, text) in words.COUPON_KINDS.items()],
        "next_href": next_href,
        "values": _typed(call, problem, {"currency": "EUR"}),
    }
    return page(call, "billing/coupons.html", view, problem)


def _coupon_line(coupon: billing.CouponView, now: datetime) -> dict[str, Any]:
    if coupon.disabled_at is not None:
        state = "disabled"
    elif coupon.valid_until is not None and now >= coupon.valid_until:
        state = "over"
    elif (coupon.max_uses is not None and coupon.uses >= coupon.max_uses) or (
        coupon.left is not None and not coupon.left
    ):
        state = "used_up"
    else:
        state = "waiting" if coupon.valid_from is not None and now < coupon.valid_from else "usable"
    return {"coupon": coupon, "state": state, "last_day": _last_day(coupon.valid_until)}


def _last_day(until: datetime | None) -> datetime | None:
    """The last day on which it holds, of a moment at which it doesn't any more."""
    return until - timedelta(microseconds=1) if until is not None else None


@pages.post("/coupons", action="bss:coupon:create")
async def create_coupon(call: Call) -> Response:
    form = call.form
    try:
        text = form.text("kind")
        if text not in set(CouponKind):
            raise Invalid("coupon_kind_unknown", "Choose what to make.", field="kind", fix="Pick one of the kinds.")
        amount = form.text("amount")
        await billing.create_coupon(
            call.services, call.actor, kind=CouponKind(text), code=form.optional("code"),
            percent=_percent(form.text("percent")),
            amount=Money.of(amount, form.text("currency").upper()) if amount else None, products=form.lines("products"),
            max_uses=whole_number(form, "max_uses") if form.text("max_uses") else None,
            valid_from=_day(form.text("valid_from"), "valid_from"),
            valid_until=_day(form.text("valid_until"), "valid_until", end=True),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return await _coupons(call, problem)
    return see("/coupons", said="created", call=call)


def _percent(text: str) -> Decimal | None:
    """Raises Invalid `percent_invalid` for anything but digits with at most two decimal places."""
    if not text:
        return None
    whole, _dot, part = text.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or len(whole) > 3 or len(part) > 2:
        raise Invalid(
            "percent_invalid", "The percentage must be more than 0, at most 100, with two decimal places.",
            field="percent", fix="Write it as 12.5.",
        )  # fmt: skip
    return Decimal(text.rstrip("."))


@pages.post("/coupons/{id}/disable", action="bss:coupon:disable", ask="disable_coupon")
async def disable_coupon(call: Call) -> Response:
    doing = billing.disable_coupon(call.services, call.actor, call.param("id"))
    return await changed(call, doing, _coupons, "/coupons", "coupon_disabled")


# --- how the account orders -----------------------------------------------------------------------------------------


@pages.get("/billing-policy", action="bss:setting:get")
async def policy_page(call: Call) -> Response:
    return await _policy(call)


async def _policy(call: Call, problem: Problem | None = None) -> Response:
    policy = await billing.get_policy(call.services, call.actor)
    limits = policy.invoice_limits or {}
    stored = {
        "review": policy.review.value,
        "unpaid_days": str(policy.unpaid_days),
        "invoice_limits": "\n".join(f"{currency}={limit:f}" for currency, limit in sorted(limits.items())),
        "revision": str(policy.revision),
    }
    view = {
        "policy": policy,
        "limits": [Money.of(limit, currency) for currency, limit in sorted(limits.items())],
        "values": _typed(call, problem, stored),
        "reviews": [(code, _(said), _(text)) for code, (said, text) in words.REVIEWS.items()],
    }
    return page(call, "billing/policy.html", view, problem)


@pages.post("/billing-policy", action="bss:setting:update")
async def set_policy(call: Call) -> Response:
    form = call.form
    try:
        text = form.text("review")
        if text not in set(Review):
            raise Invalid("review_unknown", "Choose who decides.", field="review", fix="Pick one of the two.")
        await billing.set_policy(
            call.services, call.actor, revision=revision_of(form), review=Review(text),
            unpaid_days=whole_number(form, "unpaid_days"), invoice_limits=_limits(form.lines("invoice_limits")),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return await _policy(call, problem)
    return see("/billing-policy", said="saved", call=call)


def _limits(lines: Sequence[str]) -> dict[str, Decimal]:
    limits = {}
    for line in lines:
        currency, _equals, amount = (part.strip() for part in line.partition("="))
        try:
            limits[currency.upper()] = Money.of(amount, currency.upper()).amount
        except Invalid as problem:
            raise problem.at("invoice_limits") from problem
    return limits
