"""`certwright products|orders|balance|…` against a running product."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from .conftest import Command

PRODUCT = {
    "code": "house", "name": "House", "brand": "House", "type": "ov", "domain_type": "single", "ca": "builtin",
    "public": False, "currency": "EUR", "prices": {"base": "100"}, "years": {"1": "0", "2": "5"},
}  # fmt: skip


def test_products_orders_balance_and_unsubscriptions(signed_in: Command, tmp_path: Path) -> None:
    (tmp_path / "house.json").write_text(json.dumps(PRODUCT))
    assert signed_in("products", "create", "house.json").code == 0
    listed = signed_in("products", "list", "--brand", "house").out.splitlines()
    assert [line.split("\t")[0] for line in listed] == ["CODE", "house"]
    priced = signed_in("products", "price", "house", "--years", "2")
    assert "Total: 190.00 EUR" in priced.out

    unpaid = signed_in("orders", "place", "house", "--agree", "--pay", "balance", "--yes")
    assert (unpaid.code, "balance_too_low" in unpaid.err) == (1, True)
    assert signed_in("balance", "top-up", "500", "--reference", "bank 1").code == 0
    gift = signed_in("coupons", "create", "voucher", "--amount", "30", "--code", "gift")
    assert gift.code == 0, gift.err
    unasked = signed_in("orders", "place", "house", "--agree")
    assert (unasked.code, "not_confirmed" in unasked.err) == (2, True)
    bought = signed_in(
        "orders", "place", "house", "--agree", "--pay", "balance", "--voucher", "GIFT", "--yes", "--json"
    )
    assert bought.code == 0, bought.err
    order = json.loads(bought.out)
    assert order["status"] == "paid"
    assert signed_in("balance", "show").out.splitlines()[1] == "EUR\t430.00\t0.00"

    waiting = json.loads(signed_in("orders", "place", "house", "--agree", "--yes", "--json").out)
    assert json.loads(signed_in("orders", "pay", waiting["id"], "--json").out)["status"] == "paid"
    third = json.loads(signed_in("orders", "place", "house", "--agree", "--yes", "--json").out)
    assert "cancelled" in signed_in("orders", "cancel", third["id"]).out
    exported = csv.DictReader(io.StringIO(signed_in("orders", "export", "--status", "paid").out))
    assert {line["id"] for line in exported} == {order["id"], waiting["id"]}

    asked = json.loads(signed_in("orders", "unsubscribe", order["id"], "--yes", "--json").out)
    assert asked["id"] in signed_in("unsubscriptions", "list", "--state", "review").out
    assert "refunded" in signed_in("unsubscriptions", "approve", asked["id"], "--yes").out
    assert signed_in("balance", "show").out.splitlines()[1] == "EUR\t400.00\t0.00"
    books = signed_in("balance", "transactions", "--order", order["id"]).out.splitlines()
    assert [line.split("\t")[2] for line in books[1:]] == ["refund", "payment"]
    assert signed_in("coupons", "disable", "GIFT").code == 0

    text = json.loads(signed_in("orders", "statement", "--json").out)
    assert text["version"] == order["statement_version"]
    assert text["text"].strip() in signed_in("orders", "statement", "--version", text["version"]).out
    assert "service statement" in signed_in("orders", "statement", "--version", "1999").err
    assert asked["id"] in signed_in("unsubscriptions", "show", asked["id"]).out
    assert asked["id"] in signed_in("unsubscriptions", "export", "--state", "refunded").out
    assert (
        len(signed_in("orders", "list", "--product", "house", "--since", "2020-01-01T00:00:00Z").out.splitlines()) == 4
    )
    assert signed_in("orders", "export", "--product", "other").out.splitlines()[1:] == []
    assert signed_in("orders", "list", "--until", "2020-01-01T00:00:00Z").out.splitlines()[1:] == []
    (tmp_path / "dearer.json").write_text('{"prices": {"base": "120"}}')
    assert signed_in("products", "update", "house", "dearer.json").code == 0
    assert [line.split("\t")[3] for line in signed_in("products", "versions", "house").out.splitlines()[1:]] == [
        "120", "100",
    ]  # fmt: skip

    changed = signed_in(
        "balance", "policy", "--review", "automatic", "--unpaid-days", "3", "--invoice-limit", "EUR=500"
    )
    assert changed.code == 0, changed.err
    shown = json.loads(signed_in("balance", "policy", "--json").out)
    assert (shown["review"], shown["unpaid_days"], shown["invoice_limits"]) == ("automatic", 3, {"EUR": "500"})
