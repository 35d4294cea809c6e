"""Certificates as facts: read what people and CAs send, put chains in order, and verify them by rules of our own.

Why not the library's path verifier: it accepts RSA 1024, odd curves and 1000-day leaves, and refuses private leaves
that lack what only public ones must have (a SAN, an authority key identifier). It also gives one opaque error where a
person needs to know which certificate is wrong and how.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID

from certwright.kernel.names import covers, looks_like_ip
from certwright.kernel.problems import Invalid
from certwright.x509 import _constraints, _der, _pem
from certwright.x509.keys import PrivateKey, describe_public_key, is_diffie_hellman, judge_public_key, spki_sha256
from certwright.x509.reading import UNREADABLE, fenced

MAX_CHAIN: Final = 10
# Verifying one signature costs 0.03-0.2 ms; this bounds what a hostile heap of look-alike certificates can cost.
MAX_SIGNATURE_CHECKS: Final = 100

_FIELD = "certificate"
_LABELS: Final = frozenset({"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"})

SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)
ANY_EKU: Final = "2.5.29.37.0"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says. Times are aware UTC, hex is lower case without separators, names are lower case.

    `subject` and `issuer` are RFC 4514 strings for people; `eku` holds dotted OIDs; `ski` and `aki` are hex or None;
    `signature_algorithm` is in words ("ECDSA with SHA-256"), or the OID where it has none here.
    """

    der: bytes
    subject: str
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    key_algorithm: str
    signature_algorithm: str
    sha256: str
    sha1: str
    spki_sha256: str
    ski: str | None
    aki: str | None
    is_ca: bool
    eku: tuple[str, ...]
    crl_urls: tuple[str, ...]
    aia_urls: tuple[str, ...]
    self_signed: bool
    common_name: str | None = None


# --- reading -----------------------------------------------------------------------------------------------------


def read_certificate(data: bytes) -> CertificateFacts:
    """The certificate in `data`, DER or PEM; of several PEM blocks the first, which by custom is the leaf.

    Raises Invalid `empty`, `not_pem`, `bad_base64`, `bad_der`, `wrong_block`, `too_many_blocks` or TooLarge.
    """
    return read_certificates(data, only_first=True)[0]


def read_certificates(data: bytes, *, only_first: bool = False) -> tuple[CertificateFacts, ...]:
    """Every certificate in `data`, in order, duplicates kept; private keys and parameters beside them are passed over.

    Raises as `read_certificate` does; never answers an empty tuple.
    """
    _pem.refuse_too_large(data, _FIELD)
    if not data.strip():
        raise Invalid(
            "empty", "There is no certificate.", field=_FIELD,
            fix="Paste the certificate, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----.",
        )  # fmt: skip
    if _der.is_whole_sequence(data):
        return (facts_of(data),)
    found = _pem.blocks(data, field=_FIELD)
    ders = [_without_trust(b) for b in found if b.label in _LABELS]
    if not ders and found:
        raise Invalid(
            "wrong_block",
            f"This is {_pem.in_words(found[0].label)} where a certificate belongs.",
            field=_FIELD,
            fix="Paste the certificate here; it begins with -----BEGIN CERTIFICATE-----.",
        )
    if not ders:
        raise Invalid(
            "not_pem", "The input is neither PEM nor DER.", field=_FIELD,
            fix="Paste the text of a .pem or .crt file, or upload the file itself.",
        )  # fmt: skip
    return tuple(facts_of(der) for der in (ders[:1] if only_first else ders))


def _without_trust(block: _pem.Block) -> bytes:
    """`openssl x509 -trustout` appends trust settings to the certificate; only the certificate is kept."""
    if block.label != "TRUSTED CERTIFICATE":
        return block.body
    try:
        return block.body[: _der.read(block.body)[2]]
    except _der.BadDerError:
        return block.body


def facts_of(der: bytes) -> CertificateFacts:
    """Facts of one DER certificate. Raises Invalid `bad_der`, `wrong_block` or `unsupported_key`."""
    return load_with_facts(der)[1]


def load_with_facts(der: bytes) -> tuple[x509.Certificate, CertificateFacts]:
    """The certificate as the library holds it, and its facts. Raises as `facts_of` does."""
    cert = load(der)
    if is_diffie_hellman(tbs_fields(cert.tbs_certificate_bytes)[5]):
        raise _unsupported_key()
    try:
        with fenced:
            return cert, _facts(cert, der)
    except UnsupportedAlgorithm as error:
        raise _unsupported_key() from error
    except KeyError as error:
        raise _bad_der("it asks for a TLS feature nobody here knows") from error
    except UNREADABLE as error:
        raise _bad_der(f"it breaks the format: {str(error)[:120]}") from error


def _unsupported_key() -> Invalid:
    return Invalid(
        "unsupported_key", "The certificate's public key is of a kind that isn't supported.", field=_FIELD,
        fix="Use an EC P-256 key, or RSA of 2048 bits or more.",
    )  # fmt: skip


def _facts(cert: x509.Certificate, der: bytes) -> CertificateFacts:
    extensions = cert.extensions
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    if (san := extension_value(extensions, x509.SubjectAlternativeName)) is not None:
        dns = tuple(name.lower() for name in san.get_values_for_type(x509.DNSName))
        ips = tuple(str(ip) for ip in san.get_values_for_type(x509.IPAddress))
    basic = extension_value(extensions, x509.BasicConstraints)
    eku = extension_value(extensions, x509.ExtendedKeyUsage)
    ski = extension_value(extensions, x509.SubjectKeyIdentifier)
    aki = extension_value(extensions, x509.AuthorityKeyIdentifier)
    public = cert.public_key()
    common = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return CertificateFacts(
        der=der,
        subject=cert.subject.rfc4514_string(),
        issuer=cert.issuer.rfc4514_string(),
        serial=f"{cert.serial_number:x}",
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
        dns_names=dns,
        ip_addresses=ips,
        key_algorithm=describe_public_key(public),
        signature_algorithm=signature_word(cert),
        sha256=hashlib.sha256(der).hexdigest(),
        # A fingerprint people compare by eye in old tools; nothing is decided by it.
        sha1=hashlib.sha1(der, usedforsecurity=False).hexdigest(),
        spki_sha256=spki_sha256(public),
        ski=ski.digest.hex() if ski else None,
        aki=aki.key_identifier.hex() if aki and aki.key_identifier else None,
        is_ca=bool(basic and basic.ca),
        eku=tuple(oid.dotted_string for oid in eku) if eku else (),
        crl_urls=_crl_urls(extension_value(extensions, x509.CRLDistributionPoints)),
        aia_urls=_aia_urls(extension_value(extensions, x509.AuthorityInformationAccess)),
        self_signed=cert.issuer == cert.subject and signed_by(cert, cert) is not False,
        common_name=str(common[0].value) if common else None,
    )


def load(der: bytes) -> x509.Certificate:
    """The certificate as the library holds it. Raises Invalid `bad_der` or `wrong_block`."""
    # The library warns about such serials today and will refuse them tomorrow; RFC 5280 4.1.2.2 forbids them.
    if (serial := _serial_octets(der)) is not None and (serial[:1] >= b"\x80" or not serial.strip(b"\x00")):
        raise _bad_der("its serial number isn't positive")
    try:
        with fenced:
            return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        for what, load in (
            ("a certificate signing request (CSR)", x509.load_der_x509_csr),
            ("a certificate revocation list", x509.load_der_x509_crl),
        ):
            if _loads(load, der):
                raise Invalid(
                    "wrong_block", f"This is {what} where a certificate belongs.", field=_FIELD,
                    fix="Upload the certificate the CA sent.",
                ) from None  # fmt: skip
        raise _bad_der("it isn't an X.509 certificate, or it is damaged") from error


def _loads(load: object, der: bytes) -> bool:
    try:
        with fenced:
            load(der)  # type: ignore[operator]
    except (ValueError, x509.InvalidVersion):
        return False
    return True


def _bad_der(why: str) -> Invalid:
    return Invalid(
        "bad_der", f"The certificate can't be read: {why}.", field=_FIELD,
        fix="Get the certificate again from the CA; to look at it: openssl x509 -noout -text -in <file>.",
    )  # fmt: skip


_VERSION: Final = 0xA0


def tbs_fields(tbs: bytes) -> list[bytes]:
    """The elements of a TBSCertificate without the version, each as DER: serial, signature, issuer, validity, subject,
    public key, then what is optional. Raises ValueError."""
    parts = list(_der.elements(tbs))
    if parts and parts[0][0] == _VERSION:
        parts = parts[1:]
    if len(parts) < 6:
        raise _der.BadDerError("too few fields")
    return parts


def _serial_octets(der: bytes) -> bytes | None:
    try:
        for tag, body in _der.children(next(_der.elements(der))):
            if tag != _VERSION:
                return body if tag == _der.INTEGER else None
    except (_der.BadDerError, StopIteration):
        pass
    return None


def extension_value(extensions: x509.Extensions, kind: type[_Kind]) -> _Kind | None:
    """The extension of this kind; None if there is none."""
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


_RSA_PSS: Final = "1.2.840.113549.1.1.10"
_SIGNATURE_WORDS: Final = {
    "1.2.840.113549.1.1.4": "RSA with MD5",
    "1.2.840.113549.1.1.5": "RSA with SHA-1",
    "1.2.840.113549.1.1.14": "RSA with SHA-224",
    "1.2.840.113549.1.1.11": "RSA with SHA-256",
    "1.2.840.113549.1.1.12": "RSA with SHA-384",
    "1.2.840.113549.1.1.13": "RSA with SHA-512",
    "1.2.840.10045.4.1": "ECDSA with SHA-1",
    "1.2.840.10045.4.3.2": "ECDSA with SHA-256",
    "1.2.840.10045.4.3.3": "ECDSA with SHA-384",
    "1.2.840.10045.4.3.4": "ECDSA with SHA-512",
    "1.3.101.112": "Ed25519",
}
STRONG_HASHES: Final = frozenset({"sha256", "sha384", "sha512"})


def signature_word(cert: x509.Certificate) -> str:
    """The signature's algorithm for people: "ECDSA with SHA-256", or its OID."""
    oid = cert.signature_algorithm_oid.dotted_string
    if oid == _RSA_PSS:
        return f"RSA-PSS with {hash_name(cert).upper().replace('SHA', 'SHA-', 1)}"
    return _SIGNATURE_WORDS.get(oid, oid)


def hash_name(cert: x509.Certificate) -> str:
    """ "sha256" and the like; "" where the algorithm has its hash built in (Ed25519), "unknown" for unheard-of ones."""
    try:
        algorithm = cert.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "unknown"
    return algorithm.name if algorithm else ""


def _uris(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    return tuple(name.value for name in names if isinstance(name, x509.UniformResourceIdentifier))


def _crl_urls(points: x509.CRLDistributionPoints | None) -> tuple[str, ...]:
    return tuple(url for point in points or () for url in _uris(point.full_name or ()))


def _aia_urls(access: x509.AuthorityInformationAccess | None) -> tuple[str, ...]:
    """Where the issuer's certificate can be fetched (caIssuers); OCSP addresses aren't among them."""
    wanted = AuthorityInformationAccessOID.CA_ISSUERS
    return _uris(entry.access_location for entry in access or () if entry.access_method == wanted)


def to_pem(der: bytes) -> str:
    """Canonical PEM (RFC 7468) of one DER certificate, ending in a newline."""
    return _pem.Block("CERTIFICATE", der).text().decode("ascii")


def key_matches(key: PrivateKey, leaf: CertificateFacts) -> bool:
    """Whether `leaf` certifies the public half of `key`."""
    return spki_sha256(key) == leaf.spki_sha256


# --- chains ------------------------------------------------------------------------------------------------------


def signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool | None:
    """Whether `issuer` names and signed `cert`; None where the algorithm is too old or new for the library to tell."""
    try:
        with fenced:
            cert.verify_directly_issued_by(issuer)
    except UnsupportedAlgorithm:
        return None
    except ValueError:
        return _signed_the_old_way(cert, issuer)
    except (InvalidSignature, TypeError):
        return False
    return True


def _signed_the_old_way(cert: x509.Certificate, issuer: x509.Certificate) -> bool | None:
    """MD5 and SHA-1 prove nothing any more, but still tell whose certificate it was meant to be."""
    if cert.issuer != issuer.subject or hash_name(cert) not in ("md5", "sha1", "sha224"):
        return False
    algorithm = cert.signature_hash_algorithm
    assert algorithm is not None
    public = issuer.public_key()
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(cert.signature, cert.tbs_certificate_bytes, padding.PKCS1v15(), algorithm)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(algorithm))
        else:
            return False
    except UnsupportedAlgorithm:
        return None
    except (InvalidSignature, ValueError):
        return False
    return True


class Budget:
    """Counts down signature checks over one call; `spend` raises Invalid `chain_too_complex` when none is left."""

    def __init__(self, checks: int = MAX_SIGNATURE_CHECKS) -> None:
        self.left = checks

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Invalid(
                "chain_too_complex",
                "Too many certificates look like issuers of each other; the chain can't be put together.",
                field=_FIELD,
                fix="Upload only the leaf and the intermediates its issuer gave with it.",
            )


def key_ids_differ(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the key identifiers exclude that `issuer` signed `cert`; cheap, so tried before the signature."""
    aki = extension_value(cert.extensions, x509.AuthorityKeyIdentifier)
    ski = extension_value(issuer.extensions, x509.SubjectKeyIdentifier)
    return bool(aki and aki.key_identifier and ski and aki.key_identifier != ski.digest)


def order_chain(
    leaf: CertificateFacts, others: Sequence[CertificateFacts]
) -> tuple[tuple[CertificateFacts, ...], tuple[CertificateFacts, ...]]:
    """The leaf and after it whichever of `others` signed the one before; and the strangers that fit nowhere.

    Duplicates are dropped; a root that is there comes last. At most 10 long. Raises Invalid `chain_too_complex`.
    """
    budget = Budget()
    rest = {o.der: (o, load(o.der)) for o in others if o.der != leaf.der}
    ordered = [leaf]
    child = load(leaf.der)
    while len(ordered) < MAX_CHAIN and not ordered[-1].self_signed:
        found = next((o for o, cert in rest.values() if _is_issuer(child, cert, budget)), None)
        if found is None:
            break
        child = rest.pop(found.der)[1]
        ordered.append(found)
    return tuple(ordered), tuple(o for o, _ in rest.values())


def _is_issuer(cert: x509.Certificate, candidate: x509.Certificate, budget: Budget) -> bool:
    if cert.issuer != candidate.subject or key_ids_differ(cert, candidate):
        return False
    budget.spend()
    return signed_by(cert, candidate) is not False


# --- verifying ---------------------------------------------------------------------------------------------------

UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        # Marking these critical is odd but changes nothing for a verifier that accepts any policy.
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
    }
)


def verify_chain(
    leaf_der: bytes,
    intermediates: Sequence[bytes],
    roots: Sequence[bytes],
    *,
    at: datetime,
    name: str | None,
) -> None:
    """Verifies `leaf_der` up to one of `roots` at the time `at` (aware), and that it is good for `name` if given.

    `intermediates` in any order; strangers among them do no harm. Along the path (RFC 5280 section 6, no policies):
    signatures with SHA-256 or better, validity, basicConstraints, pathLen, keyCertSign, name constraints, extended key
    usage, unknown critical extensions, key strength. Revocation is not looked at. With `name` (an A-label or an IP
    address) the certificate must allow server authentication and hold the name in its SAN; the CN doesn't count.

    Raises Invalid `expired`, `not_yet_valid`, `name_mismatch`, `no_server_auth`, `chain_missing` (nobody given is the
    issuer), `chain_broken` (someone has the issuer's name but didn't sign), `untrusted_root`, `not_a_ca`,
    `path_too_long`, `name_constraint`, `weak_signature`, `weak_key`, `unsupported_curve`, `unsupported_key`,
    `unknown_critical_extension`, `chain_too_complex`, and what `facts_of` raises. Of several paths the most telling
    refusal is raised: that of the path that came furthest.
    """
    leaf = load(leaf_der)
    facts = facts_of(leaf_der)
    for der in (*intermediates, *roots):
        facts_of(der)  # refuses what can't be read before anything relies on its extensions
    check_one(leaf, at, is_leaf=True, is_anchor=leaf_der in roots)
    if name is not None:
        _check_name(facts, name)
    search = _Search(
        tuple(load(d) for d in dict.fromkeys(intermediates)), tuple(load(d) for d in dict.fromkeys(roots)), at
    )
    refusal = search.extend([leaf])
    if refusal is not None:
        raise refusal


class _Search:
    """Depth-first over possible issuers, roots before intermediates, within one budget of signature checks."""

    def __init__(
        self, intermediates: tuple[x509.Certificate, ...], roots: tuple[x509.Certificate, ...], at: datetime
    ) -> None:
        self._intermediates = intermediates
        self._roots = roots
        self._at = at
        self._budget = Budget()
        self._depth_of_refusal = -1
        self._refusal: Invalid | None = None

    def extend(self, path: list[x509.Certificate]) -> Invalid | None:
        """None if `path` (leaf first) reaches a root; else the refusal that came furthest so far."""
        last = path[-1]
        if last in self._roots:
            return None
        if len(path) > MAX_CHAIN:
            return self._refuse(path, _path_too_long(last))
        namesakes = 0
        for candidate in (*self._roots, *(c for c in self._intermediates if c not in self._roots)):
            if candidate.subject != last.issuer or candidate in path:
                continue
            namesakes += 1
            if key_ids_differ(last, candidate):
                continue
            self._budget.spend()
            if (why := self._step(path, candidate)) is not None:
                self._refuse([*path, candidate], why)
            elif self.extend([*path, candidate]) is None:
                return None
        if last.issuer == last.subject:
            self._refuse(path, _untrusted_root(last))
        elif namesakes:
            self._refuse(path, _chain_broken(last))
        else:
            self._refuse(path, _chain_missing(last))
        return self._refusal

    def _step(self, path: list[x509.Certificate], issuer: x509.Certificate) -> Invalid | None:
        """Why `issuer` can't come next in `path`, or None."""
        anchor = issuer in self._roots
        try:
            check_hash(path[-1])
            if signed_by(path[-1], issuer) is not True:
                return _chain_broken(path[-1])
            check_one(issuer, self._at, is_leaf=False, is_anchor=anchor)
            check_as_issuer(issuer, path)
        except Invalid as why:
            return why
        return None

    def _refuse(self, path: list[x509.Certificate], why: Invalid) -> Invalid:
        if len(path) > self._depth_of_refusal:
            self._depth_of_refusal, self._refusal = len(path), why
        return why


def who(cert: x509.Certificate) -> str:
    """How a certificate is called in sentences: its CN, else its subject, else its serial; escaped and cut."""
    common = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = str(common[0].value) if common else cert.subject.rfc4514_string()
    return f"{name[:80]!r}" if name else f"with serial {cert.serial_number:x}"


def check_one(cert: x509.Certificate, at: datetime, *, is_leaf: bool, is_anchor: bool) -> None:
    """What holds for a certificate by itself. A trusted root's own signature isn't looked at: nobody relies on it."""
    what = "The certificate" if is_leaf else "The CA certificate"
    if at > cert.not_valid_after_utc:
        raise Invalid(
            "expired", f"{what} {who(cert)} expired on {cert.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.", field=_FIELD,
            fix="Use a renewed certificate." if is_leaf else "Use the issuer's current CA certificate.",
        )  # fmt: skip
    if at < cert.not_valid_before_utc:
        raise Invalid(
            "not_yet_valid",
            f"{what} {who(cert)} isn't valid before {cert.not_valid_before_utc:%Y-%m-%d %H:%M} UTC.",
            field=_FIELD,
            fix="Wait until then, or check that this machine's clock is right.",
        )
    for extension in cert.extensions:
        if extension.critical and extension.oid not in UNDERSTOOD:
            raise Invalid(
                "unknown_critical_extension",
                f"{what} {who(cert)} has the critical extension {extension.oid.dotted_string}, unknown here.",
                field=_FIELD,
                fix="Ask the CA for a certificate without it.",
            )
    judge_public_key(cert.public_key(), public=False, field=_FIELD)
    if is_leaf and not is_anchor:
        check_hash(cert)


def check_hash(cert: x509.Certificate) -> None:
    name = hash_name(cert)
    if name and name not in STRONG_HASHES:
        raise Invalid(
            "weak_signature",
            f"The certificate {who(cert)} is signed with {signature_word(cert)}, which can be forged.",
            field=_FIELD,
            fix="Have it issued again with SHA-256.",
        )


def check_as_issuer(issuer: x509.Certificate, path: list[x509.Certificate]) -> None:
    """What holds for `issuer` as the next in `path`, which has the leaf first.

    Raises Invalid `not_a_ca`, `path_too_long`, `name_constraint`, `eku_not_allowed` or `chain_too_complex`.
    """
    basic = extension_value(issuer.extensions, x509.BasicConstraints)
    usage = extension_value(issuer.extensions, x509.KeyUsage)
    if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
        raise Invalid(
            "not_a_ca", f"The certificate {who(issuer)} isn't one of a CA but signed {who(path[-1])}.", field=_FIELD,
            fix="Only a certificate with basicConstraints CA and keyCertSign may sign others.",
        )  # fmt: skip
    # RFC 5280 4.2.1.9: self-issued certificates and the leaf itself don't count.
    below = sum(1 for cert in path[1:] if cert.subject != cert.issuer)
    if basic.path_length is not None and below > basic.path_length:
        raise _path_too_long(issuer)
    if (constraints := extension_value(issuer.extensions, x509.NameConstraints)) is not None:
        _check_constraints(constraints, issuer, path)
    issuer_eku = extension_value(issuer.extensions, x509.ExtendedKeyUsage)
    leaf_eku = extension_value(path[0].extensions, x509.ExtendedKeyUsage)
    if issuer_eku is not None and leaf_eku is not None:
        allowed = {oid.dotted_string for oid in issuer_eku}
        asked = {oid.dotted_string for oid in leaf_eku}
        if ANY_EKU not in allowed and not asked & allowed:
            raise Invalid(
                "eku_not_allowed", f"The CA {who(issuer)} may not issue certificates for this purpose.", field=_FIELD,
                fix="Have the certificate issued by a CA for its purpose.",
            )  # fmt: skip


def _check_constraints(
    constraints: x509.NameConstraints, issuer: x509.Certificate, path: list[x509.Certificate]
) -> None:
    for place, cert in enumerate(path):
        if place and cert.subject == cert.issuer:
            continue  # self-issued intermediates are exempt (RFC 5280 4.2.1.10)
        try:
            outside = _constraints.first_violation(constraints, _constraints.names_of(cert))
        except _constraints.TooComplexError as error:
            raise Invalid(
                "chain_too_complex", f"The CA {who(issuer)} has too many name constraints.", field=_FIELD,
                fix="Use a CA with fewer constraints.",
            ) from error  # fmt: skip
        if outside is not None:
            raise Invalid(
                "name_constraint", f"The CA {who(issuer)} may not certify the name {outside[:80]!r}.", field=_FIELD,
                fix="Use a CA whose name constraints include this name.",
            )  # fmt: skip


def _check_name(facts: CertificateFacts, name: str) -> None:
    if facts.eku and not {SERVER_AUTH, ANY_EKU} & set(facts.eku):
        raise Invalid(
            "no_server_auth", "The certificate isn't made for servers (serverAuth is missing).", field=_FIELD,
            fix="Use a server certificate.",
        )  # fmt: skip
    wanted = name.strip().removesuffix(".").lower()
    if looks_like_ip(wanted):
        good = str(ipaddress.ip_address(wanted)) in facts.ip_addresses
    else:
        good = any(covers(pattern, wanted) for pattern in facts.dns_names)
    if not good:
        held = ", ".join((facts.dns_names + facts.ip_addresses)[:5]) or "no names at all"
        raise Invalid(
            "name_mismatch", f"The certificate isn't good for {wanted[:80]!r}; it holds {held}.", field=_FIELD,
            fix="Use a certificate that holds this name among its subject alternative names.",
        )  # fmt: skip


def _chain_missing(cert: x509.Certificate) -> Invalid:
    return Invalid(
        "chain_missing",
        f"The certificate of the CA that issued {who(cert)} is missing: {cert.issuer.rfc4514_string()[:120]!r}.",
        field=_FIELD,
        fix="Add the intermediate certificates the CA sent with the certificate.",
    )


def _chain_broken(cert: x509.Certificate) -> Invalid:
    return Invalid(
        "chain_broken",
        f"A CA certificate with the right name is there, but its key didn't sign {who(cert)}.",
        field=_FIELD,
        fix="Use the intermediate certificates that came with this very certificate; CAs change them often.",
    )


def _untrusted_root(cert: x509.Certificate) -> Invalid:
    return Invalid(
        "untrusted_root", f"The chain ends in {who(cert)}, which isn't among the trusted roots.", field=_FIELD,
        fix="Add that root to the trusted ones if it is yours, or use a certificate from a trusted CA.",
    )  # fmt: skip


def _path_too_long(cert: x509.Certificate) -> Invalid:
    return Invalid(
        "path_too_long", f"More CAs stand below {who(cert)} than it allows.", field=_FIELD,
        fix="Use a CA whose path length admits the subordinate CAs.",
    )  # fmt: skip
