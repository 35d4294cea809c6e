"""Certificates and servers these tests share: a CA whose addresses lead to a server on this machine."""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from certwright.x509.certificates import to_pem
from certwright.x509.keys import KeyAlgorithm, PrivateKey, generate, to_pkcs8_pem

NOW = datetime.fromisoformat("2026-03-01T12:00:00+00:00")


@functools.cache
def key(which: str, algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256) -> PrivateKey:
    return generate(algorithm)


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def certificate(
    subject: str,
    own: Any,
    issuer: str,
    signer: Any,
    *extensions: tuple[x509.ExtensionType, bool],
    days: int = 90,
    serial: int | None = None,
) -> bytes:
    builder = (
        x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(own.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=days))
    )  # fmt: skip
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def uri(address: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(address)


def access(**urls: str) -> tuple[x509.ExtensionType, bool]:
    methods = {"ocsp": AuthorityInformationAccessOID.OCSP, "issuer": AuthorityInformationAccessOID.CA_ISSUERS}
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(methods[what], uri(url)) for what, url in urls.items()]
    ), False


def points(url: str) -> tuple[x509.ExtensionType, bool]:
    return x509.CRLDistributionPoints([x509.DistributionPoint([uri(url)], None, None, None)]), False


_CA = (x509.BasicConstraints(True, None), True)


@dataclass(frozen=True)
class Ca:
    """A root and an intermediate below it; `leaf` makes server certificates."""

    root: bytes
    issuing: bytes
    root_key: PrivateKey
    issuing_key: PrivateKey

    @property
    def pem(self) -> str:
        return to_pem(self.issuing)

    def leaf(
        self,
        *names: str,
        own: Any = None,
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
        days: int = 90,
        serial: int | None = None,
    ) -> bytes:
        sans = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return certificate(
            names[0], own or key("leaf"), "Issuing", self.issuing_key, (sans, False), (purpose, False), *extensions,
            days=days, serial=serial,
        )  # fmt: skip

    def revocation_list(self, *serials: int, update: datetime = NOW, signer: Any = None) -> bytes:
        builder = x509.CertificateRevocationListBuilder(issuer_name=name("Issuing"))
        builder = builder.last_update(update - timedelta(hours=1)).next_update(update + timedelta(days=3))
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - timedelta(hours=2))
            reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
            builder = builder.add_revoked_certificate(entry.add_extension(reason, False).build())
        signed = builder.sign(signer or self.issuing_key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.DER)

    def response(
        self,
        leaf: bytes,
        *,
        revoked: bool = False,
        signer: Any = None,
        at: datetime = NOW,
        delegate: x509.Certificate | None = None,
        about: bytes | None = None,
    ) -> bytes:
        """What an OCSP responder says of `leaf`, or of another certificate."""
        issuer = x509.load_der_x509_certificate(self.issuing)
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=x509.load_der_x509_certificate(about or leaf), issuer=issuer, algorithm=hashes.SHA1(),
            cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
            this_update=at - timedelta(hours=1), next_update=at + timedelta(days=1),
            revocation_time=NOW - timedelta(hours=2) if revoked else None,
            revocation_reason=x509.ReasonFlags.superseded if revoked else None,
        )  # fmt: skip
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, delegate or issuer)
        if delegate is not None:
            builder = builder.certificates([delegate])
        return builder.sign(signer or self.issuing_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@functools.cache
def ca() -> Ca:
    root_key, issuing_key = key("root"), key("issuing")
    root = certificate("Root", root_key, "Root", root_key, _CA, days=3650)
    issuing = certificate("Issuing", issuing_key, "Root", root_key, _CA, days=1800)
    return Ca(root, issuing, root_key, issuing_key)


def pem_key(own: Any = None) -> str:
    return to_pkcs8_pem(own or key("leaf")).decode()


def body(leaf: bytes | None = None, **more: Any) -> dict[str, Any]:
    """An upload that succeeds."""
    der = leaf if leaf is not None else ca().leaf("www.example.com", "example.com")
    return {"certificate": to_pem(der) + ca().pem, "key": pem_key(), "online": False} | more


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def codes(document: dict[str, Any], severity: str | None = None) -> list[str]:
    return [f["code"] for f in document["findings"] if severity in (None, f["severity"]) and f["code"] != "lint"]
