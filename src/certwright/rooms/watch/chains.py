"""Reads the certificates a server sent and judges whether they lead to a root. Pure: bytes in, values out.

Nothing is rejected here: expired, untrusted and misordered certificates are just what watching is for.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from certwright.rooms.watch.words import Chain, Link, ServedChain
from certwright.x509.reading import UNREADABLE, fenced

_MAX_LINKS = 12


class UnreadableError(Exception):
    """The first certificate a server sent can't be parsed."""


@contextmanager
def _lenient() -> Iterator[None]:
    """It warns of oddities (a serial number below zero, say) that a served certificate may well have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


class _Kept:
    """What was said of the chains seen last, bounded by bytes and not by their number: a server chooses how much it
    sends, up to a quarter of a megabyte of names, and a thousand such servers must not fill the memory."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._said: dict[bytes, tuple[ServedChain, int]] = {}

    def get(self, digest: bytes) -> ServedChain | None:
        found = self._said.pop(digest, None)
        if found is None:
            return None
        self._said[digest] = found  # last in the order in which they go
        return found[0]

    def put(self, digest: bytes, said: ServedChain) -> None:
        weight = _weight(said)
        self._said[digest] = (said, weight)
        self.bytes += weight
        while self.bytes > self.most_bytes:
            _, gone = self._said.pop(next(iter(self._said)))
            self.bytes -= gone


def _weight(said: ServedChain) -> int:
    """About how many bytes of memory it takes: texts and what holds them."""
    texts = [*said.names, said.subject, said.issuer, said.serial, said.fingerprint, said.detail]
    for link in said.links:
        texts += (link.subject, link.issuer, link.fingerprint)
    return _BESIDES_TEXTS + sum(sys.getsizeof(text) + 8 for text in texts)


# Some ten thousand usual chains, more than a worker meets between two looks at one of them.
_KEPT_BYTES = 32 * 1024 * 1024
_BESIDES_TEXTS = 1024


class Roots:
    """Certificates that end a path, found by subject. Equal instances are the same object: make one and keep it.

    What was said of chains by these roots is kept here, too, and goes with them.
    """

    def __init__(self, ders: Iterable[bytes], *, most_bytes: int = _KEPT_BYTES) -> None:
        self.kept = _Kept(most_bytes)
        self._by_subject: dict[bytes, list[x509.Certificate]] = {}
        self._ders: set[bytes] = set()
        with _lenient():
            for der in ders:
                try:
                    with fenced:
                        certificate = x509.load_der_x509_certificate(der)
                        subject = certificate.subject.public_bytes()
                except UNREADABLE:
                    continue
                if der not in self._ders:
                    self._ders.add(der)
                    self._by_subject.setdefault(subject, []).append(certificate)

    def named(self, subject: bytes) -> Sequence[x509.Certificate]:
        return self._by_subject.get(subject, ())

    def holds(self, der: bytes) -> bool:
        return der in self._ders


def examine(chain: tuple[bytes, ...], roots: Roots) -> ServedChain:
    """What the served certificates say; the first is the server's own. Raises UnreadableError.

    Kept for the chains seen last, because a probe nearly always meets the certificate of the probe before.
    """
    if not chain:
        raise UnreadableError("the server sent no certificate")
    # Of each certificate by itself: joined, other certificates could have the same digest.
    digest = b"".join(hashlib.sha256(der).digest() for der in chain)
    found = roots.kept.get(digest)
    if found is None:
        with _lenient():
            found = _examine(chain, roots)
        roots.kept.put(digest, found)
    return found


def _examine(chain: tuple[bytes, ...], roots: Roots) -> ServedChain:
    try:
        with fenced:
            leaf = x509.load_der_x509_certificate(chain[0])
            names = _names(leaf)
            subject, issuer = leaf.subject.rfc4514_string(), leaf.issuer.rfc4514_string()
            not_before, not_after = leaf.not_valid_before_utc, leaf.not_valid_after_utc
            links = [_link(leaf, chain[0])]
    except UNREADABLE as error:
        raise UnreadableError(f"the certificate can't be read: {error}") from error
    served: list[tuple[bytes, x509.Certificate]] = [(chain[0], leaf)]
    for der in chain[1:_MAX_LINKS]:
        try:
            with fenced:
                certificate = x509.load_der_x509_certificate(der)
                links.append(_link(certificate, der))
        except UNREADABLE:
            continue
        served.append((der, certificate))
    state, trusted, detail = _path(served, roots)
    common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return ServedChain(
        fingerprint=links[0].fingerprint,
        serial=format(leaf.serial_number, "x"),
        subject=str(common[0].value) if common else (names[0] if names else subject),
        issuer=issuer,
        names=names,
        not_before=not_before,
        not_after=not_after,
        state=state,
        trusted=trusted,
        detail=detail,
        links=tuple(links),
    )


def _link(certificate: x509.Certificate, der: bytes) -> Link:
    return Link(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        hashlib.sha256(der).hexdigest(),
        certificate.not_valid_after_utc,
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    """SAN entries only: no client looks at the common name any more (RFC 9525 section 2)."""
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names = [name.lower() for name in san.get_values_for_type(x509.DNSName)]
    return (*names, *(str(address) for address in san.get_values_for_type(x509.IPAddress)))


def _path(served: list[tuple[bytes, x509.Certificate]], roots: Roots) -> tuple[Chain, bool, str]:
    """Climb from the leaf, taking issuers from what was served in any order, then from the known roots."""
    der, at = served[0]
    unused = served[1:]
    climbed = 0
    while True:
        if roots.holds(der):
            return Chain.COMPLETE, True, ""
        issuer_name = at.issuer.public_bytes()
        if any(_signed(at, root) for root in roots.named(issuer_name)):
            return Chain.COMPLETE, True, ""
        if at.subject.public_bytes() == issuer_name and _signed(at, at):
            return Chain.COMPLETE, False, "the chain ends at a self-signed certificate that isn't known here"
        named = [pair for pair in unused if pair[1].subject.public_bytes() == issuer_name]
        signer = next((pair for pair in named if _signed(at, pair[1])), None)
        if signer is None:
            who = at.issuer.rfc4514_string()
            if named:
                return Chain.BROKEN, False, f"the served certificate of {who} did not sign the one below it"
            if climbed == 0:
                return Chain.INCOMPLETE, False, f"the issuer's certificate ({who}) is not served"
            return Chain.UNKNOWN_ROOT, False, f"the root {who} is not known here"
        unused.remove(signer)
        der, at = signer
        climbed += 1


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
