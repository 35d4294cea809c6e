"""Challenges, renewal information and headers."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given
from hypothesis import strategies as st

from certwright.acme import challenges, headers, jose, renewal
from certwright.acme.objects import RenewalInfo
from tests.acme.test_jose import ED25519, P256

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


# --- challenges ------------------------------------------------------------------------------------------------------


def test_a_key_authorization_is_the_token_and_the_thumbprint() -> None:
    said = challenges.key_authorization("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", ED25519)
    assert said == "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_dns_value_is_the_digest_of_the_key_authorization() -> None:
    assert challenges.dns_value("token.print") == jose.b64url(hashlib.sha256(b"token.print").digest())
    assert len(challenges.dns_value("token.print")) == 43


def test_a_wildcards_record_goes_where_its_bases_goes() -> None:
    assert challenges.dns_record_name("*.example.com") == challenges.dns_record_name("example.com")
    assert challenges.dns_record_name("example.com") == "_acme-challenge.example.com"


@pytest.mark.parametrize("name", ["www.example.com", "192.0.2.7", "2001:db8::7"])
def test_the_tls_alpn_certificate_holds_one_name_and_the_digest_in_a_critical_extension(name: str) -> None:
    made = challenges.tls_alpn_certificate(name, "token.print", P256, NOW)
    read = x509.load_der_x509_certificate(made.public_bytes(serialization.Encoding.DER))
    san = read.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(n.value) for n in san.value] == [name]
    found = read.extensions.get_extension_for_oid(challenges.ACME_IDENTIFIER)
    assert found.critical
    assert found.value.value == b"\x04\x20" + hashlib.sha256(b"token.print").digest()
    read.verify_directly_issued_by(read)
    assert read.not_valid_before_utc < NOW < read.not_valid_after_utc


# --- renewal information ---------------------------------------------------------------------------------------------


def certificate(serial: int, key_identifier: bytes | None) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Example CA")]))
        .public_key(P256.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=90))
    )
    if key_identifier is not None:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(key_identifier, None, None), critical=False)
    return builder.sign(P256, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_the_certificate_id_is_the_one_of_rfc_9773() -> None:
    # Section 4.1: the serial 00:87:65:43:21 keeps its leading zero.
    key_identifier = bytes.fromhex("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
    assert renewal.certificate_id(certificate(0x87654321, key_identifier)) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


def test_a_serial_with_a_low_first_bit_gets_no_zero() -> None:
    found = renewal.certificate_id(certificate(0x7F, b"\x01"))
    assert found == f"AQ.{jose.b64url(bytes([0x7F]))}"


def test_a_certificate_without_authority_key_identifier_has_no_id() -> None:
    assert renewal.certificate_id(certificate(5, None)) is None


@given(st.floats(0, 1, exclude_max=True), st.integers(-400, 400))
def test_the_moment_lies_in_the_window_or_is_now(fraction: float, hours: int) -> None:
    info = RenewalInfo(NOW + timedelta(hours=hours), NOW + timedelta(hours=hours + 48))
    at = renewal.renewal_time(info, NOW, fraction)
    assert at == NOW or info.start <= at <= info.end
    assert at >= NOW


def test_a_window_that_is_over_means_now() -> None:
    info = RenewalInfo(NOW - timedelta(days=3), NOW - timedelta(days=1))
    assert renewal.renewal_time(info, NOW, 0.5) == NOW


def test_a_fraction_outside_its_range_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="fraction"):
        renewal.renewal_time(RenewalInfo(NOW, NOW + timedelta(1)), NOW, 1.0)


@pytest.mark.parametrize(
    ("asked", "after"),
    [(None, timedelta(hours=6)), (timedelta(0), timedelta(minutes=1)), (timedelta(days=9), timedelta(days=1)),
     (timedelta(hours=2), timedelta(hours=2))],
)  # fmt: skip
def test_the_window_is_asked_for_again_within_a_minute_and_a_day(asked: timedelta | None, after: timedelta) -> None:
    assert renewal.next_poll(asked) == after


# --- headers ---------------------------------------------------------------------------------------------------------

BASE = "https://ca.test/acme/cert/1"


def test_alternate_chains_are_found_among_other_links_each_once() -> None:
    header = (
        '<https://ca.test/dir>;rel="index", <https://ca.test/acme/cert/1/1>;rel="alternate", </acme/cert/1/2>; '
        'rel=alternate; title="a, b", <https://ca.test/acme/cert/1/1>;rel="alternate"'
    )
    assert headers.alternates(header, BASE) == ("https://ca.test/acme/cert/1/1", "https://ca.test/acme/cert/1/2")


@pytest.mark.parametrize("header", [None, "", "nonsense", "<https://x>", '<https://x>;rel="up"', "<a>;rel", "<", ",,,"])
def test_headers_without_alternates_have_none(header: str | None) -> None:
    assert headers.alternates(header, BASE) == ()


@given(st.text(max_size=200) | st.text(alphabet='<>;,="\\rel altern/', max_size=120))
def test_any_link_header_is_read(header: str) -> None:
    for link in headers.parse_links(header, BASE):
        assert isinstance(link.url, str)


def test_a_link_header_made_to_be_slow_is_not() -> None:
    import time

    begun = time.process_time()
    headers.parse_links("<a>" + ';a="' * 5000, BASE)
    headers.parse_links("<a>" + "; a" * 5000 + "\\", BASE)
    headers.parse_links("," * 16000 + " " * 300, BASE)
    assert time.process_time() - begun < 2


def test_retry_after_is_read_in_seconds_and_as_a_date() -> None:
    assert headers.retry_after("120", NOW) == timedelta(seconds=120)
    assert headers.retry_after(format_datetime(NOW + timedelta(minutes=5), usegmt=True), NOW) == timedelta(minutes=5)
    assert headers.retry_after(format_datetime(NOW - timedelta(minutes=5), usegmt=True), NOW) == timedelta(0)
    assert headers.retry_after("999999999999", NOW) == headers.LONGEST_WAIT


@pytest.mark.parametrize("text", [None, "", "soon", "-5", "1.5", "Fri, 99 Foo 2026", "x" * 200, "١٢"])
def test_a_retry_after_that_cant_be_read_is_none(text: str | None) -> None:
    assert headers.retry_after(text, NOW) is None


@given(st.text(max_size=120))
def test_any_retry_after_is_read_and_bounded(text: str) -> None:
    found = headers.retry_after(text, NOW)
    assert found is None or timedelta(0) <= found <= headers.LONGEST_WAIT


@pytest.mark.parametrize("name", ["www.example.com", "192.0.2.7", "2001:db8::7"])
def test_what_is_presented_for_tls_alpn_says_its_name_and_digest(name: str) -> None:
    certificate = challenges.tls_alpn_certificate(name, "token.thumbprint", P256, NOW)
    names, digest = challenges.read_tls_alpn(certificate.public_bytes(serialization.Encoding.DER))
    assert names == (name,)
    assert digest == hashlib.sha256(b"token.thumbprint").digest()


def test_an_address_is_asked_for_by_its_name_in_the_reverse_tree() -> None:
    assert challenges.tls_alpn_server_name("192.0.2.7") == "7.2.0.192.in-addr.arpa"
    assert challenges.tls_alpn_server_name("2001:db8::7").endswith(".8.b.d.0.1.0.0.2.ip6.arpa")
    assert challenges.tls_alpn_server_name("www.example.com") == "www.example.com"


@given(der=st.binary(max_size=300))
def test_whatever_else_is_presented_says_nothing(der: bytes) -> None:
    assert challenges.read_tls_alpn(der) == ((), None)
