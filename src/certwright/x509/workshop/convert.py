"""From one format into another, and which parts belong together: opened parts in, octets out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certwright.kernel.problems import Invalid
from certwright.x509 import _pem, csr, keys
from certwright.x509.certificates import CertificateFacts, load_with_facts, to_pem
from certwright.x509.keys import PrivateKey
from certwright.x509.workshop import chains, jks, pkcs7, pkcs12
from certwright.x509.workshop.containers import IN_WORDS, Contents, Item, Kind

Random = Callable[[int], bytes]


class Format(StrEnum):
    """What things can be turned into. The last three are for keys alone."""

    PEM = "pem"
    DER = "der"
    P7B = "p7b"
    PFX = "pfx"
    JKS = "jks"
    PKCS8 = "pkcs8"
    PKCS1 = "pkcs1"
    SEC1 = "sec1"


@dataclass(frozen=True, slots=True)
class Material:
    """Certificates (the leaf first, then its chain, then whatever fits nowhere) and keys out of one or more inputs.

    `name` is the friendly name or alias the leaf had in a store.
    """

    certificates: tuple[CertificateFacts, ...]
    keys: tuple[PrivateKey, ...] = field(default=(), repr=False)
    requests: tuple[bytes, ...] = ()
    lists: tuple[bytes, ...] = ()
    name: str = ""

    @property
    def key(self) -> PrivateKey | None:
        """The leaf's key if it is among them, else the only one."""
        if self.certificates:
            leaf = self.certificates[0]
            return next((key for key in self.keys if keys.spki_sha256(key) == leaf.spki_sha256), None)
        return self.keys[0] if len(self.keys) == 1 else None

    @property
    def has_key(self) -> bool:
        return bool(self.keys)


def material(parts: Sequence[Contents]) -> Material:
    """Everything the inputs hold, ordered. Raises the first problem of reading them, and of keys that don't open."""
    for contents in parts:
        if contents.findings:
            first = contents.findings[0]
            raise Invalid(first.code, first.message, fix=first.fix, field=first.where.input)
    items = [item for contents in parts for item in contents.items]
    found_keys: dict[str, PrivateKey] = {}
    for item in items:
        if item.kind is Kind.KEY:
            private = keys.read_private_key(item.source, item.passphrase)
            found_keys.setdefault(keys.spki_sha256(private), private)
    unread = [item for item in items if item.kind in (Kind.SSH_KEY, Kind.UNKNOWN)]
    if unread and not found_keys and all(item in unread or item.kind is Kind.PARAMETERS for item in items):
        raise Invalid(
            "key_format", f"It holds {IN_WORDS[unread[0].kind]}, which can't be converted here.",
            fix="Convert an SSH key first: ssh-keygen -p -m PEM -f <copy>.",
        )  # fmt: skip
    links = _links(items)
    ordered = _ordered(links, set(found_keys))
    leaf_name = next((i.name for i in items if i.kind is Kind.CERTIFICATE and ordered and i.der == ordered[0].der), "")
    return Material(
        tuple(ordered),
        tuple(found_keys.values()),
        tuple(item.der for item in items if item.kind is Kind.CSR),
        tuple(item.der for item in items if item.kind is Kind.CRL),
        leaf_name,
    )


def _links(items: Sequence[Item]) -> list[chains.Link]:
    links: dict[bytes, chains.Link] = {}
    for item in items:
        if item.kind is Kind.CERTIFICATE:
            cert, facts = load_with_facts(item.der)
            links.setdefault(facts.der, chains.Link(cert, facts, item.place))
    return list(links.values())


def _ordered(links: list[chains.Link], spkis: set[str]) -> list[CertificateFacts]:
    """The leaf, its chain, its root, then the others as they stood."""
    if not links:
        return []
    leaf = next((link for link in links if link.facts.spki_sha256 in spkis), None)
    leaf = leaf or next((link for link in links if not link.facts.is_ca), links[0])
    built = chains.build(leaf, links, chains.Pool())
    path = [*built.path, *([built.root] if built.root else [])]
    return [link.facts for link in path] + [link.facts for link in links if link not in path]


# --- writing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """How to write: `passphrase` protects stores (needed) and keys (where given); `legacy` for old programs."""

    passphrase: bytes | None = field(default=None, repr=False)
    legacy: bool = False
    alias: str = ""


def convert(source: Material, to: Format, wish: Wish, *, at: datetime, random: Random) -> bytes:
    """`source` in the format `to`. `random(n)` gives n random octets; `at` dates the entries of a JKS store.

    Raises Invalid `convert_nothing` (nothing there that the format can hold), `convert_one_only` (DER holds one thing),
    `convert_key_needed`, `passphrase_needed` or `key_format` (this kind of key has no such form).
    """
    match to:
        case Format.PEM:
            return join(source, wish.passphrase)
        case Format.DER:
            return _der(source, wish.passphrase)
        case Format.P7B:
            return pkcs7.write([facts.der for facts in _certificates(source, "PKCS#7")])
        case Format.PFX:
            return _pfx(source, wish)
        case Format.JKS:
            return _jks(source, wish, at, random)
    return key_form(_only_key(source), to, wish.passphrase)


def join(source: Material, passphrase: bytes | None = None) -> bytes:
    """All of it as canonical PEM: keys first, then certificates in order, requests, lists."""
    parts = [keys.to_pkcs8_pem(key, passphrase) for key in source.keys]
    parts += [to_pem(facts.der).encode() for facts in source.certificates]
    parts += [_pem.Block("CERTIFICATE REQUEST", der).text() for der in source.requests]
    parts += [_pem.Block("X509 CRL", der).text() for der in source.lists]
    if not parts:
        raise _nothing("PEM")
    return b"".join(parts)


def _der(source: Material, passphrase: bytes | None) -> bytes:
    found = [facts.der for facts in source.certificates] + list(source.requests) + list(source.lists)
    if source.keys and not found:
        return _key_bytes(_only_key(source), serialization.PrivateFormat.PKCS8, passphrase, serialization.Encoding.DER)
    if not found:
        raise _nothing("DER")
    if len(found) > 1 or source.keys:
        raise Invalid(
            "convert_one_only", f"DER holds one thing, and there are {len(found) + len(source.keys)}.",
            fix="Split it first (certwright x509 split), or convert to p7b, pfx or pem.",
        )  # fmt: skip
    return found[0]


def _certificates(source: Material, form: str) -> tuple[CertificateFacts, ...]:
    if not source.certificates:
        raise _nothing(form)
    return source.certificates


def _store_parts(
    source: Material, form: str
) -> tuple[PrivateKey | None, CertificateFacts, tuple[CertificateFacts, ...]]:
    leaf, *chain = _certificates(source, form)
    if source.keys and source.key is None:
        raise Invalid(
            "key_mismatch", "The private key isn't the one this certificate was made for.",
            fix="Give the key that belongs to it, or none.",
        )  # fmt: skip
    return source.key, leaf, tuple(chain)


def _pfx(source: Material, wish: Wish) -> bytes:
    key, leaf, chain = _store_parts(source, "PFX")
    if not wish.passphrase:
        raise _passphrase_needed("PFX")
    name = wish.alias or source.name or leaf.common_name or (leaf.dns_names or ("certificate",))[0]
    try:
        return pkcs12.write(
            name=name, key=key, leaf=leaf.der, chain=[c.der for c in chain], passphrase=wish.passphrase,
            legacy=wish.legacy,
        )  # fmt: skip
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Invalid(
            "key_format", "A key of this kind can't be written into a PFX.", fix="Use a key on P-256, or RSA."
        ) from None


def _jks(source: Material, wish: Wish, at: datetime, random: Random) -> bytes:
    key, leaf, chain = _store_parts(source, "JKS")
    if not wish.passphrase:
        raise _passphrase_needed("JKS")
    if len(wish.passphrase) < MIN_JKS_PASSPHRASE:
        raise Invalid(
            "passphrase_too_short", f"Java's key stores take passphrases of {MIN_JKS_PASSPHRASE} characters or more.",
            fix="Choose a longer one.", field="passphrase",
        )  # fmt: skip
    alias = wish.alias or source.name or "certificate"
    if key is not None:
        whole = jks.Entry(alias, True, (leaf.der, *(facts.der for facts in chain)), keys.to_pkcs8_der(key))
        return jks.write([whole], wish.passphrase, at=at, salts=[random(20)])
    entries = [jks.Entry(f"{alias}-{n}", False, (facts.der,)) for n, facts in enumerate((leaf, *chain), 1)]
    return jks.write(entries, wish.passphrase, at=at, salts=[])


MIN_JKS_PASSPHRASE: Final = 6


def key_form(key: PrivateKey, to: Format, passphrase: bytes | None) -> bytes:
    """A key as PEM in the form `to`: pkcs8, pkcs1 (RSA only) or sec1 (EC only); encrypted if there is a passphrase.

    PKCS#8 is encrypted as PBES2 with AES-256; the older forms as RFC 1421 (weak, for old programs). Raises Invalid
    `key_format`.
    """
    if (to is Format.PKCS1 and not isinstance(key, rsa.RSAPrivateKey)) or (
        to is Format.SEC1 and not isinstance(key, ec.EllipticCurvePrivateKey)
    ):
        kind = "RSA" if to is Format.PKCS1 else "EC"
        raise Invalid("key_format", f"Only {kind} keys have the form {to.value}.", fix="Convert it to pkcs8.")
    old = to in (Format.PKCS1, Format.SEC1)
    form = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    return _key_bytes(key, form, passphrase, serialization.Encoding.PEM)


def _key_bytes(
    key: PrivateKey, form: serialization.PrivateFormat, passphrase: bytes | None, encoding: serialization.Encoding
) -> bytes:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(encoding, form, protection)


def _only_key(source: Material) -> PrivateKey:
    key = source.key
    if key is None:
        raise Invalid(
            "convert_key_needed",
            f"There are {len(source.keys)} private keys that fit; exactly one is needed." if source.keys
            else "There is no private key in it.",
            fix="Give a file with the private key.",
        )  # fmt: skip
    return key


def _nothing(form: str) -> Invalid:
    return Invalid(
        "convert_nothing",
        f"There is nothing in it that {form} can hold.",
        fix="Give a file with certificates or a key.",
    )


def _passphrase_needed(form: str) -> Invalid:
    return Invalid(
        "passphrase_needed", f"A {form} store needs a passphrase.", field="passphrase",
        fix="Give one with --out-passphrase-file.",
    )  # fmt: skip


# --- belonging together ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Half:
    """One certificate, request or key, and the public key it holds."""

    kind: Kind
    where: str
    spki_sha256: str
    key_algorithm: str


def halves(contents: Contents) -> list[Half]:
    """The public key of each part that has one; raises the problem of a key that doesn't open."""
    found = []
    for item in contents.items:
        where = str(item.place)
        match item.kind:
            case Kind.CERTIFICATE:
                facts = load_with_facts(item.der)[1]
                found.append(Half(item.kind, where, facts.spki_sha256, facts.key_algorithm))
            case Kind.CSR:
                request = csr.read_csr(item.der)
                found.append(Half(item.kind, where, request.spki_sha256, request.key_algorithm))
            case Kind.KEY:
                public = keys.read_private_key(item.source, item.passphrase).public_key()
                found.append(Half(item.kind, where, keys.spki_sha256(public), keys.describe_public_key(public)))
            case _:
                pass
    return found


def split(source: Material) -> dict[str, bytes]:
    """Each part as a PEM file of its own: leaf, chain-1 …, root, other-1 …, key, request, crl."""
    files: dict[str, bytes] = {}
    chain = _chain_length(source.certificates)
    for number, facts in enumerate(source.certificates):
        if number == 0:
            name = "certificate"
        elif number < chain:
            name = "root" if facts.self_signed else f"chain-{number}"
        else:
            name = f"other-{number - chain + 1}"
        files[f"{name}.pem"] = to_pem(facts.der).encode()
    for number, key in enumerate(source.keys, 1):
        files["key.pem" if number == 1 else f"key-{number}.pem"] = keys.to_pkcs8_pem(key)
    for number, der in enumerate(source.requests, 1):
        files[f"request-{number}.pem"] = _pem.Block("CERTIFICATE REQUEST", der).text()
    for number, der in enumerate(source.lists, 1):
        files[f"crl-{number}.pem"] = _pem.Block("X509 CRL", der).text()
    if not files:
        raise _nothing("a file")
    return files


def _chain_length(certificates: Sequence[CertificateFacts]) -> int:
    """How many of the ordered certificates are the leaf and what follows from it."""
    length = 1
    while length < len(certificates) and certificates[length].subject == certificates[length - 1].issuer:
        length += 1
        if certificates[length - 1].self_signed:
            break
    return length
