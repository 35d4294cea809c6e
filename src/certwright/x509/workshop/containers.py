"""What is in a file: recognised by its content, never by its name, and opened into its parts.

PEM (repaired, see `text`), DER, PKCS#7, PKCS#12, JKS, and base64 of any of these. Nothing here raises: what can't be
read is a finding with its place.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from certwright.kernel.problems import Problem
from certwright.x509 import _der, _pem
from certwright.x509.workshop import _ber, jks, pkcs7, text
from certwright.x509.workshop.words import Finding, Place, Repair, error, from_problem

MAX_INPUT: Final = _pem.MAX_INPUT
# Certificates of a hundred names have 6 KiB, of ML-DSA 8 KiB; reading one costs time by its size, so it is bounded.
MAX_CERTIFICATE: Final = 128 * 1024


class Kind(StrEnum):
    """What one part is."""

    CERTIFICATE = "certificate"
    CSR = "csr"
    KEY = "key"
    PUBLIC_KEY = "public_key"
    CRL = "crl"
    PKCS7 = "pkcs7"
    PKCS12 = "pkcs12"
    OCSP_RESPONSE = "ocsp_response"
    PARAMETERS = "parameters"
    SSH_KEY = "ssh_key"
    UNKNOWN = "unknown"


IN_WORDS: Final = {
    Kind.CERTIFICATE: "a certificate",
    Kind.CSR: "a certificate signing request (CSR)",
    Kind.KEY: "a private key",
    Kind.PUBLIC_KEY: "a public key",
    Kind.CRL: "a certificate revocation list",
    Kind.PKCS7: "a PKCS#7 bundle",
    Kind.PKCS12: "a PKCS#12 store",
    Kind.OCSP_RESPONSE: "an OCSP response",
    Kind.PARAMETERS: "curve parameters",
    Kind.SSH_KEY: "an OpenSSH private key",
    Kind.UNKNOWN: "a block of an unknown kind",
}


class Container(StrEnum):
    """How the parts came."""

    PEM = "pem"
    DER = "der"
    P7B = "p7b"
    PFX = "pfx"
    JKS = "jks"


@dataclass(frozen=True, slots=True)
class Item:
    """One part: `der` is its octets; of a key `keys.read_private_key` reads `source` with `passphrase`.

    `name` is the alias or friendly name it had in a store. Its repr shows no octets.
    """

    kind: Kind
    der: bytes = field(repr=False)
    place: Place
    label: str = ""
    source: bytes = field(default=b"", repr=False)
    passphrase: bytes | None = field(default=None, repr=False)
    name: str = ""
    key_id: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class Contents:
    """Everything that was in one input."""

    container: Container = Container.PEM
    items: list[Item] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def of(self, kind: Kind) -> list[Item]:
        return [item for item in self.items if item.kind is kind]


_LABELS: Final = {
    "CERTIFICATE": Kind.CERTIFICATE,
    "X509 CERTIFICATE": Kind.CERTIFICATE,
    "TRUSTED CERTIFICATE": Kind.CERTIFICATE,
    "CERTIFICATE REQUEST": Kind.CSR,
    "NEW CERTIFICATE REQUEST": Kind.CSR,
    "PRIVATE KEY": Kind.KEY,
    "ENCRYPTED PRIVATE KEY": Kind.KEY,
    "RSA PRIVATE KEY": Kind.KEY,
    "EC PRIVATE KEY": Kind.KEY,
    "DSA PRIVATE KEY": Kind.KEY,
    "OPENSSH PRIVATE KEY": Kind.SSH_KEY,
    "PUBLIC KEY": Kind.PUBLIC_KEY,
    "RSA PUBLIC KEY": Kind.PUBLIC_KEY,
    "X509 CRL": Kind.CRL,
    "PKCS7": Kind.PKCS7,
    "CMS": Kind.PKCS7,
    "PKCS12": Kind.PKCS12,
    "EC PARAMETERS": Kind.PARAMETERS,
    "DH PARAMETERS": Kind.PARAMETERS,
    "OCSP RESPONSE": Kind.OCSP_RESPONSE,
}

_BARE_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]{40,}={0,2}\s*")
_ZIP: Final = b"PK\x03\x04"


def open_input(data: bytes | str, name: str, passphrase: bytes | None = None) -> Contents:
    """The parts of `data`, which is called `name` in places. The passphrase opens stores; keys come as they are."""
    octets = data.encode("utf-8", errors="replace") if isinstance(data, str) else data
    found = Contents()
    if len(octets) > MAX_INPUT:
        found.findings.append(
            error(
                "too_large",
                f"The input is larger than {MAX_INPUT // 1024} KiB.",
                "Upload only the certificate, its chain and its key.",
                Place(name),
            )
        )
    elif not octets.strip(b" \t\r\n\x00\xef\xbb\xbf"):
        found.findings.append(
            error("empty", "There is nothing in it.", "Paste the text, or choose the file.", Place(name))
        )
    else:
        _Opener(name, passphrase, found).open(octets, wrapped=False)
    return found


class _Opener:
    def __init__(self, name: str, passphrase: bytes | None, found: Contents) -> None:
        self._name = name
        self._passphrase = passphrase
        self._found = found

    def open(self, data: bytes, *, wrapped: bool) -> None:
        if data.startswith((jks.MAGIC, jks.JCEKS_MAGIC)):
            self._jks(data)
        elif data[:1] == b"\x30" and self._der(data):
            pass
        elif data.startswith(_ZIP):
            self._error("not_pem", "This is a zip archive.", "Unpack it and upload the files in it.")
        elif not wrapped and b"-----" not in data and (inner := _unwrapped(data)) is not None:
            self._found.repairs.append(Repair("base64_wrapped", Place(self._name)))
            self.open(inner, wrapped=True)
        elif data[:1] == b"\x30" and b"BEGIN" not in data:
            self._damaged_der(data)
        else:
            self._pem(data)

    # --- binary ---

    def _der(self, data: bytes) -> bool:
        try:
            der = data if _der.is_whole_sequence(data) else _ber.to_der(_without_tail(data))
        except (_der.BadDerError, IndexError):
            return False
        if not _der.is_whole_sequence(der):
            return False
        if len(data) != len(_without_tail(data)) and not _der.is_whole_sequence(data):
            self._found.repairs.append(Repair("trailing_bytes", Place(self._name)))
        kind = kind_of(der)
        self._found.container = Container.DER
        if kind is not Kind.UNKNOWN:
            self._found.repairs.append(Repair("container", Place(self._name)))
        self._part(kind, der, Place(self._name, 1), "")
        return True

    def _damaged_der(self, data: bytes) -> None:
        missing = _missing_octets(data)
        message = (
            f"The file is cut off: {missing} bytes are missing at its end."
            if missing
            else "The file begins like a binary certificate but is damaged."
        )
        self._error("bad_der", message, "Get the file again; transfer it in binary mode.")

    def _jks(self, data: bytes) -> None:
        self._found.container = Container.JKS
        try:
            entries = jks.read(data, self._passphrase)
        except Problem as problem:
            self._found.findings.append(from_problem(problem, Place(self._name)))
            return
        self._found.repairs.append(Repair("container", Place(self._name)))
        number = 0
        for entry in entries:
            if entry.is_key:
                number += 1
                place = Place(self._name, number)
                if entry.key is None:
                    self._found.findings.append(
                        error(
                            "key_encrypted",
                            "The JKS store needs its passphrase.",
                            "Enter the store's passphrase; it is used once and forgotten.",
                            place,
                        )
                    )
                else:
                    self._add(Item(Kind.KEY, entry.key, place, source=entry.key, name=entry.alias))
            for der in entry.certificates:
                number += 1
                self._add(Item(Kind.CERTIFICATE, der, Place(self._name, number), name=entry.alias))

    # --- text ---

    def _pem(self, data: bytes) -> None:
        scanned = text.scan(data, self._name)
        self._found.repairs += scanned.repairs
        self._found.findings += scanned.findings
        for found in scanned.blocks:
            block, place = found.block, Place(self._name, found.number, found.line)
            if any("ENCRYPTED" in line for line in block.headers):
                source = block.text()
                self._add(Item(Kind.KEY, b"", place, block.label, source, self._passphrase))
                continue
            body = block.body
            if block.label == "TRUSTED CERTIFICATE":
                body = _first_element(body)
                self._found.repairs.append(Repair("trusted_certificate", place))
            said = _LABELS.get(block.label, Kind.UNKNOWN)
            if said in (Kind.SSH_KEY, Kind.UNKNOWN) or block.label == "EC PARAMETERS":
                self._add(Item(said, body, place, block.label))
                continue
            self._labelled(said, body, place, block.label)

    def _labelled(self, said: Kind, body: bytes, place: Place, label: str) -> None:
        is_kind = kind_of(body)
        if is_kind is Kind.UNKNOWN:
            # BER inside PEM; or damaged, which the reader of its kind says better.
            try:
                der = _ber.to_der(body)
            except (_der.BadDerError, IndexError):
                der = body
            is_kind = kind_of(der)
            body = der if is_kind is not Kind.UNKNOWN else body
        if is_kind is Kind.UNKNOWN:
            is_kind = said
        elif is_kind is not said or label == "X509 CERTIFICATE":
            self._found.repairs.append(Repair("label", place))
        self._part(is_kind, body, place, label)

    # --- one part ---

    def _part(self, kind: Kind, der: bytes, place: Place, label: str) -> None:
        match kind:
            case Kind.PKCS7:
                self._stored(Container.P7B)
                self._pkcs7(der, place)
            case Kind.PKCS12:
                self._stored(Container.PFX)
                self._pkcs12(der, place)
            case Kind.KEY:
                self._add(Item(kind, der, place, label, der, self._passphrase))
            case Kind.UNKNOWN:
                self._error(
                    "bad_der", "The binary data is nothing that is known here.", "Upload the file the CA sent.", place
                )
            case _:
                self._add(Item(kind, der, place, label))

    def _stored(self, container: Container) -> None:
        if self._found.container is Container.DER or not self._found.items:
            self._found.container = container

    def _pkcs7(self, der: bytes, place: Place) -> None:
        try:
            certificates = pkcs7.read(der)
        except Problem as problem:
            self._found.findings.append(from_problem(problem, place))
            return
        if not certificates:
            self._error(
                "not_pem", "The PKCS#7 bundle holds no certificate.", "Ask the CA for the certificate itself.", place
            )
        if len(certificates) > _pem.MAX_BLOCKS:
            self._error(
                "too_large", f"The PKCS#7 bundle holds more than {_pem.MAX_BLOCKS} certificates.",
                "Upload one certificate with its chain at a time.", place,
            )  # fmt: skip
            return
        for number, certificate in enumerate(certificates, 1):
            self._add(Item(Kind.CERTIFICATE, certificate, Place(place.input, number, place.line)))

    def _pkcs12(self, der: bytes, place: Place) -> None:
        # Ciphers take a while to load, and most files are no stores.
        from certwright.x509.workshop import pkcs12

        try:
            entries = pkcs12.read(der, self._passphrase)
        except Problem as problem:
            self._found.findings.append(from_problem(problem, place))
            return
        for number, entry in enumerate(entries, 1):
            kind = Kind.KEY if entry.is_key else Kind.CERTIFICATE
            source = entry.der if entry.is_key else b""
            self._add(
                Item(
                    kind,
                    entry.der,
                    Place(place.input, number, place.line),
                    source=source,
                    name=entry.name,
                    key_id=entry.key_id,
                )
            )

    def _add(self, item: Item) -> None:
        if item.kind is Kind.CERTIFICATE and len(item.der) > MAX_CERTIFICATE:
            self._error(
                "too_large", f"The certificate has {len(item.der) // 1024} KiB; no real one has more than 128.",
                "Get the certificate again from the CA.", item.place,
            )  # fmt: skip
            return
        self._found.items.append(item)

    def _error(self, code: str, message: str, fix: str, place: Place | None = None) -> None:
        self._found.findings.append(error(code, message, fix, place or Place(self._name)))


# --- recognising -------------------------------------------------------------------------------------------------


def kind_of(der: bytes) -> Kind:
    """What these octets are, by the shape of their first elements. UNKNOWN for anything that isn't one SEQUENCE."""
    try:
        tag, start, end = _der.read(der)
        if tag != _der.SEQUENCE or end != len(der) or start == end:
            return Kind.UNKNOWN
        return _kind_inside(der, start, end)
    except (_der.BadDerError, IndexError):
        return Kind.UNKNOWN


def _kind_inside(der: bytes, start: int, end: int) -> Kind:
    tags: list[int] = []
    bodies: list[tuple[int, int]] = []
    at = start
    while at < end and len(tags) < 10:
        tag, body, after = _der.read(der, at)
        tags.append(tag)
        bodies.append((body, after))
        at = after
    if at > end:
        return Kind.UNKNOWN
    integers = len(tags) if all(tag == _der.INTEGER for tag in tags) else 0
    match tags:
        case [0x30, 0x30, 0x03]:
            return _signed_kind(der, *bodies[0])
        case [0x30, 0x03]:
            return Kind.PUBLIC_KEY
        case [0x30, 0x04]:
            return Kind.KEY  # encrypted
        case [0x02, 0x30, 0x04, *_]:
            return Kind.KEY  # PKCS#8
        case [0x02, 0x04, *_]:
            return Kind.KEY  # SEC1
        case [0x02, 0x30, 0x30] | [0x02, 0x30]:
            return Kind.PKCS12
        case [0x0A, *_]:
            return Kind.OCSP_RESPONSE
        case [0x06, 0xA0]:
            return Kind.PKCS7 if der[slice(*bodies[0])] == pkcs7.SIGNED_DATA else Kind.UNKNOWN
    if integers >= 6:
        return Kind.KEY  # PKCS#1, or DSA
    return Kind.PUBLIC_KEY if integers == 2 else Kind.UNKNOWN


def _signed_kind(der: bytes, start: int, end: int) -> Kind:
    """Certificate, request or list, by the fields of the signed part."""
    tags: list[int] = []
    at = start
    while at < end and len(tags) < 7:
        tag, _, at = _der.read(der, at)
        tags.append(tag)
    match tags:
        case [0xA0, *_]:
            return Kind.CERTIFICATE
        case [0x02, 0x30, 0x30, 0xA0, *_] | [0x02, 0x30, 0x30]:
            return Kind.CSR
        case [0x02, 0x30, 0x30, 0x17 | 0x18, *_] | [0x30, 0x30, 0x17 | 0x18, *_]:
            return Kind.CRL
        case [0x02, 0x30, 0x30, 0x30, 0x30, 0x30, *_]:
            return Kind.CERTIFICATE  # version 1
    return Kind.CERTIFICATE


def _first_element(data: bytes) -> bytes:
    try:
        return data[: _der.read(data)[2]]
    except _der.BadDerError:
        return data


def _without_tail(data: bytes) -> bytes:
    """Without the line ends and zero bytes that shells, editors and databases append."""
    try:
        end = _der.read(data)[2]
    except _der.BadDerError:
        return data
    return data[:end] if not data[end:].strip(b"\r\n\x00\x1a") else data


def _missing_octets(data: bytes) -> int:
    """How many octets are missing by the length the first element names; 0 if that isn't what is wrong."""
    if len(data) < 4 or data[1] not in (0x81, 0x82, 0x83):
        return 0
    octets = data[1] & 0x7F
    size = int.from_bytes(data[2 : 2 + octets], "big")
    missing = 2 + octets + size - len(data)
    return missing if 0 < missing < MAX_INPUT else 0


def _unwrapped(data: bytes) -> bytes | None:
    """What base64 without BEGIN and END holds, if that is something we know: a file, or PEM (Kubernetes secrets)."""
    if _BARE_BASE64.fullmatch(data) is None:
        return None
    try:
        inner = base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        return None
    if _der.is_whole_sequence(inner) or inner.startswith((jks.MAGIC, b"\x30\x80")) or b"-----BEGIN " in inner[:4096]:
        return inner
    return None
