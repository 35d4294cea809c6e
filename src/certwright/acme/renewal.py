"""Renewal information (RFC 9773): which certificate is meant, and when to renew inside the CA's window."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509

from certwright.acme.jose import b64url
from certwright.acme.objects import RenewalInfo

SHORTEST_POLL = timedelta(minutes=1)
LONGEST_POLL = timedelta(days=1)
USUAL_POLL = timedelta(hours=6)


def certificate_id(leaf_der: bytes) -> str | None:
    """`<key identifier of the issuer>.<serial>` of section 4.1, the serial as DER with its leading zero octet. None for
    a certificate without an authority key identifier. Raises ValueError for what is no certificate."""
    certificate = x509.load_der_x509_certificate(leaf_der)
    try:
        authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return None
    if authority.key_identifier is None:
        return None
    serial = certificate.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1)
    return f"{b64url(authority.key_identifier)}.{b64url(octets)}"


def renewal_time(info: RenewalInfo, now: datetime, fraction: float) -> datetime:
    """A moment of the window (section 4.2): `fraction` in [0, 1) is drawn once per certificate, so that asking again
    doesn't draw again. A moment that has passed means now."""
    if not 0 <= fraction < 1:
        raise ValueError("the fraction lies outside [0, 1)")
    return max(now, info.start + (info.end - info.start) * fraction)


def next_poll(asked: timedelta | None) -> timedelta:
    """How long until the window is asked for again: what Retry-After said, between a minute and a day; 6 hours if it
    said nothing (section 4.3)."""
    return USUAL_POLL if asked is None else min(max(asked, SHORTEST_POLL), LONGEST_POLL)
