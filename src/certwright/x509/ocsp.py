"""Online certificate status (RFC 6960; nonces RFC 9654): read a question, draft the answer, sign elsewhere, assemble.

The same split as for revocation lists. One certificate per question, as RFC 5019 section 2.1.1 has clients ask.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from certwright.kernel.problems import Invalid
from certwright.x509 import _der
from certwright.x509._signing import algorithm_identifier, check_signature, hash_for, seal
from certwright.x509.crl import REASON_FLAGS
from certwright.x509.issue import IssuerFacts
from certwright.x509.keys import CaPublicKey, spki
from certwright.x509.reading import UNREADABLE, fenced

# A question for one certificate has about 80 octets, with a long nonce 220 (RFC 5019 section 5 caps GET at 255).
MAX_QUESTION_OCTETS: Final = 1024
# RFC 9654 section 2.1: 1 to 128 octets.
_LONGEST_NONCE: Final = 128
# RFC 5754 section 2 and RFC 3279 section 2.1; the digest of a CertID names, it protects nothing.
_HASH_OIDS: Final = {
    "sha1": bytes.fromhex("06052b0e03021a"),
    "sha256": bytes.fromhex("0609608648016503040201"),
    "sha384": bytes.fromhex("0609608648016503040202"),
    "sha512": bytes.fromhex("0609608648016503040203"),
}
# RFC 5280 section 5.3.1.
_REASON_CODES: Final = {
    "key_compromise": 1,
    "ca_compromise": 2,
    "affiliation_changed": 3,
    "superseded": 4,
    "cessation_of_operation": 5,
    "privilege_withdrawn": 9,
}
_BASIC: Final = bytes.fromhex("06092b0601050507300101")  # id-pkix-ocsp-basic, RFC 6960 section 4.2.1
_NONCE: Final = bytes.fromhex("06092b0601050507300102")  # id-pkix-ocsp-nonce, section 4.4.1
_NULL: Final = b"\x05\x00"
_ENUMERATED: Final = 0x0A
_GENERALIZED_TIME: Final = 0x18
_EXPLICIT_0, _EXPLICIT_1, _BY_KEY = 0xA0, 0xA1, 0xA2
# CertStatus is a CHOICE with implicit tags.
_GOOD, _REVOKED, _UNKNOWN = 0x80, 0xA1, 0x82


class Status(StrEnum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class Failure(StrEnum):
    """Answers without a signature (RFC 6960 section 2.3)."""

    MALFORMED_REQUEST = "malformed_request"
    INTERNAL_ERROR = "internal_error"
    TRY_LATER = "try_later"
    UNAUTHORIZED = "unauthorized"


_FAILURES: Final = {
    Failure.MALFORMED_REQUEST: ocsp.OCSPResponseStatus.MALFORMED_REQUEST,
    Failure.INTERNAL_ERROR: ocsp.OCSPResponseStatus.INTERNAL_ERROR,
    Failure.TRY_LATER: ocsp.OCSPResponseStatus.TRY_LATER,
    Failure.UNAUTHORIZED: ocsp.OCSPResponseStatus.UNAUTHORIZED,
}


@dataclass(frozen=True, slots=True)
class Question:
    """Whose state is asked for: the issuer as two digests, made with `hash_name`, and a serial. `nonce` is echoed."""

    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int
    nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`revoked_at` (aware) and `reason`, a word of `crl.REASONS`, only with `Status.REVOKED`."""

    status: Status
    this_update: datetime
    next_update: datetime
    revoked_at: datetime | None = None
    reason: str = "unspecified"


@dataclass(frozen=True, slots=True)
class OcspDraft:
    """An unsigned answer: the exact ResponseData, its AlgorithmIdentifier, the responder's certificate, its key."""

    tbs: bytes
    signature_algorithm: bytes
    responder_der: bytes
    signer: CaPublicKey
    hash_name: str


def read_question(data: bytes) -> Question:
    """Reads an OCSPRequest (DER). Raises Invalid `ocsp_question` for what isn't a question for exactly one certificate,
    is larger than 1 KiB, has a digest or a critical extension nobody here knows, or a nonce of a length RFC 9654
    forbids."""
    if not 0 < len(data) <= MAX_QUESTION_OCTETS:
        raise _not_a_question()
    try:
        with fenced:
            asked = ocsp.load_der_ocsp_request(data)
            hash_name = asked.hash_algorithm.name
            nonce = next((e.value.nonce for e in asked.extensions if isinstance(e.value, x509.OCSPNonce)), None)
            question = Question(hash_name, asked.issuer_name_hash, asked.issuer_key_hash, asked.serial_number, nonce)
            # RFC 6960 section 4.1.2: only what isn't critical may be passed over.
            demands = any(e.critical and isinstance(e.value, x509.UnrecognizedExtension) for e in asked.extensions)
    except (*UNREADABLE, NotImplementedError):
        raise _not_a_question() from None
    if demands or hash_name not in _HASH_OIDS or (nonce is not None and not 1 <= len(nonce) <= _LONGEST_NONCE):
        raise _not_a_question()
    return question


def question_from_path(path: str) -> Question:
    """The same for a GET: base 64 behind the responder's address (RFC 6960 appendix A.1), percent-encoded or not; a
    slash that a proxy doubled or took away can't be mended. Raises Invalid `ocsp_question`."""
    if len(path) > 4 * MAX_QUESTION_OCTETS:
        raise _not_a_question()
    # Only before it: a slash at the end belongs to the question, that of one certificate in 64.
    text = unquote(path).lstrip("/").replace("-", "+").replace("_", "/")
    try:
        return read_question(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (binascii.Error, ValueError):
        raise _not_a_question() from None


def _not_a_question() -> Invalid:
    return Invalid(
        "ocsp_question", "This isn't an OCSP request for one certificate.", field="request",
        fix="Ask for one certificate at a time, as in: openssl ocsp -issuer ca.pem -cert leaf.pem -url <address>.",
    )  # fmt: skip


def issuer_digests(issuer: IssuerFacts, hash_name: str) -> tuple[bytes, bytes]:
    """Name and key digest of a CA as a question says them (RFC 6960 section 4.1.1)."""
    return hashlib.new(hash_name, issuer.subject_der).digest(), _key_digest(issuer.public_key, hash_name)


def _key_digest(public: CaPublicKey, hash_name: str) -> bytes:
    bits = next(body for tag, body in _der.children(spki(public)) if tag == _der.BIT_STRING)
    return hashlib.new(hash_name, bits[1:]).digest()


def draft_answer(question: Question, answer: Answer, responder_der: bytes, hash_name: str | None = None) -> OcspDraft:
    """Drafts the signed part (ResponseData, RFC 6960 section 4.2.1). `responder_der` is the CA's own certificate or one
    it delegated to (section 4.2.2.2); it travels with the answer. `hash_name` as in `hash_for`. Raises Invalid
    `ocsp_invalid` for values that contradict each other.

    Written out here because the library makes answers only where the responder's key itself is at hand.
    """
    if answer.next_update <= answer.this_update or (answer.status is Status.REVOKED) == (answer.revoked_at is None):
        raise Invalid("ocsp_invalid", "The answer's times contradict each other.", field="answer")
    if answer.reason not in {"unspecified", *REASON_FLAGS}:
        raise Invalid("ocsp_invalid", f"{answer.reason!r} isn't a revocation reason.", field="reason")
    public, responder_id = _responder(responder_der)
    algorithm = hash_for(public, hash_name)
    single = _der.sequence(
        _der.sequence(
            _der.sequence(_HASH_OIDS[question.hash_name], _NULL),
            _der.tlv(_der.OCTET_STRING, question.issuer_name_hash),
            _der.tlv(_der.OCTET_STRING, question.issuer_key_hash),
            _der.integer(question.serial),
        ),
        _status(answer),
        _time(answer.this_update),
        _der.tlv(_EXPLICIT_0, _time(answer.next_update)),
    )
    parts = [
        responder_id,
        _time(answer.this_update),
        _der.sequence(single),
    ]
    if question.nonce is not None:
        value = _der.tlv(_der.OCTET_STRING, _der.tlv(_der.OCTET_STRING, question.nonce))
        parts.append(_der.tlv(_EXPLICIT_1, _der.sequence(_der.sequence(_NONCE, value))))
    signature_algorithm = algorithm_identifier(public, algorithm)
    return OcspDraft(_der.sequence(*parts), signature_algorithm, responder_der, public, algorithm.name)


@lru_cache(maxsize=256)
def _responder(der: bytes) -> tuple[CaPublicKey, bytes]:
    """The key and the ResponderID of a responder: for every answer the same. Raises Invalid `unsupported_key`."""
    public = x509.load_der_x509_certificate(der).public_key()
    hash_for(public)
    assert isinstance(public, CaPublicKey)  # hash_for refuses every other kind
    return public, _der.tlv(_BY_KEY, _der.tlv(_der.OCTET_STRING, _key_digest(public, "sha1")))


def _status(answer: Answer) -> bytes:
    if answer.revoked_at is None:
        return _der.tlv(_GOOD if answer.status is Status.GOOD else _UNKNOWN, b"")
    # RFC 5280 section 5.3.1 leaves "unspecified" out.
    reason = _REASON_CODES.get(answer.reason)
    said = b"" if reason is None else _der.tlv(_EXPLICIT_0, _der.tlv(_ENUMERATED, bytes((reason,))))
    return _der.tlv(_REVOKED, _time(answer.revoked_at) + said)


def _time(at: datetime) -> bytes:
    return _der.tlv(_GENERALIZED_TIME, at.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode("ascii"))


def assemble(draft: OcspDraft, signature: bytes) -> bytes:
    """The OCSPResponse (DER). Raises Invalid `signature_mismatch`."""
    check_signature(draft.signer, signature, draft.tbs, draft.hash_name)
    return whole(draft, signature)


def whole(draft: OcspDraft, signature: bytes) -> bytes:
    """The OCSPResponse (DER), whoever made the signature; `assemble` is for those who believe it."""
    certificates = _der.tlv(_EXPLICIT_0, _der.sequence(draft.responder_der))
    signed = seal(draft.tbs, draft.signature_algorithm, signature)
    basic = _der.sequence(*_der.elements(signed), certificates)
    inside = _der.sequence(_BASIC, _der.tlv(_der.OCTET_STRING, basic))
    return _der.sequence(_der.tlv(_ENUMERATED, b"\x00"), _der.tlv(_EXPLICIT_0, inside))


def failure(kind: Failure) -> bytes:
    """An answer without a signature (DER)."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(_FAILURES[kind]).public_bytes(serialization.Encoding.DER)


def is_responder_of(responder_der: bytes, issuer: IssuerFacts) -> bool:
    """Whether clients will believe this responder for that CA: the CA itself, or a certificate of the CA with the EKU
    for signing answers (RFC 6960 section 4.2.2.2)."""
    responder = x509.load_der_x509_certificate(responder_der)
    if responder_der == issuer.der:
        return True
    found = {e.oid: e.value for e in responder.extensions}
    usage = found.get(ExtensionOID.EXTENDED_KEY_USAGE)
    authority = found.get(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    return (
        isinstance(usage, x509.ExtendedKeyUsage)
        and ExtendedKeyUsageOID.OCSP_SIGNING in usage
        and responder.issuer == issuer.subject
        and isinstance(authority, x509.AuthorityKeyIdentifier)
        and authority.key_identifier == issuer.ski
    )
