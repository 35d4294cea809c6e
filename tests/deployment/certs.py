"""Certificates for these tests: self-signed, of any key type, made in memory."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from certwright.connectors.target.handshake import fingerprint
from certwright.rooms.deployment.words import Deployment, Material, key_kind

_numbers = itertools.count(1)
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Made:
    """A certificate with its key in the forms tests want."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    version_id: str

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def encrypted_key_pem(self, passphrase: bytes) -> bytes:
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))

    @property
    def sha256(self) -> str:
        return fingerprint(self.der)

    @property
    def material(self) -> Material:
        return Material(self.version_id, self.der, (), self.private_key)

    def deployment(self, site_key: str) -> Deployment:
        kind = key_kind(self.certificate.public_key())
        assert kind is not None
        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return Deployment(
            site_key,
            self.version_id,
            self.sha256,
            tuple(names.get_values_for_type(x509.DNSName)),
            self.certificate.not_valid_after_utc,
            kind,
        )


def make(*names: str, kind: str = "ec", days: int = 30, began_days_ago: int = 1) -> Made:
    """A self-signed certificate; `days` may be negative for one that has expired."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    key = _RSA if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    return sign(names or ("a.example",), key, days=days, began_days_ago=began_days_ago)


def sign(
    names: Sequence[str],
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    days: int = 30,
    began_days_ago: int = 1,
) -> Made:
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=began_days_ago))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Made(certificate, key, f"ver_{next(_numbers)}")
