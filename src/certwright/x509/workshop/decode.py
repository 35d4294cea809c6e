"""What a file holds, as documents for people and programs. Of a private key only its kind and its public half."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from certwright.kernel.problems import Problem
from certwright.x509 import crl, csr, keys
from certwright.x509.certificates import extension_value, load_with_facts
from certwright.x509.reading import UNREADABLE, fenced
from certwright.x509.workshop.containers import Contents, Item, Kind
from certwright.x509.workshop.upload import summary

MAX_SHOWN: Final = 100
_PURPOSES: Final = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
    "2.5.29.37.0": "any",
}
_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign",
)  # fmt: skip


def describe(contents: Contents) -> dict[str, Any]:
    """The container, each part in order, what was repaired to read it, and what could not be read."""
    return {
        "container": contents.container.value,
        "repaired": list(dict.fromkeys(repair.code for repair in contents.repairs)),
        "findings": [finding.as_dict() for finding in contents.findings],
        "parts": [_clean(part(item)) for item in contents.items],
    }


def part(item: Item) -> dict[str, Any]:
    """One part; `problem` where it can't be read further."""
    head = {"kind": item.kind.value, "where": str(item.place)}
    if item.name:
        head["name"] = item.name
    try:
        with fenced:
            return head | dict(_fields(item))
    except Problem as problem:
        return head | {"problem": problem.as_dict()}
    except UNREADABLE:
        return head | {"problem": {"code": "bad_der", "message": "This part can't be read: it breaks its format."}}


def _fields(item: Item) -> Iterator[tuple[str, Any]]:
    match item.kind:
        case Kind.CERTIFICATE:
            yield from certificate(item.der).items()
        case Kind.CSR:
            facts = csr.read_csr(item.der)
            yield "names", [*facts.dns_names, *facts.ip_addresses]
            yield "common_name", facts.common_name
            yield "key_algorithm", facts.key_algorithm
            yield "spki_sha256", facts.spki_sha256
        case Kind.KEY:
            private = keys.read_private_key(item.source, item.passphrase)
            yield "key_algorithm", keys.describe_public_key(private.public_key())
            yield "spki_sha256", keys.spki_sha256(private)
        case Kind.PUBLIC_KEY:
            public = serialization.load_der_public_key(item.der)
            yield "key_algorithm", keys.describe_public_key(public)
            yield "spki_sha256", keys.spki_sha256(public)  # type: ignore[arg-type]
        case Kind.CRL:
            yield from _crl(item.der)
        case Kind.OCSP_RESPONSE:
            yield from _ocsp(item.der)


def certificate(der: bytes) -> dict[str, Any]:
    """Everything of a certificate that people ask for. Raises what `certificates.facts_of` raises."""
    cert, facts = load_with_facts(der)
    document = summary(facts)
    document["names"] = document["names"][:MAX_SHOWN]
    extensions = cert.extensions
    usage = extension_value(extensions, x509.KeyUsage)
    basic = extension_value(extensions, x509.BasicConstraints)
    policies = extension_value(extensions, x509.CertificatePolicies)
    access = extension_value(extensions, x509.AuthorityInformationAccess)
    constraints = extension_value(extensions, x509.NameConstraints)
    document |= {
        "version": cert.version.value + 1,
        "key_usage": [name for name in _USAGES if usage is not None and getattr(usage, name)],
        "extended_key_usage": [_PURPOSES.get(oid, oid) for oid in facts.eku[:MAX_SHOWN]],
        "path_length": basic.path_length if basic else None,
        "subject_key_id": facts.ski,
        "authority_key_id": facts.aki,
        "policies": [p.policy_identifier.dotted_string for p in policies or ()][:MAX_SHOWN],
        "crl_urls": list(facts.crl_urls[:MAX_SHOWN]),
        "issuer_urls": list(facts.aia_urls[:MAX_SHOWN]),
        "ocsp_urls": [
            entry.access_location.value
            for entry in access or ()
            if entry.access_method == AuthorityInformationAccessOID.OCSP
            and isinstance(entry.access_location, x509.UniformResourceIdentifier)
        ][:MAX_SHOWN],
        "must_staple": extension_value(extensions, x509.TLSFeature) is not None,
        "timestamps": len(list(extension_value(extensions, x509.PrecertificateSignedCertificateTimestamps) or ())),
        "permitted_names": _subtrees(constraints.permitted_subtrees if constraints else None),
        "excluded_names": _subtrees(constraints.excluded_subtrees if constraints else None),
    }
    return document


def _subtrees(trees: list[x509.GeneralName] | None) -> list[str]:
    shown = []
    for tree in (trees or [])[:MAX_SHOWN]:
        value = tree.value
        shown.append(value.rfc4514_string() if isinstance(value, x509.Name) else str(value))
    return shown


def _crl(der: bytes) -> Iterator[tuple[str, Any]]:
    facts = crl.read_crl(der)
    yield "issuer", facts.issuer
    yield "number", facts.number
    yield "this_update", facts.this_update.isoformat()
    yield "next_update", facts.next_update.isoformat() if facts.next_update else None
    yield "entries", len(facts.entries)
    yield (
        "revoked",
        [
            {"serial": serial, "at": at.isoformat(), "reason": reason}
            for serial, (at, reason) in list(facts.entries.items())[:MAX_SHOWN]
        ],
    )


def _ocsp(der: bytes) -> Iterator[tuple[str, Any]]:
    response = ocsp.load_der_ocsp_response(der)
    yield "response_status", response.response_status.name.lower()
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return
    yield "produced_at", response.produced_at_utc.isoformat()
    answers = []
    for single in list(response.responses)[:MAX_SHOWN]:
        revoked = single.revocation_time_utc
        answers.append(
            {
                "serial": f"{single.serial_number:x}",
                "status": single.certificate_status.name.lower(),
                "this_update": single.this_update_utc.isoformat(),
                "next_update": single.next_update_utc.isoformat() if single.next_update_utc else None,
                "revoked_at": revoked.isoformat() if revoked else None,
            }
        )
    yield "answers", answers


def _clean(value: Any) -> Any:
    """Without control characters, which a certificate may hold and a terminal would obey."""
    match value:
        case str():
            return (
                value if value.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value)
            )
        case dict():
            return {key: _clean(inner) for key, inner in value.items()}
        case list():
            return [_clean(inner) for inner in value]
    return value
