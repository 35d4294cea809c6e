"""JKS, Java's own key store before PKCS#12: read it, write it. (What keytool of Java 9 and later makes is PKCS#12.)

A list of entries and a SHA-1 digest over them keyed with the store's passphrase; private keys are hidden by XOR with a
chain of SHA-1 digests (Sun's key protector). It is weak: whoever has the file can try passphrases quickly. Written only
for servers that read nothing else. Proved against keytool in the tests.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from certwright.kernel.problems import Invalid
from certwright.x509 import _der

MAGIC: Final = bytes.fromhex("feedfeed")
JCEKS_MAGIC: Final = bytes.fromhex("cececece")
_MAX_ENTRIES: Final = 1000
_DIGEST: Final = 20
_PEPPER: Final = b"Mighty Aphrodite"
_PROTECTOR: Final = bytes.fromhex("060a2b060104012a02110101")  # 1.3.6.1.4.1.42.2.17.1.1 with its header
_KEY, _TRUSTED = 1, 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A trusted certificate, or a key with its chain: `key` is PKCS#8 DER, None where there was no passphrase."""

    alias: str
    is_key: bool
    certificates: tuple[bytes, ...]
    key: bytes | None = None

    def __repr__(self) -> str:
        return f"Entry(alias={self.alias!r}, is_key={self.is_key}, certificates={len(self.certificates)})"


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise _damaged()
        self._at += size
        return part

    def number(self, size: int = 4) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        return self.take(self.number(2)).decode("utf-8", errors="replace")

    @property
    def rest(self) -> int:
        return len(self._data) - self._at


def read(data: bytes, passphrase: bytes | None) -> tuple[Entry, ...]:
    """Every entry. Without a passphrase the certificates only, unchecked.

    Raises Invalid `bad_der` (damaged), `wrong_passphrase`, or `key_format` (JCEKS, or a key of another passphrase).
    """
    if data.startswith(JCEKS_MAGIC):
        raise Invalid(
            "key_format", "This is a JCEKS store, which isn't read.", field="certificate",
            fix="Convert it: keytool -importkeystore -srckeystore <file> -srcstoretype JCEKS -deststoretype PKCS12.",
        )  # fmt: skip
    cursor = _Cursor(data)
    if cursor.take(4) != MAGIC or (version := cursor.number()) not in (1, 2):
        raise _damaged()
    password = passphrase.decode("utf-8", errors="replace").encode("utf-16-be") if passphrase else None
    if password is not None:
        expected = hashlib.sha1(password + _PEPPER + data[:-_DIGEST], usedforsecurity=False).digest()
        if not hmac.compare_digest(expected, data[-_DIGEST:]):
            raise Invalid(
                "wrong_passphrase", "The passphrase doesn't open this JKS store.", field="passphrase",
                fix="Check the passphrase; keytool's own default is changeit.",
            )  # fmt: skip
    count = cursor.number()
    if count > _MAX_ENTRIES:
        raise _damaged()
    entries = []
    for _ in range(count):
        kind, alias = cursor.number(), cursor.text()
        cursor.take(8)  # when it was made
        if kind == _KEY:
            hidden = cursor.take(cursor.number())
            chain_length = cursor.number()
            if chain_length > _MAX_ENTRIES:
                raise _damaged()
            chain = tuple(_certificate(cursor, version) for _ in range(chain_length))
            entries.append(Entry(alias, True, chain, _revealed(hidden, password) if password is not None else None))
        elif kind == _TRUSTED:
            entries.append(Entry(alias, False, (_certificate(cursor, version),)))
        else:
            raise _damaged()
    if cursor.rest != _DIGEST:
        raise _damaged()
    return tuple(entries)


def _certificate(cursor: _Cursor, version: int) -> bytes:
    if version == 2:
        cursor.text()  # "X.509"
    return cursor.take(cursor.number())


def _keystream(password: bytes, salt: bytes, size: int) -> bytes:
    out, last = b"", salt
    while len(out) < size:
        last = hashlib.sha1(password + last, usedforsecurity=False).digest()
        out += last
    return out[:size]


def _xor(one: bytes, two: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(two, "big")).to_bytes(len(one), "big")


def _revealed(hidden: bytes, password: bytes) -> bytes:
    try:
        algorithm, octets = list(_der.elements(hidden))[:2]
        _, start, end = _der.read(octets)
    except (_der.BadDerError, ValueError):
        raise _damaged() from None
    protected = octets[start:end]
    # A key is at most some kilobytes; the chain of digests below isn't walked for more.
    if _PROTECTOR not in algorithm or not 2 * _DIGEST < len(protected) <= 32 * 1024:
        raise Invalid(
            "key_format", "The key in the JKS store is protected in a way that isn't read.", field="private_key",
            fix="Convert the store: keytool -importkeystore -srckeystore <file> -deststoretype PKCS12.",
        )  # fmt: skip
    salt, body, digest = protected[:_DIGEST], protected[_DIGEST:-_DIGEST], protected[-_DIGEST:]
    plain = _xor(body, _keystream(password, salt, len(body)))
    if not hmac.compare_digest(hashlib.sha1(password + plain, usedforsecurity=False).digest(), digest):
        raise Invalid(
            "key_format", "The store opens, but its key has a passphrase of its own.", field="private_key",
            fix="Make them equal: keytool -keypasswd -keystore <file> -alias <alias>.",
        )  # fmt: skip
    return plain


def _damaged() -> Invalid:
    return Invalid(
        "bad_der", "The JKS store is damaged or cut off.", field="certificate",
        fix="Get the file again; keytool -list -keystore <file> must read it.",
    )  # fmt: skip


def write(entries: Sequence[Entry], passphrase: bytes, *, at: datetime, salts: Sequence[bytes]) -> bytes:
    """A store of version 2. `salts`: 20 random octets for each key entry, in order. The same arguments give the same
    octets. Raises ValueError for salts of another number or size, or an alias longer than 65535 octets."""
    keys = [entry for entry in entries if entry.key is not None]
    if len(salts) != len(keys) or any(len(salt) != _DIGEST for salt in salts):
        raise ValueError("one salt of 20 octets for each key")
    password = passphrase.decode("utf-8", errors="replace").encode("utf-16-be")
    stamp = int(at.astimezone(UTC).timestamp() * 1000).to_bytes(8, "big", signed=True)
    remaining = iter(salts)
    out = MAGIC + _four(2) + _four(len(entries))
    for entry in entries:
        out += _four(_KEY if entry.key is not None else _TRUSTED) + _text(entry.alias.lower()) + stamp
        if entry.key is not None:
            hidden = _hidden(entry.key, password, next(remaining))
            out += _four(len(hidden)) + hidden + _four(len(entry.certificates))
        for der in entry.certificates:
            out += _text("X.509") + _four(len(der)) + der
    return out + hashlib.sha1(password + _PEPPER + out, usedforsecurity=False).digest()


def _four(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _text(text: str) -> bytes:
    octets = text.encode("utf-8")
    if len(octets) > 0xFFFF:
        raise ValueError("longer than a JKS text can be")
    return len(octets).to_bytes(2, "big") + octets


def _hidden(plain: bytes, password: bytes, salt: bytes) -> bytes:
    digest = hashlib.sha1(password + plain, usedforsecurity=False).digest()
    body = salt + _xor(plain, _keystream(password, salt, len(plain))) + digest
    return _der.sequence(_der.sequence(_PROTECTOR, bytes((5, 0))), _der.tlv(_der.OCTET_STRING, body))
