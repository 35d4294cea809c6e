"""Issuing: draft a certificate, judge the draft, have exactly those bytes signed, and put the parts together.

draft_certificate -> approve (which lints and mints a one-time token) -> somebody signs `token.tbs` -> assemble. The
signature may be made by an HSM or another process; what was judged is what is signed because the bytes travel in the
token, and what comes back is checked against the issuer's public key before anybody believes it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID

from certwright.kernel.names import is_host_uri, is_mailbox, looks_like_ip, parse_dns_name
from certwright.kernel.problems import Invalid, Problem
from certwright.x509 import _constraints, _der
from certwright.x509._signing import NoHash, algorithm_identifier, check_signature, extension_der, hash_for, seal
from certwright.x509.certificates import CLIENT_AUTH, SERVER_AUTH, facts_of, load, tbs_fields
from certwright.x509.keys import CaPrivateKey, CaPublicKey, MlDsaPrivateKey, MlDsaPublicKey, judge_public_key, spki
from certwright.x509.reading import UNREADABLE

DAY: Final = 86_400
BACKDATE: Final = timedelta(hours=1)
RANDOM_SERIAL_BITS: Final = 152

KEY_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
EXTENDED_USAGES: Final[Mapping[str, str]] = {
    "server_auth": SERVER_AUTH,
    "client_auth": CLIENT_AUTH,
    "code_signing": "1.3.6.1.5.5.7.3.3",
    "email_protection": "1.3.6.1.5.5.7.3.4",
    "time_stamping": "1.3.6.1.5.5.7.3.8",
    "ipsec_ike": "1.3.6.1.5.5.7.3.17",
    "smart_card_logon": "1.3.6.1.4.1.311.20.2.2",
    "document_signing": "1.3.6.1.5.5.7.3.36",
}


# --- profiles ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CustomExtension:
    """An extension this product has no words for: its dotted OID and the DER of its value, kept as given."""

    oid: str
    value: bytes
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """What certificates of one kind hold. Key usages are RFC 5280's words in snake_case, `eku` dotted OIDs.

    `max_seconds` counts both ends of the validity, as BR 6.3.2 does. `rsa_key_usage` comes on top for RSA keys.
    `san`: which subject alternative names are allowed (`server`: DNS and IP, at least one; `any`: also e-mail and URI,
    none needed; `none`). `crl_url` and `aia_url` say whether such a pointer goes in.
    """

    name: str
    key_usage: frozenset[str]
    eku: tuple[str, ...]
    max_seconds: int
    is_ca: bool = False
    path_len: int | None = None
    rsa_key_usage: frozenset[str] = frozenset()
    san: Literal["server", "any", "none"] = "none"
    crl_url: bool = True
    aia_url: bool = True
    policy_oids: tuple[str, ...] = ()
    extensions: tuple[CustomExtension, ...] = ()

    @property
    def is_short_lived(self) -> bool:
        """Whether its certificates say that no revocation is told of them (RFC 9608)."""
        return any(extension.oid == NO_REV_AVAIL.oid for extension in self.extensions)

    @property
    def must_staple(self) -> bool:
        """Whether servers have to show an OCSP answer with its certificates (RFC 7633)."""
        return any((one.oid, one.value) == (MUST_STAPLE.oid, MUST_STAPLE.value) for one in self.extensions)


_CA_USAGE: Final = frozenset({"key_cert_sign", "crl_sign"})

ROOT: Final = Profile("root", _CA_USAGE, (), 7305 * DAY, is_ca=True, path_len=1, crl_url=False, aia_url=False)
ISSUING: Final = Profile("issuing", _CA_USAGE, (SERVER_AUTH, CLIENT_AUTH), 1826 * DAY, is_ca=True, path_len=0)
SERVER: Final = Profile(
    "server",
    frozenset({"digital_signature"}),
    (SERVER_AUTH,),
    199 * DAY,
    rsa_key_usage=frozenset({"key_encipherment"}),
    san="server",
)
# RFC 9608: there is no revocation to ask about.
NO_REV_AVAIL: Final = CustomExtension("2.5.29.56", b"\x05\x00")
# RFC 7633: the TLS feature status_request. Kinds may have it among their extensions; none that is built in has.
MUST_STAPLE: Final = CustomExtension("1.3.6.1.5.5.7.1.24", b"\x30\x03\x02\x01\x05")
# As long as BR 1.6.1 calls a certificate short-lived since March 2026: what is wrong with it is over soon enough.
SERVER_SHORT: Final = replace(
    SERVER, name="server_short", max_seconds=7 * DAY, crl_url=False, extensions=(NO_REV_AVAIL,)
)
# The reserved policy identifiers of BR 7.1.6.1 and EVG 7.1.6; DV is said by the plain server profile's silence.
OV_POLICY: Final = "2.23.140.1.2.2"
EV_POLICY: Final = "2.23.140.1.1"
SERVER_OV: Final = replace(SERVER, name="server_ov", policy_oids=(OV_POLICY,))
SERVER_EV: Final = replace(SERVER, name="server_ev", policy_oids=(EV_POLICY,))
CLIENT: Final = Profile("client", frozenset({"digital_signature"}), (CLIENT_AUTH,), 398 * DAY, san="any")
ANY_USAGE: Final = "2.5.29.37.0"
OCSP_SIGNING: Final = "1.3.6.1.5.5.7.3.9"
# RFC 6960 section 4.2.2.2.1: nobody asks whether the responder itself is revoked, so it lives for weeks only.
OCSP_NO_CHECK: Final = CustomExtension("1.3.6.1.5.5.7.48.1.5", b"\x05\x00")
OCSP_SIGNER: Final = Profile(
    "ocsp_signer", frozenset({"digital_signature"}), (OCSP_SIGNING,), 30 * DAY, crl_url=False, aia_url=False,
    extensions=(OCSP_NO_CHECK,),
)  # fmt: skip
BUILT_IN: Final[Mapping[str, Profile]] = {
    p.name: p for p in (ROOT, ISSUING, SERVER, SERVER_SHORT, SERVER_OV, SERVER_EV, CLIENT, OCSP_SIGNER)
}


# --- what goes in ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject in the order BR 7.1.4.2 asks for; all empty is the empty subject, which suits server certificates.

    The last four are what EVG 7.1.4.2 adds: registration number, kind of business, and where it is registered.
    """

    common_name: str | None = None
    organization: str | None = None
    organizational_unit: str | None = None
    locality: str | None = None
    state: str | None = None
    country: str | None = None
    serial_number: str | None = None
    business_category: str | None = None
    jurisdiction_country: str | None = None
    jurisdiction_state: str | None = None

    def as_name(self) -> x509.Name:
        """Raises Invalid `subject_invalid` for values X.520 has no room for."""
        parts = (
            (x509.NameOID.JURISDICTION_COUNTRY_NAME, self.jurisdiction_country),
            (x509.NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME, self.jurisdiction_state),
            (x509.NameOID.BUSINESS_CATEGORY, self.business_category),
            (x509.NameOID.SERIAL_NUMBER, self.serial_number),
            (x509.NameOID.COUNTRY_NAME, self.country),
            (x509.NameOID.STATE_OR_PROVINCE_NAME, self.state),
            (x509.NameOID.LOCALITY_NAME, self.locality),
            (x509.NameOID.ORGANIZATION_NAME, self.organization),
            (x509.NameOID.ORGANIZATIONAL_UNIT_NAME, self.organizational_unit),
            (x509.NameOID.COMMON_NAME, self.common_name),
        )
        try:
            for oid, value in parts:
                if value and (why := _attribute_problem(oid, value)) is not None:
                    raise ValueError(why)
            return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts if value])
        except ValueError as error:
            raise Invalid(
                "subject_invalid", f"A part of the subject can't be used: {error}.", field="subject",
                fix="The country is a two-letter code; common name and organization have at most 64 characters.",
            ) from error  # fmt: skip


# RFC 5280 appendix A.1, its upper bounds; X.520 for the kind of business.
_LONGEST: Final[Mapping[x509.ObjectIdentifier, int]] = {
    x509.NameOID.COMMON_NAME: 64,
    x509.NameOID.ORGANIZATION_NAME: 64,
    x509.NameOID.ORGANIZATIONAL_UNIT_NAME: 64,
    x509.NameOID.SERIAL_NUMBER: 64,
    x509.NameOID.LOCALITY_NAME: 128,
    x509.NameOID.STATE_OR_PROVINCE_NAME: 128,
    x509.NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME: 128,
    x509.NameOID.BUSINESS_CATEGORY: 128,
}
_JOINERS: Final = "\u200c\u200d"  # letters of some scripts are written with them


def _attribute_problem(oid: x509.ObjectIdentifier, value: str) -> str | None:
    """Why this can't be told of a holder. A character nobody sees makes people and programs read another name: the
    program stops at a NUL, the person reads a line backwards."""
    longest = _LONGEST.get(oid)
    if longest is not None and len(value) > longest:
        return f"{value[:20]!r}… has more than {longest} characters"
    if not value.strip():
        return "one consists of spaces"
    if value.isascii() and value.isprintable():
        return None  # nearly every value
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and character not in _JOINERS:
            return f"{value[:80]!r} holds a character that can't be seen, U+{ord(character):04X}"
    return None


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """Names a CA may (`permitted_…`) and may not (`excluded_…`) certify: DNS subtrees, networks such as 10.0.0.0/8,
    e-mail and URIs. Of e-mail a mailbox, or a host, that of its mailboxes; of URIs a host. A host means itself alone,
    with a dot in front (.example.com) those below it.

    RFC 5280 leaves a kind of name without any constraint free; DNS subtrees without networks here bar all addresses.
    """

    permitted_dns: tuple[str, ...] = ()
    permitted_ips: tuple[str, ...] = ()
    permitted_emails: tuple[str, ...] = ()
    permitted_uris: tuple[str, ...] = ()
    excluded_dns: tuple[str, ...] = ()
    excluded_ips: tuple[str, ...] = ()
    excluded_emails: tuple[str, ...] = ()
    excluded_uris: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        return self != NameConstraints()

    def as_extension(self) -> x509.NameConstraints:
        """Raises Invalid `name_constraint_invalid`."""
        excluded_ips = self.excluded_ips
        if self.permitted_dns and not self.permitted_ips:
            excluded_ips = ("0.0.0.0/0", "::/0")
        try:
            permitted = [
                *map(_dns_subtree, self.permitted_dns), *map(_ip_subtree, self.permitted_ips),
                *map(_mail_subtree, self.permitted_emails), *map(_uri_subtree, self.permitted_uris),
            ]  # fmt: skip
            excluded = [
                *map(_dns_subtree, self.excluded_dns), *map(_ip_subtree, excluded_ips),
                *map(_mail_subtree, self.excluded_emails), *map(_uri_subtree, self.excluded_uris),
            ]  # fmt: skip
            return x509.NameConstraints(permitted or None, excluded or None)
        except ValueError as error:
            raise Invalid(
                "name_constraint_invalid", f"A name constraint can't be used: {str(error)[:120]}.",
                field="name_constraints",
                fix="Write example.com for names, 10.0.0.0/8 for addresses, example.com or .example.com for hosts of "
                "e-mail and URIs, ann@example.com for a mailbox; at least one.",
            ) from error  # fmt: skip


def _dns_subtree(text: str) -> x509.GeneralName:
    return x509.DNSName(_host(text.removeprefix(".")))


def _mail_subtree(text: str) -> x509.GeneralName:
    host = text.strip().removeprefix("@")
    if "@" not in host:
        return x509.RFC822Name(_host_or_below(host))
    if not is_mailbox(host):
        raise ValueError(f"{text[:80]!r} is no mailbox")
    return x509.RFC822Name(host)


def _uri_subtree(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(_host_or_below(text.strip()))


def _host_or_below(text: str) -> str:
    return "." + _host(text[1:]) if text.startswith(".") else _host(text)


def _host(text: str) -> str:
    name = parse_dns_name(text, field="name_constraints")
    if name.is_wildcard:
        raise ValueError(f"{text[:80]!r} has a star, which means nothing here")
    return name.ascii


def _ip_subtree(text: str) -> x509.GeneralName:
    if "%" in text:
        raise ValueError(f"{text[:40]!r} has a zone, which means something on one machine only")
    return x509.IPAddress(ipaddress.ip_network(text))


@dataclass(frozen=True, slots=True)
class Limits:
    """What of a CA's certificate binds all that stands below it. `ekus` None is any purpose."""

    path_len: int | None
    constraints: x509.NameConstraints | None
    ekus: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class IssuerFacts:
    """What of a CA's certificate binds those it issues. Made once per CA by `issuer_facts`, then re-used."""

    der: bytes
    subject: x509.Name
    subject_der: bytes
    public_key: CaPublicKey
    spki_sha256: str
    ski: bytes
    not_before: datetime
    not_after: datetime
    path_len: int | None
    may_sign_certificates: bool
    may_sign_crls: bool
    constraints: x509.NameConstraints | None
    ekus: tuple[str, ...] | None
    """What it may certify keys for; None is everything."""
    above: tuple[Limits, ...] = ()
    """Of the CAs above it, its parent first, as far as they are known: a path is good only within the limits of all."""

    @property
    def limits(self) -> Limits:
        return Limits(self.path_len, self.constraints, self.ekus)

    @property
    def levels(self) -> int | None:
        """How many CAs may stand below it, by itself and by those above; None is any number, below 0 is none and that
        no path through it is good."""
        own = (limits.path_len for limits in (self.limits, *self.above))
        return min((length - depth for depth, length in enumerate(own) if length is not None), default=None)


def limits_of(der: bytes) -> Limits:
    """Of the certificate (DER) of a CA, whatever its key. Raises Invalid `not_a_ca` and what `facts_of` raises."""
    facts_of(der)
    found = {e.oid: e.value for e in x509.load_der_x509_certificate(der).extensions}
    basic = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    constraints = found.get(ExtensionOID.NAME_CONSTRAINTS)
    ekus = found.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if not isinstance(basic, x509.BasicConstraints) or not basic.ca:
        raise _not_a_ca()
    return Limits(
        path_len=basic.path_length,
        constraints=constraints if isinstance(constraints, x509.NameConstraints) else None,
        ekus=tuple(oid.dotted_string for oid in ekus) if isinstance(ekus, x509.ExtendedKeyUsage) else None,
    )


def _not_a_ca() -> Invalid:
    return Invalid(
        "not_a_ca", "The issuer's certificate isn't one of a CA.", field="issuer", fix="Choose a CA certificate."
    )


def issuer_facts(der: bytes) -> IssuerFacts:
    """Facts of a CA certificate (DER). Raises Invalid `not_a_ca`, `unsupported_key` and what `facts_of` raises."""
    facts = facts_of(der)
    cert = x509.load_der_x509_certificate(der)
    public = cert.public_key()
    hash_for(public)
    usage = {e.oid: e.value for e in cert.extensions}.get(ExtensionOID.KEY_USAGE)
    if not isinstance(public, CaPublicKey):
        raise _not_a_ca()
    limits = limits_of(der)
    key_usage = usage if isinstance(usage, x509.KeyUsage) else None
    return IssuerFacts(
        der=der,
        subject=cert.subject,
        subject_der=tbs_fields(cert.tbs_certificate_bytes)[4],
        public_key=public,
        spki_sha256=facts.spki_sha256,
        ski=bytes.fromhex(facts.ski) if facts.ski else key_identifier(public),
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
        path_len=limits.path_len,
        may_sign_certificates=key_usage is None or key_usage.key_cert_sign,
        may_sign_crls=key_usage is None or key_usage.crl_sign,
        constraints=limits.constraints,
        ekus=limits.ekus,
    )


def key_identifier(public: CaPublicKey) -> bytes:
    """The subject key identifier: 160 bits of SHA-256 over the key's bits (RFC 7093 section 2, method 1)."""
    _, bits = list(_der.children(spki(public)))
    return hashlib.sha256(bits[1][1:]).digest()[:20]


def new_serial() -> int:
    """A serial with 152 random bits: 20 octets, positive (RFC 5280 4.1.2.2 admits no longer one)."""
    return 1 << RANDOM_SERIAL_BITS | secrets.randbits(RANDOM_SERIAL_BITS)


def validity(
    profile: Profile, issuer: IssuerFacts | None, *, at: datetime, seconds: int | None = None
) -> tuple[datetime, datetime]:
    """notBefore and notAfter for a certificate made at `at`: an hour back for slow clocks, `seconds` long in all.

    `seconds` counts both ends and defaults to the profile's maximum; the issuer's own validity cuts off either end.
    """
    start = at.astimezone(UTC).replace(microsecond=0) - BACKDATE
    length = min(seconds or profile.max_seconds, profile.max_seconds)
    if issuer is not None:
        start = max(start, issuer.not_before)
    end = start + timedelta(seconds=length - 1)
    return start, min(end, issuer.not_after) if issuer is not None else end


def this_update(at: datetime, signer_begins: datetime) -> datetime:
    """thisUpdate of a list or an answer made at `at`: an hour back for slow clocks, as certificates begin; but not
    before its signer's own validity does."""
    return min(max(at - BACKDATE, signer_begins), at).astimezone(UTC).replace(microsecond=0)


# --- drafting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """An unsigned certificate: the exact TBSCertificate and the AlgorithmIdentifier its signature will have (DER)."""

    tbs: bytes
    signature_algorithm: bytes
    profile: Profile
    issuer: IssuerFacts | None
    signer: CaPublicKey
    hash_name: str


def draft_certificate(
    *,
    profile: Profile,
    subject: Subject,
    names: Sequence[str],
    public_key: CaPublicKey,
    issuer: IssuerFacts | None,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    crl_urls: Sequence[str] = (),
    aia_url: str | None = None,
    ocsp_url: str | None = None,
    name_constraints: NameConstraints | None = None,
    hash_name: str | None = None,
) -> Draft:
    """Drafts a certificate; `issuer` None makes it self-signed, then `public_key` is the signer's.

    `names` as A-labels, addresses, e-mail addresses or URIs, told apart by their look. Times are aware, whole seconds.
    `hash_name` as in `hash_for`; `crl_urls` are places of one and the same list. Raises Invalid `subject_invalid`,
    `name_constraint_invalid`, `extension_invalid`, `draft_invalid`; whether the certificate is a *good* one is for
    `lint` to say.
    """
    signer = issuer.public_key if issuer is not None else public_key
    algorithm = hash_for(signer, hash_name)
    own_name = subject.as_name()
    limits = name_constraints.as_extension() if name_constraints is not None else None
    try:
        if serial <= 0:
            raise ValueError("the serial number isn't positive")
        if not_after < not_before:
            raise ValueError("its validity ends before it begins")
        signature_algorithm = algorithm_identifier(signer, algorithm)
        name = own_name.public_bytes()
        extensions = _extensions(
            profile, own_name, names, public_key, issuer, tuple(crl_urls), (aia_url, ocsp_url), limits
        )
        # Written out here because the library builds certificates only by signing them. What it reads in these octets
        # is for `lint` to judge.
        tbs = _der.sequence(
            _V3,
            _der.integer(serial),
            signature_algorithm,
            issuer.subject_der if issuer is not None else name,
            _der.sequence(_der.time(not_before), _der.time(not_after)),
            name,
            spki(public_key),
            _der.tlv(_EXTENSIONS, _der.sequence(*extensions)),
        )
    except (ValueError, TypeError) as error:
        raise Invalid(
            "draft_invalid", f"No certificate can hold this: {str(error)[:160]}.", field="certificate",
            fix="Correct the value named.",
        ) from error  # fmt: skip
    return Draft(tbs, signature_algorithm, profile, issuer, signer, algorithm.name)


# version [0] EXPLICIT INTEGER, extensions [3] EXPLICIT (RFC 5280 section 4.1).
_V3: Final = bytes.fromhex("a003020102")
_EXTENSIONS: Final = 0xA3


def _extensions(
    profile: Profile,
    subject: x509.Name,
    names: Sequence[str],
    public_key: CaPublicKey,
    issuer: IssuerFacts | None,
    crl_urls: tuple[str, ...],
    access: tuple[str | None, str | None],
    limits: x509.NameConstraints | None,
) -> Iterator[bytes]:
    """Each Extension, DER."""
    yield _usage_extensions(profile, _expected_usage(profile, public_key))
    if names:
        san = x509.SubjectAlternativeName([_general_name(n) for n in names])
        yield extension_der(san, critical=not len(subject.rdns))
    if profile.is_ca:
        # Leaves carry none: nothing is looked up by it, and BR 7.1.2.7.6 discourages it.
        yield extension_der(x509.SubjectKeyIdentifier(key_identifier(public_key)), critical=False)
    yield authority_extension(issuer.ski if issuer is not None else key_identifier(public_key))
    if profile.is_short_lived:
        crl_urls, access = (), (access[0], None)
    yield pointer_extensions(crl_urls if profile.crl_url else (), access if profile.aia_url else (None, None))
    if profile.policy_oids:
        policies = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in profile.policy_oids]
        yield extension_der(x509.CertificatePolicies(policies), critical=False)
    if limits is not None:
        yield extension_der(limits, critical=True)
    for custom in profile.extensions:
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(custom.oid), custom.value)
        yield extension_der(value, critical=custom.critical)


_ACCESS_METHODS: Final = (AuthorityInformationAccessOID.CA_ISSUERS, AuthorityInformationAccessOID.OCSP)


# These are the same in thousands of certificates, and making them is most of drafting.
@lru_cache(maxsize=256)
def _usage_extensions(profile: Profile, usages: frozenset[str]) -> bytes:
    path_len = profile.path_len if profile.is_ca else None
    basic = x509.BasicConstraints(ca=profile.is_ca, path_length=path_len)
    usage = x509.KeyUsage(**{word: word in usages for word in KEY_USAGES})
    found = extension_der(basic, critical=True) + extension_der(usage, critical=True)
    if profile.eku:
        eku = x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in profile.eku])
        found += extension_der(eku, critical=False)
    return found


@lru_cache(maxsize=1024)
def authority_extension(ski: bytes) -> bytes:
    """The Extension that names the issuer's key, DER."""
    return extension_der(x509.AuthorityKeyIdentifier(ski, None, None), critical=False)


@lru_cache(maxsize=1024)
def pointer_extensions(crl_urls: tuple[str, ...], access: tuple[str | None, str | None]) -> bytes:
    """The Extensions that say where the issuer's list is, its certificate and its answers; DER, empty for none."""
    found = b""
    if crl_urls:
        # One point with several names: the same list in each place (RFC 5280 section 4.2.1.13).
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(url) for url in crl_urls], None, None, None)
        found += extension_der(x509.CRLDistributionPoints([point]), critical=False)
    entries = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(where))
        for method, where in zip(_ACCESS_METHODS, access, strict=True)
        if where
    ]
    if entries:
        found += extension_der(x509.AuthorityInformationAccess(entries), critical=False)
    return found


def _general_name(text: str) -> x509.GeneralName:
    if looks_like_ip(text):
        return x509.IPAddress(ipaddress.ip_address(text))
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    return x509.RFC822Name(text) if "@" in text else x509.DNSName(text)


def _expected_usage(profile: Profile, public_key: object) -> frozenset[str]:
    extra = profile.rsa_key_usage if isinstance(public_key, rsa.RSAPublicKey) else frozenset()
    return profile.key_usage | extra


# --- judging -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: an error bars the signature, a warning doesn't."""

    code: str
    severity: Literal["error", "warning"]
    message: str


@dataclass(frozen=True, slots=True)
class _Tbs:
    """The draft as read back from its bytes, and what it is measured by."""

    cert: x509.Certificate
    fields: list[bytes]
    extensions: dict[x509.ObjectIdentifier, x509.Extension[x509.ExtensionType]]
    public_key: object
    draft: Draft
    at: datetime | None

    @property
    def profile(self) -> Profile:
        return self.draft.profile

    @property
    def issuer(self) -> IssuerFacts | None:
        return self.draft.issuer

    def value(self, oid: x509.ObjectIdentifier) -> x509.ExtensionType | None:
        extension = self.extensions.get(oid)
        return extension.value if extension is not None else None

    @property
    def san(self) -> list[x509.GeneralName]:
        value = self.value(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
        return list(value) if isinstance(value, x509.SubjectAlternativeName) else []


_Rule = Callable[[_Tbs], Iterator[Finding]]


def _error(code: str, message: str) -> Finding:
    return Finding(code, "error", message)


def _serial_rule(tbs: _Tbs) -> Iterator[Finding]:
    serial = tbs.cert.serial_number
    if serial.bit_length() > 159:
        yield _error("serial_too_long", "The serial number is longer than 20 octets.")
    if serial.bit_length() <= 128:
        yield _error("serial_too_short", "The serial number has room for fewer than 128 random bits.")


def _validity_rule(tbs: _Tbs) -> Iterator[Finding]:
    start, end = tbs.cert.not_valid_before_utc, tbs.cert.not_valid_after_utc
    seconds = (end - start).total_seconds() + 1
    if seconds <= 0:
        yield _error("validity_reversed", "The validity ends before it begins.")
    if seconds > tbs.profile.max_seconds:
        limit = tbs.profile.max_seconds / DAY
        yield _error("too_long_lived", f"The validity exceeds the {limit:g} days of profile {tbs.profile.name!r}.")
    if tbs.issuer is not None and end > tbs.issuer.not_after:
        yield _error("outlives_issuer", "The certificate would be valid longer than its issuer's.")
    if tbs.issuer is not None and start < tbs.issuer.not_before:
        yield _error("older_than_issuer", "The certificate would be valid before its issuer's.")
    if tbs.at is not None and start < tbs.at - BACKDATE - timedelta(seconds=1):
        yield _error("backdated", "The validity begins more than an hour ago.")
    if tbs.at is not None and end <= tbs.at:
        yield _error("already_expired", "The validity has already ended.")


def _issuer_rule(tbs: _Tbs) -> Iterator[Finding]:
    issuer = tbs.issuer
    if issuer is None:
        if tbs.fields[2] != tbs.fields[4]:
            yield _error("issuer_name_mismatch", "A self-signed certificate must name itself as issuer.")
        if not tbs.profile.is_ca:
            yield _error("self_signed_leaf", "Only a root may be signed by its own key.")
        return
    if tbs.fields[2] != issuer.subject_der:
        yield _error("issuer_name_mismatch", "The issuer's name isn't, octet for octet, the CA's subject.")
    if not issuer.may_sign_certificates:
        yield _error("issuer_may_not_sign", "The issuer's key usage doesn't include signing certificates.")
    if hashlib.sha256(tbs.fields[5]).hexdigest() == issuer.spki_sha256:
        yield _error("key_is_issuers", "The certificate would carry its issuer's own key.")
    levels = issuer.levels
    if levels is None:
        return
    basic = tbs.value(ExtensionOID.BASIC_CONSTRAINTS)
    own = basic.path_length if isinstance(basic, x509.BasicConstraints) else None
    if tbs.profile.is_ca and (own is None or own >= levels):
        yield _error("path_too_long", "The issuer's path length doesn't admit this subordinate CA.")
    elif levels < 0:
        yield _error("path_too_long", "The path lengths of the CAs above the issuer don't admit the issuer.")


def _key_rule(tbs: _Tbs) -> Iterator[Finding]:
    if isinstance(tbs.public_key, MlDsaPublicKey) and tbs.profile.is_ca:
        return
    try:
        judge_public_key(tbs.public_key, public=False)
    except Problem as problem:
        yield _error(problem.code, problem.message)


_CRITICAL: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.NAME_CONSTRAINTS})
_NOT_CRITICAL: Final = frozenset(
    {
        ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.CRL_DISTRIBUTION_POINTS, ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)  # fmt: skip
_KNOWN: Final = _CRITICAL | _NOT_CRITICAL


def _extension_rule(tbs: _Tbs) -> Iterator[Finding]:
    custom = {c.oid: c for c in tbs.profile.extensions}
    if missing := custom.keys() - {oid.dotted_string for oid in tbs.extensions}:
        yield _error("extension_missing", f"The extension {min(missing)} of profile {tbs.profile.name!r} isn't there.")
    for oid, extension in tbs.extensions.items():
        if (wanted := custom.get(oid.dotted_string)) is not None:
            if (extension.value.public_bytes(), extension.critical) != (wanted.value, wanted.critical):
                yield _error("extension_value", f"The extension {wanted.oid} isn't the profile's.")
        elif oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            if extension.critical != (not len(tbs.cert.subject.rdns)):
                yield _error("san_criticality", "The SAN must be critical exactly when the subject is empty.")
        elif oid not in _KNOWN:
            yield _error("unknown_extension", f"The extension {oid.dotted_string} belongs to no profile.")
        elif extension.critical != (oid in _CRITICAL):
            yield _error("extension_criticality", f"The extension {oid.dotted_string} has the wrong criticality.")


def _purpose_rule(tbs: _Tbs) -> Iterator[Finding]:
    profile = tbs.profile
    basic = tbs.value(ExtensionOID.BASIC_CONSTRAINTS)
    usage = tbs.value(ExtensionOID.KEY_USAGE)
    eku = tbs.value(ExtensionOID.EXTENDED_KEY_USAGE)
    policies = tbs.value(ExtensionOID.CERTIFICATE_POLICIES)
    wanted = (profile.is_ca, profile.path_len if profile.is_ca else None)
    if not isinstance(basic, x509.BasicConstraints) or (basic.ca, basic.path_length) != wanted:
        yield _error("basic_constraints", f"The basic constraints aren't those of profile {profile.name!r}.")
    if not isinstance(usage, x509.KeyUsage) or _usages(usage) != _expected_usage(profile, tbs.public_key):
        yield _error("key_usage", f"The key usage isn't that of profile {profile.name!r}.")
    ekus = tuple(o.dotted_string for o in eku) if isinstance(eku, x509.ExtendedKeyUsage) else ()
    if ekus != profile.eku:
        yield _error("extended_key_usage", f"The extended key usage isn't that of profile {profile.name!r}.")
    found = policies if isinstance(policies, x509.CertificatePolicies) else ()
    if tuple(p.policy_identifier.dotted_string for p in found) != profile.policy_oids:
        yield _error("policies", f"The policies aren't those of profile {profile.name!r}.")


def _nested_purpose_rule(tbs: _Tbs) -> Iterator[Finding]:
    """A CA that names purposes may certify for those only, as clients nest them (BR 7.1.2.2.4 and Windows, NSS); and so
    may what stands below it."""
    if tbs.issuer is None:
        return
    asked = set(tbs.profile.eku) - {OCSP_SIGNING}  # a CA may always delegate its own answers (RFC 6960 4.2.2.2)
    for limits in (tbs.issuer.limits, *tbs.issuer.above):
        if limits.ekus is None or ANY_USAGE in limits.ekus:
            continue
        if not tbs.profile.eku:
            yield _error(
                "purpose_unlimited", "The issuer is limited to some purposes; the certificate must name its own."
            )
        elif outside := asked - set(limits.ekus):
            named = {oid: word for word, oid in EXTENDED_USAGES.items()}.get(min(outside), min(outside))
            yield _error("purpose_not_issuers", f"The issuer may not certify for the purpose {named}.")


def _usages(usage: x509.KeyUsage) -> frozenset[str]:
    # The last two raise when key agreement is off, where they have no meaning.
    words = KEY_USAGES if usage.key_agreement else KEY_USAGES[:7]
    return frozenset(word for word in words if getattr(usage, word))


def _identifier_rule(tbs: _Tbs) -> Iterator[Finding]:
    ski = tbs.value(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    aki = tbs.value(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    own = ski.digest if isinstance(ski, x509.SubjectKeyIdentifier) else None
    if tbs.profile.is_ca and own is None:
        yield _error("ski_missing", "A CA certificate needs a subject key identifier.")
    expected = tbs.issuer.ski if tbs.issuer is not None else own
    if not isinstance(aki, x509.AuthorityKeyIdentifier) or aki.key_identifier != expected:
        yield _error("aki_mismatch", "The authority key identifier isn't the issuer's subject key identifier.")


def _name_rule(tbs: _Tbs) -> Iterator[Finding]:
    san, kind = tbs.san, tbs.profile.san
    if kind == "none" and san:
        yield _error("san_not_allowed", f"Profile {tbs.profile.name!r} has no subject alternative names.")
    if not san and (kind == "server" or not len(tbs.cert.subject.rdns)):
        yield _error("no_san", "The certificate would name nobody: it needs a subject alternative name.")
    if len(set(san)) != len(san):
        yield _error("duplicate_name", "A subject alternative name occurs twice.")
    allowed: tuple[type[x509.GeneralName], ...] = (x509.DNSName, x509.IPAddress)
    if kind == "any":
        allowed += (x509.RFC822Name, x509.UniformResourceIdentifier)
    texts = {str(name.value) for name in san}
    for name in san:
        if not isinstance(name, allowed):
            yield _error("san_kind", f"Profile {tbs.profile.name!r} doesn't admit {type(name).__name__} names.")
        elif isinstance(name, x509.DNSName):
            yield from _dns_findings(name.value)
        elif isinstance(name, x509.RFC822Name) and not is_mailbox(name.value):
            yield _error("name_not_mailbox", f"{name.value[:80]!r} isn't an e-mail address written plainly.")
        elif isinstance(name, x509.UniformResourceIdentifier) and not is_host_uri(name.value):
            yield _error("name_not_uri", f"{name.value[:80]!r} isn't a URI with a scheme and a host.")
    commons = tbs.cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if kind == "server" and any(c.value not in texts for c in commons):
        yield _error("cn_not_in_san", "The common name isn't among the subject alternative names.")


def _subject_rule(tbs: _Tbs) -> Iterator[Finding]:
    for attribute in tbs.cert.subject:
        value = attribute.value
        if not isinstance(value, str):
            yield _error("subject_value", "A part of the subject is no text.")
        elif (why := _attribute_problem(attribute.oid, value)) is not None:
            yield _error("subject_value", f"A part of the subject can't be used: {why}.")


def _dns_findings(value: str) -> Iterator[Finding]:
    try:
        if parse_dns_name(value).ascii != value:
            yield _error("name_not_canonical", f"The name {value[:80]!r} isn't written as an A-label in lower case.")
    except Problem as problem:
        yield _error(problem.code, problem.message)


def _constraint_rule(tbs: _Tbs) -> Iterator[Finding]:
    found = () if tbs.issuer is None else (tbs.issuer.constraints, *(limits.constraints for limits in tbs.issuer.above))
    binding = [constraints for constraints in found if constraints is not None]
    names = _constraints.names_of(tbs.cert) if binding else []
    for constraints in binding:
        try:
            outside = _constraints.first_violation(constraints, names)
        except _constraints.TooComplexError:
            yield _error("too_many_constraints", "The issuer has too many name constraints to check.")
            return
        if outside is not None:
            yield _error("name_constraint", f"The issuer may not certify the name {outside[:80]!r}.")


_NO_REV_AVAIL: Final = x509.ObjectIdentifier(NO_REV_AVAIL.oid)
_TLS_FEATURE: Final = x509.ObjectIdentifier(MUST_STAPLE.oid)


def _pointer_rule(tbs: _Tbs) -> Iterator[Finding]:
    points = tbs.value(ExtensionOID.CRL_DISTRIBUTION_POINTS)
    access = tbs.value(ExtensionOID.AUTHORITY_INFORMATION_ACCESS)
    urls = (
        [n.value for p in points for n in p.full_name or ()] if isinstance(points, x509.CRLDistributionPoints) else []
    )
    if not urls and tbs.profile.crl_url and not tbs.profile.is_short_lived:
        yield Finding("no_crl_url", "warning", "Nothing tells clients where to learn of a revocation.")
    entries = list(access) if isinstance(access, x509.AuthorityInformationAccess) else []
    answered = any(entry.access_method == AuthorityInformationAccessOID.OCSP for entry in entries)
    asks = answered or bool(urls)
    urls += [entry.access_location.value for entry in entries]
    if _TLS_FEATURE in tbs.extensions and not answered:
        yield _error("must_staple_unanswered", "Servers would have to show OCSP answers, and nobody gives any.")
    short = tbs.extensions.get(_NO_REV_AVAIL)
    # RFC 9608 section 2.
    if short is not None and (
        asks or tbs.profile.is_ca or short.critical or short.value.public_bytes() != NO_REV_AVAIL.value
    ):
        yield _error("no_rev_avail", "The certificate says that no revocation is told, and contradicts itself.")
    for url in urls:
        if not _is_web_address(str(url)):
            yield _error("bad_url", f"{str(url)[:80]!r} isn't an http or https address.")


@lru_cache(maxsize=1024)
def _is_web_address(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and len(url.split()) == 1


# The whole judgement, readable in one place.
RULES: Final[tuple[_Rule, ...]] = (
    _serial_rule,
    _validity_rule,
    _issuer_rule,
    _key_rule,
    _extension_rule,
    _purpose_rule,
    _nested_purpose_rule,
    _identifier_rule,
    _subject_rule,
    _name_rule,
    _constraint_rule,
    _pointer_rule,
)


def lint(draft: Draft, *, at: datetime | None = None) -> tuple[Finding, ...]:
    """What is wrong with the draft, read back from its very bytes. Empty means: sign it.

    With `at` (aware) also that the validity begins at most an hour before and ends after it.
    """
    try:
        cert = load(seal(draft.tbs, draft.signature_algorithm, b""))
        tbs = _Tbs(cert, tbs_fields(draft.tbs), {e.oid: e for e in cert.extensions}, cert.public_key(), draft, at)
    except UNREADABLE as error:
        return (_error("unreadable", f"The draft can't be read back: {str(error)[:120]}."),)
    except Invalid as problem:
        return (_error("unreadable", problem.message),)
    return tuple(finding for rule in RULES for finding in rule(tbs))


_MINT: Final = object()


@final
class Linted:
    """Proof that these bytes passed `lint`; good for one certificate. Only `approve` makes them."""

    __slots__ = ("_draft", "_spent")

    def __init__(self, mint: object, draft: Draft) -> None:
        if mint is not _MINT:
            raise TypeError("only approve() makes these")
        self._draft = draft
        self._spent = False

    @property
    def tbs(self) -> bytes:
        """The octets to sign."""
        return self._draft.tbs

    @property
    def hash_name(self) -> str:
        """ "sha256", "sha384" or "sha512": what to sign them with; RSA with PKCS#1 v1.5. "none" for ML-DSA."""
        return self._draft.hash_name

    @property
    def profile(self) -> Profile:
        return self._draft.profile

    @property
    def spent(self) -> bool:
        return self._spent

    def spend(self) -> Draft:
        """Gives the draft out once; raises RuntimeError the second time."""
        if self._spent:
            raise RuntimeError("this token was already used for a certificate")
        self._spent = True
        return self._draft


def approve(draft: Draft, *, at: datetime | None = None) -> Linted:
    """Lints and mints the token. Raises Invalid `lint_failed` with every finding under `findings`."""
    findings = lint(draft, at=at)
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        raise Invalid(
            "lint_failed",
            f"The certificate would break {len(errors)} rule(s), the first: {errors[0].message}",
            field="certificate",
            fix="Correct the request; nothing was signed.",
            extra={"findings": [{"code": f.code, "severity": f.severity, "message": f.message} for f in findings]},
        )
    return Linted(_MINT, draft)


def signature_hash(public: object, hash_name: str | None) -> str:
    """ "sha256", "sha384", "sha512" or "none": what this key will sign with, see `hash_for`."""
    return hash_for(public, hash_name).name


def sign_with_key(private_key: CaPrivateKey, data: bytes, hash_name: str | None = None) -> bytes:
    """The software signer: ECDSA (DER signature) or RSA with PKCS#1 v1.5, with the hash of `hash_for`; or ML-DSA.

    P-256 takes 0.02 ms, RSA 2048 0.6 ms, RSA 4096 3 ms, ML-DSA 2 ms of CPU. Raises Invalid `unsupported_key` for other
    keys.
    """
    algorithm = hash_for(private_key.public_key(), hash_name)
    if isinstance(algorithm, NoHash):
        assert isinstance(private_key, MlDsaPrivateKey)  # of these alone
        return private_key.sign(data)
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        return private_key.sign(data, ec.ECDSA(algorithm))
    assert isinstance(private_key, rsa.RSAPrivateKey)  # hash_for refuses every other kind
    return private_key.sign(data, padding.PKCS1v15(), algorithm)


def assemble(linted: Linted, signature: bytes) -> bytes:
    """The certificate (DER) of what was linted and its signature, read back and verified. Spends the token.

    Raises Invalid `signature_mismatch`; then nothing was issued and the serial must not be used again.
    """
    draft = linted.spend()
    check_signature(draft.signer, signature, draft.tbs, draft.hash_name)
    der = seal(draft.tbs, draft.signature_algorithm, signature)
    if x509.load_der_x509_certificate(der).tbs_certificate_bytes != draft.tbs:
        raise Invalid(
            "signature_mismatch", "The assembled certificate doesn't hold what was checked; nothing was issued.",
            fix="Report this with the product's version.",
        )  # fmt: skip
    return der
