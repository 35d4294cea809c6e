"""Certificate revocation lists (RFC 5280 section 5): draft, sign elsewhere, assemble, read.

The same split as for certificates, without a lint: the drafter takes only values that can't make a bad list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

from certwright.kernel.problems import Invalid, TooLarge
from certwright.x509 import _der, _pem
from certwright.x509._signing import check_signature, for_library, hash_for, outer_algorithm, scratch_key, seal
from certwright.x509.issue import IssuerFacts
from certwright.x509.keys import CaPublicKey
from certwright.x509.reading import UNREADABLE, fenced

# 100,000 entries make 4 MB; larger lists are cut into partitions before they get here.
MAX_CRL_OCTETS: Final = 64 * 1024 * 1024

_FIELD = "crl"

# Hold is left out: a TLS certificate is never un-revoked (BR 7.2.2).
REASON_FLAGS: Final = {
    "key_compromise": x509.ReasonFlags.key_compromise,
    "ca_compromise": x509.ReasonFlags.ca_compromise,
    "affiliation_changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation_of_operation": x509.ReasonFlags.cessation_of_operation,
    "privilege_withdrawn": x509.ReasonFlags.privilege_withdrawn,
}
REASONS: Final = frozenset({"unspecified", *REASON_FLAGS})
_REASON_WORDS: Final = {flag: word for word, flag in REASON_FLAGS.items()}


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """One revoked certificate; `at` aware, `reason` one of REASONS ("unspecified" leaves the reason code out)."""

    serial: int
    at: datetime
    reason: str = "unspecified"


@dataclass(frozen=True, slots=True)
class CrlDraft:
    """An unsigned list: the exact TBSCertList, its AlgorithmIdentifier, and whose signature it waits for."""

    tbs: bytes
    signature_algorithm: bytes
    signer: CaPublicKey
    hash_name: str
    """ "sha256", "sha384" or "sha512": what to sign `tbs` with; RSA with PKCS#1 v1.5."""


@dataclass(frozen=True, slots=True)
class CrlFacts:
    """What a list says. `aki` and `issuer` as in CertificateFacts; `number` None where the list carries none.

    `entries` by serial as lower-case hex; reasons this product doesn't use come as "other".
    """

    der: bytes
    issuer: str
    number: int | None
    this_update: datetime
    next_update: datetime | None
    aki: str | None
    idp_url: str | None
    entries: dict[str, tuple[datetime, str]]


def draft_crl(
    issuer: IssuerFacts,
    number: int,
    this_update: datetime,
    next_update: datetime,
    entries: Iterable[RevokedEntry],
    idp_url: str | None = None,
    hash_name: str | None = None,
    former_urls: Sequence[str] = (),
) -> CrlDraft:
    """Drafts a full list, ordered by serial; 100,000 entries take about a second.

    `idp_url` is this partition's address, octet for octet the one in the certificates (critical, BR 7.2.2.1),
    `former_urls` what older certificates call it;
    `hash_name` as in `hash_for`. Raises Invalid `crl_invalid` for a number or a serial outside 1..2^159-1, times that
    don't rise, two entries with one serial, an unknown reason, or an issuer that may not sign lists.
    """
    by_serial: dict[int, RevokedEntry] = {}
    for entry in entries:
        if entry.serial in by_serial:
            raise _invalid(f"the serial {entry.serial:x} occurs twice")
        if not 1 <= entry.serial < 1 << 159:
            raise _invalid("a serial must be from 1 to 2^159-1")
        if entry.reason not in REASONS:
            raise _invalid(f"{entry.reason!r} isn't a revocation reason")
        by_serial[entry.serial] = entry
    if not 1 <= number < 1 << 159:
        raise _invalid("its number must be from 1 to 2^159-1")
    if next_update <= this_update:
        raise _invalid("its next update must come after this one")
    if not issuer.may_sign_crls:
        raise _invalid("the CA's key usage doesn't include signing lists")
    try:
        # Handed over at once: adding entries one by one copies the list every time.
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=issuer.subject,
            revoked_certificates=[_revoked(by_serial[serial]) for serial in sorted(by_serial)],
        )
        builder = builder.last_update(_seconds(this_update)).next_update(_seconds(next_update))
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(issuer.ski, None, None), critical=False)
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        if idp_url is not None:
            builder = builder.add_extension(_distribution_point((idp_url, *former_urls)), critical=True)
    except (ValueError, TypeError) as error:
        raise _invalid(str(error)[:120]) from error
    algorithm = hash_for(issuer.public_key, hash_name)
    signed = builder.sign(scratch_key(issuer.public_key), for_library(algorithm))
    der = signed.public_bytes(serialization.Encoding.DER)
    return CrlDraft(signed.tbs_certlist_bytes, outer_algorithm(der), issuer.public_key, algorithm.name)


def _invalid(why: str) -> Invalid:
    return Invalid("crl_invalid", f"The revocation list can't be made: {why}.", field=_FIELD, fix="Correct that value.")


def _seconds(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(microsecond=0)


def _revoked(entry: RevokedEntry) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(entry.serial, _seconds(entry.at).replace(tzinfo=None))
    if entry.reason != "unspecified":
        # RFC 5280 5.3.1: unspecified is said by leaving the reason out.
        builder = builder.add_extension(_REASON_EXTENSIONS[entry.reason], critical=False)
    return builder.build()


_REASON_EXTENSIONS: Final = {word: x509.CRLReason(flag) for word, flag in REASON_FLAGS.items()}


def _distribution_point(urls: Sequence[str]) -> x509.IssuingDistributionPoint:
    return x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier(url) for url in urls],
        relative_name=None,
        only_contains_user_certs=False,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )


def assemble(draft: CrlDraft, signature: bytes) -> bytes:
    """The list (DER). Raises Invalid `signature_mismatch`."""
    check_signature(draft.signer, signature, draft.tbs, draft.hash_name)
    return seal(draft.tbs, draft.signature_algorithm, signature)


def to_pem(der: bytes) -> str:
    """PEM of one DER list, for those who want it beside the DER that RFC 5280 asks for."""
    return _pem.Block("X509 CRL", der).text().decode("ascii")


def read_crl(data: bytes, *, issuer: IssuerFacts | None = None) -> CrlFacts:
    """Reads a list, DER or PEM (up to 64 MiB, PEM 1 MiB), and with `issuer` checks that this CA signed it.

    Raises Invalid `crl_missing`, `crl_format`, `wrong_block`, `crl_not_issuers`, `not_pem`, `bad_base64` or TooLarge.
    """
    if len(data) > MAX_CRL_OCTETS:
        raise TooLarge("too_large", "The revocation list is larger than 64 MiB.", field=_FIELD, fix="Use partitions.")
    crl = _load(data)
    try:
        with fenced:
            facts = _facts(crl)
    except UNREADABLE as error:
        raise _format() from error
    if issuer is not None and not _is_from(crl, issuer):
        raise Invalid(
            "crl_not_issuers", "The revocation list isn't signed by this CA.", field=_FIELD,
            fix="Fetch the list from the address in this CA's certificates.",
        )  # fmt: skip
    return facts


def _load(data: bytes) -> x509.CertificateRevocationList:
    if not data.strip():
        raise Invalid("crl_missing", "There is no revocation list.", field=_FIELD, fix="Upload the .crl file.")
    if not _der.is_whole_sequence(data):
        found = _pem.blocks(data, field=_FIELD)
        lists = [b.body for b in found if b.label == "X509 CRL"]
        if found and not lists:
            raise Invalid(
                "wrong_block", f"This is {_pem.in_words(found[0].label)} where a revocation list belongs.",
                field=_FIELD, fix="Upload the .crl file.",
            )  # fmt: skip
        if not lists:
            raise _format()
        data = lists[0]
    try:
        with fenced:
            crl = x509.load_der_x509_crl(data)
        # As of certificates: the library warns about such serials today and will refuse them tomorrow.
        if not all(serial[:1] < b"\x80" and serial.strip(b"\x00") for serial in _serials(crl.tbs_certlist_bytes)):
            raise _format()
    except (ValueError, x509.InvalidVersion) as error:
        raise _format() from error
    return crl


def _serials(tbs: bytes) -> Iterator[bytes]:
    """Of the entries, as octets; entries stand in the sequence after the times, if any (RFC 5280 section 5.1). Raises
    BadDerError."""
    _, start, end = _der.read(tbs)
    seen_time, tag, at = False, 0, start
    while at < end and not (seen_time and tag == _der.SEQUENCE):
        tag, start, at = _der.read(tbs, at)
        seen_time = seen_time or tag in (_der.UTC_TIME, _der.GENERALIZED_TIME)
    if not seen_time or tag != _der.SEQUENCE:
        return
    while start < at:
        _, first, after = _der.read(tbs, start)
        _, begin, stop = _der.read(tbs, first)
        yield tbs[begin:stop]
        start = after


def _format() -> Invalid:
    return Invalid(
        "crl_format", "The revocation list can't be read: it is damaged or not a list.", field=_FIELD,
        fix="Fetch it again; to look at it: openssl crl -inform DER -noout -text -in <file>.",
    )  # fmt: skip


def _is_from(crl: x509.CertificateRevocationList, issuer: IssuerFacts) -> bool:
    try:
        with fenced:
            return crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key)
    except UNREADABLE:
        return False


def _facts(crl: x509.CertificateRevocationList) -> CrlFacts:
    found = {e.oid: e.value for e in crl.extensions}
    number = found.get(ExtensionOID.CRL_NUMBER)
    aki = found.get(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    idp = found.get(ExtensionOID.ISSUING_DISTRIBUTION_POINT)
    key_id = aki.key_identifier if isinstance(aki, x509.AuthorityKeyIdentifier) else None
    names = (idp.full_name or []) if isinstance(idp, x509.IssuingDistributionPoint) else []
    return CrlFacts(
        der=crl.public_bytes(serialization.Encoding.DER),
        issuer=crl.issuer.rfc4514_string(),
        number=number.crl_number if isinstance(number, x509.CRLNumber) else None,
        this_update=crl.last_update_utc,
        next_update=crl.next_update_utc,
        aki=key_id.hex() if key_id else None,
        idp_url=next((str(n.value) for n in names if isinstance(n, x509.UniformResourceIdentifier)), None),
        entries={f"{entry.serial_number:x}": (entry.revocation_date_utc, _reason(entry)) for entry in crl},
    )


def _reason(entry: x509.RevokedCertificate) -> str:
    if not len(entry.extensions):
        return "unspecified"
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return "unspecified"
    return "unspecified" if reason == x509.ReasonFlags.unspecified else _REASON_WORDS.get(reason, "other")
