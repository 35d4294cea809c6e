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

import pytest

from certwright.entry.acme_clients import Asked, recipes
from certwright.entry.cli import common
from certwright.x509 import issue
from certwright.x509.certificates import facts_of, read_certificate, read_certificates, to_pem
from certwright.x509.csr import make_csr, read_csr_key
from certwright.x509.csr import to_pem as csr_to_pem
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
        "shop.example", "--permit", "10.0.0.0/8", "--permit", "ann@shop.example", "--permit", "URI:.shop.example",
        "--exclude", "email:old.shop.example", "--purpose", "client_auth", "--ocsp",
    )  # fmt: skip
    permitted = ["shop.example", "10.0.0.0/8", "email:ann@shop.example", "uri:.shop.example"]
    assert (low["parent_id"], low["permitted"]) == (root["id"], permitted)
    assert low["excluded"] == ["email:old.shop.example"]
    assert "BEGIN CERTIFICATE" in signed_in("authorities", "show", "CLI shop", "--pem").out
    assert document(signed_in, "authorities", "edit", "CLI shop", "--crl-days", "3")["crl_days"] == 3
    assert signed_in("authorities", "edit", "CLI shop").code == 2
    refused = signed_in("authorities", "delete", "CLI shop", "--yes")
    assert (refused.code, "ca_delete_refused" in refused.err) == (1, True)
    renewed = signed_in("authorities", "renew", "CLI root", "--days", "8000", "--yes")
    assert (renewed.code, "active" in renewed.out) == (0, True)
    assert signed_in("authorities", "renew", "CLI root", "--days", "8000").code == 2
    worthless = signed_in("authorities", "renew", "CLI root", "--days", "8000", "--yes")
    assert (worthless.code, "ca_renewal_gains_nothing" in worthless.err) == (1, True)
    assert document(signed_in, "authorities", "disable", "CLI shop")["state"] == "disabled"
    assert signed_in("authorities", "delete", "CLI shop").code == 2
    assert document(signed_in, "authorities", "delete", "CLI shop", "--days", "8", "--yes")["state"] == "deleted"
    assert document(signed_in, "authorities", "restore", "CLI shop")["state"] == "disabled"
    assert document(signed_in, "authorities", "enable", "CLI shop")["state"] == "active"
    assert document(signed_in, "authorities", "revoke", "CLI shop", "--yes")["state"] == "revoked"


def test_a_ca_is_revoked_by_typing_its_name(signed_in: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    document(signed_in, "authorities", "create", "CLI tall", "--organization", "Ex")
    low = document(signed_in, "authorities", "create", "CLI short", "--parent", "CLI tall", "--path-len", "0")
    nobody = signed_in("authorities", "revoke", "CLI short")
    assert (nobody.code, "add --yes" in nobody.err) == (2, True)
    monkeypatch.setattr(common, "someone_is_there", lambda: True)
    for answer in ("y", "CLI tall"):
        refused = signed_in("authorities", "revoke", low["id"], stdin=f"{answer}\n")
        assert (refused.code, "That isn't 'CLI short': nothing was done." in refused.err) == (2, True)
    assert document(signed_in, "authorities", "show", low["id"])["state"] == "active"
    assert signed_in("authorities", "revoke", low["id"], stdin="CLI short\n").code == 0
    assert document(signed_in, "authorities", "show", low["id"])["state"] == "revoked"


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
    chain = signed_in("authorities", "show", "CLI below outside", "--chain").out
    assert [facts.subject for facts in read_certificates(chain.encode())] == ["CN=CLI child", "CN=CLI outside root"]

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

    table = (
        "names,common_name,days\nbob@example.com,Bob,5\nbad name!,Eve,\nc@example.com d@example.com,Cy,\n"
        "d@example.com,Di,0\n"
    )
    many = signed_in("authorities", "issued", "batch", "-", stdin=table)
    assert (many.code, many.out.count("CN="), "line 3:" in many.err, "line 5:" in many.err) == (1, 2, True, True)
    assert signed_in("authorities", "issued", "batch", "-", stdin="nam\nx\n").code == 2
    mixed = signed_in("authorities", "issued", "batch", "-", stdin="names,days\ne@example.com,ten\nf@example.com,5\n")
    assert (mixed.code, "f@example.com" in mixed.out, "line 2: 'ten'" in mixed.err) == (1, True, True)
    for name in ("g.example", "h.example"):
        (tmp_path / f"{name}.csr").write_bytes(csr_to_pem(make_csr(generate(KeyAlgorithm.EC_P256), (name,))))
    several = signed_in("authorities", "issued", "batch", "g.example.csr", "h.example.csr", "--profile", "server")
    assert (several.code, several.out.count(".example")) == (0, 2)

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


def test_a_ca_elsewhere_is_certified(signed_in: Command, tmp_path: Path) -> None:
    top = document(signed_in, "authorities", "create", "CLI top", "--path-len", "1")
    below = document(signed_in, "authorities", "create", "CLI below", "--parent", "CLI top")
    listed = [line.split("\t") for line in signed_in("authorities", "list").out.splitlines()]
    assert listed[0][:5] == ["ID", "NAME", "KIND", "PARENT", "STATE"]
    at = [line[0] for line in listed].index(top["id"])
    assert (listed[at][3], listed[at + 1][0], listed[at + 1][3]) == ("-", below["id"], "CLI top")
    elsewhere = document(signed_in, "authorities", "create", "CLI elsewhere", "--outside")
    (tmp_path / "elsewhere.csr").write_text(elsewhere["csr_pem"])
    said = ("CLI top", "elsewhere.csr", "--cn", "Elsewhere", "--permit", "wh.example", "--days", "20")
    made = signed_in("authorities", "certify", *said)
    facts = read_certificate(made.out.encode())
    assert (facts.subject, facts.issuer) == ("CN=Elsewhere", top["subject"])
    assert document(signed_in, "authorities", "issued", "list", top["id"])["items"][0]["sha256"] == facts.sha256
    assert "ca_subject_missing" in signed_in("authorities", "certify", *said[:2], "--cn", "").err


def test_policies_limit_what_is_issued(signed_in: Command) -> None:
    made = document(
        signed_in, "authorities", "policies", "create", "CLI shop", "--allow", ".cli.internal", "--refuse",
        "db.cli.internal", "--no-wildcards", "--quota", "50", "--max-days", "30",
    )  # fmt: skip
    assert (made["allowed"], made["wildcards"], made["quota"]) == ([".cli.internal"], False, 50)
    try:
        refused = signed_in("authorities", "issued", "new", "bank.example", "--profile", "server")
        assert (refused.code, "name_not_allowed" in refused.err) == (1, True)
        ca = next(
            one["id"] for one in document(signed_in, "authorities", "list")["items"]
            if one["builtin"] and one["kind"] == "issuing"
        )  # fmt: skip
        tried = signed_in("authorities", "policies", "try", "a.cli.internal", "db.cli.internal", "--ca", ca)
        assert (tried.code, "refuses db.cli.internal" in tried.out) == (1, True)
        assert signed_in("authorities", "policies", "try", "a.cli.internal", "--ca", ca).code == 0
        edited = document(
            signed_in, "authorities", "policies", "edit", "CLI shop", "--clear", "refused", "--quota", "-1",
            "--max-days", "0", "--name", "CLI names",
        )  # fmt: skip
        assert (edited["refused"], edited["quota"], edited["max_days"]) == ([], None, None)
        assert signed_in("authorities", "policies", "edit", "CLI names").code == 2
        assert "CLI names" in signed_in("authorities", "policies", "list").out
        unknown = signed_in("authorities", "policies", "show", "CLI shop")
        assert "certwright authorities policies list" in unknown.err
    finally:
        assert signed_in("authorities", "policies", "delete", made["id"], "--yes").code == 0


def test_without_an_hsm_it_says_so_and_ml_dsa_is_labelled(signed_in: Command) -> None:
    for words in (("hsm", "show"), ("hsm", "check"), ("authorities", "create", "CLI in an HSM", "--hsm")):
        done = signed_in(*words)
        assert (done.code, "hsm_not_configured" in done.err, "hsm_module" in done.err) == (1, True, True), done.err
    experimental = signed_in("authorities", "create", "CLI post-quantum", "--key", "ML_DSA_65")
    assert (experimental.code, "Experimental" in experimental.out) == (0, True), experimental.err
    shown = signed_in("hsm", "show", "--json")
    assert json.loads(shown.out)["problem"]["code"] == "hsm_not_configured"


def test_an_acme_service_is_opened_given_keys_and_closed(signed_in: Command) -> None:
    made = document(
        signed_in, "acme", "create", "CLI servers", "--allow", ".cli.internal", "--challenge",
        "http-01", "--days", "30",
    )  # fmt: skip
    assert (made["slug"], made["eab_required"], made["days"]) == ("cli-servers", True, 30)
    edited = document(signed_in, "acme", "edit", "cli-servers", "--any-name", "--days", "0", "--open-to-all")
    assert (edited["allowed_names"], edited["days"], edited["eab_required"]) == ([], None, False)
    assert signed_in("acme", "edit", "cli-servers").code == 2
    key = document(
        signed_in, "acme", "keys", "new", "cli-servers", "web-1", "--allow", "www.cli.internal", "--days", "3"
    )
    assert (len(key["secret"]), key["reusable"], key["expires_at"] is None) == (43, False, False)
    listed = signed_in("acme", "keys", "list", "cli-servers", "--json").out
    assert key["id"] in listed
    assert key["secret"] not in listed
    told = signed_in("acme", "commands", "cli-servers", "www.cli.internal", "--client", "certbot", "--key", key["id"])
    assert f"--server {made['url']}" in told.out
    assert f"--eab-kid {key['id']} --eab-hmac-key …" in told.out
    assert signed_in("acme", "commands", "cli-servers", "--client", "unheard-of").code == 2
    helped = "".join(signed_in("acme", "commands", "--help").out.split())
    assert [one.client for one in recipes(Asked(made["url"], ("a.internal",))) if one.client not in helped] == []
    revoked = document(signed_in, "acme", "keys", "revoke", "cli-servers", key["id"], "--with-accounts", "--yes")
    assert revoked["revoked_at"] is not None
    assert document(signed_in, "acme", "accounts", "list", "cli-servers")["items"] == []
    assert document(signed_in, "acme", "orders", "list", "cli-servers", "--state", "invalid")["items"] == []
    assert "not_found" in signed_in("acme", "orders", "show", "cli-servers", "aco_x").err
    assert "not_found" in signed_in("acme", "accounts", "show", "cli-servers", "aca_x").err
    assert "acme_enabled" in signed_in("acme", "delete", "cli-servers", "--yes").err
    assert document(signed_in, "acme", "disable", "cli-servers")["enabled"] is False
    assert signed_in("acme", "delete", "cli-servers", "--yes").code == 0
    assert "certwright acme list" in signed_in("acme", "show", "cli-servers").err
