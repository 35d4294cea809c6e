"""Certificate signing requests (PKCS#10, RFC 2986): read those people upload, make our own."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from certwright.kernel.names import looks_like_ip, parse_dns_name, parse_ip
from certwright.kernel.problems import Invalid, Problem
from certwright.x509 import _der, _pem
from certwright.x509.keys import (
    PrivateKey,
    PublicKey,
    describe_public_key,
    is_diffie_hellman,
    judge_public_key,
    spki_sha256,
)
from certwright.x509.reading import UNREADABLE, fenced

MAX_NAMES: Final = 1000

_FIELD = "csr"
_LABELS: Final = frozenset({"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"})


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject fields people know (X.520: CN, O, OU, C, ST, L); empty texts are left out of the request."""

    common_name: str = ""
    organization: str = ""
    organizational_unit: str = ""
    country: str = ""
    province: str = ""
    locality: str = ""


_SUBJECT_OIDS: Final = {
    "country": x509.NameOID.COUNTRY_NAME,
    "province": x509.NameOID.STATE_OR_PROVINCE_NAME,
    "locality": x509.NameOID.LOCALITY_NAME,
    "organization": x509.NameOID.ORGANIZATION_NAME,
    "organizational_unit": x509.NameOID.ORGANIZATIONAL_UNIT_NAME,
    "common_name": x509.NameOID.COMMON_NAME,
}
_LONGEST_SHOWN: Final = 128


@dataclass(frozen=True, slots=True)
class CsrFacts:
    """What a request asks for: `dns_names` as A-labels in lower case, each once, a CN that is a name first.

    `subject` is for showing: the first value of each field, its printable characters only, at most 128 of them.
    `must_staple`: it asks for the TLS feature that makes servers show OCSP answers (RFC 7633).
    """

    der: bytes
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    common_name: str | None
    public_key: PublicKey
    spki_sha256: str
    key_algorithm: str
    subject: Subject = Subject()
    must_staple: bool = False


def read_csr(data: bytes, *, public: bool = False) -> CsrFacts:
    """Reads a server request, PEM or DER: checks its signature, judges its key, collects the SANs and the CN as names.

    `public`: judge the key as a public CA does. Extensions other than the SAN are ignored, must-staple and the subject
    beyond its CN only reported: profile and account decide those. Raises Invalid `csr_missing`, `csr_format`,
    `csr_bad_signature`, `csr_no_names`, `csr_too_many_names`, `csr_unsupported_san`, `wrong_block`, `not_pem`,
    `bad_base64`, the codes of `judge_public_key` and of `kernel.names.parse_dns_name`, or TooLarge (1 MiB); the field
    is always `csr`.
    """
    csr, der, key = _checked(data, public=public)
    try:
        with fenced:
            common, dns, ips = _names(csr)
            subject = _subject(csr)
            must_staple = any(isinstance(extension.value, x509.TLSFeature) for extension in csr.extensions)
    except UNREADABLE as error:
        raise _format("its subject or its extensions break the format") from error
    return CsrFacts(der, dns, ips, common, key, spki_sha256(key), describe_public_key(key), subject, must_staple)


def read_csr_key(data: bytes) -> PublicKey:
    """Only the key of a request, PEM or DER, for certificates whose subject and names its issuer decides: for people,
    devices, CAs. Raises as `read_csr` does, but for the codes about names."""
    return _checked(data, public=False)[2]


def _checked(data: bytes, *, public: bool) -> tuple[x509.CertificateSigningRequest, bytes, PublicKey]:
    der = _der_of(data)
    try:
        with fenced:
            csr, signed = _loaded(der)
            if is_diffie_hellman(list(_der.elements(csr.tbs_certrequest_bytes))[2]):
                raise UnsupportedAlgorithm("finite-field Diffie-Hellman")
            key = csr.public_key()
    except UnsupportedAlgorithm as error:
        raise Invalid(
            "unsupported_key", "The request's public key is of a kind that isn't supported.", field=_FIELD,
            fix="Use an EC P-256 key, or RSA of 2048 bits or more.",
        ) from error  # fmt: skip
    except UNREADABLE as error:
        raise _wrong_or_unreadable(der) from error
    judge_public_key(key, public=public, field=_FIELD)
    if not isinstance(key, PublicKey):
        raise _format("its key is of a kind that isn't supported")
    if not _signature_is_valid(csr, signed, key):
        raise Invalid(
            "csr_bad_signature", "The request isn't signed by its own key; it was changed after signing.", field=_FIELD,
            fix="Make the request again and paste it unchanged.",
        )  # fmt: skip
    return csr, der, key


def _loaded(der: bytes) -> tuple[x509.CertificateSigningRequest, bytes]:
    """The request, and the octets its key signed. Raises ValueError, InvalidVersion, UnsupportedAlgorithm.

    RFC 2986 knows version 0 alone, but certbot wrote 2 until 1.28 (Debian 11 and Ubuntu 22.04 have it), Ruby's
    acme-client, which GitLab uses, until 2024, and public CAs take both. Nothing follows from it, so it is read as 0.
    """
    try:
        csr = x509.load_der_x509_csr(der)
    except x509.InvalidVersion:
        signed, *sealed = _der.elements(der)
        _, *asked = _der.elements(signed)
        return x509.load_der_x509_csr(_der.sequence(_der.sequence(_der.integer(0), *asked), *sealed)), signed
    return csr, csr.tbs_certrequest_bytes


def _der_of(data: bytes) -> bytes:
    _pem.refuse_too_large(data, _FIELD)
    if not data.strip():
        raise Invalid(
            "csr_missing", "There is no certificate signing request.", field=_FIELD,
            fix="Paste the request; it begins with -----BEGIN CERTIFICATE REQUEST-----.",
        )  # fmt: skip
    if _der.is_whole_sequence(data):
        return data
    found = _pem.blocks(data, field=_FIELD)
    requests = list(dict.fromkeys(b.body for b in found if b.label in _LABELS))
    if len(requests) == 1:
        return requests[0]
    if requests:
        raise _format(f"the text holds {len(requests)} different requests")
    if found:
        raise _wrong_block(_pem.in_words(found[0].label))
    raise _format("it is neither PEM nor DER")


def _wrong_or_unreadable(der: bytes) -> Invalid:
    try:
        with fenced:
            x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):
        return _format("it isn't a PKCS#10 request, or it is damaged")
    return _wrong_block("a certificate")


def _wrong_block(what: str) -> Invalid:
    return Invalid(
        "wrong_block", f"This is {what} where the certificate signing request belongs.", field=_FIELD,
        fix="Paste the request; it begins with -----BEGIN CERTIFICATE REQUEST-----.",
    )  # fmt: skip


def _format(why: str) -> Invalid:
    return Invalid(
        "csr_format", f"The request can't be read: {why}.", field=_FIELD,
        fix="Make it again, for instance with: openssl req -new -key <key> -subj / -addext subjectAltName=DNS:<name>.",
    )  # fmt: skip


_ECDSA: Final = {
    x509.SignatureAlgorithmOID.ECDSA_WITH_SHA256: ec.ECDSA(hashes.SHA256()),
    x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384: ec.ECDSA(hashes.SHA384()),
    x509.SignatureAlgorithmOID.ECDSA_WITH_SHA512: ec.ECDSA(hashes.SHA512()),
}


_RSA: Final = {
    x509.SignatureAlgorithmOID.RSA_WITH_SHA256: hashes.SHA256(),
    x509.SignatureAlgorithmOID.RSA_WITH_SHA384: hashes.SHA384(),
    x509.SignatureAlgorithmOID.RSA_WITH_SHA512: hashes.SHA512(),
}


def _signature_is_valid(csr: x509.CertificateSigningRequest, signed: bytes, key: PublicKey) -> bool:
    oid = csr.signature_algorithm_oid
    try:
        with fenced:
            if oid in _ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
                # The same as below with the key that is read already: the library would read it again.
                key.verify(csr.signature, signed, _ECDSA[oid])
            elif signed == csr.tbs_certrequest_bytes:
                return csr.is_signature_valid
            elif oid in _RSA and isinstance(key, rsa.RSAPublicKey):
                key.verify(csr.signature, signed, padding.PKCS1v15(), _RSA[oid])
            else:
                return False
    except InvalidSignature:
        return False
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return False  # MD5 and the like: not proof of possession of anything
    return True


def _names(csr: x509.CertificateSigningRequest) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    attributes = csr.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    common = str(attributes[0].value).strip() if attributes else None
    try:
        san = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        san = []
    if len(san) > MAX_NAMES:
        raise Invalid(
            "csr_too_many_names", f"The request holds {len(san)} names; at most {MAX_NAMES} are read.", field=_FIELD,
            fix="Spread the names over several certificates.",
        )  # fmt: skip
    dns: dict[str, None] = {}
    ips: dict[str, None] = {}
    for name in san:
        if isinstance(name, x509.DNSName):
            dns[parse_dns_name(name.value, field=_FIELD).ascii] = None
        elif isinstance(name, x509.IPAddress) and isinstance(name.value, ipaddress.IPv4Address | ipaddress.IPv6Address):
            ips[str(name.value)] = None
        else:
            raise Invalid(
                "csr_unsupported_san",
                f"The request asks for {_SAN_WORDS.get(type(name), 'a name')}, which no server certificate holds.",
                field=_FIELD,
                fix="Make a request with host names and IP addresses only.",
            )
    if common and looks_like_ip(common):
        ips = {str(parse_ip(common)): None} | ips
    elif common and (as_dns := _common_name_as_dns(common, alone=not (dns or ips))) is not None:
        dns = {as_dns: None} | dns
    if not dns and not ips:
        raise Invalid(
            "csr_no_names", "The request holds no name a server certificate could be for.", field=_FIELD,
            fix="Add the names as subject alternative names (-addext subjectAltName=DNS:www.example.com).",
        )  # fmt: skip
    return common, tuple(dns), tuple(ips)


def _subject(csr: x509.CertificateSigningRequest) -> Subject:
    found = {}
    for field, oid in _SUBJECT_OIDS.items():
        attributes = csr.subject.get_attributes_for_oid(oid)
        if attributes:
            text = str(attributes[0].value).strip()
            found[field] = "".join(c for c in text if c.isprintable())[:_LONGEST_SHOWN]
    return Subject(**found)


_SAN_WORDS: Final[dict[type, str]] = {
    x509.RFC822Name: "an e-mail address",
    x509.UniformResourceIdentifier: "a web address (URI)",
    x509.DirectoryName: "a directory name",
    x509.IPAddress: "an IP network",
}


def _common_name_as_dns(common: str, *, alone: bool) -> str | None:
    """The CN as a host name; "My server" is no name, but a mistyped host name that stands alone is told."""
    try:
        name = parse_dns_name(common, field=_FIELD).ascii
    except Problem:
        if alone and "." in common and " " not in common:
            raise
        return None
    # "server" or "localhost" beside real SANs is a leftover of a form, not a name somebody asks for.
    return name if alone or "." in name else None


def make_csr(
    key: PrivateKey,
    dns_names: Sequence[str],
    ips: Sequence[str] = (),
    *,
    common_name: str | None = None,
    subject: Subject | None = None,
) -> bytes:
    """A DER request for these names (A-labels, addresses), signed by `key`.

    The subject is empty unless `common_name` or `subject` is given: names belong into the SAN (BR 7.1.4.3), but some
    CAs insist. Raises ValueError for names that aren't ASCII, addresses that aren't any, a CN of more than 64
    characters or a country that isn't two letters: callers pass judged ones.
    """
    asked = subject or Subject(common_name=common_name or "")
    attributes = [
        x509.NameAttribute(oid, value) for field, oid in _SUBJECT_OIDS.items() if (value := getattr(asked, field))
    ]
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(attributes))
        .add_extension(x509.SubjectAlternativeName(names), critical=not attributes)
    )
    return builder.sign(key, _hash_for(key)).public_bytes(serialization.Encoding.DER)


def to_pem(der: bytes) -> bytes:
    """PEM, 64 characters a line (RFC 7468 section 7)."""
    return _pem.Block("CERTIFICATE REQUEST", der).text()


def _hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, rsa.RSAPrivateKey) or not isinstance(key.curve, ec.SECP384R1 | ec.SECP521R1):
        return hashes.SHA256()
    return hashes.SHA384() if isinstance(key.curve, ec.SECP384R1) else hashes.SHA512()
