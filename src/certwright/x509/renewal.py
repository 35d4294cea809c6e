"""The certificate of a CA made anew for the same key (RFC 3647 section 4.6): everything that says what the CA is and
may do is taken over octet by octet; serial number, validity, and where its issuer's certificate and lists are, are new.

Name and key being the same, whatever was signed before is verified by the new certificate, and the other way round
(RFC 5280 section 6.1 looks at nothing else, provided that the key identifiers agree too).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from certwright.x509 import _der
from certwright.x509._signing import algorithm_identifier, extension_der, hash_for
from certwright.x509.certificates import tbs_fields
from certwright.x509.issue import (
    ISSUING,
    KEY_USAGES,
    ROOT,
    Draft,
    IssuerFacts,
    Profile,
    authority_extension,
    pointer_extensions,
)
from certwright.x509.keys import spki

_EXTENSIONS: Final = 0xA3
# What a certificate says of its issuer and not of whom it is for.
_OF_THE_ISSUER: Final = frozenset(
    _der.object_identifier(oid.dotted_string)
    for oid in (
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_DISTRIBUTION_POINTS, ExtensionOID.FRESHEST_CRL,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    )
)  # fmt: skip
_SKI: Final = _der.object_identifier(ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string)


def renewal_profile(ca: IssuerFacts, *, root: bool, seconds: int) -> Profile:
    """The profile that the CA's certificate follows already, for `seconds` more."""
    found = {e.oid: e.value for e in x509.load_der_x509_certificate(ca.der).extensions}
    usage, policies = found.get(ExtensionOID.KEY_USAGE), found.get(ExtensionOID.CERTIFICATE_POLICIES)
    # The last two have no meaning without key agreement, which no CA here has.
    usages = [word for word in KEY_USAGES[:7] if getattr(usage, word)] if isinstance(usage, x509.KeyUsage) else ()
    known = policies if isinstance(policies, x509.CertificatePolicies) else ()
    return replace(
        ROOT if root else ISSUING, path_len=ca.path_len, eku=ca.ekus or (), max_seconds=seconds,
        key_usage=frozenset(usages), policy_oids=tuple(one.policy_identifier.dotted_string for one in known),
    )  # fmt: skip


def draft_renewal(
    ca: IssuerFacts,
    *,
    profile: Profile,
    issuer: IssuerFacts | None,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    crl_urls: Sequence[str] = (),
    aia_url: str | None = None,
    ocsp_url: str | None = None,
    hash_name: str | None = None,
) -> Draft:
    """As `draft_certificate`, from the certificate there is; `issuer` None makes it self-signed. `lint` says whether it
    is a good one: of a CA that was brought along it may not be. Raises Invalid `unsupported_hash`."""
    signer = issuer.public_key if issuer is not None else ca.public_key
    algorithm = hash_for(signer, hash_name)
    signature_algorithm = algorithm_identifier(signer, algorithm)
    old = x509.load_der_x509_certificate(ca.der).tbs_certificate_bytes
    pointers = pointer_extensions(
        tuple(crl_urls) if profile.crl_url else (), (aia_url, ocsp_url) if profile.aia_url else (None, None)
    )
    extensions = [*_kept(old, ca), authority_extension(issuer.ski if issuer is not None else ca.ski), pointers]
    tbs = _der.sequence(
        next(_der.elements(old)),  # the version: 3, because there are extensions
        _der.integer(serial),
        signature_algorithm,
        issuer.subject_der if issuer is not None else ca.subject_der,
        _der.sequence(_der.time(not_before), _der.time(not_after)),
        ca.subject_der,
        spki(ca.public_key),
        _der.tlv(_EXTENSIONS, _der.sequence(*extensions)),
    )
    return Draft(tbs, signature_algorithm, profile, issuer, signer, algorithm.name)


def _kept(tbs: bytes, ca: IssuerFacts) -> Iterator[bytes]:
    """Each Extension that stays, DER; what it issued names it by a key identifier, so there is one."""
    named = False
    for field in tbs_fields(tbs)[6:]:
        if field[0] != _EXTENSIONS:
            continue
        for extension in _der.elements(next(_der.elements(field))):
            oid = next(_der.elements(extension))
            named |= oid == _SKI
            if oid not in _OF_THE_ISSUER:
                yield extension
    if not named:
        yield extension_der(x509.SubjectKeyIdentifier(ca.ski), critical=False)
