"""Uploading in the console: what is repaired and what remains, the saved certificate, a newer one, the downloads."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from playwright.async_api import expect

from certwright.platform.processes import Processes
from certwright.x509 import bundles
from certwright.x509.bundles import Contents, Server, install_note
from certwright.x509.keys import read_private_key
from certwright.x509.workshop.containers import open_input
from tests.console.conftest import Console
from tests.console.test_flow import Play
from tests.console.test_for_everybody import _AUDIT
from tests.console.test_toolbox import GOOD, KEY, LOCKED, SECRET_LINE, VECTORS, vector
from tests.servers.processes import Here

SignIn = Callable[[Any], Any]
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def me(api: Any, web: SignIn) -> Any:
    """The administrator's browser; the work is done here instead of in processes, whose start takes a second."""
    api.world.services.ports[Processes] = Here()
    api.world.clock.set(AT)
    return web(api.world.actor)


def _saved(me: Any, **fields: str) -> str:
    """The address of the certificate that the good vector becomes."""
    answer = me.form("/certificates/upload", {"certificate": GOOD, "key": KEY, **fields})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def test_a_reversed_chain_with_its_root_is_put_right_saved_and_told(me: Any) -> None:
    address = _saved(me, certificate=vector("reversed.pem"), name="shop", tags="team=web\nold", description="The shop")
    page = me.get(address).text
    assert "What was found in it" in page
    assert "the certificates were put in order" in page
    assert "team: web" in page
    assert "Hosted" in page
    assert SECRET_LINE not in page


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"certificate": vector("bad-character.pem"), "key": KEY}, "bad_base64"),
    ({"certificate": GOOD}, "key_missing"),
    ({"certificate": GOOD, "key": vector("other.key")}, "key_mismatch"),
    ({"certificate": GOOD, "key": vector("parameters-only.key")}, "ec_parameters_only"),
    ({"certificate": GOOD, "key": LOCKED, "passphrase": "pelican"}, "wrong_passphrase"),
    ({"certificate": vector("leaf-only.pem"), "key": KEY, "strict": "yes"}, "chain_missing"),
    ({"certificate": vector("rsa-1024.pem")}, "weak_key"),
    ({"certificate": GOOD, "purpose": "client_ca"}, "not_a_ca"),
]


def test_a_refused_upload_is_explained_and_forgets_its_secrets(me: Any) -> None:
    for fields, code in REFUSED:
        answer = me.form("/certificates/upload", fields)
        assert answer.status_code == 422, code
        assert f'href="/guide/findings/{code}"' in answer.text, code
        assert SECRET_LINE not in answer.text, code
        assert "pelican" not in answer.text, code
    assert "/certificates/cert_" not in me.get("/certificates").text


def test_checking_first_saves_nothing(me: Any) -> None:
    answer = me.form("/certificates/upload", {"certificate": GOOD, "key": KEY, "step": "check"})
    assert answer.status_code == 200
    assert "Usable" in answer.text
    assert "are never sent back" in answer.text
    assert "/certificates/cert_" not in me.get("/certificates").text


def test_the_same_certificate_again_is_refused_with_the_one_that_is_there(me: Any) -> None:
    _saved(me, name="first")
    answer = me.form("/certificates/upload", {"certificate": GOOD, "key": KEY})
    assert answer.status_code == 422
    assert "first" in answer.text
    assert "/guide/findings/duplicate" in answer.text


def _old_device() -> tuple[str, str]:
    """A certificate on RSA 1024 and its key, as an old device brings them."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "printer.example.com")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(AT - timedelta(days=1))
        .not_valid_after(AT + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("printer.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()


def test_a_weak_key_that_the_account_admits_keeps_its_warning_on_the_certificate_s_page(me: Any) -> None:
    certificate, key = _old_device()
    upload = {"certificate": certificate, "key": key, "private": "yes", "offline": "yes"}
    assert me.form("/certificates/upload", upload).status_code == 422
    settings = me.get("/settings").text
    revision = settings.split('action="/settings/uploads"')[1].split('name="revision" value="')[1].split('"')[0]
    assert me.form("/settings/uploads", {"legacy_rsa": "yes", "revision": revision}).status_code == 303
    done = me.form("/certificates/upload", upload)
    assert done.status_code == 303, done.text
    page = me.get(done.headers["location"]).text
    assert '<span class="state warn">Warning</span>' in page
    assert "/guide/findings/weak_key" in page
    # Stays, whatever the account admits later.
    assert me.form("/settings/uploads", {"revision": str(int(revision) + 1)}).status_code == 303
    assert "/guide/findings/weak_key" in me.get(done.headers["location"]).text


def test_a_newer_file_takes_the_place_of_the_old_one(me: Any) -> None:
    address = _saved(me)
    assert "Replace…" in me.get(address).text
    form = me.get(f"{address}/replace").text
    assert "www.example.com" in form
    same = me.form(f"{address}/replace", {"certificate": GOOD, "key": KEY})
    assert same.status_code == 422
    newer = {"certificate": vector("key-reused.pem"), "key": KEY, "offline": "yes"}
    checked = me.form(f"{address}/replace", newer | {"step": "check"})
    assert "/guide/findings/key_reused" in checked.text
    done = me.form(f"{address}/replace", newer)
    assert done.headers["location"] == address, done.text
    page = me.get(address).text
    assert "Version 2, uploaded by" in page
    assert "Earlier versions" in page


def test_a_ca_for_clients_is_uploaded_without_a_key(me: Any) -> None:
    page = me.get("/certificates/upload?purpose=client_ca").text
    assert "Private key" not in page
    answer = me.form("/certificates/upload", {"purpose": "client_ca", "certificate": vector("issuing.crt")})
    assert answer.status_code == 303
    refused = me.form("/certificates/upload", {"purpose": "client_ca", "certificate": GOOD + KEY})
    assert SECRET_LINE not in refused.text


def test_the_script_s_answer_names_where_to_go_and_keeps_what_is_said(me: Any) -> None:
    answer = me.form("/certificates/upload", {"certificate": GOOD, "key": KEY}, x_inline="yes")
    assert answer.status_code == 204
    assert answer.headers["x-go"].startswith("/certificates/cert_")
    assert "certwright-said=uploaded" in answer.headers["set-cookie"]


# --- downloads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_key", [True, False], ids=["with a key", "without one"])
@pytest.mark.parametrize("server", Server)
def test_the_note_that_is_shown_is_the_note_in_the_archive(server: Server, has_key: bool) -> None:
    ders = [item.der for item in open_input(GOOD, "x").items]
    key = read_private_key(KEY.encode()) if has_key else None
    if key is None and server in bundles._NEED_KEY:
        return
    for chain in (ders, ders[:1]):
        root = ders[1] if server is Server.CHAIN else None
        packed = bundles.archive(server, Contents("*.a.example", chain, key, root), at=AT, random=bytes)
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            there = archive.read("README.txt").decode()
        said = install_note(
            server, "*.a.example", has_key=has_key, has_chain=len(chain) > 1, has_root=root is not None
        )  # fmt: skip
        assert said == there


def test_every_server_is_offered_with_its_note_and_keys_are_never_read_by_a_link(me: Any) -> None:
    address = _saved(me, name="shop")
    page = me.get(f"{address}/downloads").text
    for server in ("nginx", "Apache", "Tomcat", "IIS", "HAProxy", "Kubernetes", "WebLogic", "Resin"):
        assert f'<span class="strong">{server}</span>' in page
    assert "ssl_certificate_key /etc/nginx/certs/shop.key;" in page
    for kind in ("key", "nginx", "tomcat", "kubernetes", "haproxy"):
        assert me.get(f"{address}/download?format={kind}").status_code == 404, kind
        assert me.form(f"{address}/download", {"format": kind}).status_code == 200, kind
    for kind in ("fullchain", "leaf", "chain", "pem", "der", "p7b"):
        assert me.get(f"{address}/download?format={kind}").status_code == 200, kind
        assert b"PRIVATE KEY" not in me.get(f"{address}/download?format={kind}").content


def test_another_account_sees_nothing_of_it(api: Any, me: Any, web: SignIn) -> None:
    address = _saved(me)
    other = web(api.world.other_actor)
    for path in ("", "/replace", "/downloads"):
        assert other.get(address + path).status_code == 404, path
    assert other.form(f"{address}/replace", {"certificate": GOOD, "key": KEY}).status_code == 404


def test_without_scripts_and_with_one_the_way_is_the_same(play: Play) -> None:
    async def scenario(console: Console) -> None:
        console.services.ports[Processes] = Here()  # type: ignore[index]
        async with console.page(viewport={"width": 390, "height": 844}) as page:
            await console.set_up(page)
            state = await page.context.storage_state()
            await page.goto("/certificates")
            await page.get_by_role("link", name="Upload one you have").click()
            await page.get_by_label("Certificate", exact=True).fill(vector("reversed.pem"))
            await page.locator("#f-key-file").set_input_files(VECTORS / "other.key")
            await page.get_by_role("button", name="Check first").click()
            await expect(page.get_by_text("The private key isn't the one")).to_be_visible()
            assert await page.evaluate(_AUDIT) == []
            await page.locator("#f-key-file").set_input_files(VECTORS / "keys" / "leaf.pem")
            await page.get_by_role("button", name="Upload", exact=True).click()
            await expect(page.get_by_role("status")).to_contain_text("The certificate is uploaded.")
            await expect(page.get_by_role("heading", name="What was found in it")).to_be_visible()
            assert await page.evaluate(_AUDIT) == []
            await page.goto(page.url + "/downloads")
            await page.get_by_text("How to install it").first.click()
            await expect(page.get_by_text("sudo nginx -t")).to_be_visible()
            assert await page.evaluate(_AUDIT) == []
        async with console.page(java_script_enabled=False, storage_state=state) as page:
            await page.goto("/certificates/upload")
            await page.get_by_label("Certificate", exact=True).fill(vector("p384.pem"))
            await page.get_by_role("button", name="Check first").click()
            await expect(page.get_by_text("There is no private key.")).to_be_visible()
            await expect(page.get_by_label("Certificate", exact=True)).to_have_value(vector("p384.pem"))
            await page.locator("#f-key-file").set_input_files(VECTORS / "keys" / "p384.pem")
            await page.get_by_role("button", name="Upload", exact=True).click()
            await expect(page.get_by_role("status")).to_contain_text("The certificate is uploaded.")

    play(scenario)
