"""The doors of ordering: what clients send and get, replays, revisions, other accounts, CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from certwright.rooms import billing
from tests.conftest import Api

from .conftest import MULTI, PRODUCT, Shop, eur

CODE = PRODUCT["code"]


@pytest.fixture
def door(shop: Shop, api: Api) -> Api:
    shop.fund()
    return api


def _place(door: Api, **more: Any) -> dict[str, Any]:
    made = door.post("/api/v1/orders", {"product": CODE, "agree": True} | more)
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"/api/v1/orders/{made.json()['id']}"
    return made.json()  # type: ignore[no-any-return]


def test_from_the_catalogue_to_the_refund(door: Api, shop: Shop) -> None:
    listed = door.get("/api/v1/products", params={"brand": "house", "orderable": "true"}).json()["items"]
    assert {item["code"] for item in listed} == {CODE, MULTI["code"]}
    quote = door.post("/api/v1/quotes", {"product": MULTI["code"], "names": 4, "years": 2}).json()
    assert quote["total"] == {"amount": "437.00", "currency": "EUR"}
    assert [line["kind"] for line in quote["lines"]] == ["base", "additional_names", "further_years", "years_discount"]
    order = door.post(
        "/api/v1/orders",
        {"product": MULTI["code"], "names": 4, "years": 2, "agree": True, "expected_total": quote["total"],
         "statement_version": quote["statement_version"]},
    ).json()  # fmt: skip
    assert (order["status"], order["total"], order["breakdown"]) == ("pending_payment", quote["total"], quote["lines"])
    paid = door.post(f"/api/v1/orders/{order['id']}/pay", {}).json()
    assert (paid["status"], len(paid["certificates"]), paid["why_no_refund"]) == ("paid", 1, None)
    certificate = door.get(f"/api/v1/certificates/{paid['certificates'][0]['id']}").json()
    assert certificate["state"] == "pending_application"
    assert door.get("/api/v1/balance").json()["items"][0]["available"]["amount"] == "563.00"

    shop.world.later(seconds=1)
    asked = door.post(f"/api/v1/orders/{order['id']}/unsubscribe", {"acknowledge": True})
    assert (asked.status_code, asked.json()["state"]) == (201, "review")
    assert door.get("/api/v1/unsubscriptions", params={"state": "review"}).json()["items"][0] == asked.json()
    done = door.post(f"/api/v1/unsubscriptions/{asked.json()['id']}/approve", {"note": "ok"}).json()
    assert (done["state"], done["amount"]["amount"]) == ("refunded", "437.00")
    assert door.get(f"/api/v1/orders/{order['id']}").json()["status"] == "refunded"
    assert door.get(f"/api/v1/certificates/{certificate['id']}").status_code == 404
    books = door.get("/api/v1/ledger-transactions", params={"order_id": order["id"]}).json()["items"]
    assert [entry["kind"] for entry in books] == ["refund", "payment"]
    for entry in books:
        assert sum(float(posting["amount"]["amount"]) for posting in entry["postings"]) == 0


def test_a_replayed_order_is_placed_and_paid_once(door: Api, shop: Shop) -> None:
    body = {"product": CODE, "agree": True, "pay": {"method": "balance"}}
    answers = [door.post("/api/v1/orders", body, headers={"Idempotency-Key": "k1"}) for _ in range(3)]
    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert answers[2].headers["idempotency-replayed"] == "true"
    other = door.post("/api/v1/orders", body | {"quantity": 2}, headers={"Idempotency-Key": "k1"})
    assert other.json()["code"] == "idempotency_mismatch"
    assert shop.available() == eur(900)
    order_id = answers[0].json()["id"]
    again = door.post(f"/api/v1/orders/{order_id}/pay", {})
    assert (again.status_code, again.json()["code"]) == (409, "order_not_payable")


def test_an_order_that_can_t_be_paid_is_not_placed(door: Api) -> None:
    refused = door.post("/api/v1/orders", {"product": CODE, "quantity": 11, "agree": True, "pay": {}})
    assert (refused.status_code, refused.json()["code"]) == (409, "balance_too_low")
    assert refused.json()["available"] == {"amount": "1000.00", "currency": "EUR"}
    assert door.get("/api/v1/orders").json()["items"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"quantity": 0}, "quantity"),
        ({"quantity": 101}, "quantity"),
        ({"quantity": 10**9}, "quantity"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": 1.5}, "quantity"),
        ({"quantity": "many"}, "quantity"),
        ({"years": 9}, "years"),
        ({"names": 2}, "names"),
        ({"wildcards": -3}, "wildcards"),
        ({"agree": False}, "agree"),
        ({"statement_version": "1999"}, "statement_version"),
        ({"coupon": "' OR 1=1; --"}, "coupon"),
        ({"expected_total": {"amount": "1e3", "currency": "EUR"}}, "expected_total.amount"),
        ({"expected_total": {"amount": "1", "currency": "XXX"}}, "currency"),
        ({"price": 1}, "price"),
        ({"pay": {"method": "bitcoin"}}, "method"),
        ({"project_id": "prj_nope"}, "project_id"),
        ({"renews": "cert_nope"}, "renews"),
    ],
)
def test_a_wrong_order_names_the_field(door: Api, body: dict[str, Any], field: str) -> None:
    refused = door.post("/api/v1/orders", {"product": CODE, "agree": True} | body)
    assert refused.status_code in (404, 422), refused.text
    said = refused.json()
    fields = [said["field"]] if "field" in said else [error["field"] for error in said["errors"]]
    assert fields == [field]
    assert door.get("/api/v1/orders").json()["items"] == []


def test_prices_and_quantities_don_t_overflow(door: Api) -> None:
    big = MULTI | {"code": "big", "prices": {"base": "999999999999", "additional_name": "0", "wildcard": "0"}}
    assert door.post("/api/v1/products", big).status_code == 422
    big["prices"] = {"base": "1000000000", "additional_name": "1000000000", "wildcard": "0"}
    assert door.post("/api/v1/products", big).status_code == 201
    quote = door.post("/api/v1/quotes", {"product": "big", "names": 10, "quantity": 100})
    assert quote.json()["total"]["amount"] == "900000000000.00"
    refused = door.post("/api/v1/orders", {"product": "big", "names": 10, "quantity": 100, "agree": True, "pay": {}})
    assert refused.json()["code"] == "balance_too_low"
    for amount in ("10000000000000", "-5", "1e5", "NaN", "0.00001"):
        top = door.post("/api/v1/balance/top-ups", {"amount": amount, "currency": "EUR", "reference": "x"})
        assert top.status_code == 422, amount


def test_a_product_is_changed_on_the_revision_read(door: Api) -> None:
    read = door.get(f"/api/v1/products/{CODE}")
    assert read.headers["etag"] == '"1"'
    path = f"/api/v1/products/{CODE}"
    assert door.patch(path, {"available": False}).status_code == 428
    changed = door.patch(path, {"prices": {"base": "120.50"}}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"], changed.json()["version"]) == (200, '"2"', 2)
    assert door.patch(path, {"available": False}, headers={"If-Match": '"1"'}).status_code == 412
    shipped = door.patch("/api/v1/products/private-single", {"available": False}, headers={"If-Match": '"0"'})
    assert (shipped.status_code, shipped.json()["not_orderable"]) == (200, "it is not for sale")
    edits = door.get(f"{path}/versions").json()["items"]
    assert [edit["version"] for edit in edits] == [2, 1]
    assert door.patch(path, {"domain_type": "multi"}, headers={"If-Match": '"2"'}).status_code == 422


def test_the_policy_is_changed_on_the_revision_read(door: Api) -> None:
    read = door.get("/api/v1/billing-policy")
    assert (read.headers["etag"], read.json()["review"]) == ('"0"', "manual")
    body = {"review": "automatic", "invoice_limits": {"EUR": "500"}}
    changed = door.patch("/api/v1/billing-policy", body, headers={"If-Match": '"0"'})
    assert (changed.json()["review"], changed.json()["invoice_limits"]) == ("automatic", {"EUR": "500"})
    assert door.patch("/api/v1/billing-policy", {}, headers={"If-Match": '"0"'}).status_code == 412
    assert door.get("/api/v1/billing-policy").json() == changed.json()


def test_coupons_and_vouchers_come_and_go(door: Api) -> None:
    made = door.post("/api/v1/coupons", {"kind": "coupon", "code": "spring", "percent": "12.5", "max_uses": 3})
    assert (made.status_code, made.json()["code"], made.json()["percent"]) == (201, "SPRING", "12.50")
    gift = door.post("/api/v1/coupons", {"kind": "voucher", "amount": {"amount": "30", "currency": "EUR"}}).json()
    assert len(gift["code"]) == 19
    order = _place(door, coupon="SPRING", pay={"vouchers": [gift["code"]]})
    assert (order["total"]["amount"], order["payments"][0]["voucher_amount"]["amount"]) == ("87.50", "30.00")
    listed = {c["code"]: c for c in door.get("/api/v1/coupons").json()["items"]}
    assert (listed["SPRING"]["uses"], listed[gift["code"]]["left"]["amount"]) == (1, "0.00")
    disabled = door.post(f"/api/v1/coupons/{made.json()['id']}/disable", {})
    assert disabled.json()["disabled_at"] is not None
    refused = door.post("/api/v1/quotes", {"product": CODE, "coupon": "SPRING"})
    assert (refused.status_code, refused.json()["field"]) == (409, "coupon")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"kind": "coupon"}, "coupon_value"),
        ({"kind": "coupon", "percent": "5", "amount": {"amount": "5", "currency": "EUR"}}, "coupon_value"),
        ({"kind": "coupon", "percent": "0"}, "percent_invalid"),
        ({"kind": "coupon", "percent": "100.01"}, "percent_invalid"),
        ({"kind": "coupon", "amount": {"amount": "0", "currency": "EUR"}}, "amount_not_positive"),
        ({"kind": "voucher", "percent": "5"}, "voucher_needs_amount"),
        ({"kind": "voucher"}, "voucher_needs_amount"),
        ({"kind": "coupon", "percent": "5", "code": "a b"}, "code_invalid"),
        ({"kind": "coupon", "percent": "5", "code": "x"}, "code_invalid"),
        ({"kind": "coupon", "percent": "5", "valid_from": "2026-03-02T00:00:00Z",
          "valid_until": "2026-03-01T00:00:00Z"}, "validity_invalid"),
    ],
)  # fmt: skip
def test_a_coupon_that_makes_no_sense_is_refused(door: Api, body: dict[str, Any], code: str) -> None:
    assert door.post("/api/v1/coupons", body).json()["code"] == code


def test_lists_come_in_pages_and_as_csv(door: Api) -> None:
    placed = [_place(door)["id"] for _ in range(3)]
    first = door.get("/api/v1/orders", params={"limit": 2}).json()
    second = door.get("/api/v1/orders", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert {row["id"] for row in first["items"] + second["items"]} == set(placed)
    assert second["next_cursor"] is None
    for cursor in ("x", "W10", "WyJcdTAwMDAiXQ"):
        assert door.get("/api/v1/orders", params={"cursor": cursor}).json()["code"] == "cursor_invalid"
    assert door.get("/api/v1/orders", params={"status": "shipped"}).status_code == 422
    exported = door.get("/api/v1/orders.csv", params={"search": "house"})
    assert exported.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(exported.text)))
    assert {line["id"] for line in lines} == set(placed)
    assert lines[0]["total"] == "100.00 EUR"
    assert door.get("/api/v1/unsubscriptions.csv").text.startswith("id,project_id,order_id,state")


def test_a_spreadsheet_finds_no_formula_in_the_csv(door: Api) -> None:
    evil = PRODUCT | {"code": "evil", "name": "=HYPERLINK(1)", "brand": "@SUM(A1)"}
    assert door.post("/api/v1/products", evil).status_code == 201
    _place(door, product="evil")
    (line,) = csv.DictReader(io.StringIO(door.get("/api/v1/orders.csv").text))
    assert (line["product_name"], line["brand"]) == ("'=HYPERLINK(1)", "'@SUM(A1)")


def test_another_account_sees_and_reaches_nothing(door: Api, shop: Shop) -> None:
    order = _place(door, pay={})
    coupon = door.post("/api/v1/coupons", {"kind": "coupon", "percent": "5", "code": "OURS"}).json()
    asked = door.post(f"/api/v1/orders/{order['id']}/unsubscribe", {"acknowledge": True}).json()
    stranger = door.as_actor(shop.world.other_actor)
    for method, path in (
        ("GET", f"/orders/{order['id']}"),
        ("POST", f"/orders/{order['id']}/pay"),
        ("POST", f"/orders/{order['id']}/cancel"),
        ("GET", f"/unsubscriptions/{asked['id']}"),
        ("POST", f"/unsubscriptions/{asked['id']}/approve"),
        ("GET", f"/coupons/{coupon['id']}"),
        ("POST", f"/coupons/{coupon['id']}/disable"),
        ("GET", f"/products/{CODE}"),
    ):
        body = {"json": {}} if method == "POST" else {}
        assert stranger.request(method, f"/api/v1{path}", **body).status_code == 404, path
    for path in ("/orders", "/unsubscriptions", "/coupons", "/balance", "/ledger-transactions"):
        assert stranger.get(f"/api/v1{path}").json()["items"] == []
    assert stranger.post("/api/v1/quotes", {"product": "test-dv-single", "coupon": "OURS"}).status_code == 422
    assert len(stranger.get("/api/v1/orders.csv").text.splitlines()) == 1
    # The same reference is free in another account, and moves nothing of ours.
    top = {"amount": "5", "currency": "EUR", "reference": "transfer-1"}
    assert stranger.post("/api/v1/balance/top-ups", top).status_code == 201
    assert shop.available() == eur(900)


def test_the_bss_administrator_orders_and_a_reader_only_looks(door: Api, shop: Shop) -> None:
    from certwright.rooms import access

    grants = {
        policy: access.SYSTEM_POLICIES[policy] for policy in ("bss_administrator", "security_auditor")
    }  # fmt: skip
    buyer = door.as_actor(shop.actor, policies=[grants["bss_administrator"].id])
    reader = door.as_actor(shop.actor, policies=[grants["security_auditor"].id])
    order = _place(buyer, pay={})
    assert reader.get(f"/api/v1/orders/{order['id']}").json()["status"] == "paid"
    for path, body in (
        ("/orders", {"product": CODE, "agree": True}),
        (f"/orders/{order['id']}/unsubscribe", {"acknowledge": True}),
        ("/balance/top-ups", {"amount": "5", "currency": "EUR", "reference": "r"}),
        ("/coupons", {"kind": "coupon", "percent": "5"}),
        ("/products", PRODUCT | {"code": "mine"}),
    ):
        assert reader.post(f"/api/v1{path}", body).status_code == 403, path


def test_every_status_the_description_names_is_one_of_the_rooms(door: Api) -> None:
    described = door.app.openapi()["components"]["schemas"]["OrderStatus"]["enum"]
    assert described == [str(status) for status in billing.OrderStatus]
