"""`certwright upload` and `certwright uploads …` against a running product, with files as openssl writes them."""

from __future__ import annotations

import json
import stat
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from certwright.x509.keys import KeyAlgorithm, generate, to_pkcs8_pem

from .conftest import Command


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """www.crt (leaf), ca.crt, www.key, other.key, www.pfx under `pelican`; valid now."""
    now = datetime.now(UTC)
    ca_key, leaf_key = generate(KeyAlgorithm.EC_P256), generate(KeyAlgorithm.EC_P256)

    def signed(subject: str, own: object, *extensions: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder().subject_name(named(subject)).issuer_name(named("CLI CA"))
        builder = builder.public_key(own.public_key()).serial_number(x509.random_serial_number())  # type: ignore[attr-defined]
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=60))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)] if common else [])

    names = x509.SubjectAlternativeName([x509.DNSName(f"{tmp_path.name.replace('_', '-').lower()}.example.com")])
    purpose = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    (tmp_path / "ca.crt").write_bytes(signed("CLI CA", ca_key, x509.BasicConstraints(True, None)))
    (tmp_path / "www.crt").write_bytes(signed("", leaf_key, names, purpose))
    (tmp_path / "www.key").write_bytes(to_pkcs8_pem(leaf_key))
    (tmp_path / "other.key").write_bytes(to_pkcs8_pem(generate(KeyAlgorithm.EC_P256)))
    subprocess.run(
        ["openssl", "pkcs12", "-export", "-in", "www.crt", "-inkey", "www.key", "-certfile", "ca.crt", "-out",
         "www.pfx", "-passout", "pass:pelican"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    return tmp_path


def test_a_pfx_of_openssl_is_tried_uploaded_shown_downloaded_and_deleted(signed_in: Command, files: Path) -> None:
    locked = signed_in("upload", "www.pfx")
    assert (locked.code, "key_encrypted" in locked.err) == (1, True)
    tried = signed_in("upload", "www.pfx", "--passphrase-stdin", "--check", stdin="pelican\n")
    assert tried.code == 0, tried.err
    assert "the contents of a binary file" in tried.out
    made = signed_in("upload", "www.pfx", "--passphrase-stdin", "--name", "cli-pfx", "--offline", stdin="pelican\n")
    assert made.code == 0, made.err
    assert "cli-pfx (cert_" in made.out
    assert "version 1" in made.out
    again = signed_in("upload", "www.pfx", "--passphrase-stdin", "--json", stdin="pelican\n")
    assert (again.code, json.loads(again.out or again.err)["code"]) == (1, "duplicate"), (again.out, again.err)
    assert "version 1" in signed_in("uploads", "show", "cli-pfx").out

    for server in ("nginx", "tomcat", "kubernetes", "pem"):
        got = signed_in("certificates", "download", "cli-pfx", "--format", server)
        assert got.code == 0, got.err
        path = files / f"cli-pfx_{server}.zip"
        assert zipfile.ZipFile(path).namelist()
        assert stat.S_IMODE(path.stat().st_mode) == (0o644 if server == "pem" else 0o600)
    deleted = signed_in("certificates", "delete", "cli-pfx", "--yes")
    assert deleted.code == 0, deleted.err


def test_what_is_wrong_is_said_with_its_place_and_remedy(signed_in: Command, files: Path) -> None:
    wrong = signed_in("upload", "www.crt", "--key", "other.key", "--chain", "ca.crt")
    assert wrong.code == 1
    assert "error: The private key isn't the one this certificate was made for. [key_mismatch]" in wrong.err
    assert "openssl pkey" in wrong.err
    twice = signed_in("upload", "-", "--key", "-")
    assert (twice.code, "two things at once" in twice.err) == (2, True)
    nothing = signed_in("upload", "missing.pem")
    assert (nothing.code, "file_unreadable" in nothing.err) == (2, True)
    renamed = signed_in("upload", "www.crt", "--replace", "x", "--name", "y")
    assert (renamed.code, "keeps the certificate's name" in renamed.err) == (2, True)


def test_a_newer_file_replaces_and_quotas_and_policy_are_shown(signed_in: Command, files: Path) -> None:
    made = signed_in("upload", "www.crt", "--key", "www.key", "--chain", "ca.crt", "--name", "cli-new", "--offline")
    assert made.code == 0, made.err
    same = signed_in("upload", "www.crt", "--key", "www.key", "--chain", "ca.crt", "--replace", "cli-new")
    assert "duplicate" in same.err
    allowed = signed_in(
        "upload", "www.crt", "--key", "www.key", "--chain", "ca.crt", "--replace", "cli-new", "--allow-duplicate",
        "--offline",
    )  # fmt: skip
    assert (allowed.code, "version 2" in allowed.out) == (0, True), allowed.err
    authority = signed_in("upload", "ca.crt", "--client-ca", "--name", "cli-clients", "--offline")
    assert authority.code == 0, authority.err
    assert "client_ca" in signed_in("uploads", "quotas").out
    assert signed_in("uploads", "policy", "--legacy-rsa").code == 0
    assert json.loads(signed_in("uploads", "policy", "--no-legacy-rsa", "--json").out)["legacy_rsa"] is False
