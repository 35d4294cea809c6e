"""The console's pages of private CAs: in-process for what is refused, in a real browser for how they are used."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Dialog, expect
from pydantic import SecretStr

from certwright.connectors.keykeeper import Pkcs11Token
from certwright.rooms import authorities
from certwright.x509.certificates import to_pem
from certwright.x509.issue import Subject
from tests.authorities.test_hierarchy import signed_outside
from tests.console.conftest import Console, fill
from tests.console.test_flow import Play

SignIn = Callable[[Any], Any]


@pytest.fixture
def issuing(api: Any) -> str:
    """Id of the built-in CA that issues."""
    world = api.world
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    world.drain()
    found = world.run(authorities.list_authorities(world.services, world.actor))
    return str(next(ca.id for ca in found if ca.kind != "root"))


def test_a_ca_is_made_led_and_ended_without_any_script(api: Any, web: SignIn, issuing: str) -> None:
    me = web(api.world.actor)
    wrong = me.form("/authorities/new", {"place": "root", "name": "Shop root", "country": "Germany"})
    assert wrong.status_code == 422
    assert 'id="e-common_name-1"' in wrong.text
    made = me.form("/authorities/new", {"place": "root", "name": "Shop root", "common_name": "Shop root"})
    root = made.headers["location"].partition("?")[0]
    number = me.form("/authorities/new", {"place": "root", "name": "X", "common_name": "X", "days": "many"})
    assert 'id="e-days-1"' in number.text
    odd = me.form(
        "/authorities/new", {"place": "root", "name": "X", "common_name": "X", "permitted_uris": "*.shop.example"}
    ).text  # fmt: skip
    assert ('id="e-name_constraints-1"' in odd, "has a star" in odd, "*.shop.example</textarea>" in odd) == (True,) * 3
    below = me.form(
        "/authorities/new",
        {"place": "below", "parent_id": root.rpartition("/")[2], "name": "Shop <b>", "common_name": "Shop",
         "path_len": "0", "permitted_dns": "shop.example", "permitted_emails": "@shop.example\nann@one.example",
         "permitted_uris": ".shop.example", "excluded_emails": "old.shop.example", "excluded_uris": "x.shop.example",
         "ocsp_enabled": "yes"},
    )  # fmt: skip
    low = below.headers["location"].partition("?")[0]
    shown = me.get(low).text
    assert "shop.example, email:shop.example, email:ann@one.example, uri:.shop.example" in shown
    assert "email:old.shop.example, uri:x.shop.example" in shown
    assert "Shop &lt;b&gt;" in shown
    assert "<b>" not in me.get("/authorities").text.replace("<body", "")
    assert "Disable this CA?" in me.form(f"{low}/disable", {"about": "Shop", "back": low}).text
    assert me.form(f"{low}/disable", {"confirmed": "yes"}).status_code == 303
    assert me.form(f"/authorities/{issuing}/delete", {"confirmed": "yes"}).status_code == 409
    assert me.form(f"{low}/delete", {"confirmed": "yes", "days": "14"}).status_code == 303
    assert "Restore it" in me.get(low).text
    assert me.form(f"{low}/restore", {}).status_code == 303
    assert me.form(f"{low}/enable", {}).status_code == 303
    edited = me.form(f"{low}/edit", {"revision": "1", "name": "Shop", "crl_days": "7", "crl_shards": "1"})
    assert edited.status_code == 412
    assert me.form(f"{low}/revoke", {"confirmed": "yes", "reason": "superseded"}).status_code == 303
    assert "Revoked" in me.get(low).text


def test_a_ca_that_certificates_end_with_is_revoked_by_its_name(api: Any, web: SignIn, issuing: str) -> None:
    me, world = web(api.world.actor), api.world
    top = authorities.CaRequest("Top", Subject(common_name="Top"), path_len=None)
    root = world.run(authorities.create_authority(world.services, world.actor, top))
    made = []
    for name, parent in (("Middle", root), ("Low & sons", None)):
        said = authorities.CaRequest(
            name, Subject(common_name=name), parent_id=(parent or made[-1]).id, path_len=1 if parent else 0
        )
        made.append(world.run(authorities.create_authority(world.services, world.actor, said)))
    middle, low = made
    for ca in (root, middle, low):
        assert "Type its name" not in me.get(f"/authorities/{ca.id}").text
    request = authorities.LeafRequest("client", (), Subject(common_name="Ann"))
    world.run(authorities.issue_leaves(world.services, world.actor, low.id, [request] * 2))
    assert "2 certificates end with it." in me.get(f"/authorities/{middle.id}").text
    sure = {"confirmed": "yes", "reason": "superseded"}
    # The question comes first where there are no scripts; what was typed goes along.
    assert 'name="typed_name" value="Low &amp; sons"' in me.form(
        f"/authorities/{low.id}/revoke", {"reason": "superseded", "typed_name": "Low & sons"}
    ).text  # fmt: skip
    for typed in ({}, {"typed_name": "low & sons"}):
        refused = me.form(f"/authorities/{low.id}/revoke", sure | typed)
        assert (refused.status_code, 'id="e-typed_name-1"' in refused.text) == (422, True)
    assert me.form(f"/authorities/{low.id}/revoke", sure | {"typed_name": " Low & sons "}).status_code == 303
    assert world.run(authorities.get_authority(world.services, world.actor, low.id)).state == "revoked"
    # With it they ended; the built-in CA is asked for by its name, whatever it issued.
    assert "Type its name" not in me.get(f"/authorities/{middle.id}").text
    assert "The product&#39;s own certificates end with it." in me.get(f"/authorities/{issuing}").text
    assert me.form(f"/authorities/{issuing}/revoke", sure).status_code == 422


def test_a_ca_is_renewed_on_its_page(api: Any, web: SignIn, issuing: str) -> None:
    world = api.world
    world.later(days=300)
    me, place = web(world.actor), f"/authorities/{issuing}"
    before = world.run(authorities.get_authority(world.services, world.actor, issuing))
    asked = {"about": before.name, "back": place, "revision": str(before.revision), "renew_days": "many"}
    assert "Renew this CA?" in me.form(f"{place}/renew", asked).text
    wrong = me.form(f"{place}/renew", asked | {"confirmed": "yes"})
    assert (wrong.status_code, 'id="e-renew_days-1"' in wrong.text) == (422, True)
    far = me.form(f"{place}/renew", asked | {"confirmed": "yes", "renew_days": "100000"})
    assert (far.status_code, 'id="e-renew_days-1"' in far.text) == (422, True)
    sure = asked | {"confirmed": "yes", "renew_days": ""}
    done = me.form(f"{place}/renew", sure)
    assert done.status_code == 303
    shown = me.get(done.headers["location"]).text
    assert "Renewed, with the same key" in shown
    after = world.run(authorities.get_authority(world.services, world.actor, issuing))
    assert after.not_after > before.not_after
    assert me.form(f"{place}/renew", sure).status_code == 412


def test_a_pending_ca_shows_its_request_and_takes_its_certificate(api: Any, web: SignIn) -> None:
    me, world = web(api.world.actor), api.world
    made = me.form("/authorities/new", {"place": "outside", "name": "Out", "common_name": "Out", "path_len": "0"})
    place = made.headers["location"].partition("?")[0]
    assert "BEGIN CERTIFICATE REQUEST" in me.get(place).text
    assert 'id="e-certificate_pem-1"' in me.form(f"{place}/install", {"certificate_pem": "nothing"}).text
    ca = world.run(authorities.get_authority(world.services, world.actor, place.rpartition("/")[2]))
    text = "".join(to_pem(der) for der in signed_outside(world, ca.csr_der))
    assert me.form(f"{place}/install", {"certificate_pem": text}).status_code == 303
    shown = me.get(place).text
    assert "As the parent wishes" in shown
    # The same request is good for the next certificate.
    assert "BEGIN CERTIFICATE REQUEST" in shown
    assert f'action="{place}/install"' in shown
    assert me.form(f"{place}/install", {"certificate_pem": text}).status_code == 409
    again = "".join(to_pem(der) for der in signed_outside(world, ca.csr_der))
    assert me.form(f"{place}/install", {"certificate_pem": again}).status_code == 303
    assert "Renewed, with the same key" in me.get(place).text


def test_a_wrong_import_forgets_the_secrets(api: Any, web: SignIn) -> None:
    secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0IHRleHQ=\n-----END PRIVATE KEY-----"
    answer = web(api.world.actor).form(
        "/authorities/import", {"name": "Old", "certificate_pem": "x", "private_key": secret, "passphrase": "pelican"}
    )
    assert answer.status_code == 422
    assert "c2VjcmV0" not in answer.text
    assert "pelican" not in answer.text


def test_a_client_certificate_is_issued_taken_along_revoked_and_deleted(api: Any, web: SignIn, issuing: str) -> None:
    me = web(api.world.actor)
    wrong = me.form(f"/authorities/{issuing}/issue", {"profile": "server", "names": "not a name"})
    assert 'id="e-names-1"' in wrong.text
    made = me.form(
        f"/authorities/{issuing}/issue", {"profile": "client", "names": "ann@example.com", "common_name": "Ann"}
    )
    place = made.headers["location"].partition("?")[0]
    assert "ann@example.com" in me.get(place).text
    file = me.form(f"{place}/export", {"server": "iis"})
    assert file.headers["cache-control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
        assert any(name.endswith(".pfx") for name in archive.namelist())
    assert me.form(f"{place}/export", {"server": "iis"}, sec_fetch_site="cross-site").status_code == 403
    assert "Revoke this certificate?" in me.form(f"{place}/revoke", {"about": "x", "back": place}).text
    assert me.form(f"{place}/revoke", {"confirmed": "yes", "reason": "superseded"}).status_code == 303
    assert "Superseded" in me.get(place).text
    stranger = web(api.world.other_actor)
    assert stranger.get(place).status_code == 404
    assert stranger.form(f"{place}/export", {"server": "pem"}).status_code == 404
    assert me.form(f"{place}/delete", {"confirmed": "yes"}).status_code == 303
    assert me.get(place).status_code == 404


def test_strangers_get_the_roots_one_by_one_and_all_in_one_file(api: Any, web: SignIn, issuing: str) -> None:
    me, world, stranger = web(api.world.actor), api.world, api.anonymous()
    made = me.form("/authorities/new", {"place": "root", "name": "Old root", "common_name": "Old root"})
    old = made.headers["location"].rpartition("/")[2]
    page = web(None).get("/ca").text
    assert "Old root" in page
    assert "https://cw.example/ca/roots.pem" in page
    whole = stranger.get("/ca/roots.pem")
    assert whole.headers["content-type"] == "application/x-pem-file"
    roots = [ca for ca in world.run(authorities.list_authorities(world.services, world.actor)) if ca.kind == "root"]
    assert whole.text == "".join(to_pem(ca.certificate_der) for ca in roots if ca.certificate_der)
    assert len(roots) == 2
    for change in ("disable", "delete"):
        assert me.form(f"/authorities/{old}/{change}", {"confirmed": "yes", "days": "7"}).status_code == 303
    assert "Old root" not in web(None).get("/ca").text
    assert stranger.get("/ca/roots.pem").text.count("BEGIN CERTIFICATE") == 1
    assert issuing not in {ca.id for ca in roots}


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (390, "dark")], ids=["a desk by day", "a telephone at night"]
)
def test_making_a_ca_and_a_client_certificate(play: Play, tmp_path: Path, width: int, scheme: str) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
            await console.set_up(page)
            await page.goto("/authorities")
            fits = "document.documentElement.scrollWidth <= window.innerWidth"
            await page.get_by_role("link", name="Make a CA").first.click()
            await page.get_by_text("A root of its own").click()
            await fill(page, {"What to call it here": "Shop root", "Common name (CN)": "Shop root"})
            await page.get_by_role("button", name="Make the CA").click()
            await expect(page.get_by_role("heading", name="Shop root", level=1)).to_be_visible()
            await page.get_by_role("link", name="Make a CA below it").click()
            await fill(page, {"What to call it here": "Shop clients", "Common name (CN)": "Shop clients"})
            await fill(page, {"Levels of CAs below it": "0"})
            await page.get_by_role("button", name="Make the CA").click()
            await expect(page.get_by_role("heading", name="Shop clients", level=1)).to_be_visible()
            await page.get_by_role("link", name="Issue a certificate").click()
            await fill(page, {"Common name (CN)": "Ann Example", "Names": "ann@example.com"})
            assert await page.evaluate(fits)
            await page.get_by_role("button", name="Issue", exact=True).click()
            await expect(page.get_by_role("heading", name="ann@example.com")).to_be_visible()
            assert await page.evaluate(fits)
            async with page.expect_download() as waiting:
                await page.get_by_role("button", name="Download").click()
            await (await waiting.value).save_as(tmp_path / "ann.zip")
            assert zipfile.is_zipfile(tmp_path / "ann.zip")
            page.on("dialog", _accept)
            await page.get_by_role("button", name="Revoke…").click()
            await expect(page.get_by_text("Superseded").or_(page.get_by_text("Unspecified")).first).to_be_visible()
            await page.goto("/authorities")
            assert await page.evaluate(fits)
            await page.get_by_role("link", name="Shop clients").click()
            await expect(page.get_by_role("link", name="ann@example.com")).to_be_visible()
            assert await page.evaluate(fits)

    play(scenario)


async def _accept(dialog: Dialog) -> None:
    await dialog.accept()


def test_a_key_in_the_hsm_can_be_chosen_where_there_is_one(api: Any, web: SignIn, tmp_path: Path) -> None:
    me, world = web(api.world.actor), api.world
    assert "key_store" not in me.get("/authorities/new").text
    form = {"place": "root", "name": "Shop root", "common_name": "Shop root", "key_store": "hsm"}
    refused = me.form("/authorities/new", form)
    assert (refused.status_code, "No HSM is set up" in refused.text) == (409, True)
    there = {"hsm_module": tmp_path / "missing.so", "hsm_token_label": "cas", "hsm_pin": SecretStr("4711")}
    changed = world.services.settings.model_copy(update=there)
    object.__setattr__(world.services, "settings", changed)
    world.services.ports[authorities.Token] = Pkcs11Token(changed)
    assert "in the HSM, token cas" in me.get("/authorities/new").text
    away = me.form("/authorities/new", form)
    assert "missing.so isn&#39;t there" in away.text
    assert "in the HSM, token cas" in away.text
    made = me.form("/authorities/new", form | {"key_store": "software"}).headers["location"].partition("?")[0]
    assert "sealed in the database" in me.get(made).text


def test_an_ml_dsa_ca_is_labelled_wherever_it_stands(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    assert "ML-DSA-65 (experimental)" in me.get("/authorities/new").text
    made = me.form(
        "/authorities/new", {"place": "root", "name": "PQ", "common_name": "PQ", "key_algorithm": "ML_DSA_87"}
    )
    place = made.headers["location"].partition("?")[0]
    assert "few clients verify" in me.get(place).text
    assert "NONE" not in me.get(place).text.upper().partition("<DT>KEY</DT>")[2].partition("</DD>")[0]
    assert "experimental" in me.get("/authorities").text
    # What is applied for, requested or issued by hand has keys that clients know.
    for page in ("/authorities/new", "/certificates/new", "/csrs/new", f"{place}/issue", "/toolbox/csr"):
        shown = me.get(page)
        assert (shown.status_code, "EC P-256" in shown.text) == (200, True), page
        assert ("ML-DSA" in shown.text) == (page == "/authorities/new"), page
