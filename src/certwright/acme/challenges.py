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


def read_tls_alpn(der: bytes) -> tuple[tuple[str, ...], bytes | None]:
    """What a certificate presented for tls-alpn-01 says: its names, and the digest it holds, if that is well formed.
    Whatever can't be read says nothing."""
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        # Names of other kinds, too: the one that is validated must stand alone (RFC 8737 section 3).
        found = tuple(str(one.value) for one in names if len(names) <= 1000)
    except (ValueError, x509.ExtensionNotFound):
        return (), None
    try:
        extension = extensions.get_extension_for_oid(ACME_IDENTIFIER)
    except x509.ExtensionNotFound:
        return found, None
    value = extension.value.value if isinstance(extension.value, x509.UnrecognizedExtension) else b""
    good = extension.critical and len(value) == 34 and value.startswith(b"\x04\x20")
    return found, value[2:] if good else None


def tls_alpn_server_name(name: str) -> str:
    """What a CA says in SNI: the name, or of an address its name in the reverse tree (RFC 8738 section 6)."""
    try:
        return ipaddress.ip_address(name).reverse_pointer
    except ValueError:
        return name


def _general_name(name: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
