"""What has to be shown where for each kind of challenge (RFC 8555 section 8, RFC 8737)."""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ObjectIdentifier

from certwright.acme.jose import SigningKey, b64url, public_jwk, thumbprint

HTTP_01 = "http-01"
DNS_01 = "dns-01"
TLS_ALPN_01 = "tls-alpn-01"
HTTP_FOLDER = "/.well-known/acme-challenge/"
DNS_LABEL = "_acme-challenge"
TLS_ALPN_PROTOCOL = "acme-tls/1"
ACME_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.1.31")


def key_authorization(token: str, key: SigningKey) -> str:
    """RFC 8555 section 8.1; also the whole body of the http-01 file."""
    return f"{token}.{thumbprint(public_jwk(key))}"


def dns_record_name(name: str) -> str:
    """Where the dns-01 record goes; a wildcard's goes where its base's goes."""
    return f"{DNS_LABEL}.{name.removeprefix('*.')}"


def dns_value(authorization: str) -> str:
    """The dns-01 TXT value: the SHA-256 of the key authorization (section 8.4)."""
    return b64url(hashlib.sha256(authorization.encode("ascii")).digest())


def http_path(token: str) -> str:
    """The path of the http-01 file on port 80 of the very name (section 8.3)."""
    return HTTP_FOLDER + token


def tls_alpn_certificate(
    name: str, authorization: str, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.Certificate:
    """The self-signed certificate for a tls-alpn-01 connection (RFC 8737 section 3): exactly one SAN, and the digest
    of the key authorization in a critical extension. `name` is a DNS name or an IP address (RFC 8738)."""
    digest = hashlib.sha256(authorization.encode("ascii")).digest()
    subject = x509.Name([])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=True)
        # An OCTET STRING of 32 octets, DER.
        .add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, b"\x04\x20" + digest), critical=True)
        .sign(key, hashes.SHA256())
    )


def _general_name(name: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
