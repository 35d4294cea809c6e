"""Organisations, their verification and the desk: in-process for what is refused, in a browser for how it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import expect

from certwright.rooms import access, organisations
from certwright.rooms.organisations import Applicant
from tests.console.conftest import Console, fill
from tests.console.test_flow import Play
from tests.organisations import desk

SignIn = Callable[[Any], Any]

FORM = desk.FACTS | {"contacts": "Max Muster <max@beispiel.example>, +49 30 123456, IT\n"}


def _begun(api: Any, type: str = "ov", applicant: Applicant | None = None) -> tuple[Any, str]:
    """An organisation whose verification waits for the applicant: (it, the case's id)."""
    one = desk.add(api.world)
    return one, desk.require(api.world, one, type=type, who=applicant).case_id


def _upload(me: Any, path: str, name: str, content: bytes) -> Any:
    """As a browser sends a file."""
    cookie = f"__Host-certwright={me.cookie}"
    headers = {"accept": "text/html", "sec-fetch-site": "same-origin", "cookie": cookie}
    files = {"content": (name, content, "application/octet-stream")}
    return me.api.request("POST", path, files=files, headers=headers)


def test_an_organisation_is_added_edited_and_deleted_by_form(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    where = me.form("/organisations/new", FORM).headers["location"]
    shown = me.get(where).text
    assert "Beispiel Maschinenbau GmbH" in shown
    assert "+49301234567, found in: Das Örtliche" in shown
    assert "max@beispiel.example · +4930123456" in shown
    revision = me.get(f"{where}/edit").text.split('name="revision" value="')[1].split('"')[0]
    changed = me.form(f"{where}/edit", FORM | {"city": "Potsdam", "revision": revision})
    assert changed.headers["location"] == where
    assert "10115 Potsdam" in me.get(where).text
    stale = me.form(f"{where}/edit", FORM | {"city": "Bonn", "revision": revision})
    assert stale.status_code == 412
    assert "Bonn" in stale.text
    assert me.form(f"{where}/delete", {}).status_code == 200
    assert me.form(f"{where}/delete", {"confirmed": "yes"}).headers["location"] == "/organisations"
    assert me.get(where).status_code == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"country": "Germany"}, "country"),
        ({"jurisdiction_country": ""}, "jurisdiction_country"),
        ({"phone": "none"}, "phone"),
        ({"phone_source": ""}, "phone_source"),
        ({"registration_number": ""}, "registration_number"),
        ({"kind": "unlisted"}, "kind"),
        ({"contacts": "max@beispiel.example"}, "contacts"),
        ({"contacts": "Max <nowhere>"}, "contacts"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(api: Any, web: SignIn, changes: dict[str, str], field: str) -> None:
    answer = web(api.world.actor).form("/organisations/new", FORM | changes)
    assert answer.status_code in (409, 422)
    assert f'id="e-{field}-1"' in answer.text
    assert "Beispiel Maschinenbau GmbH" in answer.text


def test_what_belongs_to_another_account_is_not_there(api: Any, web: SignIn) -> None:
    one, case_id = _begun(api)
    stranger = web(api.world.other_actor)
    for path in (f"/organisations/{one.id}", f"/organisations/{one.id}/edit", f"/verifications/{case_id}"):
        assert stranger.get(path).status_code == 404
    assert stranger.form(f"/organisations/{one.id}/delete", {"confirmed": "yes"}).status_code == 404
    assert stranger.form(f"/verifications/{case_id}/way", {"way": "phone"}).status_code == 404
    assert _upload(stranger, f"/verifications/{case_id}/documents", "a.pdf", desk.PDF).status_code == 404
    # The desk is for people of the operator's account, whatever policies others give themselves.
    assert stranger.get(f"/desk/{case_id}").status_code == 404
    assert stranger.form(f"/desk/{case_id}/claim").status_code == 404
    assert case_id not in stranger.get("/desk").text
    assert web(api.world.actor).get(f"/desk/{case_id}").status_code == 200


def test_the_applicant_chooses_sends_and_sees_whose_turn_it_is(api: Any, web: SignIn) -> None:
    _one, case_id = _begun(api)
    me, base = web(api.world.actor), f"/verifications/{case_id}"
    assert "Choose how Beispiel Maschinenbau GmbH is verified." in me.get(base).text
    assert "Your turn" in me.get("/verifications").text
    refused = me.form(f"{base}/way", {"way": "pigeon"})
    assert refused.status_code == 422
    assert 'id="e-way-1"' in refused.text
    assert me.form(f"{base}/way", {"way": "documents"}).headers["location"] == base
    assert "Send an extract of the public register" in me.get(base).text

    assert me.form(f"{base}/documents", {}).status_code == 422  # no file
    wrong = _upload(me, f"{base}/documents", "page.html", b"<html>")
    assert wrong.status_code == 422
    assert 'id="e-content-1"' in wrong.text
    large = _upload(me, f"{base}/documents", "large.pdf", desk.PDF + b"0" * (11 * 1024 * 1024))
    assert large.status_code == 413
    sent = desk.PDF + b"0" * (9 * 1024 * 1024)
    assert _upload(me, f"{base}/documents", "Auszug.pdf", sent).headers["location"] == base
    page = me.get(base).text
    assert "Auszug.pdf" in page
    assert "In the queue" in page
    file = me.get(page.split(f'href="{base}/documents/')[1].split('"')[0].join((f"{base}/documents/", "")))
    assert file.content == sent
    assert file.headers["content-disposition"].startswith("attachment")


def test_a_mailed_link_shows_first_and_counts_once(api: Any, web: SignIn) -> None:
    one, case_id = _begun(api)
    (letter,) = desk.letters(api.world, case_id)
    token = desk.token_in(letter.text)
    nobody = web(None)
    away = nobody.get(f"/organisation-verification?token={token}")
    assert (away.status_code, away.headers["location"]) == (303, "/organisation-verification")
    cookie = away.headers["set-cookie"].split(";")[0]
    assert token in cookie
    for _look in range(2):
        assert one.facts.legal_name in nobody.get("/organisation-verification", cookie=cookie).text
    assert desk.state(api.world).state is organisations.State.AWAITING_CHOICE
    assert nobody.form("/organisation-verification", {"way": "pigeon"}, cookie=cookie).status_code == 422
    foreign = nobody.form("/organisation-verification", {"way": "phone"}, cookie=cookie, sec_fetch_site="cross-site")
    assert foreign.status_code == 403
    assert "is noted" in nobody.form("/organisation-verification", {"way": "phone"}, cookie=cookie).text
    assert desk.state(api.world).state is organisations.State.QUEUED
    again = nobody.form("/organisation-verification", {"way": "documents"}, cookie=cookie)
    assert again.status_code == 409
    assert "Choose this way" not in again.text
    assert nobody.get("/organisation-verification").status_code == 404


def _specialist(api: Any, web: SignIn, email: str) -> Any:
    """Signed in as a person of the operator with the specialists' policy."""
    who = desk.person(api.world, email)
    world = api.world
    world.run(
        access.people.attach_policy(world.services, world.actor, policy="validation_specialist", user_id=who.user_id)
    )
    return web(who)


def test_four_eyes_verify_an_ev_case_at_the_desk(api: Any, web: SignIn) -> None:
    _one, case_id = _begun(api, type="ev")
    desk.choose(api.world, case_id)
    cleo, dora = _specialist(api, web, "cleo@one.example"), _specialist(api, web, "dora@one.example")
    base = f"/desk/{case_id}"
    assert "Beispiel Maschinenbau GmbH" in cleo.get("/desk?state=queued").text
    assert cleo.form(f"{base}/claim").headers["location"] == base
    taken = dora.get(base).text
    assert "cleo@one.example is at work on it" in taken
    assert dora.form(f"{base}/claim").status_code == 409
    for item in organisations.rules.REQUIRED[organisations.Level.EV]:
        fields = {"item": item.value, "outcome": "passed", "source": "Handelsregister Berlin", "note": "seen"}
        assert cleo.form(f"{base}/checks", fields).headers["location"] == base
    nowhere = cleo.form(f"{base}/checks", {"item": "existence", "outcome": "passed", "source": ""})
    assert 'id="e-source-1"' in nowhere.text
    assert _upload(cleo, f"{base}/documents", "register.pdf", desk.PDF).headers["location"] == base

    def revision(who: Any) -> dict[str, str]:
        return {"revision": who.get(base).text.split('name="revision" value="')[1].split('"')[0]}

    assert cleo.form(f"{base}/approve", {"revision": "0"}).status_code == 412
    assert cleo.form(f"{base}/approve", revision(cleo)).headers["location"] == base
    page = cleo.get(base).text
    assert "approved by cleo@one.example" in page
    assert "the second look is a colleague's" in page
    assert f'action="{base}/approve"' not in page
    second = revision(dora)
    assert cleo.form(f"{base}/approve", second).status_code == 409
    assert dora.form(f"{base}/return", {"words": "Which register?"}).headers["location"] == base
    assert "Which register?" in cleo.get(base).text
    assert cleo.form(f"{base}/approve", revision(cleo)).headers["location"] == base
    assert dora.form(f"{base}/approve", revision(dora)).headers["location"] == base
    assert desk.state(api.world).state is organisations.State.VERIFIED
    assert "approved by dora@one.example" in dora.get(base).text


def test_refusing_asks_first_and_needs_reasons(api: Any, web: SignIn) -> None:
    _one, case_id = _begun(api)
    desk.choose(api.world, case_id)
    cleo, base = _specialist(api, web, "cleo@one.example"), f"/desk/{case_id}"
    cleo.form(f"{base}/claim")
    asked = cleo.form(f"{base}/refuse", {"reasons": "Not in the register."})
    assert asked.status_code == 200
    assert "Refuse this case?" in asked.text
    assert desk.state(api.world).state is organisations.State.IN_REVIEW
    empty = cleo.form(f"{base}/refuse", {"confirmed": "yes", "reasons": ""})
    assert 'id="e-reasons-1"' in empty.text
    both = {"confirmed": "yes", "reasons": "Not in the register.\nNo telephone."}
    assert cleo.form(f"{base}/refuse", both).headers["location"] == base
    assert desk.state(api.world).reasons == ("Not in the register.", "No telephone.")
    assert "Not in the register." in web(api.world.actor).get(f"/verifications/{case_id}").text


def test_nobody_verifies_their_own_application_at_the_desk(api: Any, web: SignIn) -> None:
    who = desk.person(api.world, "cleo@one.example")
    _one, case_id = _begun(api, applicant=desk.applicant(user_id=who.user_id))
    desk.choose(api.world, case_id)
    cleo = web(who)
    assert cleo.get(f"/desk/{case_id}").status_code == 403  # no policy yet
    me = web(api.world.actor)  # chose the way above
    assert "nobody verifies their own application" in me.get(f"/desk/{case_id}").text
    assert me.form(f"/desk/{case_id}/claim").status_code == 403


def test_an_organisation_is_added_and_its_verification_followed_without_any_script(play: Play) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(java_script_enabled=False, viewport={"width": 390, "height": 844}) as page:
            await console.set_up(page)
            await page.goto("/organisations")
            await page.get_by_role("link", name="Add an organization").first.click()
            await fill(
                page,
                {
                    "Legal name": "Beispiel GmbH", "Registration number": "HRB 1", "Registered in (country)": "DE",
                    "Street and number": "Hauptstraße 1", "City": "Berlin", "Country": "DE",
                    "Telephone": "+49 30 1234567", "Public directory it stands in": "Das Örtliche",
                },
            )  # fmt: skip
            await page.get_by_role("button", name="Add the organization").click()
            await expect(page.get_by_role("heading", name="Beispiel GmbH")).to_be_visible()
            await page.get_by_role("link", name="Apply for a certificate").click()
            await expect(page.get_by_role("radio", name="OV Names")).to_be_checked()
            await fill(page, {"Domain names": "www.example.org", "Phone": "+49 30 123456"})
            await page.get_by_label("Organization", exact=True).select_option("")
            await page.get_by_label("I agree that my name").check()
            await page.get_by_role("button", name="Review").click()
            await expect(page.locator("#e-organisation_id-1")).to_contain_text("name an organization")
            await page.get_by_label("Organization", exact=True).select_option(index=1)
            await page.get_by_role("button", name="Review").click()
            await expect(page.get_by_text("Beispiel GmbH")).to_be_visible()
            await page.get_by_role("button", name="Submit the application").click()
            await expect(page.get_by_role("status")).to_contain_text("submitted")
            await page.goto("/verifications")
            await page.get_by_role("link", name="Beispiel GmbH").click()
            await page.get_by_label("By telephone").check()
            await page.get_by_role("button", name="Choose this way").first.click()
            await expect(page.get_by_role("status")).to_contain_text("Your choice is noted.")
            await page.get_by_label("Document", exact=True).set_input_files(
                {"name": "extract.pdf", "mimeType": "application/pdf", "buffer": desk.PDF}
            )
            await page.get_by_role("button", name="Send the document").click()
            await expect(page.get_by_role("link", name="extract.pdf")).to_be_visible()
            await page.goto("/organisations")
            await page.get_by_role("link", name="Beispiel GmbH").click()
            await page.get_by_role("button", name="Delete…").click()
            await page.get_by_role("button", name="Delete the organization").click()
            await expect(page.get_by_role("alert")).to_contain_text("is being verified")

    play(scenario)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"no part at all"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="\x00"\r\n\r\na\r\n--x--\r\n',
        ),
    ],
    ids=["no boundary", "no part", "a part without a name", "a name with NUL"],
)
def test_a_form_with_a_file_that_cannot_be_read_is_refused(api: Any, web: SignIn, kind: str, body: bytes) -> None:
    _one, case_id = _begun(api)
    me = web(api.world.actor)
    headers = {"content-type": kind, "accept": "text/html", "sec-fetch-site": "same-origin",
               "cookie": f"__Host-certwright={me.cookie}"}  # fmt: skip
    answer = me.api.request("POST", f"/verifications/{case_id}/documents", content=body, headers=headers)
    assert answer.status_code == 422
    page = me.get(f"/verifications/{case_id}")
    assert page.status_code == 200
    assert "Documents you sent" not in page.text
