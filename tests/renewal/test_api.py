"""The doors of renewal over HTTP: shapes, paging, what is refused and how it is said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Api, World
from tests.renewal.conftest import detail, issued, numbers

WINDOW = {"name": "nights", "from": "22:00", "to": "04:00", "zone": "Europe/Berlin", "weekdays": ["mon", "fri"]}
FREEZE = {"from": "2026-12-20T00:00:00+01:00", "to": "2027-01-07T00:00:00Z", "reason": "Christmas trade"}
CAMPAIGN = {
    "name": "incident", "reason": "distrust", "criteria": {"ca": "builtin"}, "deadline": "2026-03-03T00:00:00Z",
    "per_hour": 36_000,
}  # fmt: skip


def test_a_plan_is_shown_with_its_reason(api: Api, product: World) -> None:
    certificate_id = issued(product)
    (listed,) = api.get("/api/v1/renewals").json()["items"]
    shown = api.get(f"/api/v1/renewals/{certificate_id}").json()
    assert listed == shown
    assert shown["source"] == "fraction"
    assert shown["allowed"] == {"at": shown["renew_at"], "forced": False, "code": "allowed",
                                "reason": "Nothing holds it back."}  # fmt: skip
    assert api.get("/api/v1/renewals/cert_nobody").status_code == 404


def test_windows_and_freezes_come_and_go(api: Api, product: World) -> None:
    made = api.post("/api/v1/renewal-windows", WINDOW)
    assert made.status_code == 201, made.text
    assert {key: made.json()[key] for key in WINDOW} == WINDOW | {"from": "22:00:00", "to": "04:00:00"}
    frozen = api.post("/api/v1/renewal-freezes", FREEZE)
    assert frozen.json()["from"] == "2026-12-19T23:00:00Z"
    for path, one in (("renewal-windows", made), ("renewal-freezes", frozen)):
        assert [item["id"] for item in api.get(f"/api/v1/{path}").json()["items"]] == [one.json()["id"]]
        assert api.delete(one.headers["location"]).status_code == 204
        assert api.delete(one.headers["location"]).status_code == 404
        assert api.get(f"/api/v1/{path}").json()["items"] == []


def test_windows_and_freezes_are_changed_in_place(api: Api, product: World) -> None:
    window = api.post("/api/v1/renewal-windows", WINDOW)
    changed = api.put(window.headers["location"], WINDOW | {"to": "05:30", "weekdays": ["sun"]})
    assert changed.status_code == 200, changed.text
    assert changed.json() == window.json() | {"to": "05:30:00", "weekdays": ["sun"]}
    freeze = api.post("/api/v1/renewal-freezes", FREEZE)
    longer = api.put(freeze.headers["location"], FREEZE | {"to": "2027-01-10T00:00:00Z"})
    assert longer.json() == freeze.json() | {"to": "2027-01-10T00:00:00Z"}
    wrong = api.put(window.headers["location"], WINDOW | {"zone": "Mars"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "zone")
    backwards = api.put(freeze.headers["location"], FREEZE | {"to": "2026-12-01T00:00:00Z"})
    assert (backwards.status_code, backwards.json()["field"]) == (422, "to")
    assert api.get("/api/v1/renewal-windows").json()["items"] == [changed.json()]
    assert api.get("/api/v1/renewal-freezes").json()["items"] == [longer.json()]
    assert api.put("/api/v1/renewal-windows/rwn_nobody", WINDOW).status_code == 404
    moved = api.put(window.headers["location"], WINDOW | {"project_id": "prj_x"})
    assert moved.status_code == 422


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        pytest.param("renewal-windows", WINDOW | {"zone": "Mars"}, "zone", id="an unknown zone"),
        pytest.param("renewal-windows", WINDOW | {"weekdays": ["mo"]}, "weekdays.0", id="an unknown day"),
        pytest.param("renewal-windows", WINDOW | {"from": "25:00"}, "from", id="an hour that no clock shows"),
        pytest.param("renewal-windows", WINDOW | {"from": "22:00+01:00"}, "from", id="a wall clock with an offset"),
        pytest.param("renewal-windows", WINDOW | {"project_id": "prj_x"}, "project_id", id="an unknown project"),
        pytest.param(
            "renewal-freezes", FREEZE | {"to": "2026-12-01T00:00:00Z"}, "to", id="an end before its beginning"
        ),
        pytest.param("renewal-freezes", FREEZE | {"from": "2026-12-20T00:00:00"}, "from", id="a moment without zone"),
        pytest.param("renewal-freezes", FREEZE | {"reason": ""}, "reason", id="no reason"),
        pytest.param("campaigns", CAMPAIGN | {"criteria": {}}, "criteria", id="nothing said of which"),
        pytest.param("campaigns", CAMPAIGN | {"criteria": {"ca": "x"}}, "criteria.ca", id="an unknown CA"),
        pytest.param("campaigns", CAMPAIGN | {"to_ca": "x"}, "to_ca", id="an unknown CA to go to"),
        pytest.param("campaigns", CAMPAIGN | {"reason": "because"}, "reason", id="an unknown reason"),
        pytest.param("campaigns/preview", {"criteria": {"names": "*"}}, "deadline", id="no deadline"),
    ],
)
def test_what_is_wrong_is_said_of_its_field(api: Api, product: World, path: str, body: Any, field: str) -> None:
    refused = api.post(f"/api/v1/{path}", body)
    assert refused.status_code in (404, 422), refused.text
    said = refused.json()
    assert field in [said.get("field"), *(error["field"] for error in said.get("errors", []))]


def test_limits_are_read_and_set(api: Api, product: World) -> None:
    issued(product)
    (limit,) = api.get("/api/v1/renewal-limits").json()["items"]
    assert (limit["ca"], limit["per_minute"]) == ("builtin", 600)
    changed = api.put("/api/v1/renewal-limits/builtin", {"per_minute": 30, "reserve_percent": 10})
    assert (changed.json()["per_minute"], changed.headers["etag"]) == (30, f'"{limit["revision"] + 1}"')
    stale = api.put("/api/v1/renewal-limits/builtin", {"per_minute": 1}, headers={"if-match": '"1"'})
    assert stale.status_code == 412
    assert api.put("/api/v1/renewal-limits/nobody", {"per_minute": 1}).status_code == 404
    assert api.put("/api/v1/renewal-limits/builtin", {"per_minute": 0}).status_code == 422


def test_a_mass_replacement_from_preview_to_end(api: Api, product: World) -> None:
    certificate_id = issued(product)
    seen = api.post("/api/v1/campaigns/preview", {key: CAMPAIGN[key] for key in ("criteria", "deadline")}).json()
    assert (seen["replaced"], seen["counts"], seen["estimate"]["in_time"]) == (1, {"replaceable": 1}, True)
    made = api.post("/api/v1/campaigns", CAMPAIGN)
    assert made.status_code == 201, made.text
    where = made.headers["location"]
    assert made.json()["state"] == "planning"
    assert made.json()["started_by"].startswith("ann@one.example")
    product.drain()
    after = api.get(where).json()
    assert (after["state"], after["counts"]["replaced"], after["reason"]) == ("finished", 1, "distrust")
    (item,) = api.get(f"{where}/items?state=replaced").json()["items"]
    assert item["certificate_id"] == certificate_id
    assert api.get(f"{where}/items?state=failed").json()["items"] == []
    assert numbers(product, certificate_id) == [2, 1]
    refused = api.post(f"{where}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "campaign_state")
    assert api.patch(where, {"per_hour": 5}).json()["per_hour"] == 5
    assert [one["id"] for one in api.get("/api/v1/campaigns").json()["items"]] == [after["id"]]


def test_readiness_takes_a_date_or_a_moment(api: Api, product: World) -> None:
    certificate_id = issued(product)
    for at in ("2029-04-01", "2029-04-01T00:00:00Z", "2029-04-01T02:00:00%2B02:00"):
        (line,) = api.get(f"/api/v1/readiness?at={at}").json()["items"]
        assert line["certificate_id"] == certificate_id
        assert line["readiness"]["outcome"]["reuse_days"] == 10
        summary = api.get(f"/api/v1/readiness/summary?at={at}").json()
        assert (summary["at"], summary["certificates"], summary["life_days"]) == ("2029-04-01T00:00:00Z", 1, 46)
    for wrong in ("soon", "2029-04-01T00:00:00", "2029-02-30", "0001-01-01T00:00:00%2B14:00"):
        refused = api.get(f"/api/v1/readiness?at={wrong}")
        assert (refused.status_code, refused.json()["field"]) == (422, "at")


def test_rules_are_read_replaced_and_taken_back(api: Api, product: World) -> None:
    shipped = api.get("/api/v1/rules").json()
    assert shipped["id"] is None
    text = shipped["text"].replace("fraction_of_life: 0.6667", "fraction_of_life: 0.5")
    assert api.put("/api/v1/rules", {"text": text}).json()["id"] is not None
    certificate_id = issued(product)
    version = detail(product, certificate_id).versions[0]
    due = api.get(f"/api/v1/renewals/{certificate_id}").json()["renew_at"]
    assert due < (version.not_before + (version.not_after - version.not_before) * 0.52).isoformat()
    wrong = api.put("/api/v1/rules", {"text": text.replace("max: 47", "max: many")})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["line"] == 8
    assert api.delete("/api/v1/rules").json()["text"] == shipped["text"]
    assert api.delete("/api/v1/rules").status_code == 409
