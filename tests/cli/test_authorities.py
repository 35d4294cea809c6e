"""`certwright authorities …` against a running product."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certwright.x509 import issue
from certwright.x509.certificates import facts_of, read_certificate, to_pem
from certwright.x509.csr import read_csr_key
from certwright.x509.keys import KeyAlgorithm, generate, to_pkcs8_pem

from .conftest import Command


def document(command: Command, *words: str, **kwargs: Any) -> Any:
    done = command(*words, "--json", **kwargs)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_hierarchy_is_made_led_and_ended(signed_in: Command) -> None:
    root = document(signed_in, "authorities", "create", "CLI root", "--organization", "Ex")
    low = document(
        signed_in, "authorities", "create", "CLI shop", "--parent", "CLI root", "--path-len", "0", "--permit",
        "shop.example", "--permit", "10.0.0.0/8", "--purpose", "client_auth", "--ocsp",
    )  # fmt: skip
    assert (low["parent_id"], low["permitted"]) == (root["id"], ["shop.example", "10.0.0.0/8"])
    assert "BEGIN CERTIFICATE" in signed_in("authorities", "show", "CLI shop", "--pem").out
    assert document(signed_in, "authorities", "edit", "CLI shop", "--crl-days", "3")["crl_days"] == 3
    assert signed_in("authorities", "edit", "CLI shop").code == 2
    refused = signed_in("authorities", "delete", "CLI shop", "--yes")
    assert (refused.code, "ca_delete_refused" in refused.err) == (1, True)
    assert document(signed_in, "authorities", "disable", "CLI shop")["state"] == "disabled"
    assert signed_in("authorities", "delete", "CLI shop").code == 2
    assert document(signed_in, "authorities", "delete", "CLI shop", "--days", "8", "--yes")["state"] == "deleted"
    assert document(signed_in, "authorities", "restore", "CLI shop")["state"] == "disabled"
    assert document(signed_in, "authorities", "enable", "CLI shop")["state"] == "active"
    assert document(signed_in, "authorities", "revoke", "CLI shop", "--yes")["state"] == "revoked"


def test_a_parent_outside_signs_the_request_and_an_old_ca_is_brought(signed_in: Command, tmp_path: Path) -> None:
    waiting = signed_in("authorities", "create", "CLI below outside", "--outside", "--path-len", "0")
    assert waiting.code == 0, waiting.err
    assert "BEGIN CERTIFICATE REQUEST" in waiting.out
    request = signed_in("authorities", "show", "CLI below outside", "--pem").out
    key = generate(KeyAlgorithm.EC_P256)

    def sign(profile: Any, name: str, public: Any, issuer: Any) -> bytes:
        start, end = issue.validity(profile, issuer, at=datetime.now(UTC), seconds=3600 * 24 * 90)
        linted = issue.approve(
            issue.draft_certificate(
                profile=profile, subject=issue.Subject(common_name=name), names=(), public_key=public, issuer=issuer,
                serial=issue.new_serial(), not_before=start, not_after=end,
            )
        )  # fmt: skip
        return issue.assemble(linted, issue.sign_with_key(key, linted.tbs))

    parent = sign(replace(issue.ROOT, path_len=None), "CLI outside root", key.public_key(), None)
    child = sign(
        replace(issue.ISSUING, crl_url=False, aia_url=False), "CLI child", read_csr_key(request.encode()),
        issue.issuer_facts(parent),
    )  # fmt: skip
    (tmp_path / "child.pem").write_text(to_pem(child) + to_pem(parent))
    installed = document(signed_in, "authorities", "install", "CLI below outside", "child.pem")
    assert (installed["state"], installed["subject"]) == ("active", "CN=CLI child")

    (tmp_path / "old.pem").write_text(to_pem(parent))
    (tmp_path / "old.key").write_bytes(to_pkcs8_pem(key, b"pelican"))
    wrong = signed_in("authorities", "import", "CLI old", "--certificate", "old.pem", "--key", "old.key")
    assert (wrong.code, "key_encrypted" in wrong.err) == (1, True)
    brought = document(
        signed_in, "authorities", "import", "CLI old", "--certificate", "old.pem", "--key", "old.key",
        "--passphrase-stdin", "--crl-number", "9", stdin="pelican\n",
    )  # fmt: skip
    assert (brought["kind"], brought["origin"]) == ("root", "imported")


def test_certificates_for_people_and_devices(signed_in: Command, tmp_path: Path) -> None:
    (tmp_path / "vpn.json").write_text(json.dumps({"extended_key_usage": ["ipsec_ike", "client_auth"], "max_days": 20}))
    assert document(signed_in, "authorities", "profiles", "set", "cli-vpn", "vpn.json")["revision"] == 1
    (tmp_path / "vpn.json").write_text(json.dumps({"extended_key_usage": ["client_auth"], "max_days": 10}))
    assert document(signed_in, "authorities", "profiles", "set", "cli-vpn", "vpn.json")["revision"] == 2
    assert "cli-vpn" in signed_in("authorities", "profiles", "list").out

    made = document(signed_in, "authorities", "issued", "new", "ann@example.com", "--cn", "Ann", "--profile", "cli-vpn")
    ca = made["authority_id"]
    facts = read_certificate(made["certificate_pem"].encode())
    assert (facts.subject, facts.eku) == ("CN=Ann", ("1.3.6.1.5.5.7.3.2",))
    assert made["id"] in document(signed_in, "authorities", "issued", "list", ca)["items"][0]["id"]
    wrong = signed_in("authorities", "issued", "new", "x y", "--profile", "server")
    assert wrong.code == 1

    table = "names,common_name,days\nbob@example.com,Bob,5\nbad name!,Eve,\nc@example.com d@example.com,Cy,\n"
    many = signed_in("authorities", "issued", "batch", "-", stdin=table)
    assert (many.code, many.out.count("CN="), "line 3:" in many.err) == (1, 2, True)
    assert signed_in("authorities", "issued", "batch", "-", stdin="nam\nx\n").code == 2

    exported = signed_in("authorities", "issued", "export", ca, made["id"], "--server", "iis", "-o", "ann.zip")
    assert exported.code == 0, exported.err
    path = tmp_path / "ann.zip"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert any(name.endswith(".pfx") for name in archive.namelist())
    shown = signed_in("authorities", "issued", "show", ca, made["id"], "--pem").out
    assert facts_of(read_certificate(shown.encode()).der).sha256 == made["sha256"]
    revoked = document(signed_in, "authorities", "issued", "revoke", ca, made["id"], "--reason", "superseded", "--yes")
    assert revoked["revocation_reason"] == "superseded"
    assert signed_in("authorities", "issued", "delete", ca, made["id"], "--yes").code == 0
    assert "not_found" in signed_in("authorities", "issued", "show", ca, made["id"]).err
    assert signed_in("authorities", "profiles", "delete", "cli-vpn", "--yes").code == 0
