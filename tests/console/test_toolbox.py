"""The toolbox: each tool does its work from a plain form, and no answer gives back a key that was put in."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from certwright.entry.console.words import PART_FIELDS, PARTS, TOOLS
from certwright.platform.processes import Processes
from certwright.x509.csr import read_csr
from certwright.x509.keys import read_private_key, spki_sha256
from certwright.x509.workshop import containers, decode
from certwright.x509.workshop.containers import Kind, open_input
from tests.console.conftest import Console
from tests.console.test_flow import Play
from tests.console.test_for_everybody import _AUDIT
from tests.servers.processes import Here

SignIn = Callable[[Any], Any]

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def vector(name: str) -> str:
    return (VECTORS / name).read_text()


GOOD, KEY = vector("good.pem"), vector("keys/leaf.pem")
LOCKED = vector("locked.key")
PASSPHRASE = vector("passphrase.txt").strip()
SECRET_LINE = KEY.splitlines()[1]


@pytest.fixture
def me(api: Any, web: SignIn) -> Any:
    """The administrator's browser; the work is done here instead of in processes, whose start takes a second."""
    api.world.services.ports[Processes] = Here()
    api.world.clock.set(AT)
    return web(api.world.actor)


def send(me: Any, tool: str, fields: dict[str, str], files: list[tuple[str, tuple[str, bytes]]] | None = None) -> Any:
    """As a browser sends a form with files in it."""
    headers = {**me._headers({"sec-fetch-site": "same-origin"})}
    return me.api.request("POST", f"/toolbox/{tool}", data=fields, files=files or None, headers=headers)


def results_of(answer: Any) -> str:
    text: str = answer.text.replace("&#39;", "'").replace("&#34;", '"')
    return text.split('id="results"')[1].split(" data-inline=")[0]


def test_a_damaged_line_is_marked_beside_the_text_and_explained(me: Any) -> None:
    answer = me.form("/toolbox/check", {"certificate": vector("bad-character.pem"), "key": KEY})
    shown = results_of(answer)
    assert 'id="L-certificate-5" class="bad"' in shown
    assert 'href="#L-certificate-5"' in shown
    assert 'href="/guide/findings/bad_base64"' in shown
    assert SECRET_LINE not in answer.text
    assert (
        vector("bad-character.pem").splitlines()[1] in answer.text.split(" data-inline=")[1]
    )  # to be corrected in its field


def test_what_was_repaired_and_the_completed_chain_are_offered(me: Any) -> None:
    pem = vector("reversed.pem")
    shown = results_of(me.form("/toolbox/check", {"certificate": pem}))
    assert "Usable" in shown
    assert "the certificates were put in order" in shown
    assert "/guide/findings/repairs#root_included" in shown
    assert shown.count("-----BEGIN CERTIFICATE-----\n") == 4  # leaf and intermediate, to copy and to save


MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"certificate": ""}, "empty"),
    ({"certificate": "not a certificate at all"}, "not_pem"),
    ({"certificate": GOOD, "key": vector("other.key")}, "key_mismatch"),
    ({"certificate": GOOD, "key": LOCKED}, "key_encrypted"),
    ({"certificate": GOOD, "key": LOCKED, "passphrase": "nonsense"}, "wrong_passphrase"),
    ({"certificate": GOOD, "purpose": "client_ca"}, "not_a_ca"),
    ({"certificate": vector("leaf-only.pem"), "strict": "yes", "offline": "yes"}, "chain_missing"),
    ({"certificate": KEY, "key": GOOD}, "wrong_block"),
]


def test_each_mistake_has_its_finding_and_its_page(me: Any) -> None:
    for fields, code in MISTAKES:
        answer = me.form("/toolbox/check", fields)
        assert answer.status_code == 200, code
        assert f'href="/guide/findings/{code}"' in results_of(answer), code
        for secret in (SECRET_LINE, LOCKED.splitlines()[1], "nonsense"):
            assert secret not in answer.text, code


def test_files_of_any_format_are_taken_and_read_by_their_content(me: Any) -> None:
    pfx = (VECTORS / "openssl3.pfx").read_bytes()
    answer = send(
        me, "check", {"passphrase": PASSPHRASE}, [("certificate_file", ("holiday.jpg", pfx))]
    )  # fmt: skip
    assert "the private key belongs to it" in results_of(answer)
    shown = results_of(send(me, "inspect", {"passphrase": PASSPHRASE}, [("content_file", ("x", pfx))]))
    assert "PKCS#12 store (PFX)" in shown
    assert shown.count('<h2 id="part-') == 3
    assert "BEGIN" not in shown


def test_every_part_of_every_kind_of_file_has_words(me: Any) -> None:
    kinds, fields = set(), set()
    for path in sorted(VECTORS.iterdir()):
        if path.suffix in (".pem", ".key", ".p7b", ".der", ".txt", ".crt"):
            for item in open_input(path.read_bytes(), "x", PASSPHRASE.encode()).items:
                part = decode.part(item)
                kinds.add(part["kind"])
                fields |= set(part)
    assert {"certificate", "key", "csr", "crl"} <= kinds
    assert {kind.value for kind in Kind} == set(PARTS)
    assert fields - {"kind", "where", "problem"} <= set(PART_FIELDS)


def test_key_and_certificate_are_compared(me: Any) -> None:
    assert "They belong together." in results_of(me.form("/toolbox/match", {"content": GOOD, "key": KEY}))
    other = results_of(me.form("/toolbox/match", {"content": GOOD, "key": vector("other.key")}))
    assert "They don't belong together." in other
    alone = me.form("/toolbox/match", {"content": GOOD})
    assert alone.status_code == 422
    assert "There are not two things with a key in it." in alone.text


def test_a_pfx_needs_a_passphrase_and_is_sent_as_a_file(me: Any) -> None:
    refused = me.form("/toolbox/convert", {"content": GOOD + KEY, "to": "pfx"})
    assert refused.status_code == 422
    assert 'id="e-out_passphrase-1"' in refused.text
    assert SECRET_LINE not in refused.text
    made = me.form("/toolbox/convert", {"content": GOOD + KEY, "to": "pfx", "out_passphrase": " pelican "})
    assert made.headers["content-disposition"] == 'attachment; filename="www.example.com.pfx"'
    assert made.headers["cache-control"] == "no-store"
    inside = containers.open_input(made.content, "x", b" pelican ")
    assert [item.kind for item in inside.items].count(Kind.CERTIFICATE) == 2


def test_several_files_are_joined_split_and_packed(me: Any) -> None:
    files = [("content_file", ("a.pem", GOOD.encode())), ("content_file", ("b.key", KEY.encode()))]
    joined = send(me, "join", {}, files)
    assert joined.text.count("-----BEGIN ") == 3
    shown = results_of(send(me, "split", {}, files))
    assert [name in shown for name in ("certificate.pem", "chain-1.pem", "key.pem")] == [True] * 3
    packed = send(me, "bundle", {"server": "apache", "name": "shop"}, files)
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert {"shop.crt", "shop_chain.crt", "shop.key", "README.txt"} == set(archive.namelist())


def test_a_chain_that_can_t_be_completed_says_what_is_missing(me: Any) -> None:
    answer = me.form("/toolbox/chain", {"content": vector("leaf-only.pem"), "offline": "yes"})
    assert "An issuer is still missing: CN=Vector Issuing CA" in results_of(answer)
    assert "The chain is complete." in results_of(me.form("/toolbox/chain", {"content": vector("reversed.pem")}))


def test_a_new_key_is_shown_once_with_its_request(me: Any) -> None:
    answer = me.form("/toolbox/csr", {"names": "www.example.com\nbücher.example", "key_algorithm": "EC_P384"})
    shown = results_of(answer)
    key = shown[shown.index("-----BEGIN PRIVATE KEY") :].split("</pre>")[0]
    request = shown[shown.index("-----BEGIN CERTIFICATE REQUEST") :].split("</pre>")[0]
    facts = read_csr(open_input(request, "x").items[0].der)
    assert facts.dns_names == ("www.example.com", "xn--bcher-kva.example")
    assert spki_sha256(read_private_key(key.encode())) == facts.spki_sha256
    refused = me.form("/toolbox/csr", {"names": "https://www.example.com"})
    assert refused.status_code == 422
    assert 'id="e-names-1"' in refused.text


def test_a_passphrase_is_put_on_a_key_and_taken_off(me: Any) -> None:
    locked = me.form("/toolbox/key", {"key": KEY, "out_passphrase": "pelican"})
    assert "BEGIN ENCRYPTED PRIVATE KEY" in locked.text
    opened = me.form("/toolbox/key", {"key": locked.text, "passphrase": "pelican", "form": "sec1"})
    assert opened.text.startswith("-----BEGIN EC PRIVATE KEY-----")
    refused = me.form("/toolbox/key", {"key": KEY, "form": "pkcs1"})
    assert "Only RSA keys have the form pkcs1." in refused.text
    assert SECRET_LINE not in refused.text


def test_a_tool_without_input_says_so(me: Any) -> None:
    for tool in sorted(set(TOOLS) - {"csr", "check"}):
        answer = me.form(f"/toolbox/{tool}", {})
        assert answer.status_code == 422, tool
        assert "Nothing was pasted" in answer.text or "There is no private key." in answer.text, tool


def test_what_a_page_shows_can_be_saved_under_a_harmless_name(me: Any) -> None:
    saved = me.form("/toolbox/save", {"name": '../"x".pem', "content": GOOD.replace("\n", "\r\n")})
    assert saved.text == GOOD
    assert saved.headers["content-disposition"] == 'attachment; filename="_x_.pem"'


def test_more_than_a_form_may_hold_is_refused_on_a_page(me: Any) -> None:
    large = [("certificate_file", ("x", bytes(2 * 1024 * 1024 + 10)))]
    answer = send(me, "check", {}, large)
    assert answer.status_code == 413
    assert "form_too_large" in answer.text
    answer = send(me, "check", {}, [("certificate_file", ("x", bytes(1024 * 1024 + 10)))])
    assert 'href="/guide/findings/too_large"' in answer.text


def test_strangers_and_foreign_sites_are_refused(api: Any, web: SignIn) -> None:
    assert web(None).form("/toolbox/inspect", {"content": GOOD}).status_code == 303
    assert web(api.world.actor).form("/toolbox/key", {"key": KEY}, sec_fetch_site="cross-site").status_code == 403


async def _fits(page: Page) -> None:
    assert await page.evaluate(_AUDIT) == []


def test_in_a_browser_files_and_keys_stay_in_their_fields_and_nothing_secret_is_in_an_address(
    play: Play, tmp_path: Path
) -> None:
    async def scenario(console: Console) -> None:
        console.services.ports[Processes] = Here()  # type: ignore[index]
        async with console.page(viewport={"width": 390, "height": 844}) as page:
            await console.set_up(page)
            for height in (900, 720):
                await page.set_viewport_size({"width": 1280, "height": height})
                rail = page.get_by_role("navigation", name="Main").locator("visible=true")
                assert await rail.evaluate("(e) => e.scrollHeight <= e.clientHeight"), f"the rail scrolls at {height}"
            await page.set_viewport_size({"width": 390, "height": 844})
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            await page.goto("/toolbox/check")
            await page.get_by_label("Certificate", exact=True).fill(vector("bad-character.pem"))
            await page.get_by_label("Private key", exact=True).fill(KEY)
            await page.get_by_role("button", name="Check").click()
            await expect(page.get_by_role("heading", name="Not usable as it is")).to_be_visible()
            await expect(page.get_by_label("Private key", exact=True)).to_have_value(KEY)
            await _fits(page)
            await page.get_by_role("link", name="certificate, block 1, line 5").click()
            await expect(page.locator("#L-certificate-5")).to_be_in_viewport()

            await page.goto("/toolbox/key")
            await page.get_by_label("or a file").set_input_files(VECTORS / "keys" / "leaf.pem")
            await page.get_by_label("New passphrase").fill("pelican")
            async with page.expect_download() as waiting:
                await page.get_by_role("button", name="Download the key").click()
            await (await waiting.value).save_as(tmp_path / "made.key")
            assert read_private_key((tmp_path / "made.key").read_bytes(), b"pelican")
            assert page.url == f"{console.url}/toolbox/key"

            await page.goto("/toolbox/inspect")
            drop = (
                """(place) => {
              const files = new DataTransfer();
              files.items.add(new File(['"""
                + GOOD.replace("\n", "\\n")
                + """'], 'www.pem'));
              for (const kind of ['dragenter', 'dragover', 'drop'])
                place.dispatchEvent(new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true}));
            }"""
            )
            await page.get_by_label("File", exact=True).evaluate(drop)
            await page.get_by_role("button", name="Look inside").click()
            await expect(page.get_by_role("heading", name="Certificate").first).to_be_visible()
            await _fits(page)
            assert not [url for url in asked if SECRET_LINE[:20] in url or "pelican" in url]

    play(scenario)
