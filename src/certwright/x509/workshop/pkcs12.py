"""PKCS#12 (PFX, RFC 7292): read what Windows, Java, OpenSSL and browsers export; write modern and legacy stores.

Read here rather than by the library because the work an upload asks for (rounds of key derivation, also of bags inside
encrypted bags) must be known before it is done, and because people need to know what a store holds: names, every key,
certificates without a key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from certwright.kernel.problems import Invalid
from certwright.x509 import _der, _pbe
from certwright.x509.keys import PrivateKey

_MAX_NESTED: Final = 4
_MAX_BAGS: Final = 1000


def _oid(text: str) -> bytes:
    return bytes.fromhex(text)


_DATA: Final = _oid("2a864886f70d010701")
_ENCRYPTED_DATA: Final = _oid("2a864886f70d010706")
_BAG: Final = _oid("2a864886f70d010c0a01")  # and one octet more: which kind
_X509_CERTIFICATE: Final = _oid("2a864886f70d01091601")
_FRIENDLY_NAME: Final = _oid("2a864886f70d010914")
_LOCAL_KEY_ID: Final = _oid("2a864886f70d010915")
_PBMAC1: Final = _oid("2a864886f70d01050e")
_DIGESTS: Final = {
    _oid("2b0e03021a"): "sha1",
    _oid("608648016503040204"): "sha224",
    _oid("608648016503040201"): "sha256",
    _oid("608648016503040202"): "sha384",
    _oid("608648016503040203"): "sha512",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One bag. `der` is a certificate, or a key as PKCS#8 without encryption."""

    is_key: bool
    der: bytes = b""
    name: str = ""
    key_id: bytes = b""

    def __repr__(self) -> str:
        return f"Entry(is_key={self.is_key}, name={self.name!r})"


class _Work:
    """Counts the rounds of key derivation one store asks for."""

    def __init__(self) -> None:
        self._left = _pbe.MAX_ROUNDS

    def spend(self, rounds: int) -> None:
        self._left -= rounds
        if self._left < 0 or rounds < 1:
            raise _format(
                "The PKCS#12 store asks for more work than is done for an upload.",
                f"Export it again with fewer rounds; at most {_pbe.MAX_ROUNDS} in all are done.",
            )


# --- reading -----------------------------------------------------------------------------------------------------


def read(data: bytes, passphrase: bytes | None) -> tuple[Entry, ...]:
    """Every certificate and key of a store (DER), in its order.

    Without a passphrase the empty one is tried. Raises Invalid `bad_der`, `key_encrypted`, `wrong_passphrase` or
    `key_format` (an encryption that isn't read, or too much work).
    """
    try:
        return tuple(_Reader(data, passphrase).entries())
    except _pbe.UnsupportedError:
        raise _unsupported() from None
    except (ValueError, IndexError):
        raise Invalid(
            "bad_der", "The PKCS#12 store can't be read: it is damaged or cut off.", field="certificate",
            fix="Export it again; openssl pkcs12 -info -noout -in <file> must read it.",
        ) from None  # fmt: skip


class _Reader:
    def __init__(self, data: bytes, passphrase: bytes | None) -> None:
        self._work = _Work()
        self._bags = 0
        parts = list(_der.elements(data))
        if len(parts) < 2:
            raise _der.BadDerError("no content")
        kind, content = _content_info(parts[1])
        if kind != _DATA:
            raise _format(
                "The PKCS#12 store is signed instead of protected by a passphrase, which isn't supported.",
                "Export it with a passphrase.",
            )
        self._safes = content
        self._mac = parts[2] if len(parts) > 2 else None
        self._given = passphrase
        # Programs disagree on what no passphrase is: two zero octets, or nothing at all.
        self._tries = [_pbe.bmp_of(passphrase)] if passphrase else [b"\x00\x00", b""]
        self._utf8 = passphrase or b""

    def entries(self) -> Iterator[Entry]:
        if self._mac is not None:
            good = [bmp for bmp in self._tries if self._mac_fits(self._mac, bmp)]
            if not good:
                raise _locked() if not self._given else _wrong()
            self._tries = good[:1]
        for safe in _der.elements(self._safes):
            kind, content = _content_info(safe)
            if kind == _ENCRYPTED_DATA:
                content = self._decrypted(content)
            elif kind != _DATA:
                raise _format(
                    "A part of the PKCS#12 store is encrypted for a recipient, which isn't supported.",
                    "Export it with a passphrase.",
                )
            yield from self._bags_of(content, 0)

    def _bags_of(self, contents: bytes, depth: int) -> Iterator[Entry]:
        if depth > _MAX_NESTED:
            raise _der.BadDerError("nested too deeply")
        for bag in _der.elements(contents):
            self._bags += 1
            if self._bags > _MAX_BAGS:
                raise _format(
                    f"The PKCS#12 store holds more than {_MAX_BAGS} entries.", "Export one certificate with its chain."
                )
            parts = list(_der.elements(bag))
            oid = _pbe.body(parts[0])
            if oid[:-1] != _BAG:
                continue
            value = _first(parts[1])
            name, key_id = _attributes(parts[2]) if len(parts) > 2 else ("", b"")
            match oid[-1]:
                case 1:
                    yield Entry(True, value, name=name, key_id=key_id)
                case 2:
                    algorithm, hidden = list(_der.elements(value))[:2]
                    yield Entry(True, self._opened(algorithm, _pbe.body(hidden)), name=name, key_id=key_id)
                case 3:
                    inner = list(_der.elements(value))
                    if _pbe.body(inner[0]) == _X509_CERTIFICATE:
                        yield Entry(False, _pbe.body(_first(inner[1])), name=name, key_id=key_id)
                case 6:
                    yield from self._bags_of(value, depth + 1)
                case _:
                    pass  # revocation lists and secrets: nothing of an upload

    # --- passphrase ---

    def _mac_fits(self, mac_data: bytes, bmp: bytes) -> bool:
        parts = list(_der.elements(mac_data))
        algorithm, expected = list(_der.elements(parts[0]))[:2]
        salt = _pbe.body(parts[1])
        rounds = _pbe.number(parts[2]) if len(parts) > 2 else 1
        oid, parameters = _pbe.identifier(algorithm)
        if oid == _PBMAC1:
            derivation, scheme = list(_der.elements(parameters))[:2]
            name = _pbe.HMACS.get(_pbe.identifier(scheme)[0], "")
            key = _pbe.pbkdf2(derivation, self._utf8, 32, self._work.spend)
        else:
            name = _DIGESTS.get(oid, "")
            size = hashlib.new(name).digest_size if name else 0
            key = _pbe.pkcs12_key(name, bmp, salt, 3, rounds, size, self._work.spend) if name else b""
        if not name:
            raise _format(
                "The PKCS#12 store is protected with a method that isn't supported.",
                "Export it again, for instance with: openssl pkcs12 -export.",
            )
        return hmac.compare_digest(hmac.digest(key, self._safes, name), _pbe.body(expected))

    def _decrypted(self, content: bytes) -> bytes:
        inner = list(_der.elements(content))[1]
        algorithm, encrypted = list(_der.elements(inner))[1:3]
        tag, start, end = _der.read(encrypted)
        # [0] IMPLICIT OCTET STRING; in pieces it is still constructed.
        cipher_text = encrypted[start:end] if tag == 0x80 else b"".join(_pbe.body(p) for p in _der.elements(encrypted))
        return self._opened(algorithm, cipher_text)

    def _opened(self, algorithm: bytes, cipher_text: bytes) -> bytes:
        for bmp in self._tries:
            try:
                plain = _pbe.decrypted(algorithm, cipher_text, self._utf8, bmp, self._work.spend)
            except (_pbe.UnsupportedError, _der.BadDerError):
                raise
            except ValueError:
                continue
            if _der.is_whole_sequence(plain):
                return plain
        raise _locked() if not self._given else _wrong()


def _first(element: bytes) -> bytes:
    """The first element inside. Raises BadDerError where there is none: StopIteration would end a generator."""
    found = next(_der.elements(element), None)
    if found is None:
        raise _der.BadDerError("empty")
    return found


def _content_info(element: bytes) -> tuple[bytes, bytes]:
    """Kind and content; of `data` the octets themselves."""
    kind, wrapped = list(_der.elements(element))[:2]
    inner = _first(wrapped)
    oid = _pbe.body(kind)
    return oid, _pbe.body(inner) if oid == _DATA else inner


def _attributes(element: bytes) -> tuple[str, bytes]:
    name, key_id = "", b""
    for attribute in _der.elements(element):
        oid, values = list(_der.elements(attribute))[:2]
        value = next(_der.elements(values), b"")
        if value and _pbe.body(oid) == _FRIENDLY_NAME:
            name = _pbe.body(value).decode("utf-16-be", errors="replace")[:200]
        elif value and _pbe.body(oid) == _LOCAL_KEY_ID:
            key_id = _pbe.body(value)
    return name, key_id


def _format(message: str, fix: str) -> Invalid:
    return Invalid("key_format", message, field="private_key", fix=fix)


def _unsupported() -> Invalid:
    return _format(
        "The PKCS#12 store is encrypted with a method that isn't supported.",
        "Export it again with AES-256, for instance with: openssl pkcs12 -export.",
    )


def _locked() -> Invalid:
    return Invalid(
        "key_encrypted", "The PKCS#12 store needs its passphrase.", field="private_key",
        fix="Enter the passphrase chosen when it was exported; it is used once and forgotten.",
    )  # fmt: skip


def _wrong() -> Invalid:
    return Invalid(
        "wrong_passphrase", "The passphrase doesn't open this PKCS#12 store.", field="passphrase",
        fix="Check the passphrase; capital letters and spaces count.",
    )  # fmt: skip


# --- writing -----------------------------------------------------------------------------------------------------


def write(
    *, name: str, key: PrivateKey | None, leaf: bytes, chain: Sequence[bytes], passphrase: bytes, legacy: bool = False
) -> bytes:
    """A store with `leaf`, its `chain` (DER) and the key, all encrypted.

    Modern: PBES2 with AES-256-CBC and SHA-256, as OpenSSL 3 and Java 17 write. `legacy`: SHA-1 with triple DES, which
    Windows before Server 2019, Java before 8u301 and macOS before 15 need. Raises ValueError for an empty passphrase.
    """
    encryption: serialization.KeySerializationEncryption
    if legacy:
        encryption = (
            serialization.PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(2048)
            .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
            .hmac_hash(hashes.SHA1())  # noqa: S303 - the format's own, for programs that read nothing else
            .build(passphrase)
        )
    else:
        encryption = (
            serialization.PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(10_000)
            .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
            .hmac_hash(hashes.SHA256())
            .build(passphrase)
        )
    load = x509.load_der_x509_certificate
    return pkcs12.serialize_key_and_certificates(
        name.encode(), key, load(leaf), [load(der) for der in chain] or None, encryption
    )
