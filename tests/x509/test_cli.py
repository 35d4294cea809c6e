"""`certwright x509 …` as people and scripts call it: without a server, in a directory of their own."""

from __future__ import annotations

import io
import json
import shutil
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    AccessDescription,
    AuthorityInformationAccess,
    CertificateBuilder,
    DNSName,
    Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
    load_der_x509_certificate,
)
from cryptography.x509.oid import AuthorityInformationAccessOID

from certwright.entry.cli import main
from certwright.x509 import certificates, csr, keys
from certwright.x509.workshop import containers, convert, pkcs7
from tests.x509.factory import NOW, hierarchy

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
AT = ["--at", "2026-11-21T12:00:00Z"]
H = hierarchy()


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Result]


@pytest.fixture
def x509(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> Command:
    """`x509("check", "a.pem", stdin=b"")`, run in a directory that holds the vectors."""
    for path in VECTORS.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    shutil.copytree(VECTORS / "keys", tmp_path / "keys")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["certwright", "x509", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        said = capfdbinary.readouterr()
        return Result(code, said.out.decode("latin-1"), said.err.decode())

    return run


# --- check -------------------------------------------------------------------------------------------------------


def test_check_prints_one_object_with_exactly_these_fields(x509: Command) -> None:
    done = x509("check", "good.pem", "--key", "keys/leaf.pem", *AT, "--json")
    assert done.code == 0
    assert list(done.document) == ["file", "ok", "repaired", "findings", "leaf"]
    assert (done.document["file"], done.document["ok"], done.document["findings"]) == ("good.pem", True, [])
    assert done.document["leaf"]["names"] == ["www.example.com"]


def test_a_finding_has_exactly_these_fields_and_an_error_exits_1(x509: Command) -> None:
    done = x509("check", "good.pem", "--key", "keys/other.pem", *AT, "--json")
    assert done.code == 1
    (finding,) = done.document["findings"]
    assert list(finding) == ["code", "severity", "where", "message", "fix"]
    assert (finding["code"], finding["severity"], finding["where"]) == ("key_mismatch", "error", "key, block 1, line 1")


def test_warnings_alone_exit_0(x509: Command) -> None:
    done = x509("check", "leaf-only.pem", *AT, "--json")
    assert (done.code, [f["code"] for f in done.document["findings"]]) == (0, ["chain_missing"])
    assert x509("check", "leaf-only.pem", "--strict", *AT, "--json").code == 1
    assert x509("check", "leaf-only.pem", "--strict", "--chain", "issuing.crt", *AT).code == 0


def test_private_drops_what_only_public_cas_must_keep_to(x509: Command) -> None:
    assert x509("check", "no-san.pem", *AT).code == 1
    assert x509("check", "no-san.pem", "--private", *AT, "--json").document["findings"] == []


def test_at_moves_the_clock(x509: Command) -> None:
    late = x509("check", "good.pem", "--at", "2031-01-01T00:00:00+01:00", "--json")
    assert (late.code, [f["code"] for f in late.document["findings"]]) == (1, ["expired"])


def test_lint_adds_notes(x509: Command) -> None:
    done = x509("check", "good.pem", *AT, "--lint", "--json")
    assert done.code == 0
    assert {(f["code"], f["severity"]) for f in done.document["findings"]} == {("lint", "note")}


def test_many_files_give_a_line_each_in_their_order_whatever_the_worst(x509: Command) -> None:
    done = x509("check", "good.pem", "expired.pem", "empty.pem", *AT, "--json")
    assert done.code == 1
    assert [(d["file"], d["ok"]) for d in done.documents] == [
        ("good.pem", True), ("expired.pem", False), ("empty.pem", False),
    ]  # fmt: skip
    assert done.documents[2]["leaf"] is None


def test_a_pattern_the_shell_left_alone_is_expanded(x509: Command) -> None:
    done = x509("check", "wildcard*.pem", *AT, "--json")
    assert sorted(d["file"] for d in done.documents) == sorted(p.name for p in VECTORS.glob("wildcard*.pem"))


def test_standard_input_is_read(x509: Command) -> None:
    done = x509("check", "-", *AT, "--json", stdin=(VECTORS / "crlf.pem").read_bytes())
    assert (done.code, done.document["file"], done.document["repaired"]) == (0, "-", ["crlf"])


def test_very_many_files_are_worked_on_in_processes_and_come_in_order(x509: Command, tmp_path: Path) -> None:
    good, bad = (VECTORS / "good.pem").read_bytes(), (VECTORS / "expired.pem").read_bytes()
    (tmp_path / "many").mkdir()
    for number in range(150):
        (tmp_path / "many" / f"{number:03}.pem").write_bytes(bad if number % 10 == 3 else good)
    done = x509("check", "many/*.pem", *AT, "--json")
    assert done.code == 1
    assert [d["file"] for d in done.documents] == [f"many/{n:03}.pem" for n in range(150)]
    assert [n for n, d in enumerate(done.documents) if not d["ok"]] == list(range(3, 150, 10))


def test_ten_megabytes_of_noise_are_too_large(x509: Command, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(range(256)) * 40_000)
    done = x509("check", "big", *AT, "--json")
    assert (done.code, [f["code"] for f in done.document["findings"]]) == (1, ["too_large"])


def test_people_read_sentences(x509: Command) -> None:
    said = x509("check", "reversed.pem", "expired.pem", *AT)
    assert "reversed.pem: usable" in said.out
    assert "repaired: root_included, chain_order" in said.out
    assert "expired.pem: not usable" in said.out
    assert "Use a renewed certificate." in said.out
    assert "2 files, 1 with errors." in said.err


def test_control_characters_of_a_name_reach_no_terminal(x509: Command) -> None:
    for command in (("check", *AT), ("inspect",)):
        for form in ((), ("--json",)):
            assert "\x1b" not in x509(command[0], "escape.pem", *command[1:], *form).out


@pytest.mark.parametrize(
    "arguments",
    [
        "check", "check no-such-file.pem",  "check no-such-*.pem", "check .", "check good.pem --at soon",
        "check good.pem --at 2026-11-21T12:00:00", "check good.pem --key no-such-key", "check good.pem --nope",
        "nothing",
        "convert good.pem --to doc --out x", "convert good.pem --to pem", "check good.pem --blocklist good.pem",
        "check good.pem --crl good.pem", "csr www.example.com", "match good.pem",
        "bundle good.pem --for lotus --out x.zip",
    ],
)  # fmt: skip
def test_wrong_usage_exits_2_and_says_why(arguments: str, x509: Command) -> None:
    done = x509(*arguments.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.strip()


# --- the others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "container", "kinds"),
    [
        ("combined.pem", "pem", ["key", "certificate", "certificate"]),
        ("good.der", "der", ["certificate"]),
        ("request.pem", "pem", ["csr"]),
        ("crl.pem", "pem", ["crl"]),
        ("good.p7b", "p7b", ["certificate", "certificate"]),
        ("keytool.jks", "jks", ["key", "certificate", "certificate"]),
    ],
)
def test_inspect_shows_every_part(file: str, container: str, kinds: list[str], x509: Command) -> None:
    done = x509("inspect", file, "--passphrase-file", "passphrase.txt", "--json")
    assert done.code == 0
    assert (done.document["container"], [p["kind"] for p in done.document["parts"]]) == (container, kinds)
    assert x509("inspect", file, "--passphrase-file", "passphrase.txt").out.startswith(f"{file} ({container})\n")


def test_inspect_shows_pfx_certificates_crl_and_ocsp_in_words(x509: Command, tmp_path: Path) -> None:
    pfx = x509("inspect", "openssl1.pfx", "--passphrase-file", "passphrase.txt", "--json").document
    assert {p["kind"] for p in pfx["parts"]} == {"certificate", "key"}
    leaf = next(p for p in pfx["parts"] if p.get("names"))
    assert leaf["extended_key_usage"] == ["serverAuth"]
    revoked = x509("inspect", "crl.pem", "--json").document["parts"][0]
    assert (revoked["number"], revoked["revoked"][0]["serial"]) == (7, "42")
    assert x509("inspect", "locked.pfx").code == 1
    (tmp_path / "answer.der").write_bytes(bytes.fromhex("30030a0106"))  # OCSP: unauthorized
    answer = x509("inspect", "answer.der", "--json").document["parts"][0]
    assert (answer["kind"], answer["response_status"]) == ("ocsp_response", "unauthorized")


def test_match_says_what_belongs_together(x509: Command) -> None:
    assert x509("match", "good.pem", "keys/leaf.pem", "request.pem").code == 0
    done = x509("match", "good.pem", "keys/other.pem", "--json")
    assert (done.code, done.document["match"], len(done.document["parts"])) == (1, False, 2)


@pytest.mark.parametrize("to", ["pem", "pfx", "jks"])
def test_convert_writes_key_and_chain_readable_by_their_owner_alone(to: str, x509: Command, tmp_path: Path) -> None:
    done = x509("convert", "combined.pem", "--to", to, "--out", "new", "--passphrase-file", "passphrase.txt")
    assert done.code == 0, done.err
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    made = x509(
        "check", "new", "--passphrase-file", "passphrase.txt", "--strict" if to == "pem" else "--private", *AT, "--json"
    )
    assert made.document["leaf"]["names"] == ["www.example.com"]
    again = x509("convert", "combined.pem", "--to", to, "--out", "new", "--passphrase-file", "passphrase.txt")
    assert (again.code, "file_exists" in again.err) == (2, True)


def test_convert_without_a_passphrase_for_a_store_is_refused(x509: Command, tmp_path: Path) -> None:
    done = x509("convert", "combined.pem", "--to", "pfx", "--out", "new")
    assert (done.code, "passphrase_needed" in done.err) == (2, True)
    assert not (tmp_path / "new").exists()


def test_convert_to_standard_output_and_key_forms(x509: Command) -> None:
    der = x509("convert", "leaf-only.pem", "--to", "der", "--out", "-")
    assert certificates.facts_of(der.out.encode("latin-1")).dns_names == ("www.example.com",)
    assert x509("convert", "keys/leaf.pem", "--to", "sec1", "--out", "-").out.startswith(
        "-----BEGIN EC PRIVATE KEY-----"
    )
    refused = x509("convert", "keys/leaf.pem", "--to", "pkcs1", "--out", "-")
    assert (refused.code, "key_format" in refused.err) == (1, True)


def test_keys_are_encrypted_and_decrypted(x509: Command, tmp_path: Path) -> None:
    assert x509("encrypt-key", "keys/leaf.pem", "--out", "locked", "--out-passphrase-file", "passphrase.txt").code == 0
    assert b"ENCRYPTED PRIVATE KEY" in (tmp_path / "locked").read_bytes()
    assert x509("decrypt-key", "locked", "--out", "open").code == 1
    assert x509("decrypt-key", "locked", "--out", "open", "--passphrase-file", "passphrase.txt").code == 0
    one, two = (keys.read_private_key(p.read_bytes()) for p in (tmp_path / "open", VECTORS / "keys" / "leaf.pem"))
    assert keys.to_pkcs8_der(one) == keys.to_pkcs8_der(two)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o600


def test_chain_completes_from_a_pool_and_says_what_is_missing(x509: Command) -> None:
    done = x509("chain", "leaf-only.pem", "--pool", "issuing.crt", "--no-fetch")
    assert done.code == 0
    assert done.out.encode() == (VECTORS / "good.pem").read_bytes()
    assert "Added: CN=Vector Issuing CA" in done.err
    missing = x509("chain", "leaf-only.pem", "--no-fetch", "--json")
    assert (missing.code, missing.document["complete"], missing.document["missing"]) == (
        1,
        False,
        "CN=Vector Issuing CA",
    )


def test_split_writes_each_part(x509: Command, tmp_path: Path) -> None:
    assert x509("split", "combined.pem", "--out", "parts").code == 0
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == ["certificate.pem", "chain-1.pem", "key.pem"]
    assert stat.S_IMODE((tmp_path / "parts" / "key.pem").stat().st_mode) == 0o600
    assert x509("split", "combined.pem", "--out", "parts").code == 2


def test_csr_makes_a_request_and_its_key(x509: Command, tmp_path: Path) -> None:
    done = x509("csr", "www.example.com", "192.0.2.7", "--key-out", "new.key", "--out", "new.csr")
    assert done.code == 0, done.err
    request = csr.read_csr((tmp_path / "new.csr").read_bytes())
    assert (request.dns_names, request.ip_addresses) == (("www.example.com",), ("192.0.2.7",))
    assert keys.spki_sha256(keys.read_private_key((tmp_path / "new.key").read_bytes())) == request.spki_sha256
    assert x509("csr", "a b", "--key", "new.key").code == 1


@pytest.mark.parametrize("server", ["nginx", "apache", "tomcat", "iis", "weblogic", "resin", "haproxy", "kubernetes",
                                    "pem", "der", "p7b", "chain"])  # fmt: skip
def test_bundle_packs_files_that_its_note_names(server: str, x509: Command, tmp_path: Path) -> None:
    done = x509("bundle", "good.pem", "--key", "keys/leaf.pem", "--for", server, "--out", "b.zip")
    assert done.code == 0, done.err
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
        modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in archive.infolist()}
    note = files.pop("README.txt").decode()
    assert files
    assert all(name in note for name in files), note
    password = files.get("www.example.com.password.txt", b"").strip() or None
    secret = False
    for name, content in files.items():
        if name.endswith(".password.txt"):
            assert len(content.strip()) >= 20
            assert content.strip().decode() not in note
            continue
        if name.endswith(".yaml"):
            data = yaml.safe_load(content)
            assert data["type"] == "kubernetes.io/tls"
            assert set(data["data"]) == {"tls.crt", "tls.key"}
            assert modes[name] == 0o600
            secret = True
            continue
        contents = containers.open_input(content, name, password)
        assert contents.findings == []
        if contents.of(containers.Kind.KEY):
            secret = True
            assert modes[name] == 0o600
        assert convert.material([contents])
    assert secret == (server not in ("p7b", "chain"))


def test_a_bundle_that_needs_the_key_is_refused_without_it(x509: Command, tmp_path: Path) -> None:
    done = x509("bundle", "good.pem", "--for", "haproxy", "--out", "b.zip")
    assert (done.code, "bundle_key_needed" in done.err) == (1, True)
    assert not (tmp_path / "b.zip").exists()


# --- the process -------------------------------------------------------------------------------------------------


def test_the_program_starts_without_the_product_and_its_other_commands() -> None:
    """What keeps a cold start quick: no server code, no other command, no HTTP client, no pkilint is loaded."""
    program = (
        "import sys; sys.argv = ['certwright', 'x509', 'check', 'good.pem', '--json']\n"
        "from certwright.entry.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=VECTORS, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["file"] == "good.pem"
    loaded = set(done.stderr.split())
    assert "certwright.x509.workshop.upload" in loaded
    unwanted = {
        "certwright.entry.cli.certificates", "certwright.entry.cli.app", "certwright.x509.bundles", "sqlalchemy",
        "certwright.x509.issue", "httpx2", "fastapi", "pkilint", "rich", "asyncio",
    }  # fmt: skip
    assert loaded & unwanted == set()


def test_the_same_commands_are_in_the_tree_of_all() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "certwright", "--help"], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert "x509" in done.stdout


# --- the network -------------------------------------------------------------------------------------------------


@pytest.fixture
def ca_address(tmp_path: Path) -> Iterator[str]:
    """A web server on port 80, where addresses of issuers lead; it serves the intermediate as PKCS#7."""
    content = pkcs7.write([H.issuing])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ca.p7c" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    try:
        server = HTTPServer(("127.80.80.1", 80), Handler)
    except OSError as error:
        pytest.skip(f"port 80 can't be had: {error.strerror}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield "http://127.80.80.1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def leaf_naming(address: str) -> bytes:
    """A leaf whose issuer's certificate is said to lie at this address."""
    issuer = load_der_x509_certificate(H.issuing)
    place = AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, UniformResourceIdentifier(address))
    builder = (
        CertificateBuilder(issuer.subject, Name([]), H.leaf_key.public_key(), 77)  # type: ignore[arg-type]
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(SubjectAlternativeName([DNSName("www.example.com")]), True)
        .add_extension(AuthorityInformationAccess([place]), False)
    )
    return builder.sign(H.issuing_key, SHA256()).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def test_chain_fetches_the_issuer_where_the_certificate_says_and_only_from_opened_networks(
    x509: Command, ca_address: str, tmp_path: Path
) -> None:
    (tmp_path / "l.pem").write_text(certificates.to_pem(leaf_naming(f"{ca_address}/ca.p7c")))
    refused = x509("chain", "l.pem")
    assert (refused.code, "127.80.80.1" in refused.err) == (1, True)
    done = x509("chain", "l.pem", "--allow-network", "127.0.0.0/8")
    assert done.code == 0, done.err
    assert [c.der for c in certificates.read_certificates(done.out.encode())][1:] == [H.issuing]
    (tmp_path / "gone.pem").write_text(certificates.to_pem(leaf_naming(f"{ca_address}/gone")))
    gone = x509("chain", "gone.pem", "--allow-network", "127.0.0.0/8")
    assert (gone.code, "answered 404" in gone.err) == (1, True)
    assert x509("chain", "l.pem", "--allow-network", "nonsense").code == 2
