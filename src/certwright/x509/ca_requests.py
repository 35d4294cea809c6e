"""The request (PKCS#10, RFC 2986) a CA sends to a parent outside: drafted here, signed where the CA's key lives."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from certwright.x509 import _der
from certwright.x509._signing import algorithm_identifier, check_signature, extension_der, hash_for, seal
from certwright.x509.issue import Subject
from certwright.x509.keys import CaPublicKey, spki

_VERSION = b"\x02\x01\x00"
_EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")  # RFC 2985 section 5.4.2
_SET = 0x31
_ATTRIBUTES = 0xA0


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """An unsigned request: the exact CertificationRequestInfo, its AlgorithmIdentifier, whose signature it needs."""

    tbs: bytes
    signature_algorithm: bytes
    signer: CaPublicKey
    hash_name: str


def draft_request(subject: Subject, public: CaPublicKey, path_len: int | None, hash_name: str | None) -> RequestDraft:
    """Asks for a CA certificate: critical basic constraints and key usage; the parent decides what it grants.

    Raises Invalid `subject_invalid`, `unsupported_key`, `unsupported_hash`.
    """
    algorithm = hash_for(public, hash_name)
    basic = x509.BasicConstraints(ca=True, path_length=path_len)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    wanted = _der.sequence(
        extension_der(basic, critical=True),
        extension_der(usage, critical=True),
    )
    attribute = _der.sequence(_EXTENSION_REQUEST, _der.tlv(_SET, wanted))
    name = subject.as_name().public_bytes()
    tbs = _der.sequence(_VERSION, name, spki(public), _der.tlv(_ATTRIBUTES, attribute))
    return RequestDraft(tbs, algorithm_identifier(public, algorithm), public, algorithm.name)


def key_of(der: bytes) -> CaPublicKey:
    """The key of a request made here."""
    public = x509.load_der_x509_csr(der).public_key()
    assert isinstance(public, CaPublicKey)  # nothing else is made
    return public


def assemble(draft: RequestDraft, signature: bytes) -> bytes:
    """The request (DER). Raises Invalid `signature_mismatch`."""
    check_signature(draft.signer, signature, draft.tbs, draft.hash_name)
    return seal(draft.tbs, draft.signature_algorithm, signature)
