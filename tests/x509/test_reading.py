"""What the certificate library does over input it never expected ends in the reader's refusal, and in nothing worse."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp as library_ocsp

from certwright.kernel.problems import Invalid
from certwright.rooms.watch import chains
from certwright.x509 import certificates, crl, csr, keys, ocsp
from certwright.x509.reading import PanicError, fenced
from certwright.x509.workshop import containers, decode, revocation
from tests.x509.factory import hierarchy, key

AT = datetime(2026, 3, 1, tzinfo=UTC)
H = hierarchy()
# Known to version 50 of the library: the vector is shorter than its cipher wants.
DEADLY = b"""-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,F3593E898EAC585FB87D

AAAA
-----END EC PRIVATE KEY-----
"""


def panic(*_: object, **__: object) -> NoReturn:
    """A true one."""
    serialization.load_pem_private_key(DEADLY, b"x")
    raise AssertionError("the library has learned to refuse this: find another input")


def test_a_panic_passes_every_handler_but_the_fence() -> None:
    with pytest.raises(BaseException, match="assertion failed") as raised, contextlib.suppress(Exception):
        panic()
    assert not isinstance(raised.value, Exception)
    with pytest.raises(PanicError), fenced:
        panic()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, KeyError, x509.InvalidVersion])
def test_the_fence_lets_everything_else_through(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("x", 1)

    with pytest.raises(error), fenced:
        fail()


READERS: dict[str, tuple[Any, str, Callable[[], object], str]] = {
    "a key": (
        serialization,
        "load_der_private_key",
        lambda: keys.read_private_key(keys.to_pkcs8_der(key())),
        "key_format",
    ),
    "a certificate": (x509, "load_der_x509_certificate", lambda: certificates.read_certificate(H.leaf), "bad_der"),
    "facts": (certificates, "_facts", lambda: certificates.read_certificate(H.leaf), "bad_der"),
    "a request": (x509, "load_der_x509_csr", lambda: csr.read_csr(csr.make_csr(key(), ["a.dev"])), "csr_format"),
    "names": (csr, "_names", lambda: csr.read_csr(csr.make_csr(key(), ["a.dev"])), "csr_format"),
    "a list": (x509, "load_der_x509_crl", lambda: crl.read_crl(b"\x30\x00"), "crl_format"),
    "a question": (library_ocsp, "load_der_ocsp_request", lambda: ocsp.read_question(b"\x30\x00"), "ocsp_question"),
}


@pytest.mark.parametrize(("where", "name", "read", "code"), READERS.values(), ids=READERS.keys())
def test_a_reader_over_which_the_library_panics_refuses(
    where: Any, name: str, read: Callable[[], object], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, panic)
    with pytest.raises(Invalid) as refusal:
        read()
    assert refusal.value.code == code


def test_an_answer_of_a_stranger_over_which_the_library_panics_can_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library_ocsp, "load_der_ocsp_response", panic)
    monkeypatch.setattr(x509, "load_der_x509_crl", panic)
    assert revocation.read_ocsp(b"\x30\x00", H.leaf, H.issuing, AT).why == "the OCSP response can't be read"
    assert revocation.read_list(b"\x30\x00", H.leaf, H.issuing, AT).why == "the revocation list can't be read"


def test_a_part_over_which_the_library_panics_is_shown_as_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_fields", panic)
    shown = decode.describe(containers.open_input(H.leaf, "x"))
    assert shown["parts"][0]["problem"]["code"] == "bad_der"


# Extended master secret is a TLS extension like the one for OCSP answers (RFC 7633), but nobody ever asked for it.
ODD_FEATURE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.24"), bytes.fromhex("3003020117"))


def odd_certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.dev")])
    builder = x509.CertificateBuilder(name, name, key().public_key(), 9, AT, AT.replace(year=2027))
    made = builder.add_extension(ODD_FEATURE, critical=False).sign(key(), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def odd_request() -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName("a.dev")])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=True)
    made = builder.add_extension(ODD_FEATURE, critical=False).sign(key(), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def test_a_tls_feature_the_library_has_no_name_for_is_refused() -> None:
    with pytest.raises(Invalid, match="TLS feature") as refusal:
        certificates.read_certificate(odd_certificate())
    assert refusal.value.code == "bad_der"
    with pytest.raises(Invalid) as refusal:
        csr.read_csr(odd_request())
    assert refusal.value.code == "csr_format"
    with pytest.raises(chains.UnreadableError):
        chains.examine((odd_certificate(),), chains.Roots([]))
