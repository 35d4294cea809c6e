"""Renewal in the console: windows and freezes, mass replacement, readiness; and the CAs people add."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.async_api import expect

from certwright.rooms import authorities, cas, renewal
from certwright.rooms.validation.rulepack import shipped_text
from tests.certificates.test_lifecycle import NAME, Site, issue, look, settings, site
from tests.console.conftest import Console, fill
from tests.console.test_billing import may
from tests.console.test_flow import Play

__all__ = ["may", "settings", "site"]

SignIn = Callable[[Any], Any]

CA = {
    "kind": "acme", "name": "letsencrypt", "directory_url": "https://acme.example/directory", "public": "yes",
    "agree_terms": "yes", "contacts": "ops@one.example", "limit_orders": "300/3h",
}  # fmt: skip


@pytest.fixture
def shop(api: Any) -> Any:
    world = api.world
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


def _part(text: str, before: str, after: str = '"') -> str:
    return text.split(before)[1].split(after)[0]


# --- windows and freezes ---------------------------------------------------------------------------------------------


def test_windows_and_freezes_are_added_and_removed_by_form(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    window = [("name", "nights"), ("weekdays", "0"), ("weekdays", "6"), ("from_time", "22:30"), ("to_time", "04:00"),
              ("zone", "Europe/Berlin"), ("form", "window")]  # fmt: skip
    assert (
        me.form("/renewal/windows", dict(window) | {"weekdays": ["0", "6"]}).headers["location"] == "/renewal/calendar"
    )
    page = me.get("/renewal/calendar").text
    assert "22:30 – 04:00" in page
    assert "Mon, Sun" in page
    window_id = _part(page, 'action="/renewal/windows/', "/delete")
    assert 'value="22:30"' in me.get(f"/renewal/windows/{window_id}").text
    assert web(api.world.other_actor).get(f"/renewal/windows/{window_id}").status_code == 404
    wrong = me.form(f"/renewal/windows/{window_id}", dict(window) | {"zone": "Mars", "weekdays": "0"})
    assert (wrong.status_code, 'id="e-zone-1"' in wrong.text) == (422, True)
    later = dict(window) | {"weekdays": "2", "to_time": "05:45"}
    assert me.form(f"/renewal/windows/{window_id}", later).headers["location"] == "/renewal/calendar"
    page = me.get("/renewal/calendar").text
    assert "22:30 – 05:45" in page
    assert "Wed" in page
    assert "Remove this window?" in me.form(f"/renewal/windows/{window_id}/delete").text
    assert (
        web(api.world.other_actor).form(f"/renewal/windows/{window_id}/delete", {"confirmed": "1"}).status_code == 404
    )
    assert me.form(f"/renewal/windows/{window_id}/delete", {"confirmed": "yes"}).status_code == 303
    assert "22:30" not in me.get("/renewal/calendar").text

    freeze = {"reason": "Black Friday", "from_at": "2026-11-20T00:00", "to_at": "2026-11-30T00:00", "form": "freeze"}
    assert me.form("/renewal/freezes", freeze).status_code == 303
    assert "Black Friday" in me.get("/renewal/calendar").text
    found = api.world.run(renewal.list_freezes(api.world.services, api.world.actor))
    assert found[0].to_at - found[0].from_at == timedelta(days=10)
    assert 'value="2026-11-30T00:00"' in me.get(f"/renewal/freezes/{found[0].id}").text
    backwards = me.form(f"/renewal/freezes/{found[0].id}", freeze | {"to_at": "2026-11-01T00:00"})
    assert (backwards.status_code, 'id="e-to_at-1"' in backwards.text) == (422, True)
    assert me.form(f"/renewal/freezes/{found[0].id}", freeze | {"to_at": "2026-12-01T00:00"}).status_code == 303
    (after,) = api.world.run(renewal.list_freezes(api.world.services, api.world.actor))
    assert after.to_at - after.from_at == timedelta(days=11)


# --- the rules themselves --------------------------------------------------------------------------------------------


def test_the_dated_rules_are_shown_replaced_and_taken_back(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    page = me.get("/renewal/rules").text
    assert "Shipped with this release" in page
    assert "max: 47, ask: 46" in page
    text = shipped_text()
    wrong = me.form("/renewal/rules", {"text": text.replace("max: 47", "max: many")})
    assert wrong.status_code == 422
    assert "Line 8" in wrong.text
    assert "max: many" in wrong.text
    own = text.replace("max: 47, ask: 46", "max: 47, ask: 45").replace("\n", "\r\n")
    assert me.form("/renewal/rules", {"text": own}).headers["location"] == "/renewal/rules"
    page = me.get("/renewal/rules").text
    assert "Put in force by" in page
    assert "max: 47, ask: 45" in page
    assert "Go back to the shipped rules?" in me.form("/renewal/rules/revert").text
    assert me.form("/renewal/rules/revert", {"confirmed": "yes"}).headers["location"] == "/renewal/rules"
    assert "max: 47, ask: 46" in me.get("/renewal/rules").text


def test_whoever_may_only_read_the_rules_gets_no_form(may: Callable[..., Any]) -> None:
    reader = may("scm:rules:get", "scm:renewal:list")
    page = reader.get("/renewal/rules").text
    assert "<textarea" not in page
    assert "max: 47, ask: 46" in page
    assert reader.form("/renewal/rules", {"text": shipped_text()}).status_code == 403


@pytest.mark.parametrize(
    ("path", "changes", "field"),
    [
        ("windows", {"zone": "Europe/Nowhere"}, "zone"),
        ("windows", {"from_time": "late"}, "from_time"),
        ("windows", {"weekdays": "9"}, "weekdays"),
        ("windows", {"name": ""}, "name"),
        ("freezes", {"to_at": ""}, "to_at"),
        ("freezes", {"to_at": "2026-11-01T00:00"}, "to_at"),
        ("freezes", {"from_at": "soon"}, "from_at"),
        ("freezes", {"reason": ""}, "reason"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    api: Any, web: SignIn, path: str, changes: dict[str, str], field: str
) -> None:
    good = {
        "windows": {"name": "n", "weekdays": "0", "from_time": "01:00", "to_time": "05:00", "zone": "UTC"},
        "freezes": {"reason": "r", "from_at": "2026-11-20T00:00", "to_at": "2026-11-30T00:00"},
    }[path]
    answer = web(api.world.actor).form(f"/renewal/{path}", good | changes)
    assert answer.status_code == 422
    assert f'id="e-{field}-1"' in answer.text


# --- mass replacement and readiness ----------------------------------------------------------------------------------


def test_a_mass_replacement_is_previewed_started_and_followed(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    typed = {
        "names": "*.demo.localhost", "name": "Leave it", "reason": "drill", "deadline": "2026-03-05T12:00",
        "per_hour": "600", "priority": "bound_first",
    }  # fmt: skip
    nothing = me.form("/renewal/campaigns/new", typed | {"names": "", "step": "preview"})
    assert (nothing.status_code, 'id="e-ca-1"' in nothing.text) == (422, True)
    page = me.form("/renewal/campaigns/new", typed | {"step": "preview"}).text
    assert "1 certificate would be replaced" in page
    assert api.world.run(renewal.campaigns.list_campaigns(shop.services, shop.actor)) == []
    assert 'value="*.demo.localhost"' in me.form("/renewal/campaigns/new", typed | {"step": "edit"}).text
    where = me.form("/renewal/campaigns/new", typed | {"step": "start"}).headers["location"]
    shop.drain()
    shown = me.get(where).text
    assert "Finished" in shown
    assert "1 of 1" in shown
    assert len(look(shop, detail.id).versions) == 2
    assert me.form(f"{where}/pause").status_code == 409
    assert web(api.world.other_actor).get(where).status_code == 404
    assert web(api.world.other_actor).form(f"{where}/cancel", {"confirmed": "yes"}).status_code == 404


def test_a_campaign_is_cancelled_only_once_asked(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    issue(shop, site)
    me = web(api.world.actor)
    typed = {"names": "*", "name": "n", "reason": "other", "deadline": "2026-03-05T12:00", "per_hour": "1"}
    where = me.form("/renewal/campaigns/new", typed | {"step": "start"}).headers["location"]
    assert "Cancel this mass replacement?" in me.form(f"{where}/cancel").text
    assert me.form(f"{where}/rate", {"per_hour": "fast"}).status_code == 422
    assert me.form(f"{where}/rate", {"per_hour": "7"}).headers["location"] == where
    assert 'value="7"' in me.get(where).text
    assert me.form(f"{where}/cancel", {"confirmed": "yes"}).headers["location"] == where
    assert "Cancelled" in me.get(where).text


def test_readiness_answers_for_today_and_for_a_day_to_come(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    issue(shop, site)
    me = web(api.world.actor)
    page = me.get("/renewal/readiness").text
    assert NAME in page
    assert f"Somebody must show {NAME} by file." in page
    later = me.get("/renewal/readiness?at=2029-04-01").text
    assert "lives of 46 days, proofs used again for 10 days" in later
    wrong = me.get("/renewal/readiness?at=soon")
    assert (wrong.status_code, 'id="e-at-1"' in wrong.text) == (422, True)
    assert NAME not in web(api.world.other_actor).get("/renewal/readiness").text
    assert NAME not in web(api.world.other_actor).get("/renewal").text


def test_what_is_due_is_listed_with_its_reason(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    detail = issue(shop, site)
    page = web(api.world.actor).get("/renewal").text
    assert f"/certificates/{detail.id}" in page
    assert "At its share of life." in page


# --- CAs -------------------------------------------------------------------------------------------------------------


def test_an_acme_ca_is_added_edited_and_removed_by_form(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    where = me.form("/cas/new", CA).headers["location"]
    ca_id = where.rpartition("/")[2]
    assert "0 of 300 in 3h" in me.get(where).text
    revision = _part(me.get(f"{where}/edit").text, 'name="revision" value="')
    changed = CA | {"revision": revision, "limit_orders": "10/30m", "agree_terms": "", "eab_kid": "k1",
                    "eab_key": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}  # fmt: skip
    assert me.form(f"{where}/edit", changed).headers["location"] == where
    ca = api.world.run(cas.get_ca(api.world.services, api.world.actor, ca_id))
    assert (ca.limits[cas.Use.ORDER], ca.terms_agreed_at, ca.eab_kid) == (
        cas.Limit(10, timedelta(minutes=30)), None, "k1",
    )  # fmt: skip
    page = me.get(f"{where}/edit").text
    assert "c2VjcmV0" not in page
    # Left alone, the binding stays.
    kept = changed | {"revision": str(ca.revision), "eab_key": ""}
    assert me.form(f"{where}/edit", kept).headers["location"] == where
    assert api.world.run(cas.get_ca(api.world.services, api.world.actor, ca_id)).eab_kid == "k1"
    stranger = web(api.world.other_actor)
    assert stranger.get(where).status_code == 404
    assert stranger.form(f"{where}/delete", {"confirmed": "yes"}).status_code == 404
    assert "Remove this CA?" in me.form(f"{where}/delete").text
    assert me.form(f"{where}/delete", {"confirmed": "yes"}).headers["location"] == "/cas"
    assert me.get(where).status_code == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Let's Encrypt"}, "name"),
        ({"directory_url": "http://acme.example/"}, "directory_url"),
        ({"contacts": "nobody"}, "contacts"),
        ({"limit_orders": "many"}, "limit_orders"),
        ({"root_pem": "nothing"}, "root_pem"),
        ({"eab_kid": "k1"}, "eab_key"),
        ({"kind": "certcentral", "years": "1", "products": "", "api_key": ""}, "api_key"),
        ({"kind": "certcentral", "years": "1", "products": "ov single", "api_key": "abcdefgh1"}, "products"),
    ],
)
def test_a_wrong_ca_says_why_beside_the_field_and_forgets_secrets(
    api: Any, web: SignIn, changes: dict[str, str], field: str
) -> None:
    answer = web(api.world.actor).form("/cas/new", CA | {"eab_key": ""} | changes)
    assert answer.status_code == 422
    assert f'id="e-{field}-1"' in answer.text
    assert "abcdefgh1" not in answer.text


def test_a_ca_that_sells_keeps_the_products_that_are_listed(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    form = {
        "kind": "certcentral", "name": "digicert", "directory_url": "https://ca.example/services/v2", "public": "yes",
        "api_key": "abcdefgh1", "products": "ov/single: ssl_basic\n", "years": "1", "payment_method": "balance",
        "dns_record": "TXT", "cname_target": "dcv.digicert.com", "caa_identifiers": "digicert.com",
    }  # fmt: skip
    where = me.form("/cas/new", form).headers["location"]
    ca = api.world.run(cas.get_ca(api.world.services, api.world.actor, where.rpartition("/")[2]))
    assert ca.settings is not None
    assert ca.settings["products"] == {"ov/single": "ssl_basic"}
    assert ca.settings["skip_approval"] is False
    assert me.form(f"{where}/change-key", {"confirmed": "yes"}).status_code == 409


def test_a_test_that_fails_is_kept_and_said(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    where = me.form("/cas/new", CA | {"directory_url": "https://127.0.0.1:1/directory"}).headers["location"]
    assert me.form(f"{where}/test").headers["location"] == where
    assert "The last test failed" in me.get(where).text


def test_windows_campaigns_and_cas_without_any_script(play: Play) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(java_script_enabled=False) as page:
            await console.set_up(page)
            await page.goto("/renewal")
            await page.get_by_role("link", name="Windows and freezes").click()
            await page.get_by_text("Add a window").click()
            await fill(page, {"Name": "nights"})
            await page.get_by_role("button", name="Add the window").click()
            await expect(page.get_by_role("rowheader", name="nights")).to_be_visible()
            await page.get_by_role("button", name="Remove").click()
            await page.get_by_role("button", name="Remove the window").click()
            await expect(page.get_by_role("status")).to_contain_text("Removed.")
            await page.get_by_role("link", name="Mass replacement").click()
            await page.get_by_role("link", name="Replace many certificates").first.click()
            await fill(page, {"Names": "*", "What it is about": "A drill"})
            await page.get_by_role("button", name="What would happen?").click()
            await expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
            await page.goto("/cas")
            await page.get_by_role("link", name="Add an ACME CA").first.click()
            await fill(
                page,
                {"What to call it here": "mine", "Address of the ACME directory": "https://acme.example/directory"},
            )
            await page.get_by_role("button", name="Add the CA").click()
            await expect(page.get_by_role("heading", name="mine")).to_be_visible()
            await page.get_by_role("button", name="Remove the CA…").click()
            await page.get_by_role("button", name="Remove the CA").click()
            await expect(page.get_by_role("heading", name="No CA added yet")).to_be_visible()

    play(scenario)
