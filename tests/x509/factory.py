"""Makes keys, hierarchies and odd certificates for these tests; openssl from PATH serves as the second opinion."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from certwright.x509 import issue
from certwright.x509.keys import KeyAlgorithm, PrivateKey, generate

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CRL_URL = "http://ca.certwright.dev/crl/1.crl"
AIA_URL = "http://ca.certwright.dev/ca/1.crt"


@cache
def key(algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256, which: str = "") -> PrivateKey:
    """The same key for the same arguments, so that slow RSA keys are made once a process."""
    return generate(algorithm)


def openssl(*args: str, stdin: bytes = b"", cwd: Path | None = None) -> bytes:
    done = subprocess.run(["openssl", *args], input=stdin, capture_output=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def issued(
    profile: issue.Profile,
    subject: issue.Subject,
    names: list[str],
    own: PrivateKey,
    signer: PrivateKey,
    issuer: issue.IssuerFacts | None,
    *,
    at: datetime = NOW,
    seconds: int | None = None,
    name_constraints: issue.NameConstraints | None = None,
) -> bytes:
    """A certificate made the way the product makes them."""
    not_before, not_after = issue.validity(profile, issuer, at=at, seconds=seconds)
    draft = issue.draft_certificate(
        profile=profile,
        subject=subject,
        names=names,
        public_key=own.public_key(),
        issuer=issuer,
        serial=issue.new_serial(),
        not_before=not_before,
        not_after=not_after,
        crl_urls=(CRL_URL,),
        aia_url=AIA_URL,
        name_constraints=name_constraints,
    )
    linted = issue.approve(draft, at=at)
    return issue.assemble(linted, issue.sign_with_key(signer, linted.tbs))


@dataclass(frozen=True, slots=True)
class Hierarchy:
    root: bytes
    issuing: bytes
    leaf: bytes
    root_key: PrivateKey
    issuing_key: PrivateKey
    leaf_key: PrivateKey

    @property
    def issuer(self) -> issue.IssuerFacts:
        return issue.issuer_facts(self.issuing)


@lru_cache(maxsize=16)
def hierarchy(algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256) -> Hierarchy:
    root_key, issuing_key, leaf_key = key(algorithm, "root"), key(algorithm, "issuing"), key(algorithm, "leaf")
    root = issued(issue.ROOT, issue.Subject("Test root", organization="Tests"), [], root_key, root_key, None)
    issuing = issued(
        issue.ISSUING, issue.Subject("Test issuing CA", organization="Tests"), [], issuing_key, root_key,
        issue.issuer_facts(root),
    )  # fmt: skip
    leaf = issued(
        issue.SERVER, issue.Subject(), ["www.certwright.dev", "*.api.certwright.dev", "192.0.2.7"], leaf_key,
        issuing_key, issue.issuer_facts(issuing),
    )  # fmt: skip
    return Hierarchy(root, issuing, leaf, root_key, issuing_key, leaf_key)


def name(common: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)] if common else [])


def raw(
    subject: str | None,
    own: PrivateKey,
    issuer: str | None,
    signer: PrivateKey,
    *extensions: tuple[x509.ExtensionType, bool],
    not_before: datetime = NOW - timedelta(days=1),
    not_after: datetime = NOW + timedelta(days=30),
    serial: int | None = None,
) -> bytes:
    """A certificate with exactly these parts, however wrong: what others send us."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(own.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def ca(path_length: int | None = None) -> tuple[x509.ExtensionType, bool]:
    return x509.BasicConstraints(ca=True, path_length=path_length), True


def san(*names: str) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False
