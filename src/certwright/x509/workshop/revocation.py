"""Whether a certificate was revoked, by an OCSP response (RFC 6960) or a list (RFC 5280 section 5) somebody fetched.

Nothing is believed that the issuer didn't sign, that is about another certificate, or that is out of date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from certwright.kernel.problems import Problem
from certwright.x509.certificates import CertificateFacts, extension_value, load, signed_by
from certwright.x509.reading import UNREADABLE, fenced

MAX_RESPONSE: Final = 64 * 1024
MAX_LIST: Final = 16 * 1024 * 1024
# Clocks of strangers differ from ours.
_LEEWAY: Final = timedelta(minutes=10)
_MOST_CERTIFICATES: Final = 5


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to ask about a certificate: OCSP responders and lists, http only (RFC 5280 4.2.1.13, BR 7.1.2.11.2)."""

    ocsp: tuple[str, ...] = ()
    crl: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """`revoked`: since when and why, in words that follow "was revoked"; `good`: the answer says that it is not.

    Where neither, `why` says what was wrong with the answer. `until`: how long it holds.
    """

    revoked: str = ""
    good: bool = False
    why: str = ""
    until: datetime | None = None


def sources(facts: CertificateFacts) -> Sources:
    """At most two of each kind."""
    cert = load(facts.der)
    access = extension_value(cert.extensions, x509.AuthorityInformationAccess)
    responders = [
        entry.access_location.value
        for entry in access or ()
        if entry.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(entry.access_location, x509.UniformResourceIdentifier)
    ]
    return Sources(
        *(tuple([url for url in urls if url.startswith("http://")][:2]) for urls in (responders, facts.crl_urls))
    )


def ocsp_request(leaf: bytes, issuer: bytes) -> bytes:
    """The question about one certificate, DER. SHA-1 names the issuer, as every responder understands (RFC 5019)."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(load(leaf), load(issuer), hashes.SHA1())  # noqa: S303  # a name
    return builder.build().public_bytes(serialization.Encoding.DER)


def read_ocsp(response: bytes, leaf: bytes, issuer: bytes, at: datetime) -> Answer:
    """What a responder says of `leaf`. Never raises for what it is given."""
    try:
        with fenced:
            return _read_ocsp(response, load(leaf), load(issuer), at)
    except Problem as problem:
        return Answer(why=problem.message)
    except UNREADABLE:
        return Answer(why="the OCSP response can't be read")


def _read_ocsp(data: bytes, leaf: x509.Certificate, issuer: x509.Certificate, at: datetime) -> Answer:
    response = ocsp.load_der_ocsp_response(data)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return Answer(why=f"the responder answered {response.response_status.name.lower().replace('_', ' ')}")
    if not _signed_for(response, issuer, at):
        return Answer(why="the OCSP response isn't signed by the certificate's issuer")
    for single in response.responses:
        asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, single.hash_algorithm).build()
        if (single.serial_number, single.issuer_key_hash) != (asked.serial_number, asked.issuer_key_hash):
            continue
        until = single.next_update_utc
        if single.this_update_utc > at + _LEEWAY or (until is not None and until < at - _LEEWAY):
            return Answer(why="the OCSP response is out of date")
        if single.certificate_status is ocsp.OCSPCertStatus.GOOD:
            return Answer(good=True, until=until)
        if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
            return Answer(revoked=_words(single.revocation_time_utc, single.revocation_reason), until=until)
        return Answer(why="the responder doesn't know the certificate")
    return Answer(why="the OCSP response is about another certificate")


def _words(at: datetime | None, reason: x509.ReasonFlags | None) -> str:
    when = f"on {at:%Y-%m-%d %H:%M} UTC" if at is not None else "by its CA"
    if reason in (None, x509.ReasonFlags.unspecified):
        return when
    return f"{when} ({reason.name.replace('_', ' ')})"


def _signed_for(response: ocsp.OCSPResponse, issuer: x509.Certificate, at: datetime) -> bool:
    """By the issuer itself, or by a responder to which it gave that right (RFC 6960 4.2.2.2)."""
    if _signature_fits(response, issuer):
        return True
    for delegate in response.certificates[:_MOST_CERTIFICATES]:
        purposes = extension_value(delegate.extensions, x509.ExtendedKeyUsage)
        if purposes is None or ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
            continue
        in_time = delegate.not_valid_before_utc - _LEEWAY <= at <= delegate.not_valid_after_utc + _LEEWAY
        if in_time and signed_by(delegate, issuer) and _signature_fits(response, delegate):
            return True
    return False


def _signature_fits(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    public, signature, signed = signer.public_key(), response.signature, response.tbs_response_bytes
    try:
        algorithm = response.signature_hash_algorithm
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, signed)
        elif algorithm is None or algorithm.name not in ("sha256", "sha384", "sha512"):
            return False
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, signed, ec.ECDSA(algorithm))
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def read_list(data: bytes, leaf: bytes, issuer: bytes, at: datetime) -> Answer:
    """What a revocation list (DER or PEM) says of `leaf`. Never raises for what it is given."""
    try:
        with fenced:
            return _read_list(data, load(leaf), load(issuer), at)
    except Problem as problem:
        return Answer(why=problem.message)
    except UNREADABLE:
        return Answer(why="the revocation list can't be read")


def _read_list(data: bytes, leaf: x509.Certificate, issuer: x509.Certificate, at: datetime) -> Answer:
    is_text = data.lstrip().startswith(b"-----BEGIN")
    listed = x509.load_pem_x509_crl(data) if is_text else x509.load_der_x509_crl(data)
    public = issuer.public_key()
    if not isinstance(public, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        return Answer(why="the issuer's key is of a kind that isn't supported")
    if listed.issuer != leaf.issuer or not listed.is_signature_valid(public):
        return Answer(why="the revocation list isn't signed by the certificate's issuer")
    until = listed.next_update_utc
    if listed.last_update_utc > at + _LEEWAY or (until is not None and until < at - _LEEWAY):
        return Answer(why="the revocation list is out of date")
    unknown = [extension for extension in listed.extensions if extension.critical]
    if any(not isinstance(extension.value, x509.IssuingDistributionPoint) for extension in unknown):
        return Answer(why="the revocation list has a critical extension that is unknown here")
    point = extension_value(listed.extensions, x509.IssuingDistributionPoint)
    if point is not None and not _covers(point, leaf):
        return Answer(why="the revocation list is about other certificates")
    entry = listed.get_revoked_certificate_by_serial_number(leaf.serial_number)
    if entry is None:
        return Answer(good=True, until=until)
    reason = extension_value(entry.extensions, x509.CRLReason)
    if reason is not None and reason.reason is x509.ReasonFlags.remove_from_crl:
        return Answer(good=True, until=until)
    return Answer(revoked=_words(entry.revocation_date_utc, reason.reason if reason else None), until=until)


def _covers(point: x509.IssuingDistributionPoint, leaf: x509.Certificate) -> bool:
    """Whether a partition is the one the certificate names (RFC 5280 6.3.3 b 2)."""
    if point.indirect_crl or point.only_some_reasons or point.only_contains_ca_certs or point.relative_name:
        return False
    named = extension_value(leaf.extensions, x509.CRLDistributionPoints)
    places = {name for entry in named or () for name in entry.full_name or ()}
    return not point.full_name or bool(places.intersection(point.full_name))
