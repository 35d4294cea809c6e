"""The console's page of CSRs: in-process for what is refused, in a real browser for how it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Dialog, expect

from certwright.rooms import csrs
from certwright.x509.csr import make_csr, to_pem
from certwright.x509.keys import KeyAlgorithm, generate, read_private_key, to_pkcs8_pem
from tests.console.conftest import Console, fill
from tests.console.test_flow import Play

SignIn = Callable[[Any], Any]

KEY = generate(KeyAlgorithm.EC_P256)
REQUEST = to_pem(make_csr(KEY, ["a.example.org"])).decode()
SECRET = to_pkcs8_pem(KEY).decode()


def _made(api: Any, **fields: Any) -> csrs.Csr:
    world = api.world
    return world.run(csrs.generate(world.services, world.actor, names=["www.example.org"], **fields))


def test_a_refused_upload_says_why_beside_the_field_and_forgets_the_secrets(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    other = to_pkcs8_pem(generate(KeyAlgorithm.EC_P256)).decode()
    answer = me.form("/csrs/upload", {"csr": REQUEST, "private_key": other, "passphrase": "pelican", "name": "mine"})
    assert answer.status_code == 422
    assert 'id="e-private_key-1"' in answer.text
    assert REQUEST.splitlines()[1] in answer.text
    assert other.splitlines()[1] not in answer.text
    assert "pelican" not in answer.text


def test_a_wrong_subject_field_is_shown_at_its_input(api: Any, web: SignIn) -> None:
    answer = web(api.world.actor).form("/csrs/new", {"names": "www.example.org", "country": "Germany"})
    assert answer.status_code == 422
    assert 'id="e-country-1"' in answer.text
    assert "Germany" in answer.text


def test_a_key_is_fetched_by_post_from_our_own_page_only(api: Any, web: SignIn) -> None:
    csr, me = _made(api), web(api.world.actor)
    assert me.get(f"/csrs/{csr.id}/key").status_code in (303, 404, 405)
    assert me.form(f"/csrs/{csr.id}/key", {}, sec_fetch_site="cross-site").status_code == 403
    file = me.form(f"/csrs/{csr.id}/key", {"passphrase": " pelican "})
    assert file.headers["cache-control"] == "no-store"
    assert read_private_key(file.content, b" pelican ")
    assert web(api.world.other_actor).form(f"/csrs/{csr.id}/key", {}).status_code == 404
    assert web(api.world.other_actor).get(f"/csrs/{csr.id}").status_code == 404


def test_deleting_asks_first(api: Any, web: SignIn) -> None:
    csr, me = _made(api), web(api.world.actor)
    asked = me.form(f"/csrs/{csr.id}/delete", {"about": csr.name})
    assert asked.status_code == 200
    assert "erased for good" in asked.text
    assert me.get(f"/csrs/{csr.id}").status_code == 200
    assert me.form(f"/csrs/{csr.id}/delete", {"confirmed": "yes"}).headers["location"] == "/csrs"
    assert me.get(f"/csrs/{csr.id}").status_code == 404


def test_lists_search_and_page(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    for number in range(21):
        _made(api, name=f"shop-{number:02}")
        api.world.later(seconds=1)
    first = me.get("/csrs").text
    assert first.count("/csrs/csr_") == 20
    assert "shop-20" in first
    assert "shop-00" not in first
    next_href = first.split('class="btn btn-small" href="')[1].split('"')[0].replace("&amp;", "&")
    assert "shop-00" in me.get(next_href).text
    assert me.get("/csrs?q=shop-07").text.count("/csrs/csr_") == 1
    assert "No CSR matches" in me.get("/csrs?q=nothing").text


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (390, "dark")], ids=["a desk by day", "a telephone at night"]
)
def test_making_copying_downloading_renaming_and_deleting(play: Play, tmp_path: Path, width: int, scheme: str) -> None:
    async def scenario(console: Console) -> None:
        size = {"width": width, "height": 900}
        async with console.page(
            viewport=size, color_scheme=scheme, permissions=["clipboard-read", "clipboard-write"]
        ) as page:
            await console.set_up(page)
            await page.goto("/csrs")
            await expect(page.get_by_role("heading", name="No CSRs yet")).to_be_visible()
            await page.get_by_role("link", name="Make a CSR").first.click()
            await fill(page, {"Domain names and addresses": "www.example..org", "What to call it here": "www-2026"})
            await page.get_by_role("button", name="Make the CSR").click()
            await expect(page.get_by_label("Domain names and addresses")).to_have_attribute("aria-invalid", "true")
            await fill(page, {"Domain names and addresses": "www.example.org\nbücher.example"})
            await page.get_by_text("Subject fields").click()
            await fill(page, {"Organization (O)": "Example Ltd", "Country (C)": "de"})
            await page.get_by_role("button", name="Make the CSR").click()
            await expect(page.get_by_role("heading", name="www-2026")).to_be_visible()
            await expect(page.get_by_text("xn--bcher-kva.example")).to_be_visible()
            await expect(page.get_by_text("Example Ltd")).to_be_visible()
            fits = "document.documentElement.scrollWidth <= window.innerWidth"
            assert await page.evaluate(fits)

            await page.get_by_role("button", name="Copy: CSR").click()
            await page.wait_for_function(
                "navigator.clipboard.readText().then((text) => text === document.getElementById('pem').textContent)"
            )

            await fill(page, {"Passphrase": "pelican"})
            async with page.expect_download() as waiting:
                await page.get_by_role("button", name="Download the private key").click()
            download = await waiting.value
            assert download.suggested_filename == "www-2026.key"
            await download.save_as(tmp_path / "www.key")
            assert read_private_key((tmp_path / "www.key").read_bytes(), b"pelican")

            await page.get_by_role("link", name="Edit").click()
            await fill(page, {"Name here": "www-2027"})
            await page.get_by_role("button", name="Save").click()
            await expect(page.get_by_role("heading", name="www-2027")).to_be_visible()
            await page.goto("/csrs")
            assert await page.evaluate(fits)
            await page.get_by_role("link", name="www-2027").click()

            questions: list[str] = []

            async def confirm(dialog: Dialog) -> None:
                questions.append(dialog.message)
                await dialog.accept()

            page.on("dialog", confirm)
            await page.get_by_role("button", name="Delete…").click()
            await expect(page.get_by_role("heading", name="No CSRs yet")).to_be_visible()
            assert "erased for good" in questions[0]

    play(scenario)


def test_uploading_and_deleting_without_any_script(play: Play) -> None:
    async def scenario(console: Console) -> None:
        async with console.page(java_script_enabled=False) as page:
            await console.set_up(page)
            await page.goto("/csrs/upload")
            await fill(page, {"CSR": REQUEST, "Private key": SECRET, "What to call it here": "mine"})
            await page.get_by_role("button", name="Upload").click()
            await expect(page.get_by_role("status")).to_contain_text("Added.")
            await expect(page.get_by_text("held here, encrypted")).to_be_visible()
            await page.get_by_role("button", name="Delete…").click()
            await page.get_by_role("link", name="Cancel").click()
            await expect(page.get_by_role("heading", name="mine")).to_be_visible()
            await page.get_by_role("button", name="Delete…").click()
            await page.get_by_role("button", name="Delete the CSR").click()
            await expect(page.get_by_role("status")).to_contain_text("Deleted.")

    play(scenario)
