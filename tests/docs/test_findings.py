"""The guide has a page for every finding; what a page shows is what openssl and certwright print when it is tried."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from certwright.entry.cli.app import app as cli
from certwright.x509.workshop.words import CODES, REPAIRS
from tests.docs.test_guide import anchors_of, script
from tests.servers.programs import require
from tests.x509.workshop import hostile

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = ROOT / "docs" / "guide" / "findings"
VECTORS = ROOT / "tests" / "vectors"
# Told as a repair and as a page, because people look for it.
ALSO = {"chain_order"}
NOT_FINDINGS = {"index", "repairs"}
PAGES = sorted(path for path in FINDINGS.glob("*.md") if path.stem not in NOT_FINDINGS)
# The moment the vectors are judged at.
AT = "2026-11-21T12:00:00Z"
AT_SECONDS = "1795262400"
# Needs the network.
_NOT_HERE = ("openssl s_client", "openssl ocsp")
_MEND = re.compile(r"^## Mend it$", re.MULTILINE)
_BLOCKS = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def _crowd() -> bytes:
    return (VECTORS / "good.pem").read_bytes() * 700


def _namesakes() -> bytes:
    return hostile.made("a thousand namesakes")


def _root() -> bytes:
    return b"-----BEGIN" + (VECTORS / "issuing.crt").read_bytes().split(b"-----BEGIN")[2]


_KEYS: dict[str, str | Callable[[], bytes]] = {"keys/leaf.pem": "keys/leaf.pem", "keys/old.pem": "keys/other.pem"}
# What the files the pages speak of are, by page; values are vectors, or make the file.
SAMPLES: dict[str, dict[str, str | Callable[[], bytes]]] = {
    "bad_base64": {"www.pem": "bad-character.pem"},
    "bad_der": {"www.pem": "lost-line.pem"},
    "bad_name": {"www.pem": "idn-bad.pem"},
    "bad_wildcard": {"www.pem": "wildcard-partial.pem"},
    "chain_broken": {"www.pem": "broken.pem", "ca.pem": "issuing.crt"},
    "chain_missing": {"www.pem": "leaf-only.pem", "ca.pem": "issuing.crt", "root.pem": _root},
    "chain_order": {"www.pem": "reversed.pem"},
    "chain_stranger": {"www.pem": "stranger.pem"},
    "chain_too_complex": {"www.pem": _namesakes},
    "client_auth_public": {"www.pem": "client-too.pem"},
    "cn_not_in_san": {"www.pem": "cn-not-in-san.pem"},
    "duplicate": {"www.pem": "duplicate.pem", "fullchain.pem": "good.pem"},
    "ec_parameters_only": {
        "www.pem": "good.pem", "www.key": "parameters-only.key", "original.key": "sec1-parameters.key",
    },
    "empty": {"www.pem": "blank.pem", "fullchain.pem": "good.pem"},
    "expired": {"www.pem": "expired.pem"},
    "expires_earlier": {"www.pem": "expired.pem", "fullchain.pem": "good.pem"},
    "internal_name": {"www.pem": "internal.pem"},
    "issuer_not_fetched": {"www.pem": "leaf-only.pem", "ca.pem": "issuing.crt"},
    "key_encrypted": {"www.pem": "good.pem", "www.key": "locked.key", "passphrase.txt": "passphrase.txt"},
    "key_format": {"www.pem": "good.pem", "www.key": "openssh.key"},
    "key_mismatch": {"www.pem": "good.pem", "www.key": "other.key", **_KEYS},
    "key_missing": {"www.pem": "good.pem", "www.key": "empty.key", **_KEYS},
    "key_reused": {"www.pem": "key-reused.pem", "fullchain.pem": "good.pem"},
    "lint": {"www.pem": "good.pem"},
    "names_missing": {"www.pem": "wildcard.pem", "fullchain.pem": "good.pem"},
    "name_constraint": {"www.pem": "constrained-outside.pem"},
    "no_san": {"www.pem": "no-san.pem"},
    "no_server_auth": {"www.pem": "client-only.pem"},
    "not_a_ca": {"ca.pem": "not-ca.pem"},
    "not_pem": {
        "www.pem": "missing-end.pem", "www.der": "good.der", "www.pfx": "openssl3.pfx",
        "passphrase.txt": "passphrase.txt",
    },
    "not_yet_valid": {"www.pem": "future.pem"},
    "path_too_long": {"www.pem": "path-length.pem"},
    "revocation_unknown": {"www.pem": "good.pem", "ca.pem": "issuing.crt", "ca.crl": "crl.pem"},
    "revoked": {"www.pem": "revoked.pem", "ca.crl": "crl.pem"},
    "self_signed": {"www.pem": "self-signed.pem"},
    "too_large": {"www.pem": _crowd, "ca.pem": "issuing.crt"},
    "too_long_lived": {"www.pem": "too-long.pem"},
    "unknown_critical_extension": {"www.pem": "precertificate.pem"},
    "unsupported_curve": {"www.pem": "secp256k1.pem"},
    "weak_key": {"www.pem": "rsa-1024.pem"},
    "weak_signature": {"www.pem": "sha1.pem"},
    "wrong_block": {"www.pem": "request.pem", "fullchain.pem": "good.pem"},
    "wrong_passphrase": {
        "www.pem": "good.pem", "www.key": "locked-wrong.key", "www.pfx": "locked-wrong.pfx",
        "passphrase.txt": "wrong-passphrase.txt",
    },
}  # fmt: skip
# With what else each sample is checked, so that the finding is found.
GIVEN: dict[str, list[str]] = {
    "chain_missing": ["--strict"],
    "duplicate": ["--against", "fullchain.pem"],
    "key_reused": ["--against", "fullchain.pem"],
    "lint": ["--lint"],
    "not_a_ca": ["--purpose", "client-ca"],
    "revoked": ["--crl", "ca.crl"],
    "wrong_passphrase": ["--passphrase-file", "passphrase.txt"],
}
# pkilint has nothing against the sample; the others are found by a server, beside what it knows or fetches.
UNSEEN = {"lint", "revocation_unknown", "issuer_not_fetched", "names_missing", "expires_earlier"}
# What is wrong with a text is seen without openssl, which only says that it can't read it.
PLAIN_TEXT = {"bad_base64", "ec_parameters_only", "key_missing", "lint", "not_pem", "too_large", "wrong_block"}


def test_every_code_has_its_page_and_every_page_a_code() -> None:
    assert {page.stem for page in PAGES} == set(CODES) | ALSO
    assert set(SAMPLES) == set(CODES) | ALSO
    assert set(REPAIRS) >= ALSO


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_how_it_comes_about_how_to_see_it_and_how_to_mend_it(page: Path) -> None:
    text = page.read_text()
    assert re.match(rf"# `{page.stem}`: [^\n]{{5,80}}\n\n\S", text)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[-2:] == ["See it yourself", "Mend it"]
    assert "How it comes about" in headings or "how it comes about" in text
    see, mend = _MEND.split(text)
    assert "openssl " in see or page.stem in PLAIN_TEXT
    assert len(mend) > 60


def test_every_repair_is_told_with_what_makes_it_necessary() -> None:
    text = (FINDINGS / "repairs.md").read_text()
    told = dict(re.findall(r"^## `([a-z0-9_]+)`\n\n(.+?)(?=\n## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(told) == set(REPAIRS)
    for code, said in told.items():
        assert len(said) > 60, code
    assert set(REPAIRS) <= anchors_of(FINDINGS / "repairs.md")


def test_the_index_of_findings_is_what_pages_and_catalogue_say() -> None:
    made = script("list_findings")
    assert (FINDINGS / "index.md").read_text() == made.page(), "run: python scripts/list_findings.py"


# --- trying what the pages show --------------------------------------------------------------------------------------


def shown(text: str) -> Iterator[tuple[list[str], str]]:
    """The lines of each shell block (continued ones joined), and what is shown to come of them."""
    for block, output in _BLOCKS.findall(text):
        yield re.sub(r" \\\n\s*", " ", block).splitlines(), output


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files the page speaks of lie, and the commands are tried."""
    require("openssl")
    for name, sample in SAMPLES[request.param].items():
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes((VECTORS / sample).read_bytes() if isinstance(sample, str) else sample())
        place.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tried(line: str) -> str:
    """What a command prints, on either channel; it may fail, for that is what the page is about."""
    if line.startswith("certwright "):
        words = _shell(f'for w in {line.removeprefix("certwright ")}; do echo "$w"; done').splitlines()
        if words[:2] == ["x509", "check"] and "--at" not in words:
            words += ["--at", AT]
        done = CliRunner().invoke(cli, words)
        assert done.exit_code in (0, 1), f"{line}: {done.output}"
        return done.output
    return _shell(line.replace("openssl verify", f"openssl verify -attime {AT_SECONDS}"))


def _shell(line: str) -> str:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    command = line.replace("python3 ", f"{sys.executable} ")
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, timeout=20, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    for mistake in ("not found", "Unknown option", "Use -help for summary", "Syntax error", "unexpected operator"):
        assert mistake not in said, f"{line}: {said}"
    return said


def is_in(wanted: str, said: str) -> bool:
    """Whether every line of `wanted` is in `said`, in this order; … stands for anything."""
    at = 0
    for line in wanted.splitlines():
        pattern = "^[ \t]*" + ".*".join(re.escape(part) for part in line.strip().split("…")) + "[ \t]*$"
        found = re.compile(pattern, re.MULTILINE).search(said, at)
        if found is None:
            return False
        at = found.end()
    return True


@pytest.mark.parametrize("folder", sorted(SAMPLES), indirect=True)
def test_what_a_page_shows_comes_out_when_it_is_tried(folder: Path, request: pytest.FixtureRequest) -> None:
    page = FINDINGS / f"{request.node.callspec.params['folder']}.md"
    for lines, output in shown(page.read_text()):
        here = [line for line in lines if not line.startswith(_NOT_HERE)]
        said = "".join(tried(line) for line in here)
        assert is_in(output, said), f"{here}\n{said}"


@pytest.mark.parametrize("folder", sorted(set(SAMPLES) - UNSEEN), indirect=True)
def test_the_samples_have_the_finding_their_page_is_about(folder: Path, request: pytest.FixtureRequest) -> None:
    code = request.node.callspec.params["folder"]
    file = "www.pem" if (folder / "www.pem").exists() else "ca.pem"
    key = ["--key", "www.key"] if (folder / "www.key").exists() else []
    said = CliRunner().invoke(cli, ["x509", "check", file, *key, *GIVEN.get(code, []), "--at", AT]).output
    assert f"[{code}]" in said or re.search(rf"repaired: .*\b{code}\b", said), said


def test_a_line_that_does_not_come_out_is_noticed() -> None:
    assert is_in("a…\nc", "  abc\nb\nc\n")
    assert not is_in("c\na…", "abc\nb\nc\n")
    assert not is_in("abcd", "abc\n")
