"""Certificate signing requests: which names are collected, and what is refused with which code."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, Problem, TooLarge
from certwright.x509 import _der, certificates, csr, keys
from certwright.x509.keys import KeyAlgorithm
from tests.x509.factory import hierarchy, key, name, openssl


def request(common: str | None, *names: x509.GeneralName, private: object = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(common))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signer = private or key()
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, digest).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(n) for n in names]


def pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    return certificates.to_pem(der).replace("CERTIFICATE", label).encode()


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048])
def test_our_own_request_reads_back_and_openssl_accepts_it(algorithm: KeyAlgorithm) -> None:
    der = csr.make_csr(key(algorithm), ["a.certwright.dev", "*.certwright.dev"], ["192.0.2.7", "2001:db8::7"])
    facts = csr.read_csr(der, public=True)
    assert facts.dns_names == ("a.certwright.dev", "*.certwright.dev")
    assert facts.ip_addresses == ("192.0.2.7", "2001:db8::7")
    assert facts.common_name is None
    assert facts.spki_sha256 == keys.spki_sha256(key(algorithm))
    said = openssl("req", "-inform", "DER", "-noout", "-verify", "-text", stdin=der)
    assert b"DNS:a.certwright.dev, DNS:*.certwright.dev, IP Address:192.0.2.7" in said


def test_a_common_name_for_cas_that_insist_is_put_in() -> None:
    facts = csr.read_csr(csr.make_csr(key(), ["a.dev", "b.dev"], common_name="a.dev"))
    assert (facts.common_name, facts.dns_names) == ("a.dev", ("a.dev", "b.dev"))


def test_a_request_by_openssl_is_read() -> None:
    made = openssl(
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/C=DE/O=X/CN=www.a.dev",
        "-addext", "subjectAltName=DNS:certwright.dev,IP:192.0.2.1",
    )  # fmt: skip
    facts = csr.read_csr(made)
    assert facts.dns_names == ("www.a.dev", "certwright.dev")
    assert facts.ip_addresses == ("192.0.2.1",)
    assert facts.key_algorithm == "RSA 2048"


NAMES = {
    "only a CN": (request("www.a.dev"), ("www.a.dev",)),
    "CN and the same SAN": (request("www.a.dev", *dns("www.a.dev", "b.dev")), ("www.a.dev", "b.dev")),
    "CN that is no SAN comes first": (request("www.a.dev", *dns("b.dev")), ("www.a.dev", "b.dev")),
    "CN in capitals": (request("WWW.A.dev", *dns("www.a.dev")), ("www.a.dev",)),
    "CN that is a title": (request("My web server", *dns("b.dev")), ("b.dev",)),
    "CN of one label beside SANs": (request("server", *dns("b.dev")), ("b.dev",)),
    "CN of one label alone": (request("server"), ("server",)),
    "SANs twice": (request(None, *dns("b.dev", "B.dev", "c.dev")), ("b.dev", "c.dev")),
    "wildcard": (request(None, *dns("*.b.dev")), ("*.b.dev",)),
    "A-label": (request(None, *dns("xn--mnchen-3ya.dev")), ("xn--mnchen-3ya.dev",)),
}


@pytest.mark.parametrize(("der", "expected"), NAMES.values(), ids=NAMES.keys())
def test_the_names_are_the_sans_and_a_cn_that_is_a_name(der: bytes, expected: tuple[str, ...]) -> None:
    assert csr.read_csr(der).dns_names == expected


def test_a_common_name_that_is_an_address_counts_as_an_address() -> None:
    facts = csr.read_csr(request("192.0.2.9", *dns("a.dev")))
    assert (facts.dns_names, facts.ip_addresses) == (("a.dev",), ("192.0.2.9",))


def tampered() -> bytes:
    der = request(None, *dns("good.dev"))
    return der.replace(b"good.dev", b"evil.dev")


REFUSED = {
    "nothing": (b"", "csr_missing"),
    "blanks": (b"  \n", "csr_missing"),
    "prose": (b"please certify me", "csr_format"),
    "noise": (b"\x30\x03\x02\x01\x05", "csr_format"),
    "noise in a block": (pem(b"\x30\x03\x02\x01\x05"), "csr_format"),
    "two requests": (pem(request("a.dev")) + pem(request("b.dev")), "csr_format"),
    "a certificate": (certificates.to_pem(hierarchy().leaf).encode(), "wrong_block"),
    "a certificate as der": (hierarchy().leaf, "wrong_block"),
    "a key": (keys.to_pkcs8_pem(key()), "wrong_block"),
    "no end": (pem(request("a.dev"))[:-8], "not_pem"),
    "changed after signing": (tampered(), "csr_bad_signature"),
    "no names": (request(None), "csr_no_names"),
    "only a title": (request("My web server"), "csr_no_names"),
    "two stars alone": (request("*.*.a.dev"), "bad_wildcard"),
    "underscore": (request(None, *dns("a_b.dev")), "label_bad_character"),
    "e-mail": (request("a.dev", x509.RFC822Name("me@a.dev")), "csr_unsupported_san"),
    "uri": (request("a.dev", x509.UniformResourceIdentifier("https://a.dev/")), "csr_unsupported_san"),
    "directory name": (request("a.dev", x509.DirectoryName(name("x"))), "csr_unsupported_san"),
    "too many": (request(None, *dns(*(f"h{n}.dev" for n in range(1001)))), "csr_too_many_names"),
    "secp256k1": (request("a.dev", private=ec.generate_private_key(ec.SECP256K1())), "unsupported_curve"),
    "rsa 1024": (
        openssl("req", "-new", "-newkey", "rsa:1024", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=a.dev"),
        "weak_key",
    ),
    "md5": (
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=a.dev", "-md5"),
        "csr_bad_signature",
    ),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_each_fault_of_a_request_has_its_own_code(data: bytes, code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        csr.read_csr(data)
    assert (refusal.value.code, refusal.value.field) == (code, "csr")
    assert refusal.value.message.endswith(".")
    assert refusal.value.fix


def of_version(version: int, private: keys.PrivateKey) -> bytes:
    """As clients make it that write another version than the one there is: they signed what they wrote."""
    plain = x509.load_der_x509_csr(request("old.dev", *dns("old.dev", "www.old.dev"), private=private))
    _, *asked = _der.elements(plain.tbs_certrequest_bytes)
    _, algorithm, _ = _der.elements(plain.public_bytes(serialization.Encoding.DER))
    written = _der.sequence(_der.integer(version), *asked)
    if isinstance(private, rsa.RSAPrivateKey):
        signature = private.sign(written, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        signature = private.sign(written, ec.ECDSA(hashes.SHA256()))
    return _der.sequence(written, algorithm, _der.bit_string(signature))


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.EC_P256])
@pytest.mark.parametrize("version", [1, 2])
def test_the_version_that_old_clients_write_is_read(version: int, algorithm: KeyAlgorithm) -> None:
    der = of_version(version, key(algorithm))
    with pytest.raises(x509.InvalidVersion):
        x509.load_der_x509_csr(der)
    facts = csr.read_csr(der, public=True)
    assert facts.dns_names == ("old.dev", "www.old.dev")
    assert facts.spki_sha256 == keys.spki_sha256(key(algorithm))
    assert facts.der == der


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.EC_P256])
def test_a_version_that_was_changed_after_signing_is_refused(algorithm: KeyAlgorithm) -> None:
    """Both ways: what counts is what was signed, not how it is read."""
    honest, old = request("old.dev", private=key(algorithm)), of_version(2, key(algorithm))
    # The first number of a request is its version.
    for der, change in ((honest, b"\x02\x01\x02"), (old, b"\x02\x01\x00"), (old, b"\x02\x01\x01")):
        at = der.index(b"\x02\x01")
        with pytest.raises(Invalid) as refused:
            csr.read_csr(der[:at] + change + der[at + 3 :])
        assert refused.value.code == "csr_bad_signature"


def test_more_than_a_mebibyte_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        csr.read_csr(b"x" * (1024 * 1024 + 1))


def test_both_labels_in_use_are_read() -> None:
    der = request("a.dev")
    for label in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"):
        assert csr.read_csr(pem(der, label)).der == der


def test_an_ed25519_request_is_for_private_cas_only() -> None:
    der = request("a.dev", private=ed25519.Ed25519PrivateKey.generate())
    assert csr.read_csr(der).key_algorithm == "Ed25519"
    with pytest.raises(Invalid) as refusal:
        csr.read_csr(der, public=True)
    assert refusal.value.code == "unsupported_curve"


GOOD = request("www.a.dev", *dns("www.a.dev"))


@given(st.binary(max_size=500))
def test_any_bytes_end_in_facts_or_a_problem(data: bytes) -> None:
    for text in (data, pem(data), b"-----BEGIN CERTIFICATE REQUEST-----" + data):
        with contextlib.suppress(Problem):
            csr.read_csr(text)


@settings(max_examples=300)
@given(st.integers(min_value=0), st.binary(min_size=1, max_size=3))
def test_a_damaged_request_is_always_refused(place: int, change: bytes) -> None:
    at = place % len(GOOD)
    damaged = GOOD[:at] + change + GOOD[at + len(change) :]
    if hashlib.sha256(damaged).digest() != hashlib.sha256(GOOD).digest():
        with pytest.raises(Problem):
            csr.read_csr(damaged)
