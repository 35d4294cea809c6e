"""PKCS#7 bundles (P7B, RFC 2315 and 5652): the certificates of a SignedData, read and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from certwright.kernel.problems import Invalid
from certwright.x509 import _der

SIGNED_DATA: Final = bytes.fromhex("2a864886f70d010702")
_DATA: Final = bytes.fromhex("06092a864886f70d010701")
_CERTIFICATES: Final = 0xA0


def read(data: bytes) -> tuple[bytes, ...]:
    """Every certificate of a bundle (DER), in its order; may be none. Signatures in it are not looked at.

    Raises Invalid `bad_der`.
    """
    try:
        kind, wrapped = list(_der.elements(data))[:2]
        if kind[2:] != SIGNED_DATA:
            raise _der.BadDerError("not SignedData")
        signed = next(_der.elements(wrapped))
        found: list[bytes] = []
        for part in _der.elements(signed):
            if part[0] == _CERTIFICATES:
                # Old attribute certificates may stand among them, with tags of their own.
                found += [element for element in _der.elements(part) if element[0] == _der.SEQUENCE]
        return tuple(found)
    except (_der.BadDerError, StopIteration, ValueError):
        raise Invalid(
            "bad_der", "The PKCS#7 bundle can't be read: it is damaged or cut off.", field="certificate",
            fix="Get it again from the CA; openssl pkcs7 -print_certs -in <file> must read it.",
        ) from None  # fmt: skip


def write(certificates: Sequence[bytes]) -> bytes:
    """A degenerate SignedData (no signer) with these certificates in this order, DER."""
    empty_set = _der.tlv(0x31, b"")
    signed = _der.sequence(
        _der.tlv(_der.INTEGER, b"\x01"),
        empty_set,
        _der.sequence(_DATA),
        _der.tlv(_CERTIFICATES, b"".join(certificates)),
        empty_set,
    )
    return _der.sequence(_der.tlv(_der.OBJECT_IDENTIFIER, SIGNED_DATA), _der.tlv(0xA0, signed))
