"""`certwright csrs …` against a running product."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from certwright.x509.csr import make_csr, to_pem
from certwright.x509.keys import KeyAlgorithm, generate, read_private_key, to_pkcs8_pem

from .conftest import Command


def test_making_showing_exporting_and_deleting(signed_in: Command, tmp_path: Path) -> None:
    made = signed_in("csrs", "create", "www.example.com", "--name", "cli-www", "--organization", "Ex", "--json")
    assert made.code == 0, made.err
    document = json.loads(made.out)
    assert signed_in("csrs", "list", "--search", "cli-www").out.count(document["id"]) == 1
    assert "organization Ex" in signed_in("csrs", "show", "cli-www").out

    assert signed_in("csrs", "export", "cli-www").code == 0
    assert (tmp_path / "cli-www.csr").read_text() == document["pem"]
    assert signed_in("csrs", "export", "cli-www", "--format", "der", "-o", "www.der").code == 0
    assert to_pem((tmp_path / "www.der").read_bytes()).decode() == document["pem"]

    key = signed_in("csrs", "export-key", "cli-www", "--passphrase-stdin", stdin="pelican\n")
    assert key.code == 0, key.err
    path = tmp_path / "cli-www.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_private_key(path.read_bytes(), b"pelican")
    assert "file_exists" in signed_in("csrs", "export-key", "cli-www").err
    empty = signed_in("csrs", "export-key", "cli-www", "--passphrase-stdin", stdin="\n")
    assert (empty.code, "empty" in empty.err) == (2, True)
    assert signed_in("csrs", "export-key", "cli-www", "--encrypt").code == 2

    assert "cli-web" in signed_in("csrs", "edit", "cli-www", "--name", "cli-web").out
    unasked = signed_in("csrs", "delete", "cli-web")
    assert (unasked.code, "not_confirmed" in unasked.err) == (2, True)
    assert "is deleted" in signed_in("csrs", "delete", "cli-web", "--yes").out
    assert "not_found" in signed_in("csrs", "show", "cli-web").err


def test_uploading_and_applying(signed_in: Command, tmp_path: Path) -> None:
    key = generate(KeyAlgorithm.EC_P256)
    (tmp_path / "my.csr").write_bytes(to_pem(make_csr(key, ["up.demo.localhost"])))
    (tmp_path / "my.key").write_bytes(to_pkcs8_pem(key, b"pelican"))
    (tmp_path / "other.key").write_bytes(to_pkcs8_pem(generate(KeyAlgorithm.EC_P256)))
    mismatch = signed_in("csrs", "upload", "my.csr", "--key", "other.key")
    assert (mismatch.code, "key_mismatch" in mismatch.err) == (1, True)
    locked = signed_in("csrs", "upload", "my.csr", "--key", "my.key")
    assert (locked.code, "key_encrypted" in locked.err) == (1, True)
    kept = signed_in(
        "csrs", "upload", "my.csr", "--key", "my.key", "--passphrase-stdin", "--name", "cli-up", "--json",
        stdin="pelican\n",
    )  # fmt: skip
    assert kept.code == 0, kept.err
    assert json.loads(kept.out)["has_key"] is True
    applied = signed_in(
        "apply", "--kept-csr", "cli-up", "--pin-key", "--consent", "--phone", "+49 30 123456", "--applicant", "Ann",
        "--json",
    )  # fmt: skip
    assert applied.code == 0, applied.err
    assert json.loads(applied.out)["application"]["key_pinned"] is True
    refused = signed_in("csrs", "delete", "cli-up", "--yes")
    assert (refused.code, "csr_in_use" in refused.err) == (1, True)
