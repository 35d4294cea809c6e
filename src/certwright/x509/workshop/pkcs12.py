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
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import pkcs12

from certwright.kernel.problems import Invalid
from certwright.x509 import _der
from certwright.x509.keys import MAX_KDF_ROUNDS, PrivateKey
from certwright.x509.workshop import _rc2

# One round in Python costs about as much as five of PBKDF2 in C.
_PYTHON_ROUND: Final = 5
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
_PBES2: Final = _oid("2a864886f70d01050d")
_PBMAC1: Final = _oid("2a864886f70d01050e")
_PBKDF2: Final = _oid("2a864886f70d01050c")
_SHA1_3DES: Final = _oid("2a864886f70d010c0103")
_SHA1_RC2: Final = {_oid("2a864886f70d010c0105"): 16, _oid("2a864886f70d010c0106"): 5}
_AES_CBC: Final = {
    _oid("608648016503040102"): 16,
    _oid("608648016503040116"): 24,
    _oid("60864801650304012a"): 32,
}
_3DES_CBC: Final = _oid("2a864886f70d0307")
_HMACS: Final = {
    _oid("2a864886f70d0207"): "sha1",
    _oid("2a864886f70d0208"): "sha224",
    _oid("2a864886f70d0209"): "sha256",
    _oid("2a864886f70d020a"): "sha384",
    _oid("2a864886f70d020b"): "sha512",
}
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
        self._left = MAX_KDF_ROUNDS

    def spend(self, rounds: int) -> None:
        self._left -= rounds
        if self._left < 0 or rounds < 1:
            raise _format(
                "The PKCS#12 store asks for more work than is done for an upload.",
                f"Export it again with fewer rounds; at most {MAX_KDF_ROUNDS} in all are done.",
            )


# --- reading -----------------------------------------------------------------------------------------------------


def read(data: bytes, passphrase: bytes | None) -> tuple[Entry, ...]:
    """Every certificate and key of a store (DER), in its order.

    Without a passphrase the empty one is tried. Raises Invalid `bad_der`, `key_encrypted`, `wrong_passphrase` or
    `key_format` (an encryption that isn't read, or too much work).
    """
    try:
        return tuple(_Reader(data, passphrase).entries())
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
        self._tries = [_bmp(passphrase)] if passphrase else [b"\x00\x00", b""]
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
            oid = _body(parts[0])
            if oid[:-1] != _BAG:
                continue
            value = _first(parts[1])
            name, key_id = _attributes(parts[2]) if len(parts) > 2 else ("", b"")
            match oid[-1]:
                case 1:
                    yield Entry(True, value, name=name, key_id=key_id)
                case 2:
                    algorithm, hidden = list(_der.elements(value))[:2]
                    yield Entry(True, self._opened(algorithm, _body(hidden)), name=name, key_id=key_id)
                case 3:
                    inner = list(_der.elements(value))
                    if _body(inner[0]) == _X509_CERTIFICATE:
                        yield Entry(False, _body(_first(inner[1])), name=name, key_id=key_id)
                case 6:
                    yield from self._bags_of(value, depth + 1)
                case _:
                    pass  # revocation lists and secrets: nothing of an upload

    # --- passphrase ---

    def _mac_fits(self, mac_data: bytes, bmp: bytes) -> bool:
        parts = list(_der.elements(mac_data))
        algorithm, expected = list(_der.elements(parts[0]))[:2]
        salt = _body(parts[1])
        rounds = _number(parts[2]) if len(parts) > 2 else 1
        oid, parameters = _algorithm(algorithm)
        if oid == _PBMAC1:
            derivation, scheme = list(_der.elements(parameters))[:2]
            name = _HMACS.get(_algorithm(scheme)[0], "")
            key = self._pbkdf2(derivation, 32)
        else:
            name = _DIGESTS.get(oid, "")
            key = self._pkcs12_key(name, bmp, salt, 3, rounds, hashlib.new(name).digest_size) if name else b""
        if not name:
            raise _format(
                "The PKCS#12 store is protected with a method that isn't supported.",
                "Export it again, for instance with: openssl pkcs12 -export.",
            )
        return hmac.compare_digest(hmac.digest(key, self._safes, name), _body(expected))

    def _decrypted(self, content: bytes) -> bytes:
        inner = list(_der.elements(content))[1]
        algorithm, encrypted = list(_der.elements(inner))[1:3]
        tag, start, end = _der.read(encrypted)
        # [0] IMPLICIT OCTET STRING; in pieces it is still constructed.
        cipher_text = encrypted[start:end] if tag == 0x80 else b"".join(_body(p) for p in _der.elements(encrypted))
        return self._opened(algorithm, cipher_text)

    def _opened(self, algorithm: bytes, cipher_text: bytes) -> bytes:
        for bmp in self._tries:
            try:
                plain = self._decrypt(algorithm, cipher_text, bmp)
            except ValueError as error:
                if isinstance(error, _der.BadDerError):
                    raise
                continue
            if _der.is_whole_sequence(plain):
                return plain
        raise _locked() if not self._given else _wrong()

    def _decrypt(self, algorithm: bytes, data: bytes, bmp: bytes) -> bytes:
        """Raises ValueError where the passphrase is wrong."""
        oid, parameters = _algorithm(algorithm)
        if oid == _PBES2:
            derivation, scheme = list(_der.elements(parameters))[:2]
            cipher, iv = _algorithm(scheme)
            if cipher in _AES_CBC:
                key = self._pbkdf2(derivation, _AES_CBC[cipher])
                return _unpadded(Cipher(algorithms.AES(key), modes.CBC(_body(iv))), data)
            if cipher == _3DES_CBC:
                return _unpadded(Cipher(TripleDES(self._pbkdf2(derivation, 24)), modes.CBC(_body(iv))), data)
            raise _unsupported()
        salt, count = list(_der.elements(parameters))[:2]
        rounds = _number(count)
        if oid == _SHA1_3DES:
            key = self._pkcs12_key("sha1", bmp, _body(salt), 1, rounds, 24)
            iv = self._pkcs12_key("sha1", bmp, _body(salt), 2, rounds, 8)
            return _unpadded(Cipher(TripleDES(key), modes.CBC(iv)), data)
        if oid in _SHA1_RC2:
            key = self._pkcs12_key("sha1", bmp, _body(salt), 1, rounds, _SHA1_RC2[oid])
            iv = self._pkcs12_key("sha1", bmp, _body(salt), 2, rounds, 8)
            if len(data) > _rc2.MAX_OCTETS:
                raise _unsupported()
            return _without_padding(_rc2.decrypt_cbc(key, iv, data), 8)
        raise _unsupported()

    def _pbkdf2(self, derivation: bytes, size: int) -> bytes:
        oid, parameters = _algorithm(derivation)
        if oid != _PBKDF2:
            raise _unsupported()
        parts = list(_der.elements(parameters))
        hash_name = "sha1"
        for part in parts[2:]:
            if part[0] == _der.SEQUENCE:
                hash_name = _HMACS.get(_algorithm(part)[0], "")
        if not hash_name:
            raise _unsupported()
        rounds = _number(parts[1])
        self._work.spend(rounds * -(-size // hashlib.new(hash_name).digest_size))
        return hashlib.pbkdf2_hmac(hash_name, self._utf8, _body(parts[0]), rounds, size)

    def _pkcs12_key(self, name: str, password: bytes, salt: bytes, purpose: int, rounds: int, size: int) -> bytes:
        """RFC 7292 appendix B.2; purpose 1 makes keys, 2 initialisation vectors, 3 MAC keys."""
        one = hashlib.new(name)
        block, digest = one.block_size, one.digest_size
        if len(salt) > 1024 or len(password) > 4096:
            raise _unsupported()
        self._work.spend(rounds * _PYTHON_ROUND * -(-size // digest))
        step = getattr(hashlib, name)
        filled = b"".join(_repeated(part, block) for part in (salt, password))
        out = b""
        while len(out) < size:
            value = step(bytes([purpose]) * block + filled).digest()
            for _ in range(rounds - 1):
                value = step(value).digest()
            out += value
            add = int.from_bytes(_repeated(value, block)[:block], "big") + 1
            filled = b"".join(
                ((int.from_bytes(filled[i : i + block], "big") + add) % (1 << 8 * block)).to_bytes(block, "big")
                for i in range(0, len(filled), block)
            )
        return out[:size]


def _repeated(data: bytes, block: int) -> bytes:
    """`data` over and over, up to a multiple of the block; nothing for nothing."""
    size = block * -(-len(data) // block)
    return (data * (size // len(data) + 1))[:size] if data else b""


def _bmp(passphrase: bytes) -> bytes:
    return _text(passphrase).encode("utf-16-be", errors="replace") + b"\x00\x00"


def _text(passphrase: bytes) -> str:
    try:
        return passphrase.decode("utf-8")
    except UnicodeDecodeError:
        return passphrase.decode("latin-1")


def _unpadded(cipher: Cipher[modes.CBC], data: bytes) -> bytes:
    decryptor = cipher.decryptor()
    return _without_padding(decryptor.update(data) + decryptor.finalize(), 8 if cipher.algorithm.name == "3DES" else 16)


def _without_padding(data: bytes, block: int) -> bytes:
    unpadder = padding.PKCS7(block * 8).unpadder()
    return unpadder.update(data) + unpadder.finalize()


def _first(element: bytes) -> bytes:
    """The first element inside. Raises BadDerError where there is none: StopIteration would end a generator."""
    found = next(_der.elements(element), None)
    if found is None:
        raise _der.BadDerError("empty")
    return found


def _body(element: bytes) -> bytes:
    _, start, end = _der.read(element)
    return element[start:end]


def _number(element: bytes) -> int:
    tag, start, end = _der.read(element)
    if tag != _der.INTEGER or end - start > 8:
        raise _der.BadDerError("not a small number")
    return int.from_bytes(element[start:end], "big", signed=True)


def _algorithm(element: bytes) -> tuple[bytes, bytes]:
    """OID and parameters of an AlgorithmIdentifier; absent parameters are empty."""
    parts = list(_der.elements(element))
    if not parts or parts[0][0] != _der.OBJECT_IDENTIFIER:
        raise _der.BadDerError("not an AlgorithmIdentifier")
    return _body(parts[0]), parts[1] if len(parts) > 1 else b""


def _content_info(element: bytes) -> tuple[bytes, bytes]:
    """Kind and content; of `data` the octets themselves."""
    kind, wrapped = list(_der.elements(element))[:2]
    inner = _first(wrapped)
    oid = _body(kind)
    return oid, _body(inner) if oid == _DATA else inner


def _attributes(element: bytes) -> tuple[str, bytes]:
    name, key_id = "", b""
    for attribute in _der.elements(element):
        oid, values = list(_der.elements(attribute))[:2]
        value = next(_der.elements(values), b"")
        if value and _body(oid) == _FRIENDLY_NAME:
            name = _body(value).decode("utf-16-be", errors="replace")[:200]
        elif value and _body(oid) == _LOCAL_KEY_ID:
            key_id = _body(value)
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
