"""pkilint as a second opinion on a public certificate somebody else issued: what it reports becomes notes.

Loaded when it is first asked: it takes most of a second to warm up and 3 ms a certificate after that, which belongs
into a worker, never into a request.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from certwright.x509.workshop.words import Finding, Place, note

MAX_FINDINGS: Final = 50
# Its time grows with the number of names; certificates of more than this aren't worth a second opinion.
MAX_OCTETS: Final = 16 * 1024

SUPERSEDED: Final = frozenset(
    {
        # SC-104 (2026-10-04): the AIA extension SHOULD be there, no longer MUST.
        "cabf.serverauth.subscriber.authority_info_access_extension_absent",
        # BR 7.1.2.7.6 calls a subject key identifier in leaves NOT RECOMMENDED; RFC 5280's SHOULD is older.
        "pkix.certificate_skid_end_entity_missing",
        # RFC 5280 knows no wildcards in names; RFC 6125 6.4.3 and every client do.
        "pkix.invalid_domain_name_syntax",
    }
)
"""Rules pkilint 0.13 still reports that don't hold in 2026; their findings are left out."""


def findings(der: bytes, where: Place) -> tuple[Finding, ...]:
    """What pkilint says of one certificate (DER) as a public server certificate, each as a note `lint`.

    Nothing for certificates above 16 KiB; one note where pkilint itself can't read it. Not safe to call in a request:
    see above.
    """
    if len(der) > MAX_OCTETS:
        return (note("lint", "The certificate is too large for pkilint.", "Nothing needs to be done.", where),)
    from pkilint import finding_filter, loader
    from pkilint.cabf import serverauth
    from pyasn1.error import PyAsn1Error

    try:
        certificate = loader.load_der_certificate(der, "upload")
        kind = serverauth.determine_certificate_type(certificate)
        results = _judge(kind).validate(certificate.root)
        results, _ = finding_filter.filter_results(serverauth.create_serverauth_finding_filters(kind), results)
    except (ValueError, PyAsn1Error):
        return (note("lint", "pkilint can't read the certificate.", "Nothing needs to be done.", where),)
    said: dict[str, Finding] = {}
    for result in results:
        for description in result.finding_descriptions:
            code = description.finding.code
            if description.finding.severity.name in _TOLD and code not in SUPERSEDED and code not in said:
                said[code] = note(
                    "lint",
                    f"pkilint reports {code} ({description.finding.severity.name.lower()}).",
                    "A certificate that works can stay; tell its CA, which must not issue such.",
                    where,
                )
    return tuple(said.values())[:MAX_FINDINGS]


_TOLD: Final = ("FATAL", "ERROR", "WARNING")


@lru_cache(maxsize=16)
def _judge(kind: Any) -> Any:
    from pkilint.cabf import serverauth
    from pkilint.pkix import certificate

    return certificate.create_pkix_certificate_validator_container(
        serverauth.create_decoding_validators(), serverauth.create_validators(kind)
    )
