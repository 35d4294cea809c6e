"""Private and public keys: make, store, read what people upload, and judge whether a certificate may carry them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, Protocol

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from certwright.kernel.problems import Invalid
from certwright.x509 import _der, _pbe, _pem
from certwright.x509.reading import fenced

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

# ML-DSA (FIPS 204, RFC 9881): keys of private CAs alone. ML-DSA-44, the weakest, is left out: CAs live long.
MlDsaPrivateKey = mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
MlDsaPublicKey = mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
CaPrivateKey = PrivateKey | MlDsaPrivateKey
CaPublicKey = PublicKey | MlDsaPublicKey

RSA_MIN_BITS: Final = 2048
# Not a matter of strength: one signature of a 16384-bit key takes seconds, which an upload may not cost.
RSA_MAX_BITS: Final = 8192
MAX_KEY_OCTETS: Final = 32 * 1024


class KeyAlgorithm(StrEnum):
    """The algorithms a key can be made with here; uploads may also be P-521 and Ed25519."""

    EC_P256 = "EC_P256"
    EC_P384 = "EC_P384"
    RSA_2048 = "RSA_2048"
    RSA_3072 = "RSA_3072"
    RSA_4096 = "RSA_4096"


class ExperimentalAlgorithm(StrEnum):
    """What keys of private CAs can be made with besides, while few clients verify it. Kept apart from `KeyAlgorithm`,
    so that no application, request or product offers it."""

    ML_DSA_65 = "ML_DSA_65"
    ML_DSA_87 = "ML_DSA_87"


CaKeyAlgorithm = KeyAlgorithm | ExperimentalAlgorithm


def ca_key_algorithm(word: str) -> CaKeyAlgorithm:
    """Raises ValueError."""
    return ExperimentalAlgorithm(word) if word in set(ExperimentalAlgorithm) else KeyAlgorithm(word)


_CURVES: Final[dict[KeyAlgorithm, ec.EllipticCurve]] = {
    KeyAlgorithm.EC_P256: ec.SECP256R1(),
    KeyAlgorithm.EC_P384: ec.SECP384R1(),
}
_CURVE_WORDS: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


_FFDH: Final = (bytes.fromhex("06092a864886f70d010301"), bytes.fromhex("06072a8648ce3e0201"))


class HasPublicKey(Protocol):
    """A certificate, a certificate signing request or a private key."""

    def public_key(self) -> Any: ...


# --- making and storing ------------------------------------------------------------------------------------------


def generate(algorithm: KeyAlgorithm) -> PrivateKey:
    """A fresh key. P-256 takes 0.02 ms, RSA 2048 about 30 ms, RSA 4096 about 300 ms of CPU: run RSA off the loop."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    return rsa.generate_private_key(65537, int(algorithm.value.removeprefix("RSA_")))


def generate_ca_key(algorithm: CaKeyAlgorithm) -> CaPrivateKey:
    """A fresh key of a CA; ML-DSA takes 0.3 ms."""
    match algorithm:
        case ExperimentalAlgorithm.ML_DSA_65:
            return mldsa.MLDSA65PrivateKey.generate()
        case ExperimentalAlgorithm.ML_DSA_87:
            return mldsa.MLDSA87PrivateKey.generate()
    return generate(algorithm)


def to_pkcs8_der(key: CaPrivateKey) -> bytes:
    """The form keys are stored in (RFC 5208), unencrypted: the caller's envelope protects it."""
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def from_pkcs8_der(data: bytes) -> PrivateKey:
    """Reads back `to_pkcs8_der`. Only for bytes we stored ourselves: RSA keys aren't validated (0.1 instead of 29 ms).

    Raises ValueError or TypeError for anything else.
    """
    key = ca_key_from_pkcs8_der(data)
    if not isinstance(key, PrivateKey):
        raise TypeError("not a kind of key that is stored here")
    return key


def ca_key_from_pkcs8_der(data: bytes) -> CaPrivateKey:
    """The same for keys of CAs."""
    key = serialization.load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, CaPrivateKey):
        raise TypeError("not a kind of key that is stored here")
    return key


def to_pkcs8_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS#8 PEM; with a passphrase as PBES2 with AES-256-CBC (RFC 8018)."""
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


# --- naming ------------------------------------------------------------------------------------------------------


def spki_sha256(holder: CertificatePublicKeyTypes | HasPublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo as 64 hex digits, of a public key or of whatever holds one.

    Equal values mean equal keys: this is how key, request and certificate are matched.
    """
    public = holder.public_key() if hasattr(holder, "public_key") else holder
    return hashlib.sha256(spki(public)).hexdigest()


def spki(public: CertificatePublicKeyTypes) -> bytes:
    """The SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), DER."""
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def describe_public_key(pub: object) -> str:
    """For people: "EC P-256", "RSA 2048", "Ed25519", "ML-DSA-65"; other kinds by their own name."""
    if isinstance(pub, rsa.RSAPublicKey):
        return f"RSA {pub.key_size}"
    if isinstance(pub, ec.EllipticCurvePublicKey):
        return f"EC {_CURVE_WORDS.get(pub.curve.name, pub.curve.name)}"
    if isinstance(pub, ed25519.Ed25519PublicKey):
        return "Ed25519"
    if isinstance(pub, mldsa.MLDSA44PublicKey | MlDsaPublicKey):
        return f"ML-DSA-{type(pub).__name__[5:7]}"
    return type(pub).__name__.removesuffix("PublicKey")


def is_diffie_hellman(data: bytes) -> bool:
    """Whether a SubjectPublicKeyInfo or PKCS#8 key is finite-field Diffie-Hellman.

    Nothing here can use one, and the library warns of them on loading, so they are refused before.
    """
    return any(oid in data[:64] for oid in _FFDH)


# --- judging -----------------------------------------------------------------------------------------------------


def _primes_below(limit: int) -> tuple[int, ...]:
    return tuple(n for n in range(2, limit) if all(n % p for p in range(2, math.isqrt(n) + 1)))


def _powers_of_65537(prime: int) -> frozenset[int]:
    found, value = set(), 1
    while value not in found:
        found.add(value)
        value = value * 65537 % prime
    return frozenset(found)


_SMALL_PRODUCT: Final = math.prod(_primes_below(752))
# CVE-2017-15361: primes were k*M + 65537^a mod M with M a product of the first primes, so that the modulus is a power
# of 65537 modulo each of them. Up to 167 all sizes are caught; an honest modulus passes by chance once in 200 million.
_ROCA: Final = tuple((p, powers) for p in _primes_below(168) if p > 2 and len(powers := _powers_of_65537(p)) < p - 1)
_FERMAT_ROUNDS: Final = 100


def _has_roca_fingerprint(modulus: int) -> bool:
    return all(modulus % prime in powers for prime, powers in _ROCA)


def _has_close_primes(modulus: int) -> bool:
    """Fermat's factorisation for 100 rounds, as BR 6.1.1.3 asks."""
    a = math.isqrt(modulus)
    if a * a < modulus:
        a += 1
    for _ in range(_FERMAT_ROUNDS):
        rest = a * a - modulus
        # A square ends in 0, 1, 4 or 9 modulo 16; the root is only drawn for those.
        if rest & 15 in (0, 1, 4, 9) and math.isqrt(rest) ** 2 == rest:
            return True
        a += 1
    return False


def judge_public_key(pub: object, *, public: bool, field: str = "key") -> None:
    """Refuses keys that no certificate may carry (BR 6.1.1.3, 6.1.5, 6.1.6).

    RSA: 2048 to 8192 bits, a multiple of 8, odd exponent from 65537 below 2^256, no factor below 752, neither ROCA nor
    close primes. EC: P-256, P-384, P-521. Ed25519 only where `public` is false. Raises Invalid `weak_key`,
    `key_too_large`, `unsupported_curve` or `unsupported_key`.
    """
    if isinstance(pub, rsa.RSAPublicKey):
        _judge_rsa(pub, field)
    elif isinstance(pub, ec.EllipticCurvePublicKey):
        if pub.curve.name not in _CURVE_WORDS:
            raise Invalid(
                "unsupported_curve",
                f"The key is on the curve {pub.curve.name}, which clients don't accept.",
                field=field,
                fix="Make a new key on P-256 (or P-384).",
            )
    elif isinstance(pub, ed25519.Ed25519PublicKey):
        if public:
            raise Invalid(
                "unsupported_curve", "Publicly trusted certificates can't carry Ed25519 keys.", field=field,
                fix="Make a new key on P-256, or use a private CA.",
            )  # fmt: skip
    else:
        raise Invalid(
            "unsupported_key", f"Keys of kind {describe_public_key(pub)} can't be certified here.", field=field,
            fix="Use an EC P-256 key, or RSA of 2048 bits or more.",
        )  # fmt: skip


def _judge_rsa(pub: rsa.RSAPublicKey, field: str) -> None:
    bits = pub.key_size
    if bits > RSA_MAX_BITS:
        raise Invalid(
            "key_too_large", f"The RSA key has {bits} bits; at most {RSA_MAX_BITS} are supported.", field=field,
            fix="Make a new key: EC P-256, or RSA of 2048, 3072 or 4096 bits.",
        )  # fmt: skip
    numbers = pub.public_numbers()
    n, e = numbers.n, numbers.e
    why: str | None = None
    if bits < RSA_MIN_BITS:
        why = f"The RSA key has {bits} bits; at least {RSA_MIN_BITS} are needed."
    elif bits % 8:
        why = f"The RSA key has {bits} bits, which isn't a multiple of 8."
    elif e % 2 == 0 or not 65537 <= e < 2**256:
        why = "The RSA key's public exponent must be odd, at least 65537 and below 2^256."
    elif math.gcd(n, _SMALL_PRODUCT) != 1:
        why = "The RSA key's modulus has a small factor, so anyone can compute the private key."
    elif _has_roca_fingerprint(n):
        why = "The RSA key was made by a chip with the ROCA fault (CVE-2017-15361) and can be broken."
    elif _has_close_primes(n):
        why = "The RSA key's two primes are close together, so anyone can compute the private key."
    if why:
        raise Invalid(
            "weak_key",
            why,
            field=field,
            fix="Make a new key: EC P-256, or RSA of 2048 bits or more.",
        )


# --- reading uploads ---------------------------------------------------------------------------------------------

_FIELD = "private_key"
_KEY_LABELS: Final = frozenset({"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})


def read_private_key(text: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """Reads a key a person uploads: PEM or DER; PKCS#1, PKCS#8, SEC1 with or without EC PARAMETERS; also encrypted.

    Certificates beside the key are ignored, so that a combined PEM works; a passphrase given for an unencrypted key
    too. An RSA key is checked by its numbers and one trial signature (about 1 ms) and not for strength: that is
    `judge_public_key`. Raises Invalid `key_missing`, `wrong_block`, `ec_parameters_only`, `key_encrypted`,
    `wrong_passphrase`, `key_format`, `not_pem`, `bad_base64`, `key_too_large` or TooLarge. No message holds key
    material.
    """
    _pem.refuse_too_large(text, _FIELD)
    if not text.strip():
        raise Invalid(
            "key_missing", "There is no private key.", field=_FIELD,
            fix="Paste the key file's content, from -----BEGIN to -----END.",
        )  # fmt: skip
    if b"-----BEGIN" not in _pem.normalise(text) and _der.is_whole_sequence(text):
        return _checked(_opened(text, passphrase))
    found = _pem.blocks(text, field=_FIELD)
    keys = list(dict.fromkeys(b for b in found if b.label in _KEY_LABELS))
    if not keys:
        raise _no_key(found)
    if len(keys) > 1:
        raise _key_format(
            f"The text holds {len(keys)} different private keys.",
            "Paste exactly one private key.",
        )
    block = keys[0]
    if any("ENCRYPTED" in line for line in block.headers):
        return _checked(_opened_pem(block, passphrase))
    # The octets say which format they are, better than a label someone retyped.
    return _checked(_opened(block.body, passphrase))


# RFC 1423 section 1.1 as OpenSSL writes it: the cipher, then as many octets of salt and vector as the cipher's block.
_DEK_INFO: Final = re.compile(
    r"DEK-Info:\s*(?:(AES-(?:128|192|256)-CBC),\s*([0-9A-Fa-f]{32})|(DES-(?:EDE3-)?CBC),\s*([0-9A-Fa-f]{16}))\s*"
)


def _opened_pem(block: _pem.Block, passphrase: bytes | None) -> bytes:
    """The key in a block encrypted as RFC 1421 has it."""
    named = [line for line in block.headers if line.upper().startswith("DEK-INFO")]
    said = _DEK_INFO.fullmatch(named[0]) if len(named) == 1 else None
    if said is None:
        raise _key_format(
            "The private key's encryption (its DEK-Info line) is damaged or not supported.",
            "Use a good copy, or encrypt it again: openssl pkcs8 -topk8 -v2 aes-256-cbc -in <key>.",
        )
    cipher, iv = said[1] or said[3], bytes.fromhex(said[2] or said[4])
    return _plain(passphrase, lambda secret: _pbe.decrypted_pem(cipher, iv, block.body, secret))


def _opened(data: bytes, passphrase: bytes | None) -> bytes:
    """The key itself, where it is encrypted as PKCS#8 has it (RFC 5958 section 3)."""
    if not _is_encrypted_pkcs8(data):
        return data
    algorithm, hidden = _der.elements(data)

    def decrypted(secret: bytes) -> bytes:
        return _pbe.decrypted(algorithm, _pbe.body(hidden), secret, _pbe.bmp_of(secret), _spend)

    return _plain(passphrase, decrypted)


def _plain(passphrase: bytes | None, decrypt: Callable[[bytes], bytes]) -> bytes:
    if not passphrase:
        raise Invalid(
            "key_encrypted", "The private key is encrypted.", field=_FIELD,
            fix="Enter its passphrase; it is used once and forgotten.",
        )  # fmt: skip
    try:
        plain = decrypt(passphrase)
    except _pbe.UnsupportedError:
        raise _unsupported_way() from None
    except _der.BadDerError:
        raise _key_format(_UNREADABLE, "Convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc -in <key>.") from None
    except ValueError:
        plain = b""
    if not _der.is_whole_sequence(plain):
        raise Invalid(
            "wrong_passphrase", "The passphrase doesn't open this private key.", field="passphrase",
            fix="Check the passphrase; capital letters and spaces count.",
        )  # fmt: skip
    return plain


def _spend(rounds: int) -> None:
    if rounds < 1:
        raise _der.BadDerError("no rounds")
    if rounds > _pbe.MAX_ROUNDS:
        raise _key_format(
            "The private key's encryption asks for more work than is done for an upload.",
            f"Encrypt it again with at most {_pbe.MAX_ROUNDS} rounds, or upload it decrypted.",
        )


def _no_key(found: tuple[_pem.Block, ...]) -> Invalid:
    labels = [b.label for b in found]
    if not labels:
        return Invalid(
            "key_missing", "There is no private key in the text.", field=_FIELD,
            fix="Paste the key file's content; it begins with -----BEGIN PRIVATE KEY----- or similar.",
        )  # fmt: skip
    if "OPENSSH PRIVATE KEY" in labels:
        return _key_format(
            "The key is in OpenSSH's own format.",
            "Convert a copy: ssh-keygen -p -m PEM -f <copy>.",
        )
    unread = [label for label in labels if label.endswith("PRIVATE KEY")]
    if unread:
        return _key_format(
            f"Keys of kind {unread[0]} aren't supported.",
            "Make a new key: EC P-256 or RSA 2048.",
        )
    if set(labels) == {"EC PARAMETERS"}:
        return Invalid(
            "ec_parameters_only", "The text holds only the curve's parameters, not the key.", field=_FIELD,
            fix="Paste also the block -----BEGIN EC PRIVATE KEY----- that follows in the key file.",
        )  # fmt: skip
    return Invalid(
        "wrong_block",
        f"This is {_pem.in_words(labels[0])} where the private key belongs.",
        field=_FIELD,
        fix="Paste the private key here; it begins with -----BEGIN PRIVATE KEY----- or similar.",
    )


def _key_format(message: str, fix: str) -> Invalid:
    return Invalid("key_format", message, field=_FIELD, fix=fix)


_UNREADABLE = "The private key can't be read: it is neither PKCS#8, PKCS#1 nor SEC1."


def _is_encrypted_pkcs8(data: bytes) -> bool:
    """EncryptedPrivateKeyInfo is SEQUENCE { AlgorithmIdentifier, OCTET STRING }; every other key begins INTEGER."""
    try:
        return [tag for tag, _ in _der.children(data)] == [
            _der.SEQUENCE,
            _der.OCTET_STRING,
        ]
    except _der.BadDerError:
        return False


# RSA and RSA-PSS (RFC 8017 appendix C), EC (RFC 5480), Ed25519 (RFC 8410).
_TAKEN: Final = frozenset(
    bytes.fromhex(oid) for oid in ("2a864886f70d010101", "2a864886f70d01010a", "2a8648ce3d0201", "2b6570")
)


def _is_taken(data: bytes) -> bool:
    """Whether a key without encryption is of a kind that is read here, by its shape: PKCS#8, SEC1 or PKCS#1.

    Asked before the library sees it, which computes the public half of a Diffie-Hellman or DSA key while it reads it,
    however large the numbers are. Raises BadDerError.
    """
    parts = list(_der.elements(data))
    match [part[0] for part in parts[:3]]:
        case [_der.INTEGER, _der.SEQUENCE, _der.OCTET_STRING]:
            return _pbe.identifier(parts[1])[0] in _TAKEN
        case [_der.INTEGER, _der.OCTET_STRING, *_]:
            return True
        case [_der.INTEGER, _der.INTEGER, _der.INTEGER]:
            return len(parts) > 6  # DSA has six numbers
    raise _der.BadDerError("no private key")


def _load(data: bytes) -> object:
    """The library's key of one without encryption."""
    if len(data) > 2 * MAX_KEY_OCTETS:
        raise _key_format(
            "The key block is far larger than any private key.",
            "Paste one private key.",
        )
    try:
        if not _is_taken(data):
            raise _unsupported_kind()
        with fenced:
            return serialization.load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise _unsupported_way() from None
    except (ValueError, TypeError, OverflowError, InternalError):
        # InternalError: how the library tells of an Ed25519 key that hasn't 32 octets. `from None`: the library's error
        # may quote what it was parsing.
        raise _key_format(_UNREADABLE, "Convert it with: openssl pkcs8 -topk8 -nocrypt -in <key>.") from None


def _unsupported_way() -> Invalid:
    return _key_format(
        "The private key uses an algorithm, curve or encryption that isn't supported.",
        "Convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc -in <key>; or make a new EC P-256 key.",
    )


def _checked(data: bytes) -> PrivateKey:
    key = _load(data)
    if isinstance(key, rsa.RSAPrivateKey):
        _check_rsa(key)
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        return key  # the library has checked that the public half belongs to the private one
    raise _unsupported_kind()


def _unsupported_kind() -> Invalid:
    return _key_format(
        "Private keys of this kind aren't supported.", "Make a new key: EC P-256, or RSA of 2048 bits or more."
    )


def _check_rsa(key: rsa.RSAPrivateKey) -> None:
    """Arithmetic first, so that no crafted number reaches the signing code; primality is left to the signature."""
    if key.key_size > RSA_MAX_BITS:
        raise Invalid(
            "key_too_large", f"The RSA key has {key.key_size} bits; at most {RSA_MAX_BITS} are supported.",
            field=_FIELD, fix="Make a new key: EC P-256, or RSA of 2048, 3072 or 4096 bits.",
        )  # fmt: skip
    damaged = _key_format(
        "The RSA key's numbers don't fit together; the file is damaged.",
        "Use a good copy, or make a new key.",
    )
    numbers = key.private_numbers()
    p, q, d = numbers.p, numbers.q, numbers.d
    n, e = numbers.public_numbers.n, numbers.public_numbers.e
    fits = (
        p > 2 and q > 2 and p % 2 and q % 2 and e % 2 and e > 1
        and p * q == n
        and 0 < d < n
        and e * d % (p - 1) == 1 and e * d % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1) and numbers.dmq1 == d % (q - 1)
        and 0 < numbers.iqmp < p and numbers.iqmp * q % p == 1
    )  # fmt: skip
    if not fits:
        raise damaged
    try:
        signature = key.sign(b"trial", padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, b"trial", padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature):
        raise damaged from None
