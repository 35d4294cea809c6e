"""Prices, statuses, refunds and renewals as tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.money import Money, total
from certwright.kernel.problems import Invalid, Problem, Refused
from certwright.rooms.billing import catalogue, rules
from certwright.rooms.billing.catalogue import Product
from certwright.rooms.billing.words import (
    BoughtCertificate,
    CouponFacts,
    DomainType,
    LineKind,
    OrderFacts,
    OrderStatus,
    Predecessor,
    Selection,
    Subscription,
    WildcardRule,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

MULTI: dict[str, Any] = {
    "code": "multi", "name": "Multi", "brand": "X", "type": "ov", "domain_type": "multi", "ca": "builtin",
    "currency": "EUR", "prices": {"base": "100", "additional_name": "30", "wildcard": "250"}, "included_names": 2,
    "max_names": 250, "wildcards": "allowed", "years": {"1": "0", "2": "5", "3": "10"},
    "quantity_discounts": {"10": "5", "50": "10"},
}  # fmt: skip
SINGLE: dict[str, Any] = {
    "code": "single", "name": "Single", "brand": "X", "type": "dv", "domain_type": "single", "ca": "builtin",
    "currency": "EUR", "prices": {"base": "99.99"}, "years": {"1": "0", "2": "3.33"},
}  # fmt: skip
WILDCARD = SINGLE | {"code": "wild", "domain_type": "wildcard", "wildcards": "only", "methods": ["dns"]}


def product(document: dict[str, Any] = MULTI, **changes: Any) -> Product:
    return catalogue.checked(document | changes)


def coupon(**changes: Any) -> CouponFacts:
    facts = CouponFacts("CODE", Decimal(10), None, (), None, None, None, False)
    return replace(facts, **changes)


# --- prices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "names", "wildcards", "years", "quantity", "amount"),
    [
        ("two names are included", 2, 0, 1, 1, "100.00"),
        ("one name and a wildcard", 1, 1, 1, 1, "350.00"),
        ("every further name costs", 5, 0, 1, 1, "190.00"),
        ("wildcards cost each", 2, 3, 1, 1, "850.00"),
        ("two years less five percent of both", 2, 0, 2, 1, "190.00"),
        ("three years with names less ten percent", 4, 0, 3, 1, "432.00"),
        ("nine certificates, no discount", 2, 0, 1, 9, "900.00"),
        ("ten certificates less five percent", 2, 0, 1, 10, "950.00"),
        ("fifty certificates take the larger discount only", 2, 0, 1, 50, "4500.00"),
        ("years and quantity one after the other", 2, 0, 2, 10, "1805.00"),
    ],
)
def test_the_price_of_a_multi_domain_product(
    sentence: str, names: int, wildcards: int, years: int, quantity: int, amount: str
) -> None:
    quote = rules.quote(product(), Selection(names, wildcards, years, quantity), None, NOW)
    assert quote.total == Money.of(amount, "EUR"), sentence
    assert total((line.amount for line in quote.lines), "EUR") == quote.total


@pytest.mark.parametrize(
    ("sentence", "facts", "amount"),
    [
        ("ten percent of everything above", coupon(), "90.00"),
        ("an amount", coupon(percent=None, amount=Money.of("30", "EUR")), "70.00"),
        ("an amount larger than the price makes it free, never negative",
         coupon(percent=None, amount=Money.of("500", "EUR")), "0.00"),
        ("all of it", coupon(percent=Decimal(100)), "0.00"),
        ("for this product", coupon(products=("multi", "other")), "90.00"),
        ("the last use", coupon(uses_left=1), "90.00"),
        ("in the last moment", coupon(valid_until=NOW + timedelta(microseconds=1)), "90.00"),
        ("from this moment on", coupon(valid_from=NOW), "90.00"),
    ],
)  # fmt: skip
def test_a_coupon_lowers_the_price(sentence: str, facts: CouponFacts, amount: str) -> None:
    quote = rules.quote(product(), Selection(2), facts, NOW)
    assert quote.total == Money.of(amount, "EUR"), sentence
    assert quote.lines[-1].kind is LineKind.COUPON


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (coupon(disabled=True), "it was disabled"),
        (coupon(valid_from=NOW + timedelta(seconds=1)), "it isn't valid yet"),
        (coupon(valid_until=NOW), "it is no longer valid"),
        (coupon(products=("other",)), "it isn't for this product"),
        (coupon(uses_left=0), "it has been used up"),
        (coupon(percent=None, amount=Money.of("5", "USD")), "it is in USD, the price in EUR"),
    ],
)
def test_a_coupon_that_can_t_be_used_says_why(facts: CouponFacts, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        rules.quote(product(), Selection(2), facts, NOW)
    assert (refused.value.code, refused.value.field) == ("coupon_unusable", "coupon")
    assert reason in refused.value.message


def test_a_discount_is_rounded_half_up_to_a_cent() -> None:
    # 3.33 % of 199.98 is 6.659334
    quote = rules.quote(product(SINGLE), Selection(1, 0, 2, 1), None, NOW)
    assert [(line.kind, line.amount.text) for line in quote.lines] == [
        (LineKind.BASE, "99.99"), (LineKind.FURTHER_YEARS, "99.99"), (LineKind.YEARS_DISCOUNT, "-6.66"),
    ]  # fmt: skip
    assert quote.total.text == "193.32"


def test_a_free_product_costs_nothing_however_many() -> None:
    free = product(SINGLE, free=True, prices={})
    quote = rules.quote(free, Selection(1, 0, 1, 100), None, NOW)
    assert (quote.total, quote.free) == (Money.zero("EUR"), True)


@given(
    names=st.integers(1, 100), wildcards=st.integers(1, 100), years=st.sampled_from([1, 2, 3]),
    quantity=st.integers(1, 100), percent=st.decimals("0.01", 100, places=2),
)  # fmt: skip
def test_lines_add_up_and_no_price_is_negative(
    names: int, wildcards: int, years: int, quantity: int, percent: Decimal
) -> None:
    chosen = Selection(names, wildcards, years, quantity)
    plain = rules.quote(product(), chosen, None, NOW)
    lowered = rules.quote(product(), chosen, coupon(percent=percent), NOW)
    for quote in (plain, lowered):
        assert total((line.amount for line in quote.lines), "EUR") == quote.total >= Money.zero("EUR")
    assert lowered.total <= plain.total
    more = rules.quote(product(), replace(chosen, names=names + 1), None, NOW)
    assert more.total >= plain.total


@pytest.mark.parametrize(
    ("document", "chosen", "code", "field"),
    [
        (SINGLE, Selection(2), "single_takes_one_name", "names"),
        (SINGLE, Selection(1, 1), "single_takes_one_name", "names"),
        (SINGLE, Selection(0), "single_takes_one_name", "names"),
        (WILDCARD, Selection(1, 0), "wildcard_takes_one_wildcard", "wildcards"),
        (WILDCARD, Selection(0, 2), "wildcard_takes_one_wildcard", "wildcards"),
        (MULTI, Selection(1), "domain_quota_invalid", "names"),
        (MULTI, Selection(0, 2), "domain_quota_invalid", "names"),
        (MULTI, Selection(251), "domain_quota_invalid", "names"),
        (MULTI, Selection(200, 51), "domain_quota_invalid", "names"),
        (MULTI, Selection(3, -1), "domain_quota_invalid", "names"),
        (MULTI | {"type": "ev", "wildcards": "none"}, Selection(2, 1), "wildcards_not_offered", "wildcards"),
        (MULTI, Selection(2, 0, 4), "years_not_offered", "years"),
        (MULTI, Selection(2, 0, 0), "years_not_offered", "years"),
        (MULTI, Selection(2, 0, 1, 0), "quantity_invalid", "quantity"),
        (MULTI, Selection(2, 0, 1, 101), "quantity_invalid", "quantity"),
        (MULTI, Selection(2, 0, 1, 2**63), "quantity_invalid", "quantity"),
    ],
)
def test_what_a_product_doesn_t_offer_is_refused_by_field(
    document: dict[str, Any], chosen: Selection, code: str, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        rules.quote(product(document), chosen, None, NOW)
    assert (refused.value.code, refused.value.field) == (code, field)


@pytest.mark.parametrize(
    ("document", "names", "wildcards", "expected"),
    [
        (SINGLE, None, None, Selection(1, 0)),
        (WILDCARD, None, None, Selection(0, 1)),
        (MULTI, None, None, Selection(2, 0)),
        (MULTI, None, 1, Selection(1, 1)),
        (MULTI, None, 5, Selection(1, 5)),
        (MULTI, 7, None, Selection(7, 0)),
    ],
)
def test_numbers_left_out_are_filled_in(
    document: dict[str, Any], names: int | None, wildcards: int | None, expected: Selection
) -> None:
    found = rules.selection_of(product(document), names=names, wildcards=wildcards, years=1, quantity=1)
    assert found == expected


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_the_shipped_catalogue_has_every_brand_type_and_reissue_window_of_the_specification() -> None:
    shipped = catalogue.shipped().values()
    windows = {p.brand: p.reissue_days for p in shipped if not p.free}
    assert windows == {
        "DigiCert": 25, "GeoTrust": 25, "CFCA": 25, "TrustAsia": 25, "vTrus": 25, "GlobalSign": 5,
    }  # fmt: skip
    assert {p.type for p in shipped} == {"dv_basic", "dv", "ov", "ov_pro", "ev", "ev_pro"}
    assert {p.domain_type for p in shipped} == set(DomainType)
    assert all(p.reissue_days is None for p in shipped if p.free)
    assert {(p.review_days.least, p.review_days.most) for p in shipped if p.type in ("ev", "ev_pro")} == {(7, 10)}
    assert {(p.review_days.least, p.review_days.most) for p in shipped if p.type in ("ov", "ov_pro")} == {(3, 5)}
    public_multi = [p for p in shipped if p.domain_type is DomainType.MULTI and p.public]
    assert {p.type for p in public_multi if p.wildcards is WildcardRule.ALLOWED} == {"ov", "ov_pro"}


@pytest.mark.parametrize("code", sorted(catalogue.shipped()))
def test_every_shipped_product_has_a_price_and_survives_the_database(code: str) -> None:
    found = catalogue.shipped()[code]
    assert catalogue.checked(found.model_dump(mode="json")) == found
    chosen = rules.selection_of(found, names=None, wildcards=None, years=1, quantity=1)
    quote = rules.quote(found, chosen, None, NOW)
    assert bool(quote.total) is not found.free


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prices": {}}, "needs a base price"),
        ({"free": True}, "a free product has no prices"),
        ({"prices": {"base": "-1"}}, "greater than or equal to 0"),
        ({"prices": {"base": "1.001"}}, "has 2 decimal places"),
        ({"prices": {"base": "NaN"}}, "finite number"),
        ({"prices": {"base": "1e30"}}, "digits"),
        ({"currency": "XXX"}, "no currency"),
        ({"years": {}}, "must be for sale"),
        ({"years": {"6": "0"}}, "less than or equal to 5"),
        ({"years": {"1": "100"}}, "digits"),
        ({"quantity_discounts": {"1": "5"}}, "greater than or equal to 2"),
        ({"methods": []}, "methods are some of"),
        ({"methods": ["carrier-pigeon"]}, "methods are some of"),
        ({"max_names": 1}, "takes two names at least"),
        ({"max_names": 251}, "less than or equal to 250"),
        ({"type": "dv"}, "for OV and OV Pro only"),
        ({"review_days": {"least": 5, "most": 3}}, "more than review_days.most"),
        ({"name": "a\nb"}, "pattern"),
        ({"code": "../etc"}, "pattern"),
        ({"color": "red"}, "not permitted"),
    ],
)
def test_a_product_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        product(MULTI, **changes)
    messages = [p["message"] for p in refused.value.extra["errors"]]
    assert any(said in message for message in messages), messages


# --- orders ---------------------------------------------------------------------------------------------------------


def order(**changes: Any) -> OrderFacts:
    facts = OrderFacts(Money.of("100", "EUR"), False, NOW + timedelta(days=7))
    return replace(facts, **changes)


STATUSES: list[tuple[OrderFacts, OrderStatus]] = [
    (order(), OrderStatus.PENDING_PAYMENT),
    (order(payment_open=True), OrderStatus.PAYMENT_RUNNING),
    (order(paid_at=NOW), OrderStatus.PAID),
    (order(cancelled_at=NOW), OrderStatus.CANCELLED),
    (order(lapsed_at=NOW), OrderStatus.LAPSED),
    (order(paid_at=NOW, refund_asked_at=NOW), OrderStatus.REFUND_REVIEW),
    (order(paid_at=NOW, refund_asked_at=NOW, refunded_at=NOW), OrderStatus.REFUNDED),
    (order(paid_at=NOW, refund_asked_at=NOW, refund_rejected_at=NOW), OrderStatus.REFUND_REJECTED),
]


@pytest.mark.parametrize(("facts", "expected"), STATUSES)
def test_the_status_follows_from_what_happened(facts: OrderFacts, expected: OrderStatus) -> None:
    assert rules.status(facts) is expected


@pytest.mark.parametrize(("facts", "found"), STATUSES)
def test_only_an_order_that_waits_for_payment_can_be_paid_or_cancelled(facts: OrderFacts, found: OrderStatus) -> None:
    if found is OrderStatus.PENDING_PAYMENT:
        rules.judge_payable(facts, NOW)
        rules.judge_cancellable(facts)
        return
    with pytest.raises(Refused) as refused:
        rules.judge_payable(facts, NOW)
    assert refused.value.code == "order_not_payable"
    with pytest.raises(Refused) as refused:
        rules.judge_cancellable(facts)
    assert refused.value.code == "order_not_cancellable"


def test_an_order_is_payable_until_just_before_its_time_is_over() -> None:
    rules.judge_payable(order(pay_by=NOW + timedelta(microseconds=1)), NOW)
    with pytest.raises(Refused, match="not paid in time"):
        rules.judge_payable(order(pay_by=NOW), NOW)


@pytest.mark.parametrize(
    ("agreed", "version", "code"),
    [
        (True, "", None),
        (True, "2026-11", None),
        (False, "2026-11", "statement_not_agreed"),
        (True, "2019-01", "statement_outdated"),
    ],
)
def test_the_current_statement_must_be_agreed_to(agreed: bool, version: str, code: str | None) -> None:
    if code is None:
        rules.judge_agreement(agreed, version, "2026-11")
        return
    with pytest.raises(Invalid) as refused:
        rules.judge_agreement(agreed, version, "2026-11")
    assert refused.value.code == code
    assert "2026-11" in refused.value.fix


# --- refunds --------------------------------------------------------------------------------------------------------

UNUSED = BoughtCertificate("cert_1", "cert-a", "pending_application", True, False, None)
REVOKED = BoughtCertificate("cert_1", "cert-a", "revoked", False, True, NOW + timedelta(days=2))
WINDOW = timedelta(days=7)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("sentence", "facts", "bought", "asked_at", "code"),
    [
        ("never submitted, at once", {}, [UNUSED], NOW, None),
        ("in the last second of day 8, 11:59:59", {}, [UNUSED], NOW + WINDOW - SECOND, None),
        ("at 12:00:00 on day 8 it is too late", {}, [UNUSED], NOW + WINDOW, "refund_too_late"),
        ("revoked within the window", {}, [REVOKED], NOW + timedelta(days=3), None),
        ("revoked in the window's last second", {},
         [replace(REVOKED, revoked_at=NOW + WINDOW - SECOND)], NOW + WINDOW - SECOND, None),
        ("revoked when the window was over", {},
         [replace(REVOKED, revoked_at=NOW + WINDOW)], NOW + WINDOW - SECOND, "refund_certificate_used"),
        ("an application is open", {},
         [replace(UNUSED, state="pending_domain_validation", pending_application=False)], NOW,
         "refund_certificate_used"),
        ("the application failed", {},
         [replace(UNUSED, state="approval_failed", pending_application=False)], NOW, "refund_certificate_used"),
        ("issued and in use", {},
         [replace(REVOKED, state="issued", revoked_at=None)], NOW, "refund_certificate_used"),
        ("the revocation is under way but not completed", {},
         [replace(REVOKED, state="verifying_revocation", revoked_at=None)], NOW, "refund_certificate_used"),
        ("revoked, then applied for again", {},
         [replace(REVOKED, state="pending_application", pending_application=True)], NOW + timedelta(days=3),
         "refund_certificate_used"),
        ("an earlier version still works", {}, [replace(REVOKED, earlier_live=True)], NOW + timedelta(days=3),
         "refund_certificate_used"),
        ("still bound", {}, [replace(REVOKED, bound_to=("nginx: shop",))], NOW + timedelta(days=3),
         "certificate_bound"),
        ("deleted", {}, [], NOW, "refund_certificate_deleted"),
        ("not paid", {"paid_at": None}, [], NOW, "order_not_refundable"),
        ("asked before", {"refund_asked_at": NOW}, [UNUSED], NOW, "order_not_refundable"),
        ("given back before", {"refund_asked_at": NOW, "refunded_at": NOW}, [], NOW, "order_not_refundable"),
        ("rejected before", {"refund_asked_at": NOW, "refund_rejected_at": NOW}, [UNUSED], NOW,
         "order_not_refundable"),
        ("free", {"free_product": True}, [UNUSED], NOW, "order_free"),
    ],
)  # fmt: skip
def test_when_an_order_can_be_unsubscribed_from(
    sentence: str, facts: dict[str, Any], bought: list[BoughtCertificate], asked_at: datetime, code: str | None
) -> None:
    found = rules.why_no_refund(order(**({"paid_at": NOW} | facts)), 1, bought, asked_at)
    assert (found.code if found else None) == code, sentence


def test_every_certificate_of_the_order_must_qualify() -> None:
    paid = order(paid_at=NOW)
    used = replace(UNUSED, certificate_id="cert_2", state="issued", pending_application=False, ever_issued=True)
    assert rules.why_no_refund(paid, 2, [UNUSED, replace(UNUSED, certificate_id="cert_2")], NOW) is None
    found = rules.why_no_refund(paid, 2, [UNUSED, used], NOW)
    assert found is not None
    assert found.extra["certificate_id"] == "cert_2"
    found = rules.why_no_refund(paid, 2, [UNUSED], NOW)
    assert found is not None
    assert found.code == "refund_certificate_deleted"


# --- renewal --------------------------------------------------------------------------------------------------------

OLD = Predecessor(
    "cert_1", True, False, True, "builtin", "ov", "single", 1, 0, "a.example", NOW + timedelta(days=20)
)  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "changes", "reason"),
    [
        ("twenty days before the end", {}, None),
        (
            "thirty calendar days before, later in that day",
            {"ends_at": datetime(2026, 3, 31, 23, 59, tzinfo=UTC)},
            None,
        ),
        ("thirty-one calendar days before", {"ends_at": datetime(2026, 4, 1, 0, 0, tzinfo=UTC)}, "more than 30 days"),
        ("in its last second", {"ends_at": NOW + SECOND}, None),
        ("expired this moment", {"ends_at": NOW}, "has not expired"),
        ("never issued", {"issued": False, "ends_at": None}, "only an issued certificate"),
        ("revoked", {"issued": False}, "only an issued certificate"),
        ("uploaded", {"uploaded": True}, "it was uploaded"),
        ("free", {"paid": False}, "it is free"),
    ],
)
def test_when_a_renewal_can_be_ordered(sentence: str, changes: dict[str, Any], reason: str | None) -> None:
    found = rules.why_no_renewal(replace(OLD, **changes), NOW)
    if reason is None:
        assert found is None, sentence
    else:
        assert found is not None, sentence
        assert reason in found.message


@pytest.mark.parametrize(
    ("sentence", "changes", "inherits"),
    [
        ("all the same", {}, True),
        ("another CA", {"ca": "other"}, False),
        ("another type", {"type": "ev"}, False),
        ("another domain type", {"domain_type": "multi"}, False),
        ("another number of names", {"names": 2}, False),
        ("another number of wildcards", {"wildcards": 1}, False),
        ("another primary domain", {"primary_name": "b.example"}, False),
    ],
)
def test_days_are_inherited_only_if_nothing_differs(sentence: str, changes: dict[str, Any], inherits: bool) -> None:
    old = Subscription("builtin", "ov", "single", 1, 0, "a.example")
    assert rules.inherits(old, replace(old, **changes)) is inherits, sentence


@pytest.mark.parametrize(
    ("ends_at", "days"),
    [
        (NOW + timedelta(days=20), 20),
        (NOW + timedelta(days=20, hours=23, minutes=59), 20),
        (NOW + timedelta(hours=23), 0),
        (NOW - timedelta(days=5), 0),
        (None, 0),
    ],
)
def test_only_whole_days_are_left(ends_at: datetime | None, days: int) -> None:
    assert rules.remaining_days(ends_at, NOW) == days


@pytest.mark.parametrize(
    ("starts", "years", "days", "ends"),
    [
        (datetime(2026, 3, 1, 12, tzinfo=UTC), 1, 0, datetime(2027, 3, 1, 12, tzinfo=UTC)),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), 3, 20, datetime(2029, 3, 21, 12, tzinfo=UTC)),
        (datetime(2028, 2, 29, tzinfo=UTC), 1, 0, datetime(2029, 2, 28, tzinfo=UTC)),
        (datetime(2028, 2, 29, tzinfo=UTC), 4, 1, datetime(2032, 3, 1, tzinfo=UTC)),
    ],
)
def test_coverage_runs_calendar_years_and_the_inherited_days(
    starts: datetime, years: int, days: int, ends: datetime
) -> None:
    assert rules.coverage_end(starts, years, days) == ends


def test_every_refusal_here_says_what_to_do() -> None:
    found = [
        rules.why_no_refund(order(), 1, [], NOW),
        rules.why_no_renewal(replace(OLD, uploaded=True), NOW),
        rules.coupon_unusable("x"),
    ]
    assert all(isinstance(problem, Problem) and problem.fix for problem in found)
