"""What a passphrase hides (PKCS#5, RFC 8018; PKCS#12, RFC 7292 appendix B; RFC 1421 as OpenSSL writes it), opened here.

Not by the library: it reads the key in the same go, and computes with its numbers before anybody has seen what kind of
key it is; a DSA key of 5 KiB takes it ten seconds, one of 60 KiB hours. Nor would it say before how much work it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from certwright.x509 import _der, _rc2

Spend = Callable[[int], None]
"""Told the rounds of PBKDF2 about to be done, or what takes as long; raises where that is too much."""

# One round in Python costs about as much as five of PBKDF2 in C.
_PYTHON_ROUND: Final = 5
# 2,000,000 rounds take about a quarter of a second, and so does that much of scrypt; an upload that asks for more is an
# attack or a mistake.
MAX_ROUNDS: Final = 2_000_000
_MAX_SCRYPT_OCTETS: Final = 128 * 1024 * 1024


def _oid(text: str) -> bytes:
    return bytes.fromhex(text)


_PBES2: Final = _oid("2a864886f70d01050d")
_PBKDF2: Final = _oid("2a864886f70d01050c")
_SCRYPT: Final = _oid("2b06010401da47040b")
_MD5_DES: Final = _oid("2a864886f70d010503")
_SHA1_3DES: Final = _oid("2a864886f70d010c0103")
_SHA1_RC2: Final = {_oid("2a864886f70d010c0105"): 16, _oid("2a864886f70d010c0106"): 5}
_AES_CBC: Final = {
    _oid("608648016503040102"): 16,
    _oid("608648016503040116"): 24,
    _oid("60864801650304012a"): 32,
}
_3DES_CBC: Final = _oid("2a864886f70d0307")
HMACS: Final = {
    _oid("2a864886f70d0207"): "sha1",
    _oid("2a864886f70d0208"): "sha224",
    _oid("2a864886f70d0209"): "sha256",
    _oid("2a864886f70d020a"): "sha384",
    _oid("2a864886f70d020b"): "sha512",
}


class UnsupportedError(ValueError):
    """A method that isn't read here."""


def decrypted(algorithm: bytes, data: bytes, passphrase: bytes, bmp: bytes, spend: Spend) -> bytes:
    """The octets that were encrypted with `algorithm`, an AlgorithmIdentifier (DER). `bmp` is the passphrase as PKCS#12
    writes it, see `bmp_of`.

    Raises BadDerError for parameters that can't be, UnsupportedError, what `spend` raises, and ValueError where the
    passphrase is wrong, which isn't always seen: what comes out then is noise.
    """
    oid, parameters = identifier(algorithm)
    if oid == _PBES2:
        derivation, scheme = _two(parameters)
        cipher, iv = identifier(scheme)
        if cipher in _AES_CBC:
            key = _derived(derivation, passphrase, _AES_CBC[cipher], spend)
            return _unpadded(Cipher(algorithms.AES(key), _cbc(body(iv), 16)), data, 16)
        if cipher == _3DES_CBC:
            key = _derived(derivation, passphrase, 24, spend)
            return _unpadded(Cipher(TripleDES(key), _cbc(body(iv), 8)), data, 8)
        raise UnsupportedError
    if oid != _MD5_DES and oid != _SHA1_3DES and oid not in _SHA1_RC2:
        raise UnsupportedError
    salt, count = _two(parameters)
    rounds = number(count)
    if oid == _MD5_DES:
        spend(rounds * _PYTHON_ROUND)
        hashed = passphrase + body(salt)
        for _ in range(rounds):
            hashed = hashlib.new("md5", hashed, usedforsecurity=False).digest()
        return _des(hashed[:8], hashed[8:], data)
    iv = pkcs12_key("sha1", bmp, body(salt), 2, rounds, 8, spend)
    if oid == _SHA1_3DES:
        key = pkcs12_key("sha1", bmp, body(salt), 1, rounds, 24, spend)
        return _unpadded(Cipher(TripleDES(key), modes.CBC(iv)), data, 8)
    if len(data) > _rc2.MAX_OCTETS:
        raise UnsupportedError
    key = pkcs12_key("sha1", bmp, body(salt), 1, rounds, _SHA1_RC2[oid], spend)
    return _without_padding(_rc2.decrypt_cbc(key, iv, data), 8)


def decrypted_pem(cipher: str, iv: bytes, data: bytes, passphrase: bytes) -> bytes:
    """The body of a PEM block whose DEK-Info header names `cipher` (AES-128-CBC, AES-192-CBC, AES-256-CBC, DES-EDE3-CBC
    or DES-CBC) and `iv`, which begins with the salt. Raises ValueError as `decrypted` does."""
    size = {"AES-128-CBC": 16, "AES-192-CBC": 24, "AES-256-CBC": 32, "DES-EDE3-CBC": 24, "DES-CBC": 8}[cipher]
    key = hashed = b""
    while len(key) < size:
        hashed = hashlib.new("md5", hashed + passphrase + iv[:8], usedforsecurity=False).digest()
        key += hashed
    key = key[:size]
    if cipher == "DES-CBC":
        return _des(key, iv, data)
    if cipher == "DES-EDE3-CBC":
        return _unpadded(Cipher(TripleDES(key), _cbc(iv, 8)), data, 8)
    return _unpadded(Cipher(algorithms.AES(key), _cbc(iv, 16)), data, 16)


# --- keys out of passphrases -------------------------------------------------------------------------------------


def _derived(derivation: bytes, passphrase: bytes, size: int, spend: Spend) -> bytes:
    if identifier(derivation)[0] == _SCRYPT:
        return _scrypt(identifier(derivation)[1], passphrase, size, spend)
    return pbkdf2(derivation, passphrase, size, spend)


def pbkdf2(derivation: bytes, passphrase: bytes, size: int, spend: Spend) -> bytes:
    """RFC 8018 section 5.2, by its AlgorithmIdentifier."""
    oid, parameters = identifier(derivation)
    if oid != _PBKDF2:
        raise UnsupportedError
    salt, count, *more = _der.elements(parameters)
    name = "sha1"
    for part in more:
        if part[0] == _der.SEQUENCE:
            name = HMACS.get(identifier(part)[0], "")
    if not name:
        raise UnsupportedError
    rounds = number(count)
    spend(rounds * -(-size // hashlib.new(name).digest_size))
    return hashlib.pbkdf2_hmac(name, passphrase, body(salt), rounds, size)


def _scrypt(parameters: bytes, passphrase: bytes, size: int, spend: Spend) -> bytes:
    """RFC 7914 section 7.1."""
    salt, *numbers = _der.elements(parameters)
    if len(numbers) < 3:
        raise _der.BadDerError("too few numbers")
    n, r, p = (number(one) for one in numbers[:3])
    if n < 2 or n & (n - 1) or r < 1 or p < 1:
        raise _der.BadDerError("numbers scrypt can't be done with")
    octets = 128 * n * r * p
    spend(-(-octets * MAX_ROUNDS // _MAX_SCRYPT_OCTETS))
    try:
        return hashlib.scrypt(passphrase, salt=body(salt), n=n, r=r, p=p, maxmem=octets + 1024 * 1024, dklen=size)
    except (ValueError, OverflowError):
        raise _der.BadDerError("numbers scrypt can't be done with") from None


def pkcs12_key(name: str, password: bytes, salt: bytes, purpose: int, rounds: int, size: int, spend: Spend) -> bytes:
    """RFC 7292 appendix B.2; purpose 1 makes keys, 2 initialisation vectors, 3 MAC keys."""
    one = hashlib.new(name)
    block, digest = one.block_size, one.digest_size
    if len(salt) > 1024 or len(password) > 4096:
        raise UnsupportedError
    spend(rounds * _PYTHON_ROUND * -(-size // digest))
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


def bmp_of(passphrase: bytes) -> bytes:
    """A passphrase as PKCS#12 hashes it: UTF-16 and a zero."""
    try:
        text = passphrase.decode("utf-8")
    except UnicodeDecodeError:
        text = passphrase.decode("latin-1")
    return text.encode("utf-16-be", errors="replace") + b"\x00\x00"


# --- ciphers -----------------------------------------------------------------------------------------------------


def _des(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Triple DES with one key three times is DES."""
    return _unpadded(Cipher(TripleDES(key * 3), _cbc(iv, 8)), data, 8)


def _cbc(iv: bytes, block: int) -> modes.CBC:
    if len(iv) != block:
        raise _der.BadDerError("an initialisation vector that doesn't fit its cipher")
    return modes.CBC(iv)


def _unpadded(cipher: Cipher[modes.CBC], data: bytes, block: int) -> bytes:
    decryptor = cipher.decryptor()
    return _without_padding(decryptor.update(data) + decryptor.finalize(), block)


def _without_padding(data: bytes, block: int) -> bytes:
    unpadder = padding.PKCS7(block * 8).unpadder()
    return unpadder.update(data) + unpadder.finalize()


# --- DER ---------------------------------------------------------------------------------------------------------


def identifier(element: bytes) -> tuple[bytes, bytes]:
    """OID and parameters of an AlgorithmIdentifier; absent parameters are empty. Raises BadDerError."""
    parts = list(_der.elements(element))
    if not parts or parts[0][0] != _der.OBJECT_IDENTIFIER:
        raise _der.BadDerError("not an AlgorithmIdentifier")
    return body(parts[0]), parts[1] if len(parts) > 1 else b""


def body(element: bytes) -> bytes:
    """What one element holds. Raises BadDerError."""
    _, start, end = _der.read(element)
    return element[start:end]


def number(element: bytes) -> int:
    """An INTEGER of at most 8 octets. Raises BadDerError."""
    tag, start, end = _der.read(element)
    if tag != _der.INTEGER or end - start > 8:
        raise _der.BadDerError("not a small number")
    return int.from_bytes(element[start:end], "big", signed=True)


def _two(element: bytes) -> tuple[bytes, bytes]:
    parts = list(_der.elements(element))
    if len(parts) < 2:
        raise _der.BadDerError("too few elements")
    return parts[0], parts[1]
