"""There and back again is the same; what other programs write is read, what is written here they read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import pkcs7 as library_pkcs7
from cryptography.hazmat.primitives.serialization import pkcs12 as library_pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, Problem
from certwright.x509 import _rc2, keys
from certwright.x509.certificates import facts_of
from certwright.x509.keys import KeyAlgorithm
from certwright.x509.workshop import _ber, containers, jks, pkcs7, pkcs12
from certwright.x509.workshop.convert import Format, Material, Wish, convert, halves, key_form, material, split
from tests.servers.programs import require
from tests.x509.factory import NOW, hierarchy, key, openssl

EC = hierarchy()
RSA = hierarchy(KeyAlgorithm.RSA_2048)
PASS = b"correct horse"
CHAINS = {"EC": EC, "RSA": RSA}


def whole(which: str = "EC", *, with_key: bool = True) -> Material:
    made = CHAINS[which]
    certificates = (facts_of(made.leaf), facts_of(made.issuing))
    return Material(certificates, (made.leaf_key,) if with_key else ())


def read_back(octets: bytes, passphrase: bytes | None = PASS) -> Material:
    return material([containers.open_input(octets, "x", passphrase)])


def same(one: Material, two: Material) -> bool:
    return [c.der for c in one.certificates] == [c.der for c in two.certificates] and [
        keys.to_pkcs8_der(k) for k in one.keys
    ] == [keys.to_pkcs8_der(k) for k in two.keys]


STORES = [Format.PEM, Format.PFX, Format.JKS]


@pytest.mark.parametrize("which", CHAINS)
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("to", STORES)
def test_key_and_chain_survive_a_store(to: Format, legacy: bool, which: str) -> None:
    made = convert(whole(which), to, Wish(PASS, legacy), at=NOW, random=os.urandom)
    assert same(read_back(made), whole(which))


@settings(max_examples=15)
@given(st.lists(st.sampled_from(STORES), min_size=2, max_size=5), st.sampled_from(sorted(CHAINS)))
def test_any_path_through_the_stores_ends_where_it_began(path: list[Format], which: str) -> None:
    source = whole(which)
    for to in path:
        source = read_back(convert(source, to, Wish(PASS), at=NOW, random=os.urandom))
    assert same(source, whole(which))


@pytest.mark.parametrize("to", [Format.P7B, Format.PEM, Format.PFX, Format.JKS])
def test_certificates_alone_survive(to: Format) -> None:
    source = whole(with_key=False)
    assert same(read_back(convert(source, to, Wish(PASS), at=NOW, random=os.urandom)), source)


def test_one_certificate_survives_der() -> None:
    source = Material((facts_of(EC.leaf),))
    octets = convert(source, Format.DER, Wish(), at=NOW, random=os.urandom)
    assert octets == EC.leaf
    assert same(read_back(octets), source)


FORMS = [("EC", Format.PKCS8), ("EC", Format.SEC1), ("RSA", Format.PKCS8), ("RSA", Format.PKCS1)]


@pytest.mark.parametrize("passphrase", [None, PASS])
@pytest.mark.parametrize(("which", "form"), FORMS)
def test_a_key_survives_each_of_its_forms(which: str, form: Format, passphrase: bytes | None) -> None:
    private = CHAINS[which].leaf_key
    octets = key_form(private, form, passphrase)
    assert (b"ENCRYPTED" in octets) == (passphrase is not None)
    assert keys.to_pkcs8_der(keys.read_private_key(octets, passphrase)) == keys.to_pkcs8_der(private)


@pytest.mark.parametrize(
    ("form", "which", "kind"), [(Format.PKCS1, "EC", "RSA"), (Format.SEC1, "RSA", "EC")], ids=["EC", "RSA"]
)
def test_a_form_of_another_kind_of_key_is_refused(form: Format, which: str, kind: str) -> None:
    with pytest.raises(Invalid, match=f"Only {kind} keys"):
        key_form(CHAINS[which].leaf_key, form, None)


def test_ed25519_survives_pfx_and_has_no_older_form() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    assert keys.read_private_key(key_form(private, Format.PKCS8, PASS), PASS)
    with pytest.raises(Invalid, match="Only RSA keys"):
        key_form(private, Format.PKCS1, None)


@pytest.mark.parametrize(
    ("source", "to", "wish", "code"),
    [
        (Material(()), Format.PEM, Wish(), "convert_nothing"),
        (Material(()), Format.P7B, Wish(), "convert_nothing"),
        (whole(), Format.DER, Wish(), "convert_one_only"),
        (whole(), Format.PFX, Wish(), "passphrase_needed"),
        (whole(), Format.JKS, Wish(b"short"), "passphrase_too_short"),
        (whole(with_key=False), Format.PKCS8, Wish(), "convert_key_needed"),
        (Material((facts_of(EC.leaf),), (key(which="other"),)), Format.PFX, Wish(PASS), "key_mismatch"),
    ],
)
def test_what_can_not_be_written_is_said(source: Material, to: Format, wish: Wish, code: str) -> None:
    with pytest.raises(Problem) as refused:
        convert(source, to, wish, at=NOW, random=os.urandom)
    assert refused.value.code == code


def test_split_writes_each_part_by_its_part() -> None:
    source = Material((facts_of(EC.leaf), facts_of(EC.issuing), facts_of(EC.root)), (EC.leaf_key,))
    files = split(source)
    assert sorted(files) == ["certificate.pem", "chain-1.pem", "key.pem", "root.pem"]
    joined = material([containers.open_input(b"".join(files.values()), "x")])
    assert same(joined, source)


def test_halves_of_one_pair_are_equal() -> None:
    parts = containers.open_input(convert(whole(), Format.PEM, Wish(), at=NOW, random=os.urandom), "x")
    found = halves(parts)
    assert {half.kind.value for half in found} == {"key", "certificate"}
    assert found[0].spki_sha256 == found[1].spki_sha256 != found[2].spki_sha256


# --- other programs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", CHAINS)
@pytest.mark.parametrize("legacy", [False, True])
def test_openssl_opens_our_pfx(legacy: bool, which: str, tmp_path: Path) -> None:
    (tmp_path / "s.pfx").write_bytes(convert(whole(which), Format.PFX, Wish(PASS, legacy), at=NOW, random=os.urandom))
    text = openssl("pkcs12", "-in", str(tmp_path / "s.pfx"), "-passin", f"pass:{PASS.decode()}", "-nodes",
                   *(["-legacy"] if legacy else []))  # fmt: skip
    assert same(read_back(text), whole(which))


@pytest.mark.parametrize("options", [[], ["-legacy"], ["-nomac"], ["-keypbe", "NONE", "-certpbe", "NONE"],
                                     ["-macalg", "sha512"], ["-certpbe", "AES-128-CBC", "-keypbe", "AES-192-CBC"],
                                     ["-legacy", "-certpbe", "PBE-SHA1-RC2-128"]])  # fmt: skip
@pytest.mark.parametrize("which", CHAINS)
def test_we_open_what_openssl_writes(which: str, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "in.pem").write_bytes(convert(whole(which), Format.PEM, Wish(), at=NOW, random=os.urandom))
    out = tmp_path / "s.pfx"
    openssl("pkcs12", "-export", "-in", str(tmp_path / "in.pem"), "-out", str(out), "-passout", "pass:x", *options)
    assert same(read_back(out.read_bytes(), b"x"), whole(which))
    if "-nomac" not in options and "NONE" not in options:
        with pytest.raises(Invalid) as refused:
            read_back(out.read_bytes(), b"y")
        assert refused.value.code == "wrong_passphrase"


def test_our_reader_and_the_library_agree_on_pfx() -> None:
    made = convert(whole("RSA"), Format.PFX, Wish(PASS), at=NOW, random=os.urandom)
    theirs = library_pkcs12.load_pkcs12(made, PASS)
    assert theirs.cert is not None
    assert theirs.cert.certificate.public_bytes(serialization.Encoding.DER) == RSA.leaf
    ours = pkcs12.read(made, PASS)
    assert [entry.der for entry in ours if not entry.is_key] == [RSA.leaf, RSA.issuing]


def test_openssl_and_the_library_open_our_p7b(tmp_path: Path) -> None:
    made = pkcs7.write([EC.leaf, EC.issuing])
    text = openssl("pkcs7", "-inform", "DER", "-print_certs", stdin=made)
    assert text.count(b"BEGIN CERTIFICATE") == 2
    theirs = library_pkcs7.load_der_pkcs7_certificates(made)
    assert {c.public_bytes(serialization.Encoding.DER) for c in theirs} == {EC.leaf, EC.issuing}


def keytool(*args: str) -> str:
    require("keytool")
    done = subprocess.run(["keytool", "-J-Duser.language=en", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("which", CHAINS)
@pytest.mark.parametrize("to", [Format.JKS, Format.PFX])
def test_keytool_opens_our_stores_and_takes_the_key_out(to: Format, which: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.write_bytes(convert(whole(which), to, Wish(PASS, alias="tomcat"), at=NOW, random=os.urandom))
    said = keytool("-list", "-v", "-keystore", str(store), "-storepass", PASS.decode())
    assert f"Keystore type: {'JKS' if to is Format.JKS else 'PKCS12'}" in said
    assert "Entry type: PrivateKeyEntry" in said
    assert "Certificate chain length: 2" in said
    out = tmp_path / "out.p12"
    keytool(
        "-importkeystore", "-noprompt", "-srckeystore", str(store), "-srcstorepass", PASS.decode(), "-destkeystore",
        str(out), "-deststoretype", "PKCS12", "-deststorepass", PASS.decode(),
    )  # fmt: skip
    assert same(read_back(out.read_bytes()), whole(which))


def test_keytool_finds_trusted_certificates_in_our_jks(tmp_path: Path) -> None:
    store = tmp_path / "trust.jks"
    store.write_bytes(convert(whole(with_key=False), Format.JKS, Wish(PASS), at=NOW, random=os.urandom))
    said = keytool("-list", "-keystore", str(store), "-storepass", PASS.decode())
    assert said.count("trustedCertEntry") == 2


def test_a_key_with_a_passphrase_of_its_own_is_explained(tmp_path: Path) -> None:
    store = tmp_path / "two.jks"
    store.write_bytes(convert(whole(), Format.JKS, Wish(PASS, alias="a"), at=NOW, random=os.urandom))
    keytool("-keypasswd", "-keystore", str(store), "-storepass", PASS.decode(), "-alias", "a", "-keypass",
            PASS.decode(), "-new", "another one")  # fmt: skip
    (finding,) = containers.open_input(store.read_bytes(), "certificate", PASS).findings
    assert (finding.code, "passphrase of its own" in finding.message) == ("key_format", True)


def test_the_same_jks_comes_out_of_the_same_arguments() -> None:
    entry = jks.Entry("A", True, (EC.leaf,), keys.to_pkcs8_der(EC.leaf_key))
    one, two = (jks.write([entry], PASS, at=NOW, salts=[bytes(20)]) for _ in range(2))
    assert one == two
    with pytest.raises(ValueError, match="one salt"):
        jks.write([entry], PASS, at=NOW, salts=[])


# --- pieces ------------------------------------------------------------------------------------------------------


def test_rc2_gives_the_values_of_rfc_2268() -> None:
    """RFC 2268 section 5, those whose effective bits are the key's own; one block of CBC with a zero vector is ECB."""
    for secret, plain, cipher in (
        ("ffffffffffffffff", "ffffffffffffffff", "278b27e42e2f0d49"),
        ("3000000000000000", "1000000000000001", "30649edf9be7d2c2"),
    ):
        assert _rc2.decrypt_cbc(bytes.fromhex(secret), bytes(8), bytes.fromhex(cipher)).hex() == plain


@given(st.recursive(st.binary(max_size=30), lambda inner: st.lists(inner, max_size=4), max_leaves=20))
def test_indefinite_lengths_become_definite_ones(tree: object) -> None:
    def encode(node: object, *, definite: bool) -> bytes:
        if isinstance(node, bytes):
            return bytes([4, len(node)]) + node
        assert isinstance(node, list)
        body = b"".join(encode(inner, definite=definite) for inner in node)
        if not definite:
            return b"\x30\x80" + body + b"\0\0"
        size = len(body)
        head = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
        if 128 <= size < 256:
            head = bytes([0x81, size])
        return b"\x30" + head + body

    assert _ber.to_der(encode(tree, definite=False)) == encode(tree, definite=True)


@pytest.mark.parametrize("which", CHAINS)
def test_der_stays_as_it_is(which: str) -> None:
    assert _ber.to_der(CHAINS[which].leaf) == CHAINS[which].leaf
    assert x509.load_der_x509_certificate(_ber.to_der(CHAINS[which].issuing))
